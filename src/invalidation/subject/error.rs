//! What can be wrong with a name or a subject, to the byte.

use std::fmt;

/// The part of a subject that an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The tokens before the entity.
    Prefix,
    /// The token that names what kind of thing was written.
    Entity,
    /// The token that names the thing itself.
    Id,
    /// The incarnation in a control subject.
    Incarnation,
    /// A whole subject, as it is published.
    Subject,
    /// A whole subject with wildcards, as it is subscribed to.
    Pattern,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "prefix",
            Self::Entity => "entity",
            Self::Id => "id",
            Self::Incarnation => "incarnation",
            Self::Subject => "subject",
            Self::Pattern => "pattern",
        })
    }
}

/// Why a text is no prefix, entity, id, subject or pattern.
///
/// Positions are byte offsets into the text that was handed in: into the whole subject when a
/// subject was parsed, into the name when a name was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// A part, or one token of it, is empty or missing.
    #[error("empty {part} at byte {at}")]
    Empty {
        /// The part that is empty.
        part: Part,
        /// Where its text should have begun.
        at: usize,
    },
    /// A part is longer than its limit.
    #[error("{part} of {len} bytes is over the limit of {max}, from byte {at} on")]
    TooLong {
        /// The part that is too long.
        part: Part,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
        /// The position of the first byte, or escape, that is over it.
        at: usize,
    },
    /// A part of fixed length is shorter than that.
    #[error("{part} of {len} bytes is short of {min}: it ends at byte {at}")]
    TooShort {
        /// The part that is too short.
        part: Part,
        /// Its length in bytes.
        len: usize,
        /// What it should be, in bytes.
        min: usize,
        /// Where its text ends.
        at: usize,
    },
    /// A byte stands where this part cannot carry it.
    #[error("byte 0x{byte:02X} at {at} cannot stand in the {part}")]
    Byte {
        /// The part in which it stands.
        part: Part,
        /// The byte.
        byte: u8,
        /// Its position.
        at: usize,
    },
    /// The subject lies under another prefix: it differs at this position, or ends there.
    #[error("not under the prefix: {} at {at}", Shown(*.byte))]
    OtherPrefix {
        /// The first position that differs.
        at: usize,
        /// What stands there; nothing at the end of the subject.
        byte: Option<u8>,
    },
    /// A `%` is not followed by two upper-case hexadecimal digits.
    #[error("broken escape: {} at {at}, where an upper-case hexadecimal digit should be", Shown(*.byte))]
    Escape {
        /// The position where a digit should be.
        at: usize,
        /// What stands there; nothing at the end of the text.
        byte: Option<u8>,
    },
    /// An escape stands for a byte that needs none, so that the id would have two subjects.
    #[error("escape at byte {at} of 0x{byte:02X}, which stands for itself")]
    NeedlessEscape {
        /// The position of the `%`.
        at: usize,
        /// The byte that it stands for.
        byte: u8,
    },
    /// The escapes do not decode to UTF-8.
    #[error("escape at byte {at} of 0x{byte:02X}, which begins no UTF-8 character")]
    NotUtf8 {
        /// The position of the first escape that does not belong to a character.
        at: usize,
        /// The byte that it stands for.
        byte: u8,
    },
    /// A reserved token (`%-...`) that this version does not know.
    #[error("unknown reserved token at byte {at}")]
    Reserved {
        /// The position of the `%`.
        at: usize,
    },
}

/// A byte in a message, or that the text ends.
struct Shown(Option<u8>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(byte) => write!(f, "byte 0x{byte:02X}"),
            None => f.write_str("its end"),
        }
    }
}

impl SubjectError {
    /// The same error, its position moved by `offset`: from a part's own text to the whole.
    pub(super) fn moved(mut self, offset: usize) -> Self {
        let (Self::Empty { at, .. }
        | Self::TooLong { at, .. }
        | Self::TooShort { at, .. }
        | Self::Byte { at, .. }
        | Self::OtherPrefix { at, .. }
        | Self::Escape { at, .. }
        | Self::NeedlessEscape { at, .. }
        | Self::NotUtf8 { at, .. }
        | Self::Reserved { at }) = &mut self;
        *at += offset;
        self
    }
}
