//! The orderings of the directory's handshakes, by role, and the steps of its protocol that matter.
//!
//! Under the models each role can be made `Relaxed` by the planted fault of its name, and each step be
//! taken away by its own; a model fails for each.

use std::sync::atomic::Ordering;

macro_rules! roles {
    ($all:ident: $($(#[$doc:meta])* $name:ident = $order:ident;)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            pub(super) fn $name() -> Ordering {
                #[cfg(afterwrite_loom)]
                if crate::sync::mutant(concat!("directory.", stringify!($name))) {
                    return Ordering::Relaxed;
                }
                Ordering::$order
            }
        )*

        #[cfg(afterwrite_loom)]
        const $all: &[&str] = &[$(concat!("directory.", stringify!($name))),*];
    };
}

roles! {
    ROLES:
    /// Publishes a new bucket by counting it. Partner: [`buckets_load`].
    buckets_publish = Release;
    /// Makes every bucket that is counted safe to read. Partner: [`buckets_publish`].
    buckets_load = Acquire;
    /// Publishes a tag word after what made it so. Partner: [`word_load`].
    word_publish = Release;
    /// Orders the second look at the number of buckets after the tags. Partner: [`word_publish`].
    word_load = Acquire;
}

#[cfg(afterwrite_loom)]
roles! {
    STAND_IN_ROLES:
    /// Publishes a snapshot and what came before it. Partner: [`cell_load`].
    cell_swap = AcqRel;
    /// Makes the snapshot readable, and orders the second look at the number of buckets after it.
    /// Partner: [`cell_swap`].
    cell_load = Acquire;
}

/// A split takes keys from their bucket before they are in the new one.
pub(super) const SOURCE_FIRST: &str = "directory.source_first";
/// A reader that found nothing does not look whether a split has moved its key.
pub(super) const NO_SECOND_LOOK: &str = "directory.no_second_look";
/// An insert stores the tag after the snapshot.
pub(super) const SNAPSHOT_FIRST: &str = "directory.snapshot_first";
/// A removal does not ask whether it may.
pub(super) const REMOVE_UNASKED: &str = "directory.remove_unasked";

/// Every fault that can be planted here, so that none is left without a model.
#[cfg(afterwrite_loom)]
pub(super) fn faults() -> Vec<&'static str> {
    let steps = &[SOURCE_FIRST, NO_SECOND_LOOK, SNAPSHOT_FIRST, REMOVE_UNASKED];
    [ROLES, STAND_IN_ROLES, steps].concat()
}

/// Whether the fault is planted: never in a build that ships.
#[cfg(not(afterwrite_loom))]
#[inline(always)]
pub(super) const fn planted(_fault: &str) -> bool {
    false
}

/// Whether the fault is planted.
#[cfg(afterwrite_loom)]
pub(super) fn planted(fault: &str) -> bool {
    crate::sync::mutant(fault)
}
