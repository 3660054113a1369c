//! Tell everyone who should know that a write has happened, and only once it is true where they are.
//!
//! A service writes to one store and reads from another, which lags: a replica, a projection, an
//! index. Told of a change right after its commit, a subscriber that comes back to read it may find the
//! old value, and keep it. A [`Registry`] holds each notice back behind a *gate*, until this process's
//! read view shows the change, and then pushes it to the subscribers of the key.
//!
//! ```
//! use afterwrite::{Notice, Registry, Submitted, Watermark};
//!
//! let registry: Registry<&str> = Registry::new()?;
//! let view = Watermark::new(41); // how far the read view has got
//! let mut order = registry.subscribe("order/17")?;
//!
//! // The writer: event 42 is committed, and the view may not show it yet.
//! let submitted = registry.submit_at("order/17", view.reached(42), "paid");
//! assert_eq!(submitted, Submitted::Queued);
//!
//! // The projection: the view shows event 42.
//! view.advance(42);
//! assert_eq!(order.recv_blocking(), Some(Notice::Changed("paid")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Gates
//!
//! | gate | opens | for views that |
//! |---|---|---|
//! | [`submit_at`](Registry::submit_at) | when a [`Watermark`] reaches a position; nothing polls | say how far they are |
//! | [`submit`](Registry::submit) | when a function that reads the view answers `Some`; asked again at the pace of a [`Retry`] | can be asked quickly |
//! | [`submit_async`](Registry::submit_async) | the same, with an asynchronous function | are asked over a network |
//! | [`publish`](Registry::publish) | at once: there is none | are the store that was written |
//!
//! # Guarantees
//!
//! - **No loss is silent.** A full buffer, a full queue, a gate that expires and a producer that panics all
//!   reach the subscriber as [`Notice::Missed`], unless [`Expiry::Skip`] asks for silence on expiry.
//! - **A push takes no lock** and, but for a thread's first, allocates nothing; a slow subscriber slows
//!   neither it nor others.
//! - **A key that waits delays no other key**, also on the same thread.
//! - **A close never races a send.** A push that begins after a close touches nothing; every payload is
//!   dropped exactly once.
//! - **Order.** Gated notices of a key come in the order of their submits, if one had returned before
//!   the next was called. A [`publish`](Registry::publish) overtakes gates that wait. All subscribers
//!   of a key see one order.
//! - **Bounds.** Nothing grows with the number of submits, and nothing waits without a limit unless it is
//!   asked to.
//!
//! [`docs::guarantees`] has them line by line, [`docs::limitations`] what is not promised,
//! [`docs::architecture`] the parts and [`docs::orderings`] the memory orderings.
//!
//! # Between processes
//!
//! [`invalidation`] is the other half: a node that writes [emits](invalidation::Invalidator::emit),
//! every node's cache drops the old value, and a node that may have missed a drop knows it within a
//! stated [bound](invalidation::Settings::bound). [`bus`] is what carries it: in the process, or over
//! NATS.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `nats` | yes | `bus::NatsBus`; brings `tokio` and async-nats |
//! | `tokio` | with `nats` | a runtime for asynchronous producers; watches tied to a `CancellationToken` |
//! | `moka`, `quick_cache`, `foyer` | no | adapters in [`invalidation::caches`] |
//!
//! The registry alone needs none: `default-features = false`.

#![deny(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod arena;
#[cfg(doctest)]
mod auto_traits;
pub mod bus;
mod directory;
pub mod docs;
mod error;
mod gate;
pub mod invalidation;
mod limit;
#[allow(unsafe_code)]
mod mailbox;
#[cfg(afterwrite_loom)]
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod models;
mod notice;
mod observer;
mod registry;
mod shard;
mod subscription;
mod sync;
#[allow(unsafe_code)]
mod topic;

#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use arena::models as arena_models;
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use directory::models as directory_models;
pub use error::{
    BatchOutcome, BuildError, Cap, CloseTimeout, KeyError, Published, RecvTimeoutError, Submitted,
    SubscribeError, ThreadError, TryRecvError,
};
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use gate::models as watermark_models;
pub use gate::{
    Attempt, FollowError, Follower, Gate, Reached, Retry, WaitFor, WaitTimeout, Watermark,
};
pub use mailbox::Overflow;
pub use notice::Notice;
pub use observer::{DropReason, Expiry, Observer, SkipReason, Timing};
pub use registry::{Builder, Key, Pinning, Registry, Stats, SubscribeOptions};
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use shard::models as shard_models;
pub use shard::{ShardStats, WaitStrategy};
pub use subscription::{Closer, Iter, Recv, Subscription, SubscriptionId, TryIter};
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use sync::parker::models as parker_models;
pub use topic::Tally;
