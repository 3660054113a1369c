//! Steps of the hand-over and of a key's coming and going that the models take away one by one, to
//! prove that they would notice.
//!
//! In a build that ships none is ever away, and nothing of this is left.

/// Who handed a job over does not look whether the shard has ended meanwhile.
pub(crate) const NO_LOOK_AFTER_HAND_OVER: &str = "no_look_after_hand_over";
/// A key that nobody has pinned is pinned without the directory's lock.
pub(crate) const PIN_WHAT_GOES: &str = "pin_what_goes";
/// A publisher does not wait in line behind what was handed over.
pub(crate) const OVERTAKE_HANDED: &str = "overtake_handed";

/// An open gate does not wait in line behind its key's other gates.
pub(crate) const OVERTAKE_THE_LANE: &str = "overtake_the_lane";

/// Who rings wakes no shard that sleeps.
pub(crate) const RING_WAKES_NOBODY: &str = "ring_wakes_nobody";

/// Every one of them, so that none is left without a model.
#[cfg(afterwrite_loom)]
pub(super) const ALL: &[&str] = &[
    NO_LOOK_AFTER_HAND_OVER,
    PIN_WHAT_GOES,
    OVERTAKE_HANDED,
    OVERTAKE_THE_LANE,
    RING_WAKES_NOBODY,
];

/// Whether the fault is planted.
#[cfg(afterwrite_loom)]
pub(crate) fn planted(fault: &str) -> bool {
    crate::sync::mutant(fault)
}

/// Whether the fault is planted: never.
#[cfg(not(afterwrite_loom))]
#[inline(always)]
pub(crate) const fn planted(_fault: &str) -> bool {
    false
}
