//! Every contender shows that it does the work, and one that does not is found out.

use super::*;
use crate::invalidation;
use crate::rivals::Fanout;

#[test]
fn every_contender_does_the_work() {
    let workloads = [
        fanout(3),
        fanout_full(3),
        publish(),
        churn_keys(2),
        churn_joined(2),
        churn_hot(2),
        miss(2),
        many_keys(1_000),
        advance(2),
        invalidation::subject_parse(),
        invalidation::subject_format(),
        invalidation::cache_hit(10),
    ];
    for mut workload in workloads {
        for contender in &mut workload.contenders {
            let timed = contender.run(1);
            assert!(timed.units >= 1, "{contender:?} of {}", workload.name);
        }
    }
}

/// Forgets every fifth value.
struct Forgetful {
    receivers: usize,
    values: std::collections::VecDeque<u64>,
}

impl Fanout for Forgetful {
    const NAME: &'static str = "forgetful";
    const DROPS_NEWEST: bool = false;

    fn new(receivers: usize, _buffer: usize) -> Self {
        Self {
            receivers,
            values: std::collections::VecDeque::new(),
        }
    }

    fn push(&mut self, value: u64) {
        if !value.is_multiple_of(5) {
            self.values.push_back(value);
        }
    }

    fn receive(&mut self) -> (u64, usize) {
        match self.values.pop_front() {
            Some(value) => (value * self.receivers as u64, self.receivers),
            None => (0, 0),
        }
    }
}

#[test]
#[should_panic(expected = "forgetful is out of order")]
fn a_contender_that_loses_a_value_is_not_timed() {
    let _ = fanning::<Forgetful>(3);
}
