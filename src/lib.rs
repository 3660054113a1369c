//! Tell everyone who should know that a write has happened, and only once it is true where they are.

#![deny(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod gate;
#[allow(unsafe_code)]
mod mailbox;
#[cfg(afterwrite_loom)]
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod models;
mod sync;
#[allow(unsafe_code)]
mod topic;

#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use gate::models as watermark_models;
pub use gate::{FollowError, Follower, Reached, Retry, WaitFor, WaitTimeout, Watermark};
pub use mailbox::Overflow;
pub use topic::Tally;
