//! Steps of the protocol that the models take away one by one, to prove that they would notice.
//!
//! In a build that ships none is ever away, and nothing of this is left.

/// A close does not care whether somebody holds the turn.
pub(super) const CLOSE_IGNORES_HOLDER: &str = "close_ignores_holder";
/// A close leaves the live bit set.
pub(super) const CLOSE_LEAVES_LIVE: &str = "close_leaves_live";
/// A close that comes second returns before the first has ended anything.
pub(super) const CLOSED_BEFORE_IT_IS: &str = "closed_before_it_is";
/// A close under a push does not ask for a sweep.
pub(super) const CLOSE_ASKS_FOR_NO_SWEEP: &str = "close_asks_for_no_sweep";
/// A receiver sleeps without coming by the turn.
pub(super) const SLEEP_WITHOUT_TURN: &str = "sleep_without_turn";
/// A receiver sleeps without a last look.
pub(super) const SLEEP_WITHOUT_LOOK: &str = "sleep_without_look";
/// A receiver takes a push for lost after one look.
pub(super) const MISS_AFTER_ONE_LOOK: &str = "miss_after_one_look";
/// A holder leaves without looking for sleepers again.
pub(super) const LEAVE_WITHOUT_ATTENTION: &str = "leave_without_attention";
/// A subscription begins at the ticket after its live bit.
pub(super) const BEGIN_AFTER_LIVE: &str = "begin_after_live";
/// A receiver sees the end while a holder may still count losses.
pub(super) const END_WHILE_HELD: &str = "end_while_held";
/// A loss that finds the turn taken raises no flag.
pub(super) const LOSS_WITHOUT_FLAG: &str = "loss_without_flag";
/// A receiver tells a loss without another look at its first notice.
pub(super) const LOSS_BEFORE_FIRST: &str = "loss_before_first";

/// Every one of them, so that none is left without a model.
#[cfg(afterwrite_loom)]
pub const ALL: &[&str] = &[
    CLOSE_IGNORES_HOLDER,
    CLOSE_LEAVES_LIVE,
    CLOSED_BEFORE_IT_IS,
    CLOSE_ASKS_FOR_NO_SWEEP,
    SLEEP_WITHOUT_TURN,
    SLEEP_WITHOUT_LOOK,
    MISS_AFTER_ONE_LOOK,
    LEAVE_WITHOUT_ATTENTION,
    BEGIN_AFTER_LIVE,
    END_WHILE_HELD,
    LOSS_WITHOUT_FLAG,
    LOSS_BEFORE_FIRST,
];

/// Whether the fault is planted.
#[cfg(afterwrite_loom)]
pub(super) fn planted(fault: &str) -> bool {
    crate::sync::mutant(fault)
}

/// Whether the fault is planted: never.
#[cfg(not(afterwrite_loom))]
#[inline(always)]
pub(super) const fn planted(_fault: &str) -> bool {
    false
}

/// These bits, or none if the fault is planted.
#[inline(always)]
pub(super) fn bits_without(fault: &str, bits: u64) -> u64 {
    if planted(fault) { 0 } else { bits }
}
