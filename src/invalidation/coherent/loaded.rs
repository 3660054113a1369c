//! What a loader answers.

use crate::invalidation::fence::View;

/// A loaded value and what the read that found it had seen.
///
/// A plain `Some(value)` or `None` is a read of unknown view. Where invalidations carry positions,
/// such a read is not stored: the loader then says [`at`](Self::at) which position its replica
/// was, or that it read the [`primary`](Self::primary).
///
/// ```
/// use afterwrite::invalidation::coherent::Loaded;
///
/// // From a replica: take the position before the row, never after.
/// let position = 4711;
/// let row = Some("Ada");
/// let loaded = Loaded::at(row, position);
/// # drop(loaded);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<V> {
    pub(super) value: Option<V>,
    pub(super) view: View,
}

impl<V> Loaded<V> {
    /// Read through a view that had applied everything up to `position` **before** the read.
    pub const fn at(value: Option<V>, position: u64) -> Self {
        Self {
            value,
            view: View::At(position),
        }
    }

    /// Read where writes are made: nothing that was committed before is missing.
    pub const fn primary(value: Option<V>) -> Self {
        Self {
            value,
            view: View::Primary,
        }
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        Self {
            value,
            view: View::Unstated,
        }
    }
}
