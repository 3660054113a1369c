//! From names to subjects and back.

use super::name::check_len;
use super::scan::first_special;
use super::{
    EncodedId, Entity, EntityRef, IdRef, MAX_ENTITY_LEN, MAX_SUBJECT_LEN, Part, Pattern, Prefix,
    Subject, SubjectError,
};

const ALL: &str = "%-all";
const BATCH: &str = "%-batch";
const CONTROL: &str = "%-c";

/// What a subject under a [`Prefix`] addresses. Borrows the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address<'a> {
    /// `<prefix>.<entity>.<id>`: one id.
    One {
        /// The kind of thing.
        entity: EntityRef<'a>,
        /// The thing, still encoded.
        id: EncodedId<'a>,
    },
    /// `<prefix>.<entity>.%-all`: every id of the entity.
    All {
        /// The kind of thing.
        entity: EntityRef<'a>,
    },
    /// `<prefix>.<entity>.%-batch`: the ids are in the payload.
    Batch {
        /// The kind of thing.
        entity: EntityRef<'a>,
    },
    /// `<prefix>.%-c.<incarnation>`: beats and goodbyes of one incarnation of a node.
    Control {
        /// The sender's incarnation.
        incarnation: u64,
    },
}

impl Prefix {
    /// Parses a subject under this prefix. Allocates nothing.
    ///
    /// ```
    /// use afterwrite::invalidation::subject::{Address, Prefix};
    ///
    /// let prefix = Prefix::default();
    /// let Address::One { entity, id } = prefix.parse("cache.invalidate.user.a%2Eb")? else {
    ///     panic!("an id");
    /// };
    /// assert_eq!((entity.as_str(), &*id.decode()), ("user", "a.b"));
    /// # Ok::<(), afterwrite::invalidation::subject::SubjectError>(())
    /// ```
    ///
    /// # Errors
    /// [`SubjectError`], its position counted from the beginning of `subject`.
    #[inline]
    pub fn parse<'a>(&self, subject: &'a str) -> Result<Address<'a>, SubjectError> {
        let Some(rest) = subject.strip_prefix(self.dotted()) else {
            return Err(self.differs(subject));
        };
        let begin = self.dotted().len();
        let stop = first_special(rest.as_bytes()).unwrap_or(rest.len());
        // The only special byte that may end an entity is the dot, which is ASCII, so that
        // cutting there cannot split a character.
        let (Some(name), Some(b'.')) = (rest.get(..stop), rest.as_bytes().get(stop)) else {
            return parse_unusual(rest, stop).map_err(|error| error.moved(begin));
        };
        let token = rest.get(stop + 1..).unwrap_or_default();
        check_len(name, Part::Entity, MAX_ENTITY_LEN).map_err(|error| error.moved(begin))?;
        let entity = EntityRef::checked(name);
        match EncodedId::new(token) {
            Ok(id) => Ok(Address::One { entity, id }),
            Err(error) => {
                parse_reserved(entity, token, error).map_err(|error| error.moved(begin + stop + 1))
            }
        }
    }

    /// Formats the subject of one id into `buf`, whose former contents are lost. Allocates only
    /// if `buf` has too little room; for many ids of one entity [`Prefix::topic`] is quicker.
    #[inline]
    pub fn one<'b>(
        &self,
        entity: EntityRef<'_>,
        id: IdRef<'_>,
        buf: &'b mut String,
    ) -> Subject<'b> {
        buf.clear();
        buf.push_str(self.dotted());
        buf.push_str(entity.as_str());
        buf.push('.');
        id.encode_into(buf);
        Subject::checked(buf)
    }

    /// Formats the control subject of an incarnation into `buf`: sixteen lower-case hexadecimal
    /// digits. Allocates only if `buf` has too little room.
    pub fn control<'b>(&self, incarnation: u64, buf: &'b mut String) -> Subject<'b> {
        buf.clear();
        buf.push_str(self.dotted());
        buf.push_str(CONTROL);
        buf.push('.');
        for shift in (0..64).step_by(4).rev() {
            buf.push(char::from_digit((incarnation >> shift) as u32 & 15, 16).unwrap_or('0'));
        }
        Subject::checked(buf)
    }

    /// The subjects of one entity, formatted as far as they can be in advance. Allocates.
    pub fn topic(&self, entity: &Entity) -> Topic {
        let stem = format!("{}{entity}.", self.dotted());
        Topic {
            all: format!("{stem}{ALL}").into(),
            batch: format!("{stem}{BATCH}").into(),
            stem: stem.len(),
            entity: entity.clone(),
        }
    }

    /// `<prefix>.>`: everything that is published under this prefix. Allocates.
    pub fn everything(&self) -> Pattern {
        Pattern::checked(format!("{}>", self.dotted()))
    }

    /// `<prefix>.%-c.*`: the control subjects of all incarnations. Allocates.
    pub fn beats(&self) -> Pattern {
        Pattern::checked(format!("{}{CONTROL}.*", self.dotted()))
    }

    #[cold]
    fn differs(&self, subject: &str) -> SubjectError {
        let same = |(ours, theirs): &(u8, u8)| ours == theirs;
        let at = self.dotted().bytes().zip(subject.bytes());
        let at = at.take_while(same).count();
        let byte = subject.as_bytes().get(at).copied();
        SubjectError::OtherPrefix { at, byte }
    }
}

/// What follows the prefix does not begin with an entity and a dot: a control subject, or wrong.
#[cold]
fn parse_unusual(rest: &str, stop: usize) -> Result<Address<'_>, SubjectError> {
    let bytes = rest.as_bytes();
    match bytes.get(stop) {
        Some(b'%') if stop == 0 => match rest.split_once('.') {
            Some((CONTROL, digits)) => match incarnation(digits) {
                Ok(incarnation) => Ok(Address::Control { incarnation }),
                Err(error) => Err(error.moved(CONTROL.len() + 1)),
            },
            _ if bytes.get(1) == Some(&b'-') => Err(SubjectError::Reserved { at: 0 }),
            _ => Err(SubjectError::Byte {
                part: Part::Entity,
                byte: b'%',
                at: 0,
            }),
        },
        Some(&byte) => Err(SubjectError::Byte {
            part: Part::Entity,
            byte,
            at: stop,
        }),
        None if stop == 0 => Err(SubjectError::Empty {
            part: Part::Entity,
            at: 0,
        }),
        None => Err(SubjectError::Empty {
            part: Part::Id,
            at: stop,
        }),
    }
}

/// A token that is no id: one of the reserved ones, or the id's own error.
#[cold]
fn parse_reserved<'a>(
    entity: EntityRef<'a>,
    token: &str,
    error: SubjectError,
) -> Result<Address<'a>, SubjectError> {
    match token {
        ALL => Ok(Address::All { entity }),
        BATCH => Ok(Address::Batch { entity }),
        _ => Err(error),
    }
}

/// Sixteen lower-case hexadecimal digits.
fn incarnation(digits: &str) -> Result<u64, SubjectError> {
    const PART: Part = Part::Incarnation;
    const LEN: usize = 16;
    let mut value = 0;
    for (at, byte) in digits.bytes().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => {
                return Err(SubjectError::Byte {
                    part: PART,
                    byte,
                    at,
                });
            }
        };
        if at == LEN {
            return Err(SubjectError::TooLong {
                part: PART,
                len: digits.len(),
                max: LEN,
                at,
            });
        }
        value = value << 4 | u64::from(digit);
    }
    match digits.len() {
        LEN => Ok(value),
        len => Err(SubjectError::TooShort {
            part: PART,
            len,
            min: LEN,
            at: len,
        }),
    }
}

/// The subjects of one entity under one prefix, ready but for the id.
///
/// ```
/// use afterwrite::invalidation::subject::{Entity, IdRef, Prefix};
///
/// let topic = Prefix::default().topic(&Entity::new("user")?);
/// let mut buf = String::new();
/// assert_eq!(topic.one(IdRef::new("42")?, &mut buf).as_str(), "cache.invalidate.user.42");
/// assert_eq!(topic.all().as_str(), "cache.invalidate.user.%-all");
/// # Ok::<(), afterwrite::invalidation::subject::SubjectError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Topic {
    entity: Entity,
    all: Box<str>,
    batch: Box<str>,
    /// The length of `<prefix>.<entity>.`, with which both texts begin.
    stem: usize,
}

impl Topic {
    /// The entity.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// Formats the subject of one id into `buf`, whose former contents are lost. Allocates only
    /// if `buf` has too little room; [`Topic::buffer`] gives one that never has.
    #[inline]
    pub fn one<'b>(&self, id: IdRef<'_>, buf: &'b mut String) -> Subject<'b> {
        buf.clear();
        buf.push_str(self.all.get(..self.stem).unwrap_or_default());
        id.encode_into(buf);
        Subject::checked(buf)
    }

    /// The subject that drops every id.
    #[inline]
    pub fn all(&self) -> Subject<'_> {
        Subject::checked(&self.all)
    }

    /// The subject of frames that carry many ids.
    #[inline]
    pub fn batch(&self) -> Subject<'_> {
        Subject::checked(&self.batch)
    }

    /// An empty buffer with room for the longest subject.
    pub fn buffer() -> String {
        String::with_capacity(MAX_SUBJECT_LEN)
    }
}
