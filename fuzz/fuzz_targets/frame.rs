//! What is a frame at all and what it says, by a naive decoder; what decodes is what encoding gives, to
//! the byte. Any frame that can be built decodes to itself, and once bent to what its bytes then say.
//!
//! Input: bytes that begin with the magic are a payload; all others are the choices from which a
//! frame is built.
#![no_main]

use afterwrite::invalidation::fuzzing::frame::{Plain, PlainBeat, PlainBody, read, write};
use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const MAGIC: [u8; 2] = [0xAF, 0x57];
const MAX_TIME: u64 = 1 << 60;
const MAX_NAME: u64 = 128;
const MAX_ENTITY: u64 = 128;
const MAX_ID: u64 = 1024;

/// Takes a payload apart by the letter of the layout, without a thought for speed.
struct Naive<'a>(std::slice::Iter<'a, u8>);

impl Naive<'_> {
    fn integer(&mut self) -> Option<u64> {
        let (mut value, mut groups) = (0_u128, 0);
        loop {
            let byte = *self.0.next()?;
            value |= u128::from(byte & 0x7F) << (7 * groups);
            groups += 1;
            match byte {
                // Shortest form: the last group says something.
                0 if groups > 1 => return None,
                0..0x80 => return u64::try_from(value).ok(),
                _ if groups == 10 => return None,
                _ => {}
            }
        }
    }

    fn time(&mut self) -> Option<u64> {
        self.integer().filter(|time| *time <= MAX_TIME)
    }

    fn incarnation(&mut self) -> Option<u64> {
        (0..8).try_fold(0, |value, _| Some(value << 8 | u64::from(*self.0.next()?)))
    }

    fn text(&mut self, limit: u64) -> Option<String> {
        let length = self.integer()?;
        if !(1..=limit).contains(&length) {
            return None;
        }
        let (text, rest) = self.0.as_slice().split_at_checked(length as usize)?;
        self.0 = rest.iter();
        String::from_utf8(text.to_vec()).ok()
    }

    fn entity(&mut self) -> Option<String> {
        self.text(MAX_ENTITY).filter(|text| is_token(text))
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.integer()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    fn beat(&mut self, flags: u8) -> Option<PlainBeat> {
        Some(PlainBeat {
            solicit: flags & 2 != 0,
            reader: flags & 4 != 0,
            name: self.text(MAX_NAME)?,
            lease: self.time()?,
            echoes: self.list(|it| Some((it.incarnation()?, it.time()?, it.time()?)))?,
            marks: self
                .list(|it| Some((it.entity()?, it.integer()?, it.integer()?, it.integer()?)))?,
        })
    }

    fn frame(payload: &[u8]) -> Option<Plain> {
        let mut it = Naive(payload.strip_prefix(&MAGIC)?.iter());
        let (tag, flags) = (*it.0.next()?, *it.0.next()?);
        let (incarnation, sequence, sent) = (it.incarnation()?, it.integer()?, it.time()?);
        let position = match flags & 1 {
            1 => Some((it.integer()?, flags & 8 != 0)),
            _ => None,
        };
        let body = match (tag, flags) {
            (0x10, 0 | 1 | 9) => PlainBody::One(position),
            (0x11, 0 | 1 | 9) => PlainBody::All(position),
            (0x12, 0 | 1 | 9) => PlainBody::Batch(position, it.list(|it| it.text(MAX_ID))?),
            (0x13, 0 | 2 | 4 | 6) => PlainBody::Beat(it.beat(flags)?),
            (0x14, 0 | 2 | 4 | 6) => PlainBody::Bye(it.beat(flags)?),
            _ => return None,
        };
        let whole = it.0.next().is_none() && sequence > 0;
        whole.then_some(Plain {
            incarnation,
            sequence,
            sent,
            body,
        })
    }
}

fn is_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b".*>%".contains(&byte);
    text.bytes().all(plain)
}

/// A frame that can be built, and how it is bent.
#[derive(Debug)]
struct Built {
    plain: Plain,
    bend: Option<(usize, u8, bool)>,
}

fn time(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok((u64::arbitrary(u)? >> u.int_in_range(3..=63)?).min(MAX_TIME))
}

fn integer(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(u64::arbitrary(u)? >> u.int_in_range(0..=63)?)
}

/// Up to `limit` bytes of text, at least one.
fn text(u: &mut Unstructured<'_>, limit: usize) -> Result<String> {
    let mut text = <&str>::arbitrary(u)?.to_owned();
    while text.len() > limit {
        text.pop();
    }
    if text.is_empty() {
        text.push('x');
    }
    Ok(text)
}

fn entity(u: &mut Unstructured<'_>) -> Result<String> {
    let text = text(u, MAX_ENTITY as usize)?;
    let token = |c: char| {
        if is_token(c.encode_utf8(&mut [0; 4])) {
            c
        } else {
            '-'
        }
    };
    Ok(text.chars().map(token).collect())
}

fn many<T>(
    u: &mut Unstructured<'_>,
    item: impl Fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=9)?;
    (0..count).map(|_| item(u)).collect()
}

fn beat(u: &mut Unstructured<'_>) -> Result<PlainBeat> {
    Ok(PlainBeat {
        solicit: bool::arbitrary(u)?,
        reader: bool::arbitrary(u)?,
        name: text(u, MAX_NAME as usize)?,
        lease: time(u)?,
        echoes: many(u, |u| Ok((u64::arbitrary(u)?, time(u)?, time(u)?)))?,
        marks: many(u, |u| {
            Ok((entity(u)?, integer(u)?, integer(u)?, integer(u)?))
        })?,
    })
}

impl<'a> Arbitrary<'a> for Built {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let position = match bool::arbitrary(u)? {
            true => Some((integer(u)?, bool::arbitrary(u)?)),
            false => None,
        };
        let body = match u.int_in_range(0..=4)? {
            0 => PlainBody::One(position),
            1 => PlainBody::All(position),
            2 => PlainBody::Batch(position, many(u, |u| text(u, MAX_ID as usize))?),
            3 => PlainBody::Beat(beat(u)?),
            _ => PlainBody::Bye(beat(u)?),
        };
        Ok(Self {
            plain: Plain {
                incarnation: u64::arbitrary(u)?,
                sequence: integer(u)?.max(1),
                sent: time(u)?,
                body,
            },
            bend: Option::arbitrary(u)?,
        })
    }
}

/// A payload from anywhere.
fn check(payload: &[u8]) -> Option<Plain> {
    let seen = read(payload);
    assert_eq!(seen, Naive::frame(payload), "{payload:02x?}");
    if let Some(plain) = &seen {
        assert_eq!(write(plain), payload, "{plain:?}");
    }
    seen
}

fuzz_target!(|input: &[u8]| {
    if input.starts_with(&MAGIC) {
        check(input);
        return;
    }
    assert_eq!(read(input), None, "without the magic it is plain");
    let Ok(Built { plain, bend }) = Built::arbitrary(&mut Unstructured::new(input)) else {
        return;
    };
    let mut payload = write(&plain);
    assert_eq!(check(&payload), Some(plain));
    if let Some((at, with, cut)) = bend {
        let at = at % payload.len();
        payload[at] = with;
        if cut {
            payload.truncate(at + 1);
        }
        check(&payload);
    }
});
