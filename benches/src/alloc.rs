//! A global allocator that counts: what this thread allocates, and what the process holds.
//!
//! A binary that wants it says `#[global_allocator] static A: Counting = Counting;`. Counting costs a
//! thread-local and two additions a call, so it is off until [`switch`] turns it on: what is timed
//! pays one load and one branch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// The system's allocator, with counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);
static ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    static MINE: Cell<u64> = const { Cell::new(0) };
}

/// Turns counting on or off, for all threads.
pub fn switch(on: bool) {
    ON.store(on, Relaxed);
}

#[inline]
fn count(bytes: i64) {
    if !ON.load(Relaxed) {
        return;
    }
    LIVE_BYTES.fetch_add(bytes, Relaxed);
    // A thread that is ending has no counter left; its last allocations are of no interest.
    let _ = MINE.try_with(|mine| mine.set(mine.get() + 1));
}

// SAFETY: every call goes to `System` unchanged, which keeps the contract; the counters touch neither
// the memory nor its layout, and a `const` thread-local of a type without drop does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if ON.load(Relaxed) {
            LIVE_BYTES.fetch_sub(layout.size() as i64, Relaxed);
        }
        // SAFETY: the caller keeps `dealloc`'s contract; the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps `realloc`'s contract; the memory came from `System`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Allocations (and reallocations) of the calling thread so far.
#[must_use]
pub fn mine() -> u64 {
    MINE.with(Cell::get)
}

/// Bytes that are allocated now, by their layouts, less those from before counting was on: the difference
/// of two calls is what counts.
#[must_use]
pub fn live_bytes() -> i64 {
    LIVE_BYTES.load(Relaxed)
}

/// Whether this process counts now: one allocation is made and looked for.
#[must_use]
pub fn counts() -> bool {
    let before = mine();
    drop(std::hint::black_box(Box::new(1_u64)));
    mine() > before
}
