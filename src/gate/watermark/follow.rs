//! One thread that reads the position for all who wait.
//!
//! The poller has two sleeps. *Idle*, while nobody waits: it leaves its waker with the waiters and
//! sleeps without a limit; the first registrant wakes it. *Between reads*: it sleeps until the
//! interval is over. Both are waits on one parker, so a stop ends either at once: the follower sets
//! `stop`, notifies the parker, and joins. The parker keeps a notification that comes before the
//! sleep, so the order of "look at `stop`" and "sleep" is of no matter.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Watermark;
use super::order::PLAIN;
use crate::error::ThreadError;
use crate::sync::panics::contain;
use crate::sync::parker::Parker;
use crate::sync::{Arc, AtomicBool, AtomicU64};

/// Longest interval: beyond it a clock could run out, and nobody would wait so long.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a watermark cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// An interval of zero would read the view without a pause.
    #[error("the interval between two reads of a position must be above zero")]
    ZeroInterval,
    /// One poller reads for all who wait; a second could only contradict it.
    #[error("the watermark is followed already")]
    AlreadyFollowed,
    /// The thread that reads could not be started.
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// A thread that reads a view's position while somebody waits for it; dropping this ends it.
///
/// Made by [`Watermark::follow`]. Dropping it stops the reading and joins the thread, so it blocks
/// for as long as a read under way does; on the thread itself (in `read` or in a waker that it
/// calls) it does not wait, and the thread ends after the present turn. Those who wait stay
/// registered: another follower, or an [`advance`](Watermark::advance), will serve them.
#[derive(Debug)]
#[must_use = "dropping a follower stops it"]
pub struct Follower {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// What the follower and its thread share.
#[derive(Debug)]
struct Control {
    stop: AtomicBool,
    parker: Parker,
    reads: AtomicU64,
    failures: AtomicU64,
}

impl Follower {
    /// How often the position was read, failed reads included.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.control.reads.load(PLAIN)
    }

    /// How many of these reads answered `None` or panicked.
    #[must_use]
    pub fn failed_reads(&self) -> u64 {
        self.control.failures.load(PLAIN)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The notification carries the order; the flag only says what it is about.
        self.control.stop.store(true, PLAIN);
        self.control.parker.notify();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // The thread catches what the user's code throws, so it has nothing to report.
            let _ = thread.join();
        }
    }
}

pub(super) fn start<F>(
    watermark: Watermark,
    read: F,
    interval: Duration,
) -> Result<Follower, FollowError>
where
    F: FnMut() -> Option<u64> + Send + 'static,
{
    if interval.is_zero() {
        return Err(FollowError::ZeroInterval);
    }
    let place = Place::take(watermark)?;
    let control = Arc::new(Control {
        stop: AtomicBool::new(false),
        parker: Parker::default(),
        reads: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    });
    let poller = Poller {
        control: Arc::clone(&control),
        place,
        read,
        interval: interval.min(MAX_INTERVAL),
    };
    let thread = std::thread::Builder::new()
        .name("afterwrite-follow".into())
        .spawn(move || poller.run())
        .map_err(|error| FollowError::Thread(ThreadError::new(error)))?;
    Ok(Follower {
        control,
        thread: Some(thread),
    })
}

/// The place of the one poller of a watermark, given back on drop.
struct Place(Watermark);

impl Place {
    fn take(watermark: Watermark) -> Result<Self, FollowError> {
        if watermark.shared.begin_following() {
            Ok(Self(watermark))
        } else {
            Err(FollowError::AlreadyFollowed)
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared.end_following();
    }
}

struct Poller<F> {
    control: Arc<Control>,
    place: Place,
    read: F,
    interval: Duration,
}

impl<F: FnMut() -> Option<u64>> Poller<F> {
    fn run(self) {
        let Self {
            control,
            place,
            mut read,
            interval,
        } = self;
        let waker = control.parker.waker();
        // Before the first read there is none to keep a distance from.
        let mut not_before = None;
        while !control.stop.load(PLAIN) {
            if !control.rest_until(not_before) {
                continue;
            }
            // Asked after the rest, in which those who waited may have left.
            if place.0.shared.somebody_waits_or_wake(&waker) {
                control.read(&mut read, &place.0);
                not_before = Instant::now().checked_add(interval);
            } else {
                control.parker.wait(None);
            }
        }
        // The user's captures, dropped before the place is free for the next follower.
        contain(|| drop(read));
    }
}

impl Control {
    /// Sleeps until then; `false` if something called before, and the poller has to look around.
    fn rest_until(&self, then: Option<Instant>) -> bool {
        then.is_none_or(|then| !self.parker.wait(Some(then)))
    }

    /// One read of the position, and the waking of all whom it makes due.
    fn read(&self, read: &mut impl FnMut() -> Option<u64>, watermark: &Watermark) {
        self.reads.fetch_add(1, PLAIN);
        // Unwind safety: `read` is the user's; what its panic leaves of its own state is theirs.
        let mut position = None;
        contain(|| position = read());
        match position {
            Some(position) => {
                watermark.advance(position);
            }
            None => {
                self.failures.fetch_add(1, PLAIN);
            }
        }
    }
}
