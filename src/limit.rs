//! Log lines at a limited rate: whoever can cause a line can cause a flood.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(1);

/// One kind of log line. Each kind has a limit of its own, so that a flood of one hides no other.
#[derive(Debug)]
pub(crate) struct Limit(Mutex<Option<Instant>>);

impl Default for Limit {
    fn default() -> Self {
        Self::new()
    }
}

impl Limit {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Runs `log` at most once a second. May block for a look at the clock; `log` runs under no lock.
    pub(crate) fn say(&self, log: impl FnOnce()) {
        if self.is_due(Instant::now()) {
            log();
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_second() {
        let (limit, begun) = (Limit::new(), Instant::now());
        let due = |millis| limit.is_due(begun + Duration::from_millis(millis));
        assert!(due(10) && !due(10) && !due(1_009) && due(1_010));
        assert!(!due(1_500) && due(9_000));
    }
}
