//! Invalidation between processes: every node's cache drops the old value, and a node that may
//! have missed a drop knows it.

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
