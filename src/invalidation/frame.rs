//! What a stamped message carries: the frame.
//!
//! # Role
//! A frame rides as the payload of a message. Its subject says *what* is to be dropped; the frame
//! says *which one it is* among all that its publisher ever sent, so that a receiver can tell that
//! one is missing. A payload that does not begin with the magic is no frame: it comes from a plain
//! publisher, and the subject alone counts.
//!
//! # Layout
//! Integers are LEB128, unsigned, in their shortest form.
//!
//! ```text
//! AF 57 | version:4 kind:4 | flags | incarnation: 8 bytes, big-endian | sequence | sent | [position] | body
//!
//! kind 0 one, 1 all   body: empty
//! kind 2 batch        body: count, (length, id)*
//! kind 3 beat, 4 bye  body: (length, name), lease,
//!                           count, (incarnation, sent, held)*             echoes
//!                           count, (length, entity, mark, position, unsettled)*
//! ```
//!
//! | flag | bit | meaning |
//! |---|---|---|
//! | position | 0 | a position follows `sent`: the highest handed over for the entity so far |
//! | floor | 3 | that position is one of earlier frames; this frame's own is not known |
//! | solicit | 1 | whoever reads this beat is asked to echo it in one of its own |
//! | reader | 2 | the sender only watches: it never emits, so its silence hides nothing |
//!
//! A position that is not a floor covers the frame: whoever has read that far has seen what it tells of.
//! Of a frame with a floor, or with no position, only time tells.
//!
//! Times are microseconds: `sent` and an echo's `sent` since the incarnation that they belong to
//! began, `lease` and `held` as spans.
//!
//! # Hostile bytes
//! [`Frame::decode`] checks everything before it hands out anything, borrows from the payload and
//! allocates nothing; the iterators over a decoded body therefore cannot fail. Every count is
//! bounded by the bytes that are there. Times are bounded so that sums of a few of them fit an
//! `i64`. Unknown flags, versions and kinds, padded integers and left-over bytes are errors: two
//! different payloads never decode to the same frame.

use thiserror::Error;

use super::subject::{EntityRef, IdRef, MAX_ENTITY_LEN, MAX_ID_LEN};

mod leb128;
#[cfg(any(test, fuzzing))]
#[allow(unreachable_pub)] // Public to the fuzzer alone.
pub mod mirror;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use write::{BatchWriter, BeatWriter, write_all, write_batch, write_one};

/// The first two bytes of every frame.
pub(crate) const MAGIC: [u8; 2] = [0xAF, 0x57];
/// The version that this code writes and reads.
const VERSION: u8 = 1;
/// No time on the wire may exceed this: some 36,000 years in microseconds.
pub(crate) const MAX_MICROS: u64 = 1 << 60;
/// The longest name of a publisher, in bytes.
pub(crate) const MAX_NAME: usize = 128;

/// The bits of the flags byte.
pub(crate) mod flag {
    /// A position follows `sent`.
    pub(crate) const POSITION: u8 = 1;
    /// Receivers are asked for an echo.
    pub(crate) const SOLICIT: u8 = 1 << 1;
    /// The sender never emits.
    pub(crate) const READER: u8 = 1 << 2;
    /// The position is that of earlier frames.
    pub(crate) const FLOOR: u8 = 1 << 3;
    /// All that this version knows.
    pub(super) const KNOWN: u8 = POSITION | SOLICIT | READER | FLOOR;
}

/// One life of one publisher: eight random bytes, drawn when it starts.
///
/// Shown as the sixteen hexadecimal digits that end its control subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub(crate) u64);

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

/// What kind of message a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    One = 0,
    All = 1,
    Batch = 2,
    Beat = 3,
    Bye = 4,
}

/// What every frame begins with, magic and version aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) incarnation: Incarnation,
    /// The frame's number: per entity for data, per incarnation for beats. The first is 1.
    pub(crate) sequence: u64,
    /// When it was sent, on its publisher's clock.
    pub(crate) sent: u64,
    pub(crate) position: Option<Position>,
}

/// The highest position handed over for an entity so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Position {
    /// What this frame tells of is visible from here on.
    Own(u64),
    /// It is that of earlier frames. Nobody knows from where on what this frame tells of is visible.
    Floor(u64),
}

impl Position {
    /// The highest of all, this frame's included.
    pub(crate) const fn highest(self) -> u64 {
        let (Self::Own(position) | Self::Floor(position)) = self;
        position
    }
}

impl Header {
    /// A frame's own position and the highest of those before it, as one.
    pub(crate) fn position(own: Option<u64>, before: Option<u64>) -> Option<Position> {
        match own {
            Some(own) => Some(Position::Own(before.map_or(own, |before| before.max(own)))),
            None => before.map(Position::Floor),
        }
    }

    /// From where on what this frame tells of is visible, if it says so.
    pub(crate) fn own_position(&self) -> Option<u64> {
        match self.position {
            Some(Position::Own(position)) => Some(position),
            Some(Position::Floor(_)) | None => None,
        }
    }

    /// The highest position handed over so far.
    pub(crate) fn highest_position(&self) -> Option<u64> {
        self.position.map(Position::highest)
    }
}

/// A decoded frame; bodies borrow from the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: Header,
    pub(crate) body: Body<'a>,
}

/// What follows the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Body<'a> {
    One,
    All,
    Batch(Ids<'a>),
    Beat(Beat<'a>),
    Bye(Beat<'a>),
}

/// The body of a beat or a goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Beat<'a> {
    pub(crate) solicit: bool,
    pub(crate) reader: bool,
    pub(crate) name: &'a str,
    /// How long this beat vouches for its publisher, from its sending.
    pub(crate) lease: u64,
    echoes: List<'a>,
    marks: List<'a>,
}

impl<'a> Beat<'a> {
    pub(crate) fn echoes(&self) -> impl Iterator<Item = Echo> + use<'a> {
        self.echoes.items(read_echo)
    }

    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark<'a>> + use<'a> {
        self.marks.items(read_mark)
    }
}

/// "Your beat sent at `sent` reached me `held` before I sent this."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Echo {
    pub(crate) incarnation: Incarnation,
    pub(crate) sent: u64,
    pub(crate) held: u64,
}

/// How far a publisher has got with one entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark<'a> {
    pub(crate) entity: EntityRef<'a>,
    /// The highest sequence given out.
    pub(crate) mark: u64,
    /// The highest position handed over; 0 when there was none.
    pub(crate) position: u64,
    /// Guards that have been open for longer than the write limit.
    pub(crate) unsettled: u64,
}

/// The ids of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ids<'a>(List<'a>);

impl<'a> Ids<'a> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = IdRef<'a>> + use<'a> {
        self.0.items(Reader::id)
    }
}

/// A counted list whose bytes have been checked to decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct List<'a> {
    count: u64,
    bytes: &'a [u8],
}

impl<'a> List<'a> {
    fn items<T>(
        self,
        read: impl Fn(&mut Reader<'a>) -> Result<T, FrameError>,
    ) -> impl Iterator<Item = T> {
        let mut reader = Reader { rest: self.bytes };
        let mut left = self.count;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            read(&mut reader).ok()
        })
    }
}

/// Why a payload that begins with the magic is not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum FrameError {
    #[error("the frame ends in the middle of a field")]
    Truncated,
    #[error("version {0} is unknown")]
    Version(u8),
    #[error("kind {0} is unknown")]
    Kind(u8),
    #[error("flags {0:#04x} are unknown, or out of place")]
    Flags(u8),
    #[error("an integer is padded or over 64 bits")]
    Integer,
    #[error("a time is out of range")]
    Time,
    #[error("a sequence of 0")]
    Sequence,
    #[error("a name, entity or id is empty, too long or not well formed")]
    Text,
    #[error("a count is larger than what follows could hold")]
    Count,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
}

impl<'a> Frame<'a> {
    /// Whether a payload claims to be a frame; anything else is a plain message.
    #[inline]
    pub(crate) fn is_stamped(payload: &[u8]) -> bool {
        payload.starts_with(&MAGIC)
    }

    /// Decodes a payload that [`is_stamped`](Self::is_stamped).
    #[inline]
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader {
            rest: payload.get(MAGIC.len()..).ok_or(FrameError::Truncated)?,
        };
        let tag = reader.byte()?;
        if tag >> 4 != VERSION {
            return Err(FrameError::Version(tag >> 4));
        }
        let flags = reader.byte()?;
        if flags & !flag::KNOWN != 0 {
            return Err(FrameError::Flags(flags));
        }
        let incarnation = reader.incarnation()?;
        let sequence = reader.integer()?;
        if sequence == 0 {
            return Err(FrameError::Sequence);
        }
        let sent = reader.time()?;
        let position = match (flags & flag::POSITION, flags & flag::FLOOR) {
            (0, 0) => None,
            (0, _) => return Err(FrameError::Flags(flags)),
            (_, 0) => Some(Position::Own(reader.integer()?)),
            _ => Some(Position::Floor(reader.integer()?)),
        };
        let data_flags = flags & (flag::SOLICIT | flag::READER) == 0;
        let body = match tag & 0x0F {
            0 if data_flags => Body::One,
            1 if data_flags => Body::All,
            2 if data_flags => Body::Batch(Ids(reader.list(Reader::id)?)),
            0..=2 => return Err(FrameError::Flags(flags)),
            3 if position.is_none() => Body::Beat(reader.beat(flags)?),
            4 if position.is_none() => Body::Bye(reader.beat(flags)?),
            3 | 4 => return Err(FrameError::Flags(flags)),
            kind => return Err(FrameError::Kind(kind)),
        };
        match reader.rest.len() {
            0 => Ok(Self {
                header: Header {
                    incarnation,
                    sequence,
                    sent,
                    position,
                },
                body,
            }),
            left => Err(FrameError::LeftOver(left)),
        }
    }
}

/// Takes fields off the front of a byte slice.
#[derive(Clone, Copy)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    fn byte(&mut self) -> Result<u8, FrameError> {
        let (&first, rest) = self.rest.split_first().ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    fn integer(&mut self) -> Result<u64, FrameError> {
        let (value, rest) = leb128::read(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    #[inline]
    fn time(&mut self) -> Result<u64, FrameError> {
        match self.integer()? {
            time if time <= MAX_MICROS => Ok(time),
            _ => Err(FrameError::Time),
        }
    }

    #[inline]
    fn incarnation(&mut self) -> Result<Incarnation, FrameError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<8>()
            .ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(Incarnation(u64::from_be_bytes(*bytes)))
    }

    /// A length and that many bytes of UTF-8, at least one and at most `limit`.
    fn text(&mut self, limit: usize) -> Result<&'a str, FrameError> {
        let length = usize::try_from(self.integer()?).map_err(|_| FrameError::Text)?;
        if length == 0 || length > limit {
            return Err(FrameError::Text);
        }
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(FrameError::Truncated)?;
        self.rest = rest;
        std::str::from_utf8(bytes).map_err(|_| FrameError::Text)
    }

    fn id(&mut self) -> Result<IdRef<'a>, FrameError> {
        let text = self.text(MAX_ID_LEN)?;
        IdRef::new(text).map_err(|_| FrameError::Text)
    }

    fn entity(&mut self) -> Result<EntityRef<'a>, FrameError> {
        let text = self.text(MAX_ENTITY_LEN)?;
        EntityRef::new(text).map_err(|_| FrameError::Text)
    }

    /// A count and that many items, each of which is checked.
    fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, FrameError>,
    ) -> Result<List<'a>, FrameError> {
        let count = self.integer()?;
        // An item takes two bytes at least, so a count beyond the bytes is a lie; finding that out
        // here saves walking up to it.
        if count > self.rest.len() as u64 / 2 {
            return Err(FrameError::Count);
        }
        let start = self.rest;
        for _ in 0..count {
            read(self)?;
        }
        let bytes = &start[..start.len() - self.rest.len()];
        Ok(List { count, bytes })
    }

    fn beat(&mut self, flags: u8) -> Result<Beat<'a>, FrameError> {
        Ok(Beat {
            solicit: flags & flag::SOLICIT != 0,
            reader: flags & flag::READER != 0,
            name: self.text(MAX_NAME)?,
            lease: self.time()?,
            echoes: self.list(read_echo)?,
            marks: self.list(read_mark)?,
        })
    }
}

fn read_echo(reader: &mut Reader<'_>) -> Result<Echo, FrameError> {
    Ok(Echo {
        incarnation: reader.incarnation()?,
        sent: reader.time()?,
        held: reader.time()?,
    })
}

fn read_mark<'a>(reader: &mut Reader<'a>) -> Result<Mark<'a>, FrameError> {
    Ok(Mark {
        entity: reader.entity()?,
        mark: reader.integer()?,
        position: reader.integer()?,
        unsettled: reader.integer()?,
    })
}
