//! Another node's clock, as far as messages tell.
//!
//! Let theta be our clock minus theirs. A beat stamped s and received at r gives
//! `theta <= r - s`, since it took no negative time. If it echoes a beat that we sent at a and that
//! they had held for h when they stamped theirs, then they had it at s - h, not before we sent it:
//! `theta >= a - (s - h)`. The idea is Cristian's (1989) and Marzullo's interval of it.
//!
//! The first holds when the beat arrives. The second holds when they had ours, which may be as early
//! as a: the time for which they held it is measured by their clock, which drifts meanwhile.
//!
//! Both bounds stay true as time passes if they are loosened by the most that the two clocks can
//! drift apart. So one best sample of each kind is enough: no window is kept, and a sample
//! replaces the best when it is better than what is left of it.
//!
//! A clock that stood still (a suspended machine) shows as bounds that contradict each other. Then
//! both are thrown away, and what is calibrated begins anew. The lower one of the two comes by an echo:
//! beats that seem to have been long under way are a reason to [ask](super::peer::Peer::wants_echo) for one.

use super::Micros;

/// The most by which two running monotonic clocks drift against each other, in parts per million:
/// twice the 500 to which kernels limit their slewing.
pub(crate) const DRIFT_PPM: u64 = 1_000;

/// How far two clocks may drift apart in `span`, rounded up.
pub(crate) const fn drift(span: Micros) -> i64 {
    (span.saturating_mul(DRIFT_PPM) / 1_000_000 + 1) as i64
}

/// A bound that held at one time.
#[derive(Debug, Clone, Copy)]
struct Bound {
    value: i64,
    at: Micros,
}

impl Bound {
    const fn slack(self, now: Micros) -> i64 {
        drift(now.saturating_sub(self.at))
    }
}

/// An echo of one of our beats, in one of theirs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoundTrip {
    /// When we sent ours, on our clock.
    pub(crate) left: Micros,
    /// How long they held it before they stamped theirs.
    pub(crate) held: Micros,
}

/// Bounds of our clock minus theirs, from below and above.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offset {
    upper: Bound,
    lower: Option<Bound>,
}

impl Offset {
    /// What one message says: stamped `sent` by them, received `now`.
    pub(crate) fn new(now: Micros, sent: Micros, echo: Option<RoundTrip>) -> Self {
        Self {
            upper: Bound {
                value: now as i64 - sent as i64,
                at: now,
            },
            lower: echo.map(|echo| Bound {
                value: echo.left as i64 + echo.held as i64 - sent as i64,
                at: echo.left,
            }),
        }
    }

    /// Takes one more message into account.
    pub(crate) fn sample(&mut self, now: Micros, sent: Micros, echo: Option<RoundTrip>) {
        let fresh = Self::new(now, sent, echo);
        if fresh.upper.value <= self.upper(now) {
            self.upper = fresh.upper;
        }
        if fresh.lower(now) >= self.lower(now) {
            self.lower = fresh.lower;
        }
        if self.lower(now).is_some_and(|lower| lower > self.upper(now)) {
            *self = fresh;
        }
    }

    /// The offset is at most this.
    pub(crate) const fn upper(&self, now: Micros) -> i64 {
        self.upper.value + self.upper.slack(now)
    }

    /// The offset is at least this; unknown before the first echo.
    pub(crate) fn lower(&self, now: Micros) -> Option<i64> {
        self.lower.map(|bound| bound.value - bound.slack(now))
    }

    /// By how much `upper` may exceed the offset.
    pub(crate) fn error(&self, now: Micros) -> Option<Micros> {
        let spread = self.upper(now) - self.lower(now)?;
        Some(u64::try_from(spread).unwrap_or(0))
    }

    /// Until when the error stays within `limit`, if nothing more is heard.
    pub(crate) fn good_until(&self, now: Micros, limit: Micros) -> Option<Micros> {
        let room = limit.checked_sub(self.error(now)?)?;
        // Both bounds loosen at the full rate.
        Some(now + room.saturating_mul(1_000_000 / (2 * DRIFT_PPM)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Half of the time so short that it hides nothing of what the bounds have to be loosened by.
    fn span(most: u64) -> impl Strategy<Value = u64> {
        prop_oneof![0u64..100, 0..most]
    }

    proptest! {
        /// Whatever the delays, and wherever between its limits each clock runs: the bounds hold.
        #[test]
        fn bounds_hold(
            theta in -1_000_000_000i64..1_000_000_000,
            rate in -1_000i64..=1_000,
            trips in proptest::collection::vec((span(5_000_000), span(400_000), span(9_000_000), span(9_000_000), any::<bool>()), 1..30),
        ) {
            let base = 3_000_000_000u64;
            let mut now = base;
            let theirs = |ours: u64| {
                let passed = (ours - base) as i64;
                (ours as i64 - theta - passed * rate / 1_000_000) as u64
            };
            let mut offset: Option<Offset> = None;
            for (out, back, held, pause, echoed) in trips {
                let left = now;
                let arrived = left + out;
                let stamped = arrived + held;
                now = stamped + back;
                let echo = echoed.then(|| RoundTrip { left, held: theirs(stamped) - theirs(arrived) });
                match &mut offset {
                    None => offset = Some(Offset::new(now, theirs(stamped), echo)),
                    Some(offset) => offset.sample(now, theirs(stamped), echo),
                }
                now += pause;
                let truth = now as i64 - theirs(now) as i64;
                let offset = offset.as_ref().unwrap();
                // Two microseconds for what the integers above round.
                prop_assert!(offset.upper(now) >= truth - 2);
                prop_assert!(offset.lower(now).is_none_or(|lower| lower <= truth + 2));
                if let Some(until) = offset.good_until(now, 500_000) {
                    prop_assert!(offset.error(until).unwrap() <= 500_002);
                }
            }
        }
    }

    /// They held our beat for a third of a second, by a clock that runs 488 millionths fast.
    #[test]
    fn i6_a_bound_from_below_is_as_old_as_the_beat_that_was_echoed() {
        let (now, fast) = (321_851, 157);
        let held = now + fast;
        let offset = Offset::new(now, held, Some(RoundTrip { left: 0, held }));
        let truth = -(fast as i64);
        assert!(offset.lower(now).unwrap() <= truth);
        assert!(offset.upper(now) >= truth);
        assert!(offset.error(now).unwrap() >= fast);
    }

    #[test]
    fn a_clock_that_stood_still_is_understood_again() {
        let echo = |left| Some(RoundTrip { left, held: 0 });
        let mut offset = Offset::new(10_100, 5_000, echo(10_000));
        assert!(offset.error(10_100).unwrap() < 110);
        // Their clock stood still for ten seconds.
        let now = 20_000_000;
        offset.sample(now, 9_994_800, echo(now - 100));
        assert!(offset.error(now).unwrap() < 110);
        assert!(offset.upper(now) >= 10_005_200);
    }
}
