//! What the models share: the bound, payloads whose drops are counted, wakers that count, and the
//! runner that plants a fault and expects a model to fail.
//!
//! None of it orders anything in the checker's eyes: it uses thread-locals and std's atomics, and
//! the checker runs all threads of a model on one thread of the system.
#![cfg(afterwrite_loom)]

mod faults;
mod payload;
mod subscriber;
mod woken;

pub use faults::{assert_killed, assert_listed, faulted, passes, weakenings};
pub use payload::Payload;
pub use subscriber::{Sleep, Subscriber};
pub use woken::Woken;

/// Explores `f`, with at most two preemptions or as many as `LOOM_MAX_PREEMPTIONS` says, and
/// checks after each run that every payload was dropped exactly once.
///
/// No limit of time or of runs is set, so a model that passes was explored to its end; the limit of
/// steps in one run, which catches endless loops, panics.
pub fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 20_000;
    builder.max_duration = None;
    builder.max_permutations = None;
    builder.check(move || {
        payload::reset();
        f();
        payload::assert_none_left();
    });
}
