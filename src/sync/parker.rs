//! A thread that waits for a call of its waker, or for a point in time. No lock is involved.
//!
//! # Who takes part
//! *The sleeper*, the one thread that waits, and *callers*, any number: who wakes or notifies.
//!
//! # The protocol
//! | from       | by                  | to         | and then                                      |
//! |------------|---------------------|------------|-----------------------------------------------|
//! | `IDLE`     | the sleeper         | `ASLEEP`   | parks                                         |
//! | `IDLE`     | a caller            | `NOTIFIED` |                                               |
//! | `ASLEEP`   | a caller            | `NOTIFIED` | unparks the sleeper                           |
//! | `NOTIFIED` | a caller            | `NOTIFIED` |                                               |
//! | `NOTIFIED` | the sleeper         | `IDLE`     | the wait is over                              |
//! | `ASLEEP`   | the sleeper, late   | `IDLE`     | the wait is over, without a notification      |
//!
//! Every step is one read-modify-write of the one word, so of a sleeper that goes to sleep and a
//! caller the later one sees the other. The thread's own park token is only the means: it may be
//! there without a notification (then the sleeper parks again). A sleeper that has parked leaves a
//! token behind, since it may have used up one that was meant for somebody else on its thread: one too
//! many costs whoever parks next a look at its condition, one too few would cost it its wake-up.

// `std::task::Wake` is defined on std's `Arc`, also in a model; the word is the shim's.
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::time::Instant;

use super::thread::{self, Thread};
use super::{
    AtomicU8,
    Ordering::{self, AcqRel, Acquire, Relaxed, Release},
};

const IDLE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// One notification, kept until it is consumed. Its waker can be called from anywhere; one thread
/// waits, the one that waits first.
#[derive(Default)]
pub(crate) struct Parker {
    cell: Arc<Cell>,
}

struct Cell {
    state: AtomicU8,
    /// Named before the word is ever `ASLEEP`.
    sleeper: OnceLock<Thread>,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            sleeper: OnceLock::new(),
        }
    }
}

/// A caller's word: what it did before is seen by whoever consumes the notification, and a sleeper
/// that it finds has named itself.
fn notify() -> Ordering {
    without("parker_notify", AcqRel, Acquire)
}

/// The sleeper consumes a notification, and sees what its caller did before.
fn consume() -> Ordering {
    without("parker_consume", Acquire, Relaxed)
}

/// An ordering, or what is left of it under the models' mutant.
fn without(mutant: &str, full: Ordering, less: Ordering) -> Ordering {
    #[cfg(afterwrite_loom)]
    if super::mutant(mutant) {
        return less;
    }
    let _ = (mutant, less);
    full
}

impl Parker {
    /// A waker that notifies this parker.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.cell))
    }

    /// Ends a wait that is under way, else the next one. Lock-free.
    pub(crate) fn notify(&self) {
        self.cell.wake_by_ref();
    }

    /// Blocks until notified, and consumes that; `false` if `deadline` came first. Always called on
    /// the same thread.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let Cell { state, sleeper } = &*self.cell;
        let sleeper = sleeper.get_or_init(thread::current);
        debug_assert_eq!(sleeper.id(), thread::current().id(), "one thread waits");
        if state
            .compare_exchange(IDLE, ASLEEP, Release, Relaxed)
            .is_err()
        {
            state.swap(IDLE, consume());
            return true;
        }
        let notified = Self::sleep(state, deadline);
        sleeper.unpark();
        notified
    }

    /// Parks until the state is `NOTIFIED`, or the deadline.
    fn sleep(state: &AtomicU8, deadline: Option<Instant>) -> bool {
        loop {
            match deadline {
                None => thread::park(),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return state.swap(IDLE, consume()) == NOTIFIED;
                    }
                    thread::park_timeout(left);
                }
            }
            if state
                .compare_exchange(NOTIFIED, IDLE, consume(), Relaxed)
                .is_ok()
            {
                return true;
            }
        }
    }
}

impl std::fmt::Debug for Parker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parker").finish_non_exhaustive()
    }
}

impl Wake for Cell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(NOTIFIED, notify()) == ASLEEP
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }
}

/// A parker as the models see it.
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub mod models {
    use std::task::Waker;

    use super::Parker;

    /// Each makes a model fail.
    pub const MUTANTS: &[&str] = &["parker_notify", "parker_consume"];

    /// A thread that can wait.
    #[derive(Debug, Default)]
    pub struct Sleeper(Parker);

    impl Sleeper {
        /// What ends a wait of it.
        pub fn waker(&self) -> Waker {
            self.0.waker()
        }

        /// Waits until its waker is called, and consumes that.
        pub fn wait(&self) {
            assert!(self.0.wait(None));
        }
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_notification_is_kept_and_consumed_once() {
        let parker = Parker::default();
        let past = Some(Instant::now());
        assert!(!parker.wait(past));
        parker.notify();
        parker.notify();
        assert!(parker.wait(None));
        assert!(!parker.wait(past));
        parker.waker().wake();
        assert!(parker.wait(past), "what has come is taken, however late");
    }

    #[test]
    fn somebody_elses_token_ends_no_wait() {
        let parker = Parker::default();
        std::thread::current().unpark();
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(!parker.wait(Some(soon)));
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn a_sleeper_is_woken_from_elsewhere_each_time() {
        let parker = Parker::default();
        let (ask, asked) = std::sync::mpsc::channel::<Waker>();
        let caller = std::thread::spawn(move || asked.iter().for_each(|waker| waker.wake()));
        for _ in 0..10_000 {
            ask.send(parker.waker()).unwrap();
            assert!(parker.wait(None));
        }
        drop(ask);
        caller.join().unwrap();
    }
}
