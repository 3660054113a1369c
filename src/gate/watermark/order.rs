//! The memory orderings of the watermark, by role.
//!
//! Each role names its partner. Under the models every half above `Relaxed` can be taken away by a
//! mutant, as can some steps of the protocol, and a model fails for each.

use std::sync::atomic::Ordering;

/// The read-modify-write of `advance` on the position.
///
/// *Release*, partner [`read`] and [`register`]: whoever sees the position sees what the caller
/// wrote before advancing. *Acquire*, partner [`register`]: a registrant that came before has its
/// `least` seen by the load that follows.
#[inline(always)]
pub(super) fn advance() -> Ordering {
    acq_rel("watermark_advance_acquire", "watermark_advance_release")
}

/// The read-modify-write of a registrant on the position, after it lowered `least`.
///
/// *Release*, partner [`advance`]: an `advance` that comes after sees `least` lowered. *Acquire*,
/// partner [`advance`]: finding the position reached means seeing what was written before.
#[inline(always)]
pub(super) fn register() -> Ordering {
    acq_rel("watermark_register_acquire", "watermark_register_release")
}

/// A look at the position; partner [`advance`], as for a registrant.
#[inline(always)]
pub(super) fn read() -> Ordering {
    if mutant("watermark_read_acquire") {
        Ordering::Relaxed
    } else {
        Ordering::Acquire
    }
}

/// `least` is written under the lock only, and read without it only after [`advance`], which
/// carries the order.
pub(super) const LEAST: Ordering = Ordering::Relaxed;

/// Figures, and a flag whose order a lock carries.
pub(super) const PLAIN: Ordering = Ordering::Relaxed;

/// `AcqRel`, less the half whose mutant is on.
#[inline(always)]
fn acq_rel(without_acquire: &str, without_release: &str) -> Ordering {
    if mutant(without_acquire) {
        Ordering::Release
    } else if mutant(without_release) {
        Ordering::Acquire
    } else {
        Ordering::AcqRel
    }
}

/// A registrant does not look at the position again.
pub(super) const UNCHECKED: &str = "watermark_register_unchecked";
/// An advancer leaves what its first batch did not hold.
pub(super) const ONE_BATCH: &str = "watermark_one_batch";
/// A poller lets go of the lock between its question and its sleep.
pub(super) const POLLER_UNLOCKED: &str = "watermark_poller_unlocked";

/// Every mutant of the watermark, so that none can be left without a model.
#[cfg(afterwrite_loom)]
pub(super) const MUTANTS: [&str; 8] = [
    "watermark_advance_acquire",
    "watermark_advance_release",
    "watermark_register_acquire",
    "watermark_register_release",
    "watermark_read_acquire",
    UNCHECKED,
    ONE_BATCH,
    POLLER_UNLOCKED,
];

/// Whether the mutant `name` is on: never in a build that ships.
#[cfg(not(afterwrite_loom))]
#[inline(always)]
pub(super) const fn mutant(_name: &str) -> bool {
    false
}

/// Whether the mutant `name` is on.
#[cfg(afterwrite_loom)]
pub(super) fn mutant(name: &str) -> bool {
    assert!(MUTANTS.contains(&name), "{name} is not listed");
    crate::sync::mutant(name)
}
