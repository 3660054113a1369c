//! The receiver's waker cell: one registrant, any number of takers.
//!
//! The algorithm is that of `AtomicWaker` in the futures crate, over our own atomics so that the
//! models see it.
//!
//! | `waker_state`           | meaning                                                            |
//! |-------------------------|--------------------------------------------------------------------|
//! | `IDLE`                  | the cell belongs to nobody; it holds a waker or not                |
//! | `REGISTERING`           | the receiver writes the cell                                       |
//! | `WAKING`                | a taker reads the cell                                             |
//! | `REGISTERING | WAKING`  | a taker came while the receiver wrote: the receiver wakes itself   |
//!
//! A taker is the one that turns `IDLE` into `WAKING`; any other taker leaves it to that one, or to
//! the receiver. So a wake that follows a completed registration always finds the waker, and one
//! that overlaps it makes the receiver look again.

use std::ptr::NonNull;
use std::task::Waker;

use super::Header;
use crate::sync::{Ordering::Relaxed, hint, order, panics::wake};

const IDLE: u8 = 0;
const REGISTERING: u8 = 1;
const WAKING: u8 = 1 << 1;

impl Header {
    /// Puts the receiver's waker into the cell, replacing an earlier one. Lock-free.
    ///
    /// # Safety
    /// Called by the receiver alone; the mailbox is alive.
    pub(crate) unsafe fn register_waker(this: NonNull<Self>, waker: &Waker) {
        // SAFETY: alive, by contract.
        let (state, cell) = unsafe { (&this.as_ref().waker_state, &Self::tail(this).waker) };
        // A waker's clone is the user's code: it runs before the cell is taken.
        let fresh = waker.clone();
        let taken = state.compare_exchange(IDLE, REGISTERING, order::waker_register(), Relaxed);
        if taken.is_err() {
            // A taker is at work: what it announces may concern us. The caller comes back at once,
            // and again until the taker is done, which is a spin.
            wake(fresh);
            hint::spin_loop();
            return;
        }
        // SAFETY: `REGISTERING` is ours alone, takers leave the cell to us while it stands.
        let replaced = cell.with_mut(|cell| unsafe { (*cell).replace(fresh) });
        let released =
            state.compare_exchange(REGISTERING, IDLE, order::waker_registered(), Relaxed);
        if released.is_err() {
            // SAFETY: the state is `REGISTERING | WAKING`, which no taker touches: still ours.
            let ours = cell.with_mut(|cell| unsafe { (*cell).take() });
            state.swap(IDLE, order::waker_registered());
            if let Some(waker) = ours {
                wake(waker);
            }
        }
        drop(replaced);
    }

    /// Takes the waker out, for the caller to wake. Lock-free.
    ///
    /// # Safety
    /// The mailbox is alive.
    pub(crate) unsafe fn take_waker(this: NonNull<Self>) -> Option<Waker> {
        // SAFETY: alive, by contract.
        let state = unsafe { &this.as_ref().waker_state };
        if state.fetch_or(WAKING, order::waker_take()) != IDLE {
            return None;
        }
        // SAFETY: alive, by contract.
        let cell = unsafe { &Self::tail(this).waker };
        // SAFETY: this call turned `IDLE` into `WAKING`: the cell is ours until we clear it.
        let waker = cell.with_mut(|cell| unsafe { (*cell).take() });
        state.fetch_and(!WAKING, order::waker_taken());
        waker
    }
}
