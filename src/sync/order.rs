//! Every memory ordering above `Relaxed`, as a named role.
//!
//! A role says which operation it orders and which operation it pairs with, so that an ordering
//! is argued once and used by name. Under the model checker each role can be weakened from
//! outside (`AFTERWRITE_MUTANT=<role>`, or `<role>:acquire` and `<role>:release` for the halves of
//! an `AcqRel`), and for each a named model in `loom-tests` then fails, but for nine: of `turn_owe`,
//! `lost_count`, `lost_read`, `bell_pass`, `load_written`, `load_read`, `refusal_list`, `handed_down` and `handed_read` it is said
//! where they are why none can, and what they rest on. `loom-tests` lists all of them by name, so that a
//! new one is not left out unnoticed.

use crate::sync::Ordering;

macro_rules! roles {
    ($all:ident: $($(#[doc = $doc:literal])+ $name:ident = $ordering:ident;)+) => {
        $(
            $(#[doc = $doc])+
            #[inline(always)]
            pub(crate) fn $name() -> Ordering {
                #[cfg(afterwrite_loom)]
                return weakened(stringify!($name), Ordering::$ordering);
                #[cfg(not(afterwrite_loom))]
                Ordering::$ordering
            }
        )+

        /// Every role and its full strength, for the models that weaken them one by one.
        #[cfg(afterwrite_loom)]
        pub const $all: &[(&str, Ordering)] = &[$((stringify!($name), Ordering::$ordering)),+];
    };
}

#[cfg(afterwrite_loom)]
fn weakened(role: &str, full: Ordering) -> Ordering {
    use crate::sync::mutant;
    if mutant(role) {
        Ordering::Relaxed
    } else if full == Ordering::AcqRel && mutant(&format!("{role}:acquire")) {
        Ordering::Release
    } else if full == Ordering::AcqRel && mutant(&format!("{role}:release")) {
        Ordering::Acquire
    } else {
        full
    }
}

roles! {
    ROLES:

    /// A pusher takes the turn: sees what the last holder left in the entries, every `live` and
    /// `waiting` bit whose owner came by the turn before, and every cleared one.
    turn_acquire = Acquire;
    /// The holder gives the turn back: its deliveries and entries become the next holder's and
    /// are complete for whoever reads the ticket.
    turn_leave = Release;
    /// The holder answers flags (sweep, owed, attention): sees what was asked for, and says that
    /// its deliveries are complete.
    turn_answer = AcqRel;
    /// A loss or a shutdown is left with the holder, or takes the turn itself; what it needs of
    /// earlier holders it sees by `turn_answer`, which comes next. That the holder's swap of the debt
    /// finds the loser's addition needs this Release: the checker cannot show it, since its
    /// read-modify-writes see every store that was executed.
    turn_owe = Release;
    /// A subscriber comes by after it set `live`: later holders see the bit.
    turn_join = Release;
    /// A closer comes by after it cleared `live`: later holders see it cleared, and, when the turn
    /// is free, every delivery of earlier holders is visible to whoever drains the mailbox.
    turn_retire = AcqRel;
    /// A receiver comes by before it sleeps: later holders see that it waits. What earlier ones
    /// delivered its last look sees by `turn_read`.
    turn_wait = Release;
    /// A receiver that found nothing reads how far the tickets are: whatever they delivered here
    /// is visible to its second look.
    turn_read = Acquire;

    /// Losses that have their tickets show in the key's count; pairs with `lost_read`. What the pair orders is
    /// that count and the subscriber's own read-modify-write of the turn, which the checker lets see every
    /// store that was executed, so no model can tell.
    lost_count = Release;
    /// A subscriber reads how many losses there were before it.
    lost_read = Acquire;

    /// A payload is in its slot; pairs with `stamp_take`.
    stamp_publish = Release;
    /// The receiver finds a payload in the slot.
    stamp_take = Acquire;
    /// The receiver is done with a slot; pairs with `head_reload`.
    head_release = Release;
    /// The pusher looks whether slots have come free.
    head_reload = Acquire;

    /// The pusher swaps a record in and the evicted one (or the receiver's spare) out.
    record_swap = AcqRel;
    /// The receiver claims a record and leaves its spare.
    record_claim = AcqRel;

    /// A push of nothing is marked in a mailbox that conflates; pairs with `mark_take`.
    mark_publish = Release;
    /// The receiver finds the mark.
    mark_take = Acquire;

    /// An entry is initialised; pairs with `live_read`, for a walk that is already under way.
    live_set = Release;
    /// The walk finds an entry.
    live_read = Acquire;
    /// A chunk is initialised; pairs with `chunk_read`.
    chunk_link = Release;
    /// The walk goes on to a chunk.
    chunk_read = Acquire;

    /// A closer lists a mailbox; pairs with `retired_take`, also before its flag is raised.
    retired_put = Release;
    /// The retired mailboxes are taken off their list.
    retired_take = Acquire;
    /// A mailbox is handed to the writers by the holder that swept it; pairs with `swept_take`.
    swept_put = Release;
    /// A writer takes the swept mailboxes.
    swept_take = Acquire;
    /// The last of {the consumer left, no push can touch it} drains: it must see all the other did.
    settle = AcqRel;
    /// One reference to a mailbox less; the last frees it and must see every other's use.
    refs_drop = AcqRel;

    /// A receiver begins to exchange its waker: sees what the last taker did with the cell.
    waker_register = Acquire;
    /// A receiver's waker is in its cell; pairs with `waker_take`. What a taker that came meanwhile
    /// announces is seen at the next `waker_register`, by the release sequence.
    waker_registered = Release;
    /// A waker is taken: sees the waker, and shows the receiver what happened before the wake.
    waker_take = AcqRel;
    /// The taker is done with the cell.
    waker_taken = Release;

    /// The first notice of a gated subscription is in its place; pairs with `first_read`.
    first_fill = Release;
    /// The receiver looks for its first notice.
    first_read = Acquire;
}

// What the last six order stands behind crossbeam's list or its cell, for which the models have
// locks, or else is a read-modify-write that the checker lets see the last store: no model can tell
// them from `Relaxed`. ThreadSanitizer and the stress tests see the real ones. The pair for figures
// concerns no promise.
roles! {
    SHARD_ROLES:

    /// Work was left for a shard; pairs with `bell_take`. Who finds it asleep sees its name, by
    /// `bell_sleep`, and who comes after a shard's last look sees that it was the last, by `bell_pass`.
    bell_ring = AcqRel;
    /// A shard that has named itself goes to sleep.
    bell_sleep = Release;
    /// The shard takes the bits, and sees the work they stand for.
    bell_take = Acquire;
    /// A gate may be listed (again), or is: both sides of one exchange.
    ready_mark = AcqRel;
    /// A shard that says it has ended passes by the bell before its last look at what was refused: of
    /// it and a refuser, who rings, one sees the other.
    bell_pass = AcqRel;
    /// The shard moves jobs between queue, hand and waiting, each counted in the next place first; pairs
    /// with `load_read`. Both for the figures in `Stats` alone.
    load_written = Release;
    /// Somebody asks how many there are in each.
    load_read = Acquire;
    /// A key with a refused producer is listed, or taken off the list.
    refusal_list = AcqRel;
    /// A handed-over payload has been pushed; pairs with `handed_read`.
    handed_down = Release;
    /// A publisher looks whether it would overtake handed-over payloads.
    handed_read = Acquire;
}

roles! {
    ARENA_ROLES:

    /// A slot is given back; pairs with `slot_take`.
    slot_give = Release;
    /// Given-back slots are taken off their list: what was done with them is over.
    slot_take = Acquire;
    /// One who had to do with a pool less; the last frees it and must see every other's use.
    pool_settle = AcqRel;
    /// One handle to a value less; the last drops it and must see every other's use.
    shared_drop = AcqRel;
}
