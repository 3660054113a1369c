//! Ids, and their encoding as one token.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use super::name::{borrowed_traits, check_len, owned_traits, text_traits};
use super::scan::{first_special, is_plain};
use super::{MAX_ID_LEN, Part, SubjectError};

/// Which thing was written: any non-empty text of at most [`MAX_ID_LEN`] bytes.
///
/// Cloning is cheap. Hashes and compares as its text does.
///
/// ```
/// use afterwrite::invalidation::subject::Id;
///
/// let id = Id::new("Zürich 8.3")?;
/// assert_eq!(id.as_str(), "Zürich 8.3");
/// assert!(Id::new("").is_err());
/// # Ok::<(), afterwrite::invalidation::subject::SubjectError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Arc<str>);

impl Id {
    /// Checks and keeps an id.
    ///
    /// # Errors
    /// [`SubjectError::Empty`] or [`SubjectError::TooLong`].
    pub fn new(id: &str) -> Result<Self, SubjectError> {
        IdRef::new(id).map(IdRef::to_id)
    }

    /// The id.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This id, borrowed.
    #[inline]
    pub fn borrowed(&self) -> IdRef<'_> {
        IdRef(&self.0)
    }
}

/// A checked id that borrows its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdRef<'a>(&'a str);

impl<'a> IdRef<'a> {
    /// Checks an id.
    ///
    /// # Errors
    /// [`SubjectError::Empty`] or [`SubjectError::TooLong`].
    #[inline]
    pub fn new(id: &'a str) -> Result<Self, SubjectError> {
        check_len(id, Part::Id, MAX_ID_LEN)?;
        Ok(Self(id))
    }

    /// The id.
    #[inline]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// An owned id. Allocates.
    pub fn to_id(self) -> Id {
        Id(self.0.into())
    }

    /// Appends the id's token. Allocates only if `out` has too little room.
    #[inline]
    pub fn encode_into(self, out: &mut String) {
        match first_special(self.0.as_bytes()) {
            None => out.push_str(self.0),
            Some(at) => encode_from(self.0, at, out),
        }
    }
}

/// Appends the token of `id`, whose first special byte is at `at`.
#[cold]
fn encode_from(id: &str, at: usize, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut plain = at;
    let mut begin = 0;
    out.reserve(id.len() + 2);
    loop {
        // Runs of plain bytes are ASCII, so that both ends are character boundaries.
        out.push_str(id.get(begin..begin + plain).unwrap_or_default());
        begin += plain;
        while let Some(&byte) = id.as_bytes().get(begin) {
            if is_plain(byte) {
                break;
            }
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
            begin += 1;
        }
        let Some(rest) = id.as_bytes().get(begin..).filter(|rest| !rest.is_empty()) else {
            return;
        };
        plain = first_special(rest).unwrap_or(rest.len());
    }
}

/// A checked token that encodes an id; borrows the subject in which it stood.
///
/// Most ids need no escape, and decoding them costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncodedId<'a> {
    token: &'a str,
    plain: bool,
}

impl<'a> EncodedId<'a> {
    /// Checks a token.
    ///
    /// # Errors
    /// [`SubjectError`] with the position in `token`: an empty token, a byte that a token cannot
    /// carry, a broken or needless escape, escapes that give no UTF-8, an id over the limit, or a
    /// reserved token.
    #[inline]
    pub fn new(token: &'a str) -> Result<Self, SubjectError> {
        match first_special(token.as_bytes()) {
            None => {
                check_len(token, Part::Id, MAX_ID_LEN)?;
                Ok(Self { token, plain: true })
            }
            Some(_) => {
                check_escapes(token)?;
                Ok(Self {
                    token,
                    plain: false,
                })
            }
        }
    }

    /// The token as it stands in the subject.
    #[inline]
    pub const fn token(self) -> &'a str {
        self.token
    }

    /// Whether the token is the id, letter for letter.
    #[inline]
    pub const fn is_plain(self) -> bool {
        self.plain
    }

    /// The id: borrowed from the subject if it needs no decoding, else written to `buf`, whose
    /// former contents are lost. Allocates only if `buf` has too little room.
    #[inline]
    pub fn decode_into<'b>(self, buf: &'b mut String) -> IdRef<'b>
    where
        'a: 'b,
    {
        if self.plain {
            return IdRef(self.token);
        }
        buf.clear();
        self.decode_escapes(buf);
        IdRef(buf)
    }

    /// The id, borrowed from the subject if it needs no decoding.
    #[inline]
    pub fn decode(self) -> Cow<'a, str> {
        if self.plain {
            return Cow::Borrowed(self.token);
        }
        let mut id = String::with_capacity(self.token.len());
        self.decode_escapes(&mut id);
        Cow::Owned(id)
    }

    /// An owned id. Allocates.
    pub fn to_id(self) -> Id {
        Id(self.decode().into())
    }

    #[cold]
    fn decode_escapes(self, out: &mut String) {
        let mut at = 0;
        // The token was checked when `self` was made: the walk ends at its end, not at an error.
        while let Ok(Some(piece)) = Piece::at(self.token, at) {
            match piece.text {
                Text::Run(run) => out.push_str(run),
                Text::Escaped(character) => out.push(character),
            }
            at = piece.end;
        }
    }
}

/// Walks a token that has a special byte, and refuses whatever encoding would not have given.
#[cold]
fn check_escapes(token: &str) -> Result<(), SubjectError> {
    let mut at = 0;
    let mut len = 0;
    let mut over = None;
    while let Some(piece) = Piece::at(token, at)? {
        let (width, fits) = match piece.text {
            Text::Run(run) => (run.len(), MAX_ID_LEN.saturating_sub(len)),
            Text::Escaped(character) => (character.len_utf8(), 0),
        };
        len += width;
        if len > MAX_ID_LEN {
            over = over.or(Some(at + fits));
        }
        at = piece.end;
    }
    over.map_or(Ok(()), |at| {
        Err(SubjectError::TooLong {
            part: Part::Id,
            len,
            max: MAX_ID_LEN,
            at,
        })
    })
}

/// A stretch of a token: a run of plain bytes, or the escapes of one character.
struct Piece<'a> {
    text: Text<'a>,
    end: usize,
}

enum Text<'a> {
    Run(&'a str),
    Escaped(char),
}

impl<'a> Piece<'a> {
    /// The piece that begins at `at`; nothing at the end of the token.
    fn at(token: &'a str, at: usize) -> Result<Option<Self>, SubjectError> {
        let bytes = token.as_bytes();
        let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let run = first_special(rest).unwrap_or(rest.len());
        if run > 0 {
            // Plain bytes are ASCII, so that both ends are character boundaries.
            let text = Text::Run(token.get(at..at + run).unwrap_or_default());
            return Ok(Some(Self {
                text,
                end: at + run,
            }));
        }
        let first = escape(bytes, at)?;
        let width = match first {
            0x00..=0x7f if is_plain(first) => {
                return Err(SubjectError::NeedlessEscape { at, byte: first });
            }
            0x00..=0x7f => {
                let text = Text::Escaped(char::from(first));
                return Ok(Some(Self { text, end: at + 3 }));
            }
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            byte => return Err(SubjectError::NotUtf8 { at, byte }),
        };
        let stray = SubjectError::NotUtf8 { at, byte: first };
        let mut utf8 = [first, 0, 0, 0];
        for (index, byte) in utf8.iter_mut().enumerate().take(width).skip(1) {
            let next = at + 3 * index;
            *byte = match bytes.get(next) {
                Some(b'%') => escape(bytes, next)?,
                _ => return Err(stray),
            };
        }
        let character = std::str::from_utf8(&utf8[..width])
            .ok()
            .and_then(|text| text.chars().next())
            .ok_or(stray)?;
        Ok(Some(Self {
            text: Text::Escaped(character),
            end: at + 3 * width,
        }))
    }
}

/// The byte that the escape at `at` stands for.
fn escape(bytes: &[u8], at: usize) -> Result<u8, SubjectError> {
    match *bytes.get(at..).unwrap_or_default() {
        [b'%', b'-', ..] => Err(SubjectError::Reserved { at }),
        [b'%', ref digits @ ..] => {
            let value = |index| {
                let byte = digits.get(index).copied();
                let at = at + 1 + index;
                byte.and_then(digit)
                    .ok_or(SubjectError::Escape { at, byte })
            };
            Ok(value(0)? << 4 | value(1)?)
        }
        [byte, ..] => Err(SubjectError::Byte {
            part: Part::Id,
            byte,
            at,
        }),
        [] => Err(SubjectError::Empty { part: Part::Id, at }),
    }
}

/// The value of an upper-case hexadecimal digit.
const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

text_traits!(Id);
text_traits!(IdRef<'_>);
owned_traits!(Id);
borrowed_traits!(IdRef);

impl fmt::Debug for EncodedId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EncodedId").field(&self.token).finish()
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl<'a> From<&'a Id> for IdRef<'a> {
    fn from(id: &'a Id) -> Self {
        id.borrowed()
    }
}
