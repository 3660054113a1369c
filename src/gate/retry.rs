//! How often a gate asks the read view again, and when it gives up.
//!
//! A [`Retry`] is a value: it keeps no clock and no state. Whoever asks the view passes in when the
//! first read began, what time it is and how many reads were made, and is told when to read next.
//! So a schedule can be tested to the millisecond without waiting for one.
//!
//! All times count from the **first read**, not from the submit: a gate that queued behind others
//! has its whole budget still. A first read that answers at once costs no look at a clock, so the time
//! of a synchronous one is taken when it has answered `None`; see [`Retry`].

use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Shortest wait between two reads; anything shorter is a busy loop against the read view.
const MIN_WAIT: Duration = Duration::from_millis(1);
/// Longest wait of the backoff, hence the longest that a change may be visible and not seen.
const MAX_BACKOFF: Duration = Duration::from_millis(200);
/// Longest budget and longest wait: far enough for any view, near enough for any clock.
const MAX_BUDGET: Duration = Duration::from_secs(24 * 60 * 60);
/// 26 times 200 ms: 25 retries and a first read, 200 ms each.
const DEFAULT_BUDGET: Duration = Duration::from_millis(5_200);

/// How often a gate asks the read view, and for how long.
///
/// The budget starts with the first read: when an asynchronous one begins, when a synchronous one has
/// answered `None`, or when it asks for [`Attempt::deadline`](crate::Attempt::deadline). (The clock is
/// not read for a gate that is open at once: so the time that a synchronous first read takes, unless it
/// asks, comes on top of the budget.) A gate reads for the last time *before* its
/// [`deadline`](Self::deadline) and expires *at* it: a read that is under way may use what is left, and
/// a synchronous one may overrun.
///
/// | policy | reads after the first | expires after |
/// |---|---|---|
/// | [`Retry::backoff`] (default, 5.2 s) | after `max(1 ms, elapsed / 4)`, at most 200 ms | the budget |
/// | [`Retry::fixed`] | every `wait`, `retries` times | `(retries + 1) * wait` |
///
/// The backoff grows with the time already waited. So a change is seen late by at most a quarter of
/// the view's lag, or 1 ms if that is more, and never by more than 200 ms (besides what a read
/// itself takes): by 5 ms for a lag of 20 ms.
///
/// # Clamps
///
/// No policy is refused. A wait or budget below 1 ms becomes 1 ms, and one above a day (as well as
/// a product of `retries` and `wait` above it) becomes a day.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use afterwrite::Retry;
///
/// let retry = Retry::fixed(25, Duration::from_millis(200));
/// let first_read = Instant::now();
/// assert_eq!(retry.deadline(first_read), first_read + Duration::from_millis(5_200));
///
/// // The first read has just been made; the second comes 200 ms after it.
/// let next = retry.next(first_read, first_read, 1);
/// assert_eq!(next, Some(first_read + Duration::from_millis(200)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    pace: Pace,
    budget: Duration,
}

/// When the next read is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pace {
    /// On a grid of `wait` from the first read; the budget holds `retries + 1` slots.
    Fixed { wait: Duration },
    /// After a quarter of the time since the first read.
    Backoff,
}

impl Retry {
    /// `retries + 1` reads, one every `wait`, within `(retries + 1) * wait`.
    ///
    /// Reads keep to a grid that starts at the first one, so slow reads do not stretch the whole;
    /// a read that overran its slot is followed by the next at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use afterwrite::Retry;
    ///
    /// let retry = Retry::fixed(4, Duration::from_millis(10));
    /// assert_eq!(retry.budget(), Duration::from_millis(50));
    /// ```
    #[must_use]
    pub const fn fixed(retries: u32, wait: Duration) -> Self {
        let wait = clamped(wait);
        // One more read than retries; `u32::MAX` of them reach the longest budget anyway.
        let budget = match wait.checked_mul(retries.saturating_add(1)) {
            Some(budget) => clamped(budget),
            None => MAX_BUDGET,
        };
        Self {
            pace: Pace::Fixed { wait },
            budget,
        }
    }

    /// Asks again after `max(1 ms, elapsed / 4)`, at most 200 ms, until `budget` has passed.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use afterwrite::Retry;
    ///
    /// let retry = Retry::backoff(Duration::from_secs(2));
    /// let first_read = Instant::now();
    /// let now = first_read + Duration::from_millis(80);
    /// assert_eq!(retry.next(first_read, now, 9), Some(now + Duration::from_millis(20)));
    /// ```
    #[must_use]
    pub const fn backoff(budget: Duration) -> Self {
        Self {
            pace: Pace::Backoff,
            budget: clamped(budget),
        }
    }

    /// From the first read to expiry, after clamping.
    #[must_use]
    pub const fn budget(&self) -> Duration {
        self.budget
    }

    /// When a gate expires whose first read began at `first_read`.
    #[must_use]
    pub fn deadline(&self, first_read: Instant) -> Instant {
        // A clock that cannot represent a day from now has no later time to offer either.
        first_read.checked_add(self.budget).unwrap_or(first_read)
    }

    /// When to read next, having made `attempts_made` reads by `now`; never before `now`.
    ///
    /// `None` means that no read may begin any more: the gate waits for a read under way, if there
    /// is one, and expires at its [`deadline`](Self::deadline), which may have passed already.
    /// With no read made yet the answer is `now`.
    ///
    /// Wait-free; reads no clock.
    #[must_use]
    pub fn next(&self, first_read: Instant, now: Instant, attempts_made: u32) -> Option<Instant> {
        let next = match self.pace {
            _ if attempts_made == 0 => now,
            Pace::Fixed { wait } => {
                // The slot after the last is the deadline itself, so no count of reads is needed.
                let slot = first_read.checked_add(wait.checked_mul(attempts_made)?)?;
                slot.max(now)
            }
            Pace::Backoff => {
                let elapsed = now.saturating_duration_since(first_read);
                now.checked_add((elapsed / 4).clamp(MIN_WAIT, MAX_BACKOFF))?
            }
        };
        (next < self.deadline(first_read)).then_some(next)
    }
}

impl Default for Retry {
    /// [`Retry::backoff`] with a budget of 5.2 s.
    fn default() -> Self {
        Self::backoff(DEFAULT_BUDGET)
    }
}

/// `time`, no shorter than [`MIN_WAIT`] and no longer than [`MAX_BUDGET`].
const fn clamped(time: Duration) -> Duration {
    if time.as_nanos() < MIN_WAIT.as_nanos() {
        MIN_WAIT
    } else if time.as_nanos() > MAX_BUDGET.as_nanos() {
        MAX_BUDGET
    } else {
        time
    }
}
