//! Gates: what decides *when* a change may be told.
//!
//! A gate holds a notice back until the read view shows the change. It can ask the view again and
//! again, at the pace that a [`Retry`] sets, or wait without asking for the view's position, kept
//! in a [`Watermark`].

mod attempt;
mod producer;
mod retry;
mod watermark;

pub use attempt::Attempt;
pub use producer::Gate;
pub(crate) use producer::{Read, Source, SyncProducer};
pub use retry::Retry;
pub(crate) use watermark::Registration;
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use watermark::models;
pub use watermark::{FollowError, Follower, Reached, WaitFor, WaitTimeout, Watermark};
