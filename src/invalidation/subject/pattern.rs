//! Subjects as a NATS server sees them: what may be published, what a wildcard matches.
//!
//! The rules are those of nats-server's `sublist.go`: tokens are parted by dots and never empty;
//! a token `*` in a pattern stands for one token, a last token `>` for one or more; `*` and `>`
//! inside a longer token are letters like any other; white space is nowhere.

use std::fmt;

use super::name::{bad_byte, borrowed_traits, check_len, owned_traits, text_traits};
use super::scan::first_special;
use super::{MAX_SUBJECT_LEN, Part, SubjectError};

/// A whole subject that can be published: no wildcard, no empty token, no white space or control
/// byte, at most [`MAX_SUBJECT_LEN`] bytes.
///
/// A NATS client passes subjects such as `a.` or `*` on without a word, and they reach nobody; a
/// subject that is too long makes the server close the connection. Neither can be held here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject<'a>(&'a str);

impl<'a> Subject<'a> {
    /// Checks a subject.
    ///
    /// # Errors
    /// [`SubjectError::Empty`] for an empty token, [`SubjectError::TooLong`], or
    /// [`SubjectError::Byte`] for a wildcard, white space or control byte.
    pub fn new(subject: &'a str) -> Result<Self, SubjectError> {
        walk(subject, Part::Subject, |token, begin, _| match token {
            "*" | ">" => Err(bad_byte(subject, Part::Subject, begin)),
            _ => Ok(()),
        })?;
        Ok(Self(subject))
    }

    /// A subject that this module's neighbours have formatted from checked parts.
    #[inline]
    pub(super) const fn checked(subject: &'a str) -> Self {
        Self(subject)
    }

    /// The subject.
    #[inline]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// A subject to subscribe to, with or without wildcards.
///
/// ```
/// use afterwrite::invalidation::subject::Pattern;
///
/// let pattern = Pattern::new("cache.*.>")?;
/// assert!(pattern.matches("cache.invalidate.user.42"));
/// assert!(!pattern.matches("cache.invalidate"));
/// # Ok::<(), afterwrite::invalidation::subject::SubjectError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: String,
    /// The length of what precedes the last `>`, if that is the only wildcard: all that our own
    /// patterns have, and quick to match.
    stem: Option<usize>,
}

impl Pattern {
    /// Checks and keeps a pattern.
    ///
    /// # Errors
    /// [`SubjectError::Empty`] for an empty token, [`SubjectError::TooLong`], or
    /// [`SubjectError::Byte`] for white space, a control byte, or a `>` that is not last.
    pub fn new(pattern: &str) -> Result<Self, SubjectError> {
        walk(pattern, Part::Pattern, |token, begin, last| match token {
            ">" if !last => Err(bad_byte(pattern, Part::Pattern, begin)),
            _ => Ok(()),
        })?;
        Ok(Self::checked(pattern.to_owned()))
    }

    /// A pattern that this module's neighbours have formatted from checked parts.
    pub(super) fn checked(text: String) -> Self {
        let stem = text.strip_suffix('>').filter(|stem| {
            (stem.is_empty() || stem.ends_with('.')) && !stem.split('.').any(|it| it == "*")
        });
        let stem = stem.map(str::len);
        Self { text, stem }
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a message published to `subject` reaches a subscription of this pattern.
    ///
    /// A subject with an empty token matches nothing, whatever the pattern.
    pub fn matches(&self, subject: &str) -> bool {
        match self.stem {
            Some(stem) => {
                let (stem, subject) = (&self.text.as_bytes()[..stem], subject.as_bytes());
                subject.strip_prefix(stem).is_some_and(has_only_full_tokens)
            }
            None => self.matches_each(subject),
        }
    }

    /// Token by token.
    fn matches_each(&self, subject: &str) -> bool {
        let mut rest = Some(subject);
        let mut token = || {
            let (head, tail) = match rest?.split_once('.') {
                Some((head, tail)) => (head, Some(tail)),
                None => (rest?, None),
            };
            rest = tail;
            Some(head)
        };
        for wanted in self.text.split('.') {
            match (wanted, token()) {
                (_, None | Some("")) => return false,
                (">", Some(_)) => {
                    return std::iter::from_fn(token).all(|token| !token.is_empty());
                }
                ("*", Some(_)) => {}
                (wanted, Some(token)) => {
                    if wanted != token {
                        return false;
                    }
                }
            }
        }
        token().is_none()
    }
}

/// Whether there is a token, and none is empty.
fn has_only_full_tokens(subject: &[u8]) -> bool {
    let mut before = b'.';
    let mut full = true;
    for &byte in subject {
        full &= byte != b'.' || before != b'.';
        before = byte;
    }
    full && before != b'.'
}

/// Checks what subjects and patterns share, and shows each token to `check`: the token, where it
/// begins, whether it is the last.
fn walk(
    text: &str,
    part: Part,
    check: impl Fn(&str, usize, bool) -> Result<(), SubjectError>,
) -> Result<(), SubjectError> {
    check_len(text, part, MAX_SUBJECT_LEN)?;
    let mut begin = 0;
    for token in text.split('.') {
        let end = begin + token.len();
        if token.is_empty() {
            return Err(SubjectError::Empty { part, at: begin });
        }
        // Most tokens have no special byte at all.
        if first_special(token.as_bytes()).is_some()
            && let Some(at) = token.bytes().position(|byte| byte <= b' ' || byte == 0x7f)
        {
            return Err(bad_byte(text, part, begin + at));
        }
        check(token, begin, end == text.len())?;
        begin = end + 1;
    }
    Ok(())
}

text_traits!(Subject<'_>);
text_traits!(Pattern);
borrowed_traits!(Subject);
owned_traits!(Pattern);
