//! Invalidation between processes: every node's cache drops the old value, and a node that may
//! have missed a drop knows it.

pub mod cache;
pub mod caches;
pub mod coherent;
pub mod fence;
mod frame;
mod outbox;
mod protocol;
pub mod subject;
pub mod target;
mod watch;
