//! What several test files share: a real nats-server, a proxy that can cut and stall, a recorder,
//! a stage with an oracle, processes of their own.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

pub mod binary;
pub mod child;
#[cfg(feature = "nats")]
pub mod nats;
pub mod proxy;
pub mod record;
pub mod server;
pub mod shelf;
pub mod signal;
pub mod stage;

use std::time::Duration;

/// How long a test waits for what should happen at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
