//! Subjects of invalidations: `<prefix>.<entity>.<id>`.
//!
//! *Role.* The one place that turns names into NATS subjects and back. Everything above handles
//! [`Entity`] and [`Id`], which are checked once, when they are made, and cannot hold an invalid
//! value afterwards. No atomics, no locks, no clock, nothing but text.
//!
//! ```text
//! cache.invalidate . user    . 42         one id         Address::One
//! cache.invalidate . user    . a%2Eb      the id "a.b"   Address::One
//! cache.invalidate . user    . %-all      every id       Address::All
//! cache.invalidate . user    . %-batch    ids in payload Address::Batch
//! cache.invalidate . %-c     . 00c0ffee00c0ffee          Address::Control
//! `--- Prefix ----'  `Entity'  `- EncodedId
//! ```
//!
//! *Encoding.* A token carries visible ASCII other than `.`, `*`, `>` and `%` as it stands, so
//! that peers which know plain subjects alone and afterwrite understand each other, id by id. Every
//! other byte of an id's UTF-8 becomes `%` and two upper-case hexadecimal digits (the form of RFC
//! 3986, section 2.1). Decoding accepts nothing but what encoding gives: no lower-case digits, no
//! escape of a byte that needs none. So ids and tokens stand in bijection: two ids never share a
//! subject, and one id has exactly one. `%-` begins no escape, which is why the reserved tokens
//! begin so: no id can be mistaken for one. An entity never holds a `%`.
//!
//! *Lengths.* [`MAX_PREFIX_LEN`], [`MAX_ENTITY_LEN`] and [`MAX_ID_LEN`] are chosen so that a
//! subject stays within [`MAX_SUBJECT_LEN`] also when every byte of the id is escaped. A NATS
//! server closes a connection whose control line (verb, subject, reply subject, sizes) is longer
//! than 4,096 bytes; some 700 are left for the rest of it.
//!
//! *Cost.* Parsing and formatting are linear in the length, look at eight bytes at once, allocate
//! nothing (formatting reuses the caller's buffer), and never panic.

mod address;
mod error;
mod id;
mod name;
mod pattern;
mod scan;
#[cfg(test)]
mod tests;

pub use address::{Address, Topic};
pub use error::{Part, SubjectError};
pub use id::{EncodedId, Id, IdRef};
pub use name::{Entity, EntityRef, Prefix};
pub use pattern::{Pattern, Subject};

/// The longest prefix, in bytes.
pub const MAX_PREFIX_LEN: usize = 128;

/// The longest entity, in bytes.
pub const MAX_ENTITY_LEN: usize = 128;

/// The longest id, in bytes of its UTF-8 before encoding. Encoded it may be three times as long.
pub const MAX_ID_LEN: usize = 1024;

/// The longest subject that [`Topic`] and [`Prefix`] format, and that a [`Subject`] holds.
pub const MAX_SUBJECT_LEN: usize = MAX_PREFIX_LEN + 1 + MAX_ENTITY_LEN + 1 + 3 * MAX_ID_LEN;
