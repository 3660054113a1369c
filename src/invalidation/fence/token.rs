//! What a load takes before it reads, and what its result is stored with.

use std::fmt;
use std::num::NonZeroU64;

use super::{Fence, Refused};

/// What a fence looked like before a read: compared when the result is to be stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) stripe: usize,
    pub(crate) version: u64,
    pub(crate) epoch: u64,
    /// When the load began, in nanoseconds of the fence's clock.
    pub(crate) began: u64,
}

impl Mark {
    /// Whether nothing was dropped between the two, as far as this id can tell.
    pub(crate) const fn same(&self, other: &Self) -> bool {
        self.stripe == other.stripe && self.version == other.version && self.epoch == other.epoch
    }

    /// What a value is kept with whose load began at this mark.
    pub(crate) const fn stamp(&self) -> Stamp {
        Stamp {
            epoch: match NonZeroU64::new(self.epoch) {
                Some(epoch) => epoch,
                // Never: the first is 1. This is above the 60 bits of an epoch, so it would not be served.
                None => NonZeroU64::MAX,
            },
            began: self.began,
        }
    }
}

/// Permission to store one id's value, taken **before** that value is read.
///
/// It borrows its fence, so it can't be used with another one. Dropping it costs nothing.
#[must_use = "a token guards a store; take it before the read, store through it after"]
pub struct Token<'a> {
    pub(crate) fence: &'a Fence,
    pub(crate) mark: Mark,
}

impl Token<'_> {
    /// Stores, unless this id or everything was invalidated since the token was taken.
    ///
    /// `insert` runs under the lock that an invalidation of this id takes too, so that no drop can
    /// slip in between the check and the insertion. It should only insert: what it does holds up
    /// drops of the ids that share the lock, one in 1,024. Its [`Stamp`] has to be kept
    /// with the value and shown to [`Fence::serves`] on each hit.
    ///
    /// May block for as long as another insertion on the same lock lasts.
    ///
    /// # Errors
    ///
    /// [`Refused`] says why nothing was stored; `insert` then did not run.
    pub fn store<R>(self, insert: impl FnOnce(Stamp) -> R) -> Result<R, Refused> {
        self.fence.store(&self.mark, View::Unstated, insert)
    }

    /// As [`store`](Self::store), for a read whose [`View`] is known.
    ///
    /// # Errors
    ///
    /// [`Refused`], also when the view has not reached the position that a drop was stamped with.
    pub fn store_seen<R>(self, view: View, insert: impl FnOnce(Stamp) -> R) -> Result<R, Refused> {
        self.fence.store(&self.mark, view, insert)
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("mark", &self.mark).finish()
    }
}

/// Which writes a read has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Not known. Refused once an invalidation has carried a position, unless the fence
    /// [settles](Fence::with_settle).
    #[default]
    Unstated,
    /// A replica that had applied everything up to this position (an event number, an LSN).
    At(u64),
    /// The place where writes are made: it has seen all that was committed before the read began.
    Primary,
}

/// Kept with each stored value; tells whether it may still be served. See [`Fence::serves`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The first is 1. Not 0, so that what is kept with a value has a niche.
    pub(crate) epoch: NonZeroU64,
    pub(crate) began: u64,
}
