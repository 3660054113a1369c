//! Invalidation between processes: every node's cache drops the old value, and a node that may
//! have missed a drop knows it.
//!
//! # In short
//! - A node that writes holds a guard ([`Invalidator::writing`]) over the write, or emits after the
//!   commit ([`Invalidator::emit`]). Its own caches drop at once.
//! - A node that caches watches ([`Invalidator::watch`]): a [`Coherent`](coherent::Coherent) cache, which
//!   loads through a [`Fence`](fence::Fence) so that no stale value is stored, or anything that can
//!   drop ([`Cache`](cache::Cache)).
//! - [`Watch::coherence`] says how far the cache may be trusted now, [`Invalidator::suspects`] who is to
//!   blame if it may not.
//!
//! # What is promised
//! A missed invalidation, of a publisher that the node has known for B, is noticed there within
//! [`Settings::bound`]: B = lease + e_max + [`TICK`]. Then the cache is `Suspect`: older entries are
//! bypassed, new ones are served for one lease at most, until everything is proved to arrive
//! again; then it is cleared, and coherent.
//!
//! *Not covered*: publishers that were never heard (name them in [`Settings::expect`]), that were
//! taken for dead ([`Settings::retire_after`]), or that are plain, sending no frames
//! ([`Settings::max_age`]); and a pause of the process between asking and using.
//!
//! # The rooms
//! ```text
//!  invalidator ── front door ──┬── outbox ───── frame ── subject
//!    writing, settings         ├── protocol ─── frame
//!                              └── watch ────── target ── fence ── cache
//!                                               coherent ──┘
//! ```

pub mod cache;
pub mod caches;
pub mod coherent;
mod done;
pub mod fence;
mod frame;
mod invalidator;
mod outbox;
mod protocol;
mod settings;
pub mod subject;
pub mod target;
mod watch;
mod writing;

pub use frame::Incarnation;
pub use invalidator::{
    ConfirmError, EmitError, Emitted, Farewell, Invalidator, InvalidatorStats, StartError, Suspect,
    WatchError, Why,
};
pub use settings::{Settings, SettingsError, TICK};
pub use watch::{Lag, Watch, WatchStats};
pub use writing::Writing;

/// What the fuzzer reaches inside for.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::frame::mirror as frame;
}
