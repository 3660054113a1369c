//! The first notice of a gated subscription: for one subscriber alone, in the key's order.
//!
//! It does not go through the mailbox, since the ring may be full of pushes that came while its
//! gate waited, and it takes no ticket, since nobody else sees it. Whoever fills it holds the
//! turn, and so knows after which ticket it stands.

use crate::sync::{AtomicU8, AtomicU64, Ordering::Relaxed, UnsafeCell, order};

const UNFILLED: u8 = 0;
const FILLING: u8 = 1;
const FILLED: u8 = 2;
const TAKEN: u8 = 3;
/// Its gate expired in silence: it never comes.
const SKIPPED: u8 = 4;

/// A place for one notice; `None` in it stands for a loss.
pub(crate) struct FirstNotice<T> {
    state: AtomicU8,
    after: AtomicU64,
    payload: UnsafeCell<Option<T>>,
}

// SAFETY: the payload goes from the one filler to the one receiver (`T: Send`), ordered by `state`.
unsafe impl<T: Send> Send for FirstNotice<T> {}
// SAFETY: as above; no `&T` is given out.
unsafe impl<T: Send> Sync for FirstNotice<T> {}

impl<T> FirstNotice<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(UNFILLED),
            after: AtomicU64::new(0),
            payload: UnsafeCell::new(None),
        }
    }

    /// Puts the notice in its place in the order: after `ticket`, the last one, if the caller holds
    /// the turn; before everything that is still unread, if `ticket` is 0. A second call does
    /// nothing.
    pub(crate) fn fill_once(&self, ticket: u64, payload: Option<T>) {
        if self
            .state
            .compare_exchange(UNFILLED, FILLING, Relaxed, Relaxed)
            .is_err()
        {
            return;
        }
        self.after.store(ticket, Relaxed);
        // SAFETY: only one caller gets here, and the receiver does not look before `FILLED`.
        self.payload.with_mut(|cell| unsafe { *cell = payload });
        self.state.store(FILLED, order::first_fill());
    }

    /// Says that the notice never comes.
    pub(crate) fn skip(&self) {
        let _ = self
            .state
            .compare_exchange(UNFILLED, SKIPPED, Relaxed, Relaxed);
    }

    /// Whether the notice never comes.
    pub(crate) fn is_skipped(&self) -> bool {
        self.state.load(Relaxed) == SKIPPED
    }

    /// After which ticket the notice stands, once it is there.
    #[inline]
    pub(super) fn after(&self) -> Option<u64> {
        (self.state.load(order::first_read()) == FILLED).then(|| self.after.load(Relaxed))
    }

    /// Takes the notice.
    ///
    /// # Safety
    /// Called by the one receiver, after [`FirstNotice::after`] answered.
    pub(super) unsafe fn take(&self) -> Option<T> {
        self.state.store(TAKEN, Relaxed);
        // SAFETY: filled, seen with Acquire; the filler is done and the receiver is one.
        self.payload.with_mut(|cell| unsafe { (*cell).take() })
    }
}
