//! Why a store did not happen, and how often.

use std::sync::atomic::Ordering::Relaxed;

use crossbeam_utils::CachePadded;
use thiserror::Error;

/// Why a value was not stored. The value itself is as good as any read that began when its load did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Refused {
    /// This id was invalidated after the token was taken.
    #[error("the id was invalidated while its value was loaded")]
    Invalidated,
    /// Everything was invalidated after the token was taken.
    #[error("everything was invalidated while the value was loaded")]
    Flushed,
    /// The read came from a view that had not reached the position of an invalidation.
    #[error("the read had seen position {seen}, an invalidation asks for {required}")]
    Behind {
        /// The position that the view has to have reached.
        required: u64,
        /// The position that it had reached.
        seen: u64,
    },
    /// An invalidation carried a position, and the read does not say which it had seen.
    #[error("the read does not say what it had seen, an invalidation asks for position {required}")]
    Unstated {
        /// The position that the view has to have reached.
        required: u64,
    },
    /// The load began too soon after an invalidation for a replica that may lag.
    #[error("the load began too soon after an invalidation")]
    Settling,
    /// The store was made from inside another one's callback, and would have had to wait.
    #[error("a store inside another store's callback would have had to wait")]
    Nested,
}

/// Counts since a [`Fence`](super::Fence) was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FenceStats {
    /// The present epoch; the first is 1.
    pub epoch: u64,
    /// Values stored.
    pub stored: u64,
    /// Ids dropped.
    pub dropped: u64,
    /// Stores refused because the id was invalidated meanwhile.
    pub refused_invalidated: u64,
    /// Stores refused because everything was invalidated meanwhile.
    pub refused_flushed: u64,
    /// Stores refused because the view had not reached a position, or did not state its own.
    pub refused_position: u64,
    /// Stores refused because a lagging replica may not have settled.
    pub refused_settling: u64,
    /// Stores refused because they came from inside a callback.
    pub refused_nested: u64,
}

/// Off the models' books: counters order nothing.
#[derive(Debug, Default)]
struct Counters {
    stored: std::sync::atomic::AtomicU64,
    dropped: std::sync::atomic::AtomicU64,
    refused: [std::sync::atomic::AtomicU64; 5],
}

/// On lines of their own, away from what hits read.
#[derive(Debug, Default)]
pub(super) struct Counts(CachePadded<Counters>);

impl Counts {
    pub(super) fn stored(&self) {
        self.0.stored.fetch_add(1, Relaxed);
    }

    pub(super) fn dropped(&self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self, refused: Refused) -> Refused {
        let slot = match refused {
            Refused::Invalidated => 0,
            Refused::Flushed => 1,
            Refused::Behind { .. } | Refused::Unstated { .. } => 2,
            Refused::Settling => 3,
            Refused::Nested => 4,
        };
        self.0.refused[slot].fetch_add(1, Relaxed);
        refused
    }

    pub(super) fn read(&self, epoch: u64) -> FenceStats {
        let refused = |slot: usize| self.0.refused[slot].load(Relaxed);
        FenceStats {
            epoch,
            stored: self.0.stored.load(Relaxed),
            dropped: self.0.dropped.load(Relaxed),
            refused_invalidated: refused(0),
            refused_flushed: refused(1),
            refused_position: refused(2),
            refused_settling: refused(3),
            refused_nested: refused(4),
        }
    }
}
