//! Invalidation between processes: every node's cache drops the old value, and a node that may
//! have missed a drop knows it.

mod frame;
mod protocol;
pub mod subject;
