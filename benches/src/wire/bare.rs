//! Rival: async-nats with nothing around it. What it does not do: number, notice losses, escape ids,
//! drop from the sender's own cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::PublishError;
use async_nats::{Client, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::{Builder, Runtime};

use super::arrivals::Arrivals;
use super::{Pings, Place, SUBJECTS, subject};

/// Two clients, each with a runtime of its own. The receiver's task shares a thread with its connection.
#[derive(Debug)]
pub(super) struct Bare {
    sender: Runtime,
    client: Client,
    subjects: Vec<Subject>,
    payload: Bytes,
    arrivals: Arc<Arrivals>,
    _receiver: Runtime,
}

impl Bare {
    /// If `subscribed`, the sender gets back what it sends, as a service does that caches too.
    pub(super) fn new(
        url: &str,
        prefix: &str,
        place: Place,
        subscribed: bool,
        payload: &'static [u8],
    ) -> Self {
        let sender = match place {
            Place::Runtime => Builder::new_current_thread().enable_all().build(),
            // What is blocked on runs on the caller's thread, the connection on the worker.
            Place::Thread => Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build(),
        };
        let sender = sender.expect("a runtime");
        let receiver = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let arrivals = Arc::new(Arrivals::default());
        let counts = arrivals.clone();
        let mut subscriber = receiver.block_on(async {
            // By default it would drop what comes while 65,536 wait, as it does if it is held up.
            let options = async_nats::ConnectOptions::new().subscription_capacity(1 << 22);
            let client = options.connect(url).await.expect("connected");
            let subscriber = client.subscribe(format!("{prefix}.>")).await;
            let subscriber = subscriber.expect("subscribed");
            client.flush().await.expect("flushed");
            subscriber
        });
        receiver.spawn(async move {
            while subscriber.next().await.is_some() {
                counts.arrived();
            }
        });
        let client = sender.block_on(async {
            let client = async_nats::connect(url).await.expect("connected");
            if subscribed {
                let own = client.subscribe(format!("{prefix}.>")).await;
                let mut own = own.expect("subscribed");
                client.flush().await.expect("flushed");
                tokio::spawn(async move { while own.next().await.is_some() {} });
            }
            client
        });
        Self {
            sender,
            client,
            subjects: (0..SUBJECTS)
                .map(|n| Subject::from(subject(prefix, n)))
                .collect(),
            payload: Bytes::from_static(payload),
            arrivals,
            _receiver: receiver,
        }
    }

    async fn publish(&self, subject: &Subject) -> Result<(), PublishError> {
        let (subject, payload) = (subject.clone(), self.payload.clone());
        self.client.publish(subject, payload).await
    }

    /// Publishes `n` as fast as it can; until the last has arrived.
    pub(super) fn burst(&mut self, n: u64) -> Duration {
        let run = async {
            let sent = self.arrivals.expect(n);
            for subject in self.subjects.iter().cycle().take(n as usize) {
                let sent = self.publish(subject).await;
                sent.expect("the connection stands");
            }
            self.client.flush().await.expect("the connection stands");
            self.arrivals.wait_async(sent).await
        };
        self.sender.block_on(run)
    }

    /// One after the other, each received before the next is sent.
    pub(super) fn pings(&mut self, n: u64) -> Pings {
        let run = async {
            let mut pings = Pings::default();
            for subject in self.subjects.iter().cycle().take(n as usize) {
                let sent: Instant = self.arrivals.expect(1);
                let published = self.publish(subject).await;
                published.expect("the connection stands");
                pings.note(self.arrivals.wait_async(sent).await);
            }
            pings
        };
        self.sender.block_on(run)
    }
}
