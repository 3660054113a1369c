//! Prefixes and entities: names that stand in a subject as they are.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::scan::first_special;
use super::{MAX_ENTITY_LEN, MAX_PREFIX_LEN, Part, SubjectError};

/// The kind of thing that was written: `user`, `order`. One token of a subject.
///
/// Between 1 and [`MAX_ENTITY_LEN`] bytes of visible ASCII without `.`, `*`, `>` and `%`. Cloning
/// is cheap. Hashes and compares as its text does, so that a map keyed by `Entity` can be asked
/// with a `&str`.
///
/// ```
/// use afterwrite::invalidation::subject::Entity;
///
/// let entity = Entity::new("user")?;
/// assert_eq!(entity.as_str(), "user");
/// assert!(Entity::new("user.name").is_err());
/// # Ok::<(), afterwrite::invalidation::subject::SubjectError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity(Arc<str>);

impl Entity {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// [`SubjectError::Empty`], [`SubjectError::TooLong`], or [`SubjectError::Byte`] with the
    /// first byte that an entity cannot carry.
    pub fn new(name: &str) -> Result<Self, SubjectError> {
        EntityRef::new(name).map(EntityRef::to_entity)
    }

    /// The name.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This entity, borrowed.
    #[inline]
    pub fn borrowed(&self) -> EntityRef<'_> {
        EntityRef(&self.0)
    }
}

/// A checked entity that borrows its text: what parsing a subject gives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityRef<'a>(&'a str);

impl<'a> EntityRef<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// Those of [`Entity::new`].
    #[inline]
    pub fn new(name: &'a str) -> Result<Self, SubjectError> {
        const PART: Part = Part::Entity;
        check_len(name, PART, MAX_ENTITY_LEN)?;
        match first_special(name.as_bytes()) {
            None => Ok(Self(name)),
            Some(at) => Err(bad_byte(name, PART, at)),
        }
    }

    /// A name whose bytes the caller has scanned and whose length it has checked.
    #[inline]
    pub(super) const fn checked(name: &'a str) -> Self {
        Self(name)
    }

    /// The name.
    #[inline]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// An owned entity. Allocates.
    pub fn to_entity(self) -> Entity {
        Entity(self.0.into())
    }
}

/// The tokens that every subject of one fleet begins with: `cache.invalidate` by default.
///
/// One or more non-empty tokens, joined by dots, of visible ASCII without `*`, `>` and `%`; at
/// most [`MAX_PREFIX_LEN`] bytes. It does not begin with `$`, where NATS keeps its own subjects.
/// Cloning is cheap.
///
/// ```
/// use afterwrite::invalidation::subject::Prefix;
///
/// assert_eq!(Prefix::default().as_str(), "cache.invalidate");
/// assert!(Prefix::new("shop.cache").is_ok());
/// assert!(Prefix::new("shop..cache").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The prefix and one dot, so that parsing compares once.
    dotted: Arc<str>,
}

impl Prefix {
    /// Checks and keeps a prefix.
    ///
    /// # Errors
    /// [`SubjectError::Empty`] for an empty prefix or token, [`SubjectError::TooLong`], or
    /// [`SubjectError::Byte`] with the first byte that a prefix cannot carry.
    pub fn new(prefix: &str) -> Result<Self, SubjectError> {
        const PART: Part = Part::Prefix;
        check_len(prefix, PART, MAX_PREFIX_LEN)?;
        if prefix.starts_with('$') {
            return Err(bad_byte(prefix, PART, 0));
        }
        let mut begin = 0;
        for token in prefix.split('.') {
            if token.is_empty() {
                return Err(SubjectError::Empty {
                    part: PART,
                    at: begin,
                });
            }
            if let Some(at) = first_special(token.as_bytes()) {
                return Err(bad_byte(prefix, PART, begin + at));
            }
            begin += token.len() + 1;
        }
        Ok(Self {
            dotted: format!("{prefix}.").into(),
        })
    }

    /// The prefix, without the dot that follows it in subjects.
    #[inline]
    pub fn as_str(&self) -> &str {
        self.dotted.strip_suffix('.').unwrap_or(&self.dotted)
    }

    /// The prefix and the dot that follows it.
    #[inline]
    pub(super) fn dotted(&self) -> &str {
        &self.dotted
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self {
            dotted: "cache.invalidate.".into(),
        }
    }
}

/// Refuses an empty or overlong text.
#[inline]
pub(super) fn check_len(text: &str, part: Part, max: usize) -> Result<(), SubjectError> {
    match text.len() {
        0 => Err(SubjectError::Empty { part, at: 0 }),
        len if len > max => {
            let at = max;
            Err(SubjectError::TooLong { part, len, max, at })
        }
        _ => Ok(()),
    }
}

/// The error for the byte at `at`.
#[cold]
pub(super) fn bad_byte(text: &str, part: Part, at: usize) -> SubjectError {
    let byte = text.as_bytes().get(at).copied().unwrap_or_default();
    SubjectError::Byte { part, byte, at }
}

/// What every checked text offers to the standard library's traits.
macro_rules! text_traits {
    ($text:ty) => {
        impl fmt::Debug for $text {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
        impl fmt::Display for $text {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl AsRef<str> for $text {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    };
}
pub(super) use text_traits;

/// How an owned text is made from an unchecked one.
macro_rules! owned_traits {
    ($owned:ty) => {
        impl std::str::FromStr for $owned {
            type Err = SubjectError;

            fn from_str(text: &str) -> Result<Self, SubjectError> {
                Self::new(text)
            }
        }
        impl TryFrom<&str> for $owned {
            type Error = SubjectError;

            fn try_from(text: &str) -> Result<Self, SubjectError> {
                Self::new(text)
            }
        }
    };
}
pub(super) use owned_traits;

/// How a borrowed text is made from an unchecked one.
macro_rules! borrowed_traits {
    ($borrowed:ident) => {
        impl<'a> TryFrom<&'a str> for $borrowed<'a> {
            type Error = SubjectError;

            fn try_from(text: &'a str) -> Result<Self, SubjectError> {
                Self::new(text)
            }
        }
    };
}
pub(super) use borrowed_traits;

text_traits!(Entity);
text_traits!(EntityRef<'_>);
text_traits!(Prefix);
owned_traits!(Entity);
owned_traits!(Prefix);
borrowed_traits!(EntityRef);

impl Borrow<str> for Entity {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl<'a> From<&'a Entity> for EntityRef<'a> {
    fn from(entity: &'a Entity) -> Self {
        entity.borrowed()
    }
}
