//! Tell everyone who should know that a write has happened, and only once it is true where they are.

#![deny(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(doctest)]
mod auto_traits;
pub mod bus;
mod directory;
mod error;
mod gate;
pub mod invalidation;
#[allow(unsafe_code)]
mod mailbox;
#[cfg(afterwrite_loom)]
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod models;
mod observer;
mod registry;
mod shard;
mod subscription;
mod sync;
#[allow(unsafe_code)]
mod topic;

#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use directory::models as directory_models;
pub use error::{
    BatchOutcome, BuildError, CloseTimeout, KeyError, Published, RecvTimeoutError, Submitted,
    SubscribeError, TryRecvError,
};
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use gate::models as watermark_models;
pub use gate::{
    Attempt, FollowError, Follower, Gate, Reached, Retry, WaitFor, WaitTimeout, Watermark,
};
pub use mailbox::Overflow;
pub use observer::{DropReason, Expiry, Observer, SkipReason, Timing};
pub use registry::{Builder, Key, Pinning, Registry, Stats, SubscribeOptions};
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use shard::models as shard_models;
pub use shard::{ShardStats, WaitStrategy};
pub use subscription::{Closer, Notice, Recv, Subscription, SubscriptionId};
pub use topic::Tally;
