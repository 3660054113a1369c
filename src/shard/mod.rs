//! Shards: what gates wait on, and what pushes once they open.
//!
//! Each key belongs to one shard, by its hash; each shard is one thread, pinned if there are cores
//! for it, with one bounded queue. It is an event loop, not a sleeper: a gate that is not open is
//! parked with a timer, a future's waker or a watermark's, and the loop goes on with the next key.
//!
//! ```text
//!   submitters ──flume──▶ inbox ─┐
//!   wakers ──────────▶ ready ──┤ bell   engine: first reads ▷ woken ▷ timers ▷ lanes
//!   holders of a turn ─────────┘        lane (one a key): gates in order, the head pushes
//! ```
//!
//! [`inbox`] is the outside of a shard, [`engine`] the loop, [`lanes`] the order within a key,
//! [`gates`] one waiting producer.

mod bell;
mod channel;
mod engine;
pub(crate) mod faults;
mod gates;
mod inbox;
mod job;
mod lanes;
mod mail;
#[cfg(afterwrite_loom)]
pub mod models;
mod ready;
mod settings;
mod stats;
mod thread;

pub(crate) use channel::{Channel, KeyState};
pub(crate) use inbox::{Inbox, NotTaken};
pub(crate) use job::{Delivery, Job, Refusal};
pub use settings::WaitStrategy;
pub(crate) use settings::{Settings, Watched};
pub use stats::ShardStats;
pub(crate) use thread::{begin_closing, is_shard_of, spawn};
