//! What several test files share: a real nats-server, a proxy that can cut and stall, a recorder.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

pub mod binary;
#[cfg(feature = "nats")]
pub mod nats;
pub mod proxy;
pub mod record;
pub mod server;

use std::time::Duration;

/// How long a test waits for what should happen at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
