//! The position of a read view, and waiting for it without polling.
//!
//! A read view is fed by a stream of events, each with a number that only grows: an event number,
//! a log sequence number. Whoever feeds the view calls [`Watermark::advance`] once an event is
//! applied; whoever needs the view to show an event waits for that event's number. This is the
//! *eventcount* of Reed and Kanodia ("Synchronization with Eventcounts and Sequencers", 1979), with
//! its `advance`, `read` and `await`, except that an advance may skip numbers. The module `waiters`
//! holds the protocol between the two sides and its proof, `order` its memory orderings.

use std::fmt;
use std::task::Waker;
use std::time::Duration;

use crate::sync::Arc;

mod follow;
mod order;
#[cfg(test)]
mod tests;
mod wait;
mod waiters;

pub use follow::{FollowError, Follower};
pub use wait::{WaitFor, WaitTimeout};
pub(crate) use waiters::Registration;
use waiters::Shared;

/// How far a read view has got: a position that only grows, and those who wait for it.
///
/// Clones share one position. The position is in whatever unit the view's source counts, as long
/// as it only grows: an event number, an LSN, a commit version.
///
/// | call | progress |
/// |---|---|
/// | [`get`](Self::get), [`Reached::is_ready`] | wait-free, one load |
/// | [`advance`](Self::advance), nobody due | lock-free, two loads and one read-modify-write |
/// | `advance`, somebody due | a short lock for each 64 woken; wakes outside it |
/// | registering and taking back | a short lock, `O(log n)` in those who wait |
///
/// Nothing here needs an asynchronous runtime or a timer.
///
/// # Read your writes
///
/// A request handler that wrote event 7 answers once its own replica shows event 7:
///
/// ```
/// use afterwrite::Watermark;
/// use std::time::Duration;
///
/// let watermark = Watermark::new(0);
///
/// let view = watermark.clone();
/// let projection = std::thread::spawn(move || {
///     for event in 1..=7 {
///         // ... apply the event to the read view, commit, and only then:
///         view.advance(event);
///     }
/// });
///
/// watermark.wait_for_timeout(7, Duration::from_secs(5))?;
/// assert!(watermark.get() >= 7);
/// # projection.join().unwrap();
/// # Ok::<(), afterwrite::WaitTimeout>(())
/// ```
///
/// # What it does not do
///
/// A watermark has no end: if nobody advances it any more, those who wait go on waiting. Give a
/// wait a limit, with [`wait_for_timeout`](Self::wait_for_timeout) or your runtime's own timeout.
#[derive(Clone)]
pub struct Watermark {
    shared: Arc<Shared>,
}

impl Watermark {
    /// A watermark that stands at `initial`.
    #[must_use]
    pub fn new(initial: u64) -> Self {
        Self {
            shared: Arc::new(Shared::new(initial)),
        }
    }

    /// The position. What was written before the [`advance`](Self::advance) to it is visible.
    ///
    /// Wait-free: one load.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.shared.get()
    }

    /// Raises the position to `position` and wakes all who waited for it; whether it moved.
    ///
    /// A position that is not above the present one is ignored, so events may be acknowledged out
    /// of order or twice, by any number of threads. Call it when the view *shows* the position,
    /// that is after its commit.
    ///
    /// With nobody due this is two loads and a read-modify-write of one cache line, however many wait
    /// further on.
    /// Those who are due are woken on the calling thread, lowest position first, outside any lock:
    /// a waker may advance, register and deregister in its turn (an `advance` from a waker runs
    /// nested). One that panics is caught, counted in [`waker_panics`](Self::waker_panics), and
    /// the rest are woken all the same.
    ///
    /// ```
    /// use afterwrite::Watermark;
    ///
    /// let watermark = Watermark::new(3);
    /// assert!(watermark.advance(5));
    /// assert!(!watermark.advance(4));
    /// assert_eq!(watermark.get(), 5);
    /// ```
    #[inline]
    pub fn advance(&self, position: u64) -> bool {
        self.shared.advance(position)
    }

    /// The condition that this watermark has reached `position`, as a value to hand on.
    ///
    /// ```
    /// use afterwrite::Watermark;
    ///
    /// let watermark = Watermark::new(0);
    /// let seven = watermark.reached(7);
    /// assert!(!seven.is_ready());
    /// watermark.advance(9);
    /// assert!(seven.is_ready());
    /// ```
    #[must_use]
    pub fn reached(&self, position: u64) -> Reached {
        Reached {
            watermark: self.clone(),
            position,
        }
    }

    /// A future that ends once `position` is reached.
    ///
    /// Works with every executor. Dropping it is safe at any time and forgets the wait. It waits
    /// without a limit: put your runtime's timeout around it.
    ///
    /// ```
    /// # use afterwrite::Watermark;
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use std::time::Duration;
    ///
    /// let watermark = Watermark::new(0);
    /// let late = tokio::time::timeout(Duration::from_millis(5), watermark.wait_for(1)).await;
    /// assert!(late.is_err());
    ///
    /// watermark.advance(1);
    /// watermark.wait_for(1).await;
    /// # });
    /// ```
    pub fn wait_for(&self, position: u64) -> WaitFor {
        WaitFor::new(self.reached(position))
    }

    /// Blocks until `position` is reached, for `timeout` at the longest.
    ///
    /// A timeout of zero only looks. One that goes beyond what the clock can represent is none.
    /// There is no blocking wait without a limit, since nothing may ever advance a watermark.
    /// Not for asynchronous code: it holds up the thread.
    ///
    /// # Errors
    ///
    /// [`WaitTimeout`], with the position that was reached instead.
    pub fn wait_for_timeout(&self, position: u64, timeout: Duration) -> Result<(), WaitTimeout> {
        wait::block(&self.reached(position), timeout)
    }

    /// Lets one thread read the position at intervals, for all who wait, while somebody does.
    ///
    /// For a view that cannot call [`advance`](Self::advance) by itself, for instance a database
    /// replica that is fed from elsewhere. `read` asks it for its position; `None` means that it
    /// could not tell. While nobody waits the thread sleeps and reads nothing; the first who waits
    /// wakes it. Reads begin at least `interval` after the last one ended, even so: that is the
    /// load on the view, however many wait and however often. More than a day becomes a day.
    ///
    /// A read that fails or panics is counted, and tried again an interval later; those who wait
    /// see a view that does not move. `read` runs on the thread of the follower alone, which also
    /// does the waking.
    ///
    /// The position is as good as `read`: it must only report what later reads will show. With
    /// several replicas behind one address, that is the position of the slowest.
    ///
    /// # Errors
    ///
    /// [`FollowError`]: an interval of zero, a watermark that is followed already, or an operating
    /// system that gives no thread.
    ///
    /// ```
    /// use afterwrite::Watermark;
    /// use std::time::Duration;
    ///
    /// let watermark = Watermark::new(0);
    /// let mut replica = 0;
    /// let follower = watermark.follow(
    ///     move || {
    ///         replica += 1; // select max(event) from applied
    ///         Some(replica)
    ///     },
    ///     Duration::from_millis(1),
    /// )?;
    ///
    /// watermark.wait_for_timeout(3, Duration::from_secs(5))?;
    /// assert!(follower.reads() >= 3);
    /// drop(follower); // the thread has ended
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn follow<F>(&self, read: F, interval: Duration) -> Result<Follower, FollowError>
    where
        F: FnMut() -> Option<u64> + Send + 'static,
    {
        follow::start(self.clone(), read, interval)
    }

    /// Whether both are handles to one watermark.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// How many wait, here and now. Takes the short lock.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }

    /// How often a waker panicked when it was called or dropped.
    #[must_use]
    pub fn waker_panics(&self) -> u64 {
        self.shared.panics()
    }
}

impl Default for Watermark {
    /// A watermark that stands at zero.
    fn default() -> Self {
        Self::new(0)
    }
}

impl fmt::Debug for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The position alone: a print takes no lock and calls no user code.
        f.debug_tuple("Watermark").field(&self.get()).finish()
    }
}

/// The condition that a [`Watermark`] has reached a position. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reached {
    watermark: Watermark,
    position: u64,
}

impl Reached {
    /// Whether the position is reached; once it is, for ever. Wait-free: one load.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.watermark.get() >= self.position
    }

    /// The position.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The watermark.
    #[must_use]
    pub fn watermark(&self) -> &Watermark {
        &self.watermark
    }

    /// Has `waker` called once the position is reached; `None` if it is already.
    ///
    /// The waker is called on the thread that advances, outside any lock, and may do what it
    /// likes. It is cloned before, and dropped after, the lock is held.
    pub(crate) fn register(&self, waker: &Waker) -> Option<Registration> {
        Registration::new(&self.watermark.shared, self.position, waker)
    }
}

/// What the models reach beside the public interface.
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub mod models {
    use std::task::Waker;

    use super::Watermark;

    /// Every mutant; the models assert that they kill each.
    pub const MUTANTS: &[&str] = &super::order::MUTANTS;

    /// A poller's question before it sleeps: whether somebody waits, else who wakes it.
    #[must_use]
    pub fn somebody_waits_or_wake(watermark: &Watermark, poller: &Waker) -> bool {
        watermark.shared.somebody_waits_or_wake(poller)
    }
}
