//! What an invalidation reaches: anything that can drop one id, or everything.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::fence::Stamp;

/// Something that keeps values by id and has to let go of them.
///
/// Calls may come from any thread, several at once. They hold up those who invalidate, and nobody
/// else; they should drop and return. A panic is caught, and treated as [`Unfinished`].
///
/// An [`Arc`] of a `Cache` is one as well, so that its readers can keep a handle to it. A closure is a
/// `Cache` too:
///
/// ```
/// use afterwrite::invalidation::cache::Invalidation;
/// use afterwrite::invalidation::target::Target;
///
/// let target = Target::new(|what: Invalidation<'_>| match what {
///     Invalidation::One(id) => println!("drop {id}"),
///     Invalidation::All(reason) => println!("drop everything: {reason}"),
/// });
/// # drop(target);
/// ```
pub trait Cache: Send + Sync + 'static {
    /// Lets go of what is kept for `id`, if anything.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when the value may still be there, as with a cache on another machine.
    /// Everything older than this call is then bypassed.
    fn remove(&self, id: &str) -> Result<(), Unfinished>;

    /// Lets go of everything. It may also drop what is stored while it runs.
    ///
    /// Called when a doubt ends, when somebody asked for it, and when this watch's queue was full. A
    /// cache without a fence that its hits ask ([`Target::new`](super::target::Target::new), a closure)
    /// is called when a doubt begins as well.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when something may still be there. The cache then stays `Suspect`, and
    /// is asked again.
    fn clear(&self, reason: Reason) -> Result<(), Unfinished>;
}

/// A [`Cache`] that loads can be stored in, for [`Coherent`](super::coherent::Coherent).
///
/// It keeps each [`Entry`] as it is, and hands it out again; whether it may still be served is not
/// its concern. It may forget entries at any time.
pub trait Store: Cache {
    /// What is kept, cloned on every hit. Wrap what is expensive to clone in an `Arc`.
    type Value: Clone + Send + Sync + 'static;

    /// The entry kept for `id`.
    fn get(&self, id: &str) -> Option<Entry<Self::Value>>;

    /// Keeps `entry` for `id`, in place of an older one. Called under the fence's lock for `id`.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when it may become visible only after this call returned. Everything older
    /// than this call is then bypassed, and so is this entry.
    fn insert(&self, id: &str, entry: Entry<Self::Value>) -> Result<(), Unfinished>;
}

/// A value, or the knowledge that there is none, with the stamp that tells how long it holds.
///
/// Only a fence's store makes one, so that nothing gets into a cache around the fence.
#[derive(Clone)]
pub struct Entry<V>(Kept<V>);

/// Which of the two it is stands in a niche, the stamp's unless the value has a larger one: an entry is as long
/// as stamp and value.
#[derive(Clone)]
enum Kept<V> {
    Value(Stamp, V),
    Nothing(Stamp),
}

impl<V> Entry<V> {
    #[inline]
    pub(crate) fn new(stamp: Stamp, value: Option<V>) -> Self {
        Self(match value {
            Some(value) => Kept::Value(stamp, value),
            None => Kept::Nothing(stamp),
        })
    }

    #[inline]
    pub(crate) const fn stamp(&self) -> &Stamp {
        let (Kept::Value(stamp, _) | Kept::Nothing(stamp)) = &self.0;
        stamp
    }

    #[inline]
    pub(crate) fn into_value(self) -> Option<V> {
        match self.0 {
            Kept::Value(_, value) => Some(value),
            Kept::Nothing(_) => None,
        }
    }

    /// What the loader answered; `None` when it found nothing. For a cache's weigher: it says
    /// nothing about whether the entry may be served.
    pub const fn value(&self) -> Option<&V> {
        match &self.0 {
            Kept::Value(_, value) => Some(value),
            Kept::Nothing(_) => None,
        }
    }
}

impl<V> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("stamp", self.stamp())
            .field("absent", &self.value().is_none())
            .finish_non_exhaustive()
    }
}

/// A cache could not do, or not yet, what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the cache could not finish")]
pub struct Unfinished;

/// What a watcher is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation<'a> {
    /// The value of this id has changed.
    One(&'a str),
    /// Any value may have changed.
    All(Reason),
}

/// Why everything is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Somebody asked for it.
    Requested,
    /// This node has joined: what it holds is older than what it heard.
    Joined,
    /// The connection was lost and made again.
    Reconnected,
    /// A publisher's frames have a gap.
    Gap,
    /// A queue on this node was full.
    Overflow,
    /// A publisher was silent for longer than its lease.
    PublisherSilent,
    /// A publisher holds a write whose outcome is not known.
    Unsettled,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "requested",
            Self::Joined => "joined",
            Self::Reconnected => "reconnected",
            Self::Gap => "gap",
            Self::Overflow => "overflow",
            Self::PublisherSilent => "publisher silent",
            Self::Unsettled => "unsettled write",
        })
    }
}

/// Drops from the one inside, so that its owner can keep a handle to it.
impl<C: Cache + ?Sized> Cache for Arc<C> {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        (**self).remove(id)
    }

    fn clear(&self, reason: Reason) -> Result<(), Unfinished> {
        (**self).clear(reason)
    }
}

/// Keeps in the one inside, so that its owner can keep a handle to it.
impl<S: Store + ?Sized> Store for Arc<S> {
    type Value = S::Value;

    fn get(&self, id: &str) -> Option<Entry<S::Value>> {
        (**self).get(id)
    }

    fn insert(&self, id: &str, entry: Entry<S::Value>) -> Result<(), Unfinished> {
        (**self).insert(id, entry)
    }
}

impl<F> Cache for F
where
    F: Fn(Invalidation<'_>) + Send + Sync + 'static,
{
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self(Invalidation::One(id));
        Ok(())
    }

    fn clear(&self, reason: Reason) -> Result<(), Unfinished> {
        self(Invalidation::All(reason));
        Ok(())
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;
    use crate::invalidation::fence::Fence;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_entry_is_as_long_as_stamp_and_value() {
        assert_eq!(size_of::<Entry<u64>>(), size_of::<Stamp>() + 8);
        assert_eq!(
            size_of::<Entry<String>>(),
            size_of::<Stamp>() + size_of::<String>()
        );
        assert_eq!(
            size_of::<Entry<Arc<u64>>>(),
            size_of::<Stamp>() + size_of::<Arc<u64>>()
        );
    }

    #[test]
    fn an_entry_gives_back_what_it_was_made_of() {
        let stamp = Fence::new().token("any").store(|stamp| stamp).unwrap();
        for value in [Some(7), None] {
            let entry = Entry::new(stamp, value);
            assert_eq!((entry.stamp(), entry.value()), (&stamp, value.as_ref()));
            assert_eq!(entry.into_value(), value);
        }
    }
}
