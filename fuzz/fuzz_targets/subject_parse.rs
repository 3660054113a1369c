//! Any text parses as a naive parser has it; what parses is what formatting gives; an error names
//! a byte that stands where it says.
#![no_main]

use std::sync::LazyLock;

#[path = "../../tests/support/place.rs"]
mod place;

use afterwrite::invalidation::subject::{Address, IdRef, Prefix, Topic};
use libfuzzer_sys::fuzz_target;
use place::check_place;

static PREFIX: LazyLock<Prefix> = LazyLock::new(|| Prefix::new("p.q").expect("a prefix"));

#[derive(Debug, PartialEq)]
enum Naive {
    One(String, String),
    All(String),
    Batch(String),
    Control(u64),
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b".*>%".contains(&byte)
}

fn naive(subject: &str) -> Option<Naive> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let ["p", "q", entity, id] = tokens[..] else {
        return None;
    };
    if entity == "%-c" {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = id.len() == 16 && id.bytes().all(hex);
        return valid.then(|| Naive::Control(u64::from_str_radix(id, 16).expect("hexadecimal")));
    }
    if !(1..=128).contains(&entity.len()) || !entity.bytes().all(is_plain) {
        return None;
    }
    let entity = entity.to_owned();
    match id {
        "%-all" => return Some(Naive::All(entity)),
        "%-batch" => return Some(Naive::Batch(entity)),
        _ => {}
    }
    let mut decoded = Vec::new();
    let mut bytes = id.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            if pair
                .iter()
                .any(|it| !matches!(it, b'0'..=b'9' | b'A'..=b'F'))
            {
                return None;
            }
            let pair = std::str::from_utf8(&pair).ok()?;
            let byte = u8::from_str_radix(pair, 16).ok()?;
            if is_plain(byte) {
                return None;
            }
            decoded.push(byte);
        } else if is_plain(byte) {
            decoded.push(byte);
        } else {
            return None;
        }
    }
    let id = String::from_utf8(decoded).ok()?;
    (1..=1024)
        .contains(&id.len())
        .then_some(Naive::One(entity, id))
}

fn check(subject: &str) {
    let parsed = PREFIX.parse(subject);
    let mut buf = Topic::buffer();
    let (seen, formatted) = match &parsed {
        Ok(Address::One { entity, id }) => {
            let decoded = id.decode();
            let again = IdRef::new(&decoded).expect("a decoded id");
            let formatted = PREFIX.one(*entity, again, &mut buf).as_str().to_owned();
            let seen = Naive::One(entity.as_str().into(), decoded.into_owned());
            (Some(seen), formatted)
        }
        Ok(Address::All { entity }) => (
            Some(Naive::All(entity.as_str().into())),
            PREFIX.topic(&entity.to_entity()).all().as_str().to_owned(),
        ),
        Ok(Address::Batch { entity }) => (
            Some(Naive::Batch(entity.as_str().into())),
            PREFIX
                .topic(&entity.to_entity())
                .batch()
                .as_str()
                .to_owned(),
        ),
        Ok(Address::Control { incarnation }) => (
            Some(Naive::Control(*incarnation)),
            PREFIX.control(*incarnation, &mut buf).as_str().to_owned(),
        ),
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            check_place(subject, "p.q.", error);
            (None, subject.to_owned())
        }
    };
    assert_eq!(seen, naive(subject), "{subject:?}: {parsed:?}");
    assert_eq!(formatted, subject);
}

fuzz_target!(|input: &str| {
    // Most inputs are worth more after the prefix, or where an id begins.
    match input.as_bytes().first() {
        Some(b'0') => check(&input[1..]),
        Some(b'1') => check(&format!("p.q.e.{}", &input[1..])),
        Some(b'2') => check(&format!("p.q.%-c.{}", &input[1..])),
        _ => check(&format!("p.q.{input}")),
    }
});
