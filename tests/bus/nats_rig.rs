//! A real server, each node with a connection of its own.

use std::sync::Arc;

use afterwrite::bus::{Bus, NatsBus};
use async_nats::ConnectOptions;
use tokio::runtime::Runtime;

use super::rigs::{Rig, Slow};
use super::support::server::NatsServer;

pub(super) struct Nats {
    server: NatsServer,
    /// For the slow node: on one thread a slow inbox would slow its connection as well.
    threads: Runtime,
}

impl Nats {
    pub(super) fn new() -> Self {
        Self {
            server: NatsServer::start(),
            threads: Runtime::new().expect("a runtime"),
        }
    }
}

impl Rig for Nats {
    fn bus(&self) -> Arc<dyn Bus> {
        let bus = NatsBus::connect_blocking(&self.server.url());
        Arc::new(bus.expect("connected"))
    }

    fn slow(&self, capacity: usize) -> Slow {
        let bus = NatsBus::builder()
            .options(ConnectOptions::new().subscription_capacity(capacity))
            .runtime(self.threads.handle().clone())
            .connect_blocking(self.server.url())
            .expect("connected");
        Slow::by_gate(Arc::new(bus))
    }
}
