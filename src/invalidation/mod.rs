//! Invalidation between processes: every node's cache drops the old value, and a node that may
//! have missed a drop knows it.

pub mod cache;
pub mod caches;
pub mod coherent;
pub mod fence;
mod frame;
mod outbox;
mod protocol;
mod settings;
pub mod subject;
pub mod target;
mod watch;

pub use frame::Incarnation;
pub use settings::{Settings, SettingsError, TICK};
pub use watch::Lag;
