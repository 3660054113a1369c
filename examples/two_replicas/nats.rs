//! A connection to a nats-server whose client stays within reach, so that it can be made anew.

use afterwrite::bus::{EventTap, NatsBus};
use tokio::runtime::Runtime;

use crate::run::RunError;

/// One node's own connection.
#[derive(Debug)]
pub(crate) struct Link {
    client: async_nats::Client,
}

impl Link {
    pub(crate) fn connect(
        runtime: &Runtime,
        url: &str,
        name: &str,
    ) -> Result<(NatsBus, Self), RunError> {
        let failed = |reason: String| RunError::Nats {
            url: url.to_owned(),
            reason,
        };
        let tap = EventTap::new();
        let events = tap.clone();
        let options = async_nats::ConnectOptions::new()
            .name(name)
            .event_callback(move |event| {
                events.forward(&event);
                async {}
            });
        runtime.block_on(async {
            let client = options.connect(url).await;
            let client = client.map_err(|error| failed(error.to_string()))?;
            let builder = NatsBus::builder().events(tap);
            let bus = builder.client(client.clone()).await;
            let bus = bus.map_err(|error| failed(error.to_string()))?;
            Ok((bus, Self { client }))
        })
    }

    /// Drops the connection, and makes another.
    pub(crate) fn reconnect(&self, runtime: &Runtime) -> Result<(), RunError> {
        let asked = runtime.block_on(self.client.force_reconnect());
        asked.map_err(|error| RunError::Nats {
            url: "the open connection".to_owned(),
            reason: error.to_string(),
        })
    }
}
