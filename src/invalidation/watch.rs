//! Watches: where what arrives is applied.

mod feed;
mod lag;

pub(crate) use feed::{Feed, Work};
pub use lag::Lag;
