//! Blocks of 2 MiB or more, handed out from front to back.

use std::alloc::Layout;
use std::fmt;
use std::ptr::NonNull;

use crate::sync::{Mutex, alloc};

/// The least size of a block, and that of the pages that it hopes for.
const BLOCK: usize = if cfg!(afterwrite_loom) { 128 } else { 2 << 20 };

/// What is handed out is aligned to this: a cache line.
const ALIGN: usize = 64;

/// What blocks are aligned to: a page, where it helps to be.
const BLOCK_ALIGN: usize =
    if cfg!(any(target_os = "linux", target_os = "android")) && !cfg!(afterwrite_loom) {
        BLOCK
    } else {
        ALIGN
    };

/// Memory that is given back all together, when this is dropped.
///
/// Taking some may block, for as long as another taker takes.
pub(crate) struct Blocks(Mutex<Inner>);

struct Inner {
    /// All of them.
    blocks: Vec<(NonNull<u8>, Layout)>,
    /// What is left of the latest.
    rest: *mut u8,
    left: usize,
    /// Bytes of all of them.
    total: usize,
}

// SAFETY: it owns the memory that it points to, and hands each part out once.
unsafe impl Send for Inner {}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner {
            blocks: Vec::new(),
            rest: std::ptr::null_mut(),
            left: 0,
            total: 0,
        }))
    }

    /// So many bytes, a multiple of a cache line and aligned to one; `None` if there is no memory. They are valid until
    /// this is dropped.
    pub(crate) fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        assert!(bytes.is_multiple_of(ALIGN) && bytes > 0, "whole lines");
        let mut inner = self.0.lock();
        if bytes > inner.left {
            // An eighth of what there is: allocators leave a gap of an alignment's size before each, and the kernel
            // keeps books of each. What is not touched costs nothing.
            let (base, layout) = block(bytes.max(inner.total / 8)).or_else(|| block(bytes))?;
            let size = layout.size();
            inner.blocks.push((base, layout));
            inner.total += size;
            if size - bytes <= inner.left {
                // The latest has more left. The lesser rest is lost.
                return Some(base);
            }
            (inner.rest, inner.left) = (base.as_ptr(), size);
        }
        let taken = NonNull::new(inner.rest)?;
        inner.left -= bytes;
        // SAFETY: there were as many left.
        inner.rest = unsafe { inner.rest.add(bytes) };
        Some(taken)
    }

    /// Whether this address is of one of them.
    #[cfg(test)]
    pub(crate) fn contain(&self, address: usize) -> bool {
        let inner = self.0.lock();
        let within = |(base, layout): &(NonNull<u8>, Layout)| {
            let first = base.addr().get();
            (first..first + layout.size()).contains(&address)
        };
        inner.blocks.iter().any(within)
    }

    /// Bytes that have come from the global allocator.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.0.lock().total
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for (base, layout) in std::mem::take(&mut self.0.lock().blocks) {
            // SAFETY: allocated with this layout; whoever took from it is done with it.
            unsafe { alloc::dealloc(base.as_ptr(), layout) };
        }
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}

/// A block of at least so many bytes, from the global allocator.
fn block(bytes: usize) -> Option<(NonNull<u8>, Layout)> {
    let size = bytes.checked_next_multiple_of(BLOCK)?;
    let layout = Layout::from_size_align(size, BLOCK_ALIGN).ok()?;
    Some((allocate(layout)?, layout))
}

/// Memory from the global allocator, on large pages if there are any.
fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: not of size zero, since what is taken is not.
    let base = NonNull::new(unsafe { alloc::alloc(layout) })?;
    #[cfg(all(
        any(target_os = "linux", target_os = "android"),
        not(any(afterwrite_loom, miri))
    ))]
    // SAFETY: advice on memory of our own that holds nothing yet: it changes no byte of it, and stays with the addresses
    // if the allocator keeps them. A kernel that has no large pages refuses, which is as well.
    unsafe {
        libc::madvise(base.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
    }
    Some(base)
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_what_there_is() {
        let blocks = Blocks::new();
        for _ in 0..100 {
            blocks.take(BLOCK).expect("there is memory");
        }
        let (bytes, number) = (blocks.bytes(), blocks.0.lock().blocks.len());
        assert!(
            bytes <= 115 * BLOCK && number < 40,
            "{bytes} bytes, {number} blocks"
        );
    }

    #[test]
    fn nothing_is_handed_out_twice() {
        let blocks = Blocks::new();
        let sizes = [
            64,
            BLOCK - 64,
            64,
            3 * BLOCK + 64,
            128,
            BLOCK,
            16 << 10,
            BLOCK / 2,
        ];
        let mut taken: Vec<_> = (sizes.iter())
            .map(|&bytes| (blocks.take(bytes).expect("there is memory"), bytes))
            .collect();
        taken.sort_unstable();
        for (base, bytes) in &taken {
            assert!(base.addr().get().is_multiple_of(ALIGN));
            // SAFETY: as many were taken. AddressSanitizer sees what is not ours.
            unsafe { base.write_bytes(7, *bytes) };
        }
        for pair in taken.windows(2) {
            assert!(pair[0].0.addr().get() + pair[0].1 <= pair[1].0.addr().get());
        }
    }

    #[test]
    fn a_large_one_leaves_what_was_left() {
        let blocks = Blocks::new();
        let first = blocks.take(64).expect("there is memory");
        blocks.take(2 * BLOCK).expect("there is memory");
        let second = blocks.take(64).expect("there is memory");
        assert_eq!(first.addr().get() + 64, second.addr().get());
        assert_eq!(blocks.bytes(), 3 * BLOCK);
    }

    #[test]
    fn more_than_there_can_be_is_none() {
        let blocks = Blocks::new();
        assert_eq!(blocks.take(usize::MAX / 64 * 64), None);
        assert_eq!(blocks.take(isize::MAX as usize / 64 * 64), None);
        assert_eq!(blocks.bytes(), 0);
    }
}
