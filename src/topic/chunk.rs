//! Stable chunks of entries: where a topic keeps its subscribers in the order of the walk.
//!
//! A topic begins with one entry in place; chunks of 4, 16 and then 64 entries follow as subscribers
//! come. Chunks are linked once and freed with the topic, so a walk needs no protection beyond the
//! topic's own; entries are used again, lowest first, so that the walk stays short and dense.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

use super::Topic;
use crate::mailbox::{Entry, Header, Mailbox};
use crate::sync::{AtomicPtr, AtomicU64, Ordering::Relaxed, UnsafeCell, alloc, order};

#[cfg(not(afterwrite_loom))]
const SIZES: [u32; 4] = [1, 4, 16, 64];
#[cfg(afterwrite_loom)]
const SIZES: [u32; 4] = [1, 2, 2, 2];

/// The first entry's position in each of the chunks of growing size, and in the first full one.
const STARTS: [u32; 4] = [
    0,
    SIZES[0],
    SIZES[0] + SIZES[1],
    SIZES[0] + SIZES[1] + SIZES[2],
];

/// How many entries the chunk of this number holds.
pub(super) fn size_of_chunk(number: usize) -> u32 {
    SIZES[number.min(3)]
}

/// The chunk number and the bit of an entry's position.
pub(super) fn locate(position: u32) -> (usize, u32) {
    match position {
        p if p < STARTS[1] => (0, p),
        p if p < STARTS[2] => (1, p - STARTS[1]),
        p if p < STARTS[3] => (2, p - STARTS[2]),
        p => (
            3 + ((p - STARTS[3]) / SIZES[3]) as usize,
            (p - STARTS[3]) % SIZES[3],
        ),
    }
}

/// The position of the first entry of a chunk.
pub(super) const fn start_of_chunk(number: usize) -> u32 {
    match number {
        0..3 => STARTS[number],
        n => STARTS[3] + (n - 3) as u32 * SIZES[3],
    }
}

/// What a chunk begins with; its entries follow, and then, unless it is the topic's first, the topic.
#[repr(C)]
pub(super) struct Chunk {
    /// Entries that a walk delivers to.
    pub(super) live: AtomicU64,
    /// Entries whose receiver sleeps, or is about to.
    pub(super) waiting: AtomicU64,
    next: AtomicPtr<Chunk>,
    size: u32,
    /// The position of its first entry.
    pub(super) start: u32,
}

/// The chunk of one entry that every topic has in place.
#[repr(C)]
pub(super) struct FirstChunk {
    pub(super) chunk: Chunk,
    entry: UnsafeCell<Entry>,
}

impl FirstChunk {
    /// The entry, without the turn: its mailbox may be gone.
    #[inline]
    pub(super) fn peek(&self) -> Entry {
        // SAFETY: an entry in place is written by its initialisation, before it is shared, and by `put`.
        self.entry.with(|entry| unsafe { Entry::peek(entry) })
    }

    pub(super) fn new() -> Self {
        Self {
            chunk: Chunk::empty(0),
            entry: UnsafeCell::new(Entry::EMPTY),
        }
    }
}

impl Chunk {
    /// How many entries most chunks of a key with many subscribers hold.
    pub(super) const FULL_SIZE: u32 = SIZES[SIZES.len() - 1];

    fn empty(number: usize) -> Self {
        Self {
            live: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            next: AtomicPtr::new(std::ptr::null_mut()),
            size: size_of_chunk(number),
            start: start_of_chunk(number),
        }
    }

    fn layout(size: u32) -> Layout {
        let entries = Layout::array::<UnsafeCell<Entry>>(size as usize);
        let entries = entries.expect("at most 64 entries");
        let topic = Layout::new::<NonNull<()>>();
        Layout::new::<Chunk>()
            .extend(entries)
            .and_then(|(layout, _)| layout.extend(topic))
            .expect("at most 64 entries")
            .0
            .pad_to_align()
    }

    /// A chunk of a topic on the heap; [`Chunk::free`] gives it back.
    pub(super) fn allocate(number: usize, topic: NonNull<()>) -> NonNull<Chunk> {
        let size = size_of_chunk(number);
        let layout = Self::layout(size);
        // SAFETY: the layout begins with a `Chunk`, so its size is not zero.
        let raw = unsafe { alloc::alloc(layout) }.cast::<Chunk>();
        let Some(chunk) = NonNull::new(raw) else {
            handle_alloc_error(layout)
        };
        // SAFETY: freshly allocated for a chunk, `size` entries and a pointer.
        unsafe {
            chunk.write(Chunk::empty(number));
            for bit in 0..size {
                Self::entry_ptr(chunk, bit).write(UnsafeCell::new(Entry::EMPTY));
            }
            Self::topic_ptr(chunk, size).write(topic);
        }
        chunk
    }

    /// # Safety
    /// From [`Chunk::allocate`], and unreachable.
    pub(super) unsafe fn free(chunk: NonNull<Chunk>) {
        // SAFETY: by contract.
        unsafe {
            let size = chunk.as_ref().size;
            for bit in 0..size {
                Self::entry_ptr(chunk, bit).drop_in_place();
            }
            chunk.drop_in_place();
            alloc::dealloc(chunk.as_ptr().cast(), Self::layout(size));
        }
    }

    #[inline(always)]
    fn entry_ptr(chunk: NonNull<Chunk>, bit: u32) -> *mut UnsafeCell<Entry> {
        const { assert!(size_of::<Chunk>().is_multiple_of(align_of::<UnsafeCell<Entry>>())) };
        chunk
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(size_of::<Chunk>())
            .cast::<UnsafeCell<Entry>>()
            .wrapping_add(bit as usize)
    }

    /// Where a chunk of the heap says whose it is: behind its entries.
    fn topic_ptr(chunk: NonNull<Chunk>, size: u32) -> *mut NonNull<()> {
        const { assert!(align_of::<UnsafeCell<Entry>>() >= align_of::<NonNull<()>>()) };
        Self::entry_ptr(chunk, size).cast()
    }

    /// The entry of a bit.
    ///
    /// # Safety
    /// `bit` is below the chunk's size; the topic is alive.
    #[inline(always)]
    pub(super) unsafe fn entry<'a>(chunk: NonNull<Chunk>, bit: u32) -> &'a UnsafeCell<Entry> {
        // SAFETY: within the chunk, initialised by `allocate` or by `FirstChunk::new`, both of which
        // place entries right behind the chunk.
        unsafe { &*Self::entry_ptr(chunk, bit) }
    }

    /// The next chunk of the walk.
    #[inline(always)]
    pub(super) fn next(&self) -> Option<NonNull<Chunk>> {
        NonNull::new(self.next.load(order::chunk_read()))
    }

    pub(super) fn link(&self, next: NonNull<Chunk>) {
        self.next.store(next.as_ptr(), order::chunk_link());
    }

    /// The next chunk, when nobody else can reach the topic any more.
    pub(super) fn unlink(&self) -> Option<NonNull<Chunk>> {
        NonNull::new(self.next.load(Relaxed))
    }
}

/// Where the entry of a mailbox is that has been registered: the chunk, and the bit there.
pub(super) fn home<T>(mailbox: &Mailbox<T>) -> (&Chunk, u32) {
    // SAFETY: a registered mailbox's home is a chunk of its topic, and its receiver and its closers hold
    // both.
    let chunk = unsafe { &*mailbox.tail().home().cast::<Chunk>() };
    (chunk, mailbox.header().bit())
}

/// The topic that a mailbox is registered with, as it was given to [`Chunk::allocate`], or as it was when
/// the first chunk was named.
#[inline]
pub(super) fn topic_of<T, A>(mailbox: &Mailbox<T>) -> NonNull<Topic<T, A>> {
    // SAFETY: a registered mailbox has a home.
    let chunk = unsafe { NonNull::new_unchecked(mailbox.tail().home().cast::<Chunk>()) };
    // SAFETY: it is a chunk of its topic, which its receiver holds.
    let at = unsafe { chunk.as_ref() };
    if at.start == 0 {
        let first = std::mem::offset_of!(Topic<T, A>, first);
        // SAFETY: in its topic, which begins so many bytes before it.
        return unsafe { chunk.byte_sub(first) }.cast();
    }
    // SAFETY: not the first: on the heap, and written before the chunk was linked.
    let topic = unsafe { *Chunk::topic_ptr(chunk, at.size) };
    topic.cast()
}

/// The position of a mailbox's entry.
///
/// # Safety
/// The mailbox is alive, and was registered with a topic that is alive.
pub(super) unsafe fn position(mailbox: NonNull<Header>) -> u32 {
    // SAFETY: by contract.
    unsafe {
        let chunk = Header::tail(mailbox).home().cast::<Chunk>();
        (*chunk).start + mailbox.as_ref().bit()
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn positions_and_chunks_agree() {
        let mut position = 0;
        for number in 0..10 {
            assert_eq!(start_of_chunk(number), position);
            for bit in 0..size_of_chunk(number) {
                assert_eq!(locate(position), (number, bit));
                position += 1;
            }
        }
    }

    #[test]
    fn an_entry_is_a_word_and_a_chunk_head_keeps_it_aligned() {
        assert_eq!(size_of::<Entry>(), 8);
        assert_eq!(size_of::<Chunk>(), 32);
        assert_eq!(size_of::<FirstChunk>(), 40);
    }
}
