//! The evicting mailbox of `DropOldest` and `Conflate` (which is `DropOldest` with one place).
//!
//! Payloads lie in `capacity + 2` records. `capacity` of them are in the *entries*, one word each:
//!
//! ```text
//!   63                    17    16   15          0
//!  +------------------------+------+--------------+
//!  |        position        | full | record index |
//!  +------------------------+------+--------------+
//! ```
//!
//! one record is the pusher's spare, one the receiver's. The pusher fills its spare and swaps it
//! into the entry of its position; what comes out, an evicted payload or an empty record, is its
//! next spare. The receiver claims the entry of *its* position by a compare-and-swap that leaves its
//! own spare there. Every record so has one owner at a time, and neither side waits: a push is one
//! swap, a receive one successful compare-and-swap, which fails only if a push evicted meanwhile.
//!
//! The receiver that finds a later position than its own was lapped: `position - capacity + 1` is
//! then the oldest that can still be there. Positions have 47 bits, and never come round.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::own::Ended;
use super::{Header, Tail, extended};
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed, UnsafeCell, order, panics::contain};

const INDEX_MASK: u64 = 0xffff;
const FULL: u64 = 1 << 16;
const POSITION_SHIFT: u32 = 17;

#[inline(always)]
fn word(position: u64, full: u64, record: u16) -> u64 {
    position << POSITION_SHIFT | full | u64::from(record)
}

/// Both sides' own; plain, since only the holder of the turn touches the one and only the receiver
/// the other.
#[repr(C)]
struct EvictHead {
    own: UnsafeCell<Own>,
    pusher: UnsafeCell<Pusher>,
    /// Payloads whose clone panicked: lost, not evicted.
    panics: AtomicU32,
    ended: Ended,
}

/// What the receiver keeps with an evicting mailbox.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) reader: EvictReader,
    pub(crate) merged: u64,
}

#[repr(C, packed(4))]
#[derive(Clone, Copy)]
struct Pusher {
    position: u64,
    spare: u16,
    index: u16,
}

struct Record<T> {
    body: UnsafeCell<Body<T>>,
}

struct Body<T> {
    ticket: u64,
    lost: u64,
    payload: MaybeUninit<T>,
}

/// The parts of one evicting mailbox.
struct Parts<T> {
    head: *mut EvictHead,
    entries: *mut AtomicU64,
    records: *mut Record<T>,
}

pub(super) fn layout<T>(capacity: usize) -> Layout {
    offsets::<T>(capacity).3
}

fn offsets<T>(capacity: usize) -> (usize, usize, usize, Layout) {
    let (layout, _) = extended::<Tail>(Layout::new::<Header>(), 1);
    let (layout, head) = extended::<EvictHead>(layout, 1);
    let (layout, entries) = extended::<AtomicU64>(layout, capacity);
    let (layout, records) = extended::<Record<T>>(layout, capacity + 2);
    (head, entries, records, layout.pad_to_align())
}

fn parts<T>(header: NonNull<Header>, capacity: usize) -> Parts<T> {
    let (head, entries, records, _) = offsets::<T>(capacity);
    let base = header.as_ptr().cast::<u8>();
    Parts {
        head: base.wrapping_add(head).cast(),
        entries: base.wrapping_add(entries).cast(),
        records: base.wrapping_add(records).cast(),
    }
}

/// The receiver's side.
///
/// # Safety
/// An evicting mailbox, alive for as long as the result is used.
pub(super) unsafe fn own<'a>(header: NonNull<Header>) -> &'a UnsafeCell<Own> {
    // The head comes before all that depends on the payload's type.
    let head = parts::<()>(header, 0).head;
    // SAFETY: initialised by `init`; alive, by contract.
    unsafe { &(*head).own }
}

/// Where it says up to where pushes came.
pub(super) fn ended_ptr(header: NonNull<Header>) -> *mut Ended {
    let head = parts::<()>(header, 0).head;
    // SAFETY: within the allocation, which begins at the header.
    unsafe { &raw mut (*head).ended }
}

/// # Safety
/// Freshly allocated by `layout::<T>(capacity)`.
pub(super) unsafe fn init<T>(header: NonNull<Header>, capacity: u16) {
    let count = usize::from(capacity);
    let parts = parts::<T>(header, count);
    // SAFETY: within the allocation, all of it.
    unsafe {
        parts.head.write(EvictHead {
            own: UnsafeCell::new(Own {
                reader: EvictReader::new(capacity),
                merged: 0,
            }),
            pusher: UnsafeCell::new(Pusher {
                position: 1,
                spare: capacity,
                index: 0,
            }),
            panics: AtomicU32::new(0),
            ended: Ended::new(),
        });
        for index in 0..count {
            parts
                .entries
                .add(index)
                .write(AtomicU64::new(word(0, 0, index as u16)));
        }
        for index in 0..count + 2 {
            parts.records.add(index).write(Record {
                body: UnsafeCell::new(Body {
                    ticket: 0,
                    lost: 0,
                    payload: MaybeUninit::uninit(),
                }),
            });
        }
    }
}

/// # Safety
/// Nobody touches the cells, now or later; the receiver has dropped what it had claimed.
pub(super) unsafe fn drain<T>(header: NonNull<Header>, capacity: u16) {
    let capacity = usize::from(capacity);
    let parts = parts::<T>(header, capacity);
    for index in 0..capacity {
        // SAFETY: within the allocation; initialised by `init`.
        let entry = unsafe { &*parts.entries.add(index) };
        let found = entry.load(Relaxed);
        if found & FULL != 0 {
            entry.store(found & !FULL, Relaxed);
            // SAFETY: a full entry owns its record, which holds a payload.
            let payload = unsafe { take(&*parts.records.add((found & INDEX_MASK) as usize)) };
            // A drop that panics must not cost the others theirs.
            contain(|| drop(payload));
        }
    }
}

/// # Safety
/// The last reference is being given up; the mailbox is drained.
pub(super) unsafe fn deinit<T>(header: NonNull<Header>, capacity: u16) {
    let capacity = usize::from(capacity);
    let parts = parts::<T>(header, capacity);
    // SAFETY: within the allocation; initialised by `init`.
    unsafe {
        parts.head.drop_in_place();
        for index in 0..capacity {
            parts.entries.add(index).drop_in_place();
        }
        for index in 0..capacity + 2 {
            parts.records.add(index).drop_in_place();
        }
    }
}

/// # Safety
/// The caller owns the record, and it holds a payload.
unsafe fn take<T>(record: &Record<T>) -> T {
    // SAFETY: by contract.
    record
        .body
        .with(|body| unsafe { (*body).payload.assume_init_read() })
}

/// Delivers into an evicting mailbox; whether a payload made room. Wait-free but for `payload` and the
/// evicted payload's drop, both of which may panic: the mailbox is whole either way.
///
/// # Safety
/// The caller holds the turn; the mailbox is a registered evicting one of `T`.
pub(super) unsafe fn deliver<T>(
    header: NonNull<Header>,
    ticket: u64,
    lost: u64,
    payload: impl FnOnce() -> T,
) -> bool {
    // SAFETY: alive, the topic's reference keeps it.
    let capacity = usize::from(unsafe { header.as_ref() }.shape().1);
    let parts = parts::<T>(header, capacity);
    // SAFETY: initialised by `init`.
    let head = unsafe { &*parts.head };
    // SAFETY: only the holder of the turn touches the pusher's side.
    let mut pusher = head.pusher.with(|p| unsafe { *p });
    let unwinding = CountPanic(&head.panics);
    let payload = payload();
    std::mem::forget(unwinding);
    let panics = head.panics.load(Relaxed);
    // SAFETY: the spare is the pusher's alone: the last swap's Acquire saw the receiver's use end.
    unsafe { &*parts.records.add(usize::from(pusher.spare)) }
        .body
        .with_mut(|body| {
            let lost = lost + u64::from(panics);
            // SAFETY: as above; the spare holds no payload.
            unsafe {
                *body = Body {
                    ticket,
                    lost,
                    payload: MaybeUninit::new(payload),
                }
            }
        });
    // SAFETY: `index < capacity`.
    let entry = unsafe { &*parts.entries.add(usize::from(pusher.index)) };
    let evicted = entry.swap(
        word(pusher.position, FULL, pusher.spare),
        order::record_swap(),
    );
    pusher.position += 1;
    pusher.index = if usize::from(pusher.index) + 1 == capacity {
        0
    } else {
        pusher.index + 1
    };
    pusher.spare = (evicted & INDEX_MASK) as u16;
    // SAFETY: only the holder of the turn touches the pusher's side.
    head.pusher.with_mut(|p| unsafe { *p = pusher });
    let replaced = evicted & FULL != 0;
    if replaced {
        // SAFETY: the swap made the evicted record ours, and it holds a payload.
        drop(unsafe { take(&*parts.records.add(usize::from(pusher.spare))) });
    }
    replaced
}

/// Counts a clone that panicked, so that the receiver learns of it as a loss.
struct CountPanic<'a>(&'a AtomicU32);

impl Drop for CountPanic<'_> {
    fn drop(&mut self) {
        // Only the holder of the turn writes it.
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// The receiver's side of an evicting mailbox.
#[derive(Debug)]
pub(crate) struct EvictReader {
    position: u64,
    index: u16,
    spare: u16,
    capacity: u16,
    /// Whether the spare holds a payload that was claimed and not yet taken.
    claimed: bool,
}

/// What is known of the payload that comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) ticket: u64,
    /// How many pushes were lost for this subscriber (as opposed to evicted) up to this payload,
    /// since the topic began.
    pub(crate) lost: u64,
}

impl EvictReader {
    pub(crate) fn new(capacity: u16) -> Self {
        Self {
            position: 1,
            index: 0,
            spare: capacity + 1,
            capacity,
            claimed: false,
        }
    }

    /// Claims the oldest payload, if there is one. Lock-free: each round that fails means that a
    /// push went through.
    ///
    /// # Safety
    /// The caller is the receiver of this evicting mailbox of `T`, alive.
    pub(crate) unsafe fn peek<T>(&mut self, header: NonNull<Header>) -> Option<Found> {
        let parts = parts::<T>(header, usize::from(self.capacity));
        while !self.claimed {
            // SAFETY: `index < capacity`.
            let entry = unsafe { &*parts.entries.add(usize::from(self.index)) };
            let found = entry.load(Relaxed);
            if found & FULL == 0 {
                return None;
            }
            let position = found >> POSITION_SHIFT;
            if position != self.position {
                // Wraps for an entry that was overtaken in our sight alone; the next look mends it.
                self.position = position
                    .wrapping_sub(u64::from(self.capacity))
                    .wrapping_add(1);
                self.step();
                continue;
            }
            let empty = word(position, 0, self.spare);
            if entry
                .compare_exchange(found, empty, order::record_claim(), Relaxed)
                .is_ok()
            {
                self.spare = (found & INDEX_MASK) as u16;
                self.claimed = true;
                self.position += 1;
                self.step();
            }
        }
        // SAFETY: the claim's Acquire made the record ours.
        let record = unsafe { &*parts.records.add(usize::from(self.spare)) };
        // SAFETY: as above.
        Some(record.body.with(|body| unsafe {
            Found {
                ticket: (*body).ticket,
                lost: (*body).lost,
            }
        }))
    }

    fn step(&mut self) {
        self.index = if self.index + 1 == self.capacity {
            0
        } else {
            self.index + 1
        };
    }

    /// Takes the claimed payload. Wait-free.
    ///
    /// # Safety
    /// As for [`EvictReader::peek`], which has just answered `Some`.
    pub(crate) unsafe fn take<T>(&mut self, header: NonNull<Header>) -> T {
        let parts = parts::<T>(header, usize::from(self.capacity));
        self.claimed = false;
        // SAFETY: claimed, so the record is ours and holds a payload.
        unsafe { take(&*parts.records.add(usize::from(self.spare))) }
    }

    /// Whether a claimed payload waits to be taken.
    pub(crate) fn has_claimed(&self) -> bool {
        self.claimed
    }
}
