//! Caches that a fence can stand beside.
//!
//! | cache | feature | drops | clears | can't promise |
//! |---|---|---|---|---|
//! | [`BoundedMap`] | - | at once | at once | speed under contention: it has one lock |
#![cfg_attr(
    feature = "moka",
    doc = "| [`Moka`] | `moka` | at once | at once for readers, memory later | see there |"
)]
#![cfg_attr(
    feature = "moka",
    doc = "| [`MokaFuture`] | `moka` | at once, or `Unfinished` | the same | see there |"
)]
#![cfg_attr(
    feature = "quick_cache",
    doc = "| [`QuickCache`] | `quick_cache` | at once | shard by shard | see there |"
)]
#![cfg_attr(
    feature = "foyer",
    doc = "| [`Foyer`] | `foyer` | at once | shard by shard | see there |"
)]
//!
//! Whatever a cache can't promise, its fence makes up for: an entry of an older epoch is not served
//! even if the cache still has it. What none of them can promise is that a value which a reader
//! already holds is taken back.

mod bounded_map;
#[cfg(feature = "foyer")]
mod foyer;
#[cfg(feature = "moka")]
mod moka;
#[cfg(feature = "quick_cache")]
mod quick_cache;

pub use bounded_map::BoundedMap;

#[cfg(feature = "foyer")]
pub use self::foyer::Foyer;
#[cfg(feature = "moka")]
pub use self::moka::{Moka, MokaFuture};
#[cfg(feature = "quick_cache")]
pub use self::quick_cache::QuickCache;
