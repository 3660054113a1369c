//! Watches: where what arrives is applied.

mod feed;

pub(crate) use feed::{Feed, Work};
