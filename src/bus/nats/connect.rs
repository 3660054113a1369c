//! Making a bus: connecting, or taking over a client, and the proof that it hears itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, ServerAddr, StatusCode, ToServerAddrs};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::events::Shared;
use super::home::Home;
use super::{EventTap, Inner, NatsBus};
use crate::error::ThreadError;

/// How long a message to ourselves may take before its absence is taken for a missing right.
const PROBE: Duration = Duration::from_secs(2);

/// A client of our own, and what its events reach.
type Connected = Result<(Client, Arc<Shared>), NatsError>;

/// How often our own connections ask whether the server is there.
const PING: Duration = Duration::from_secs(5);

/// Why there is no bus.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// The address is none, or the connection could not be made.
    #[error("could not connect: {reason}")]
    Connect {
        /// What kind of failure it was.
        kind: async_nats::ConnectErrorKind,
        /// The client's words.
        reason: String,
    },
    /// The client was built with `no_echo`: it would never see its own messages, on whose return
    /// coherence rests.
    #[error("the client is built with no_echo: it would never hear itself")]
    NoEcho,
    /// A client was handed over outside a runtime, and none was named.
    #[error("a client needs the runtime it was built on: call from inside it, or name it")]
    NoRuntime,
    /// The thread of the bus could not be started.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The runtime ended before the connection was made.
    #[error("the runtime ended before the connection was made")]
    RuntimeEnded,
}

/// Settings of a [`NatsBus`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use afterwrite::bus::NatsBus;
///
/// let options = async_nats::ConnectOptions::new()
///     .user_and_password("writer".into(), "secret".into())
///     .require_tls(true);
/// let bus = NatsBus::builder().options(options).connect("nats.example.com").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct NatsBuilder {
    options: Option<ConnectOptions>,
    runtime: Option<Handle>,
    events: Option<EventTap>,
}

impl NatsBuilder {
    /// How to connect: credentials, TLS, name, intervals. Without it: name `afterwrite`, the user
    /// and password that stand in the address (`nats://user:password@host`, which options given
    /// here do not read), and a ping every 5 s, so that a dead server is noticed after some 15 s.
    ///
    /// The bus sets the options' event callback; one set before is replaced.
    #[must_use]
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Runs the bus on this runtime instead of a thread of its own. Its I/O and time drivers must
    /// be enabled. If it blocks, so does the bus. What is emitted in a task of this runtime gets to the
    /// wire without waking another thread, which is the quickest way there is.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The tap to which the caller's own client forwards its events; for [`NatsBuilder::client`].
    #[must_use]
    pub fn events(mut self, tap: EventTap) -> Self {
        self.events = Some(tap);
        self
    }

    /// Makes a connection of the bus's own. Needs no runtime: any executor may await it.
    ///
    /// # Errors
    /// [`NatsError`]: no connection, no thread, or options with `no_echo`.
    pub async fn connect(self, servers: impl ToServerAddrs) -> Result<NatsBus, NatsError> {
        let (home, connecting) = self.start(addresses(servers))?;
        let connected = home.handle().spawn(connecting);
        let (client, shared) = connected.await.map_err(|_| NatsError::RuntimeEnded)??;
        Ok(NatsBus::new(client, shared, home, true))
    }

    /// Makes a connection of the bus's own, and blocks the thread until that is done or has
    /// failed. Not for use on a thread of the runtime given to [`NatsBuilder::runtime`].
    ///
    /// # Errors
    /// Those of [`NatsBuilder::connect`].
    pub fn connect_blocking(self, servers: impl ToServerAddrs) -> Result<NatsBus, NatsError> {
        let (home, connecting) = self.start(addresses(servers))?;
        let (done, outcome) = mpsc::sync_channel(1);
        home.handle().spawn(async move {
            done.send(connecting.await).ok();
        });
        let (client, shared) = outcome.recv().map_err(|_| NatsError::RuntimeEnded)??;
        Ok(NatsBus::new(client, shared, home, true))
    }

    /// Takes over a client that the caller built; TLS, credentials and the end of its connection
    /// stay the caller's. Runs on the runtime that awaits this, or the one that was named.
    ///
    /// Other traffic on the client delays invalidations, and losses are only known through
    /// [`NatsBuilder::events`].
    ///
    /// # Errors
    /// [`NatsError::NoEcho`], [`NatsError::NoRuntime`].
    pub async fn client(self, client: Client) -> Result<NatsBus, NatsError> {
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => Handle::try_current().map_err(|_| NatsError::NoRuntime)?,
        };
        let shared = Arc::new(Shared::default());
        shared.attach(client.statistics());
        self.events.unwrap_or_default().attach(&shared);
        let home = Home::theirs(runtime);
        let probed = {
            let (client, shared) = (client.clone(), Arc::clone(&shared));
            home.handle()
                .spawn(async move { echoes(&client, &shared).await })
        };
        probed.await.map_err(|_| NatsError::RuntimeEnded)??;
        Ok(NatsBus::new(client, shared, home, false))
    }

    /// The place to run, and the future that connects there.
    fn start(
        self,
        servers: io::Result<Vec<ServerAddr>>,
    ) -> Result<(Home, impl Future<Output = Connected> + Send + use<>), NatsError> {
        let servers = servers.map_err(|error| NatsError::Connect {
            kind: async_nats::ConnectErrorKind::ServerParse,
            reason: error.to_string(),
        })?;
        let home = match self.runtime {
            Some(runtime) => Home::theirs(runtime),
            None => Home::ours().map_err(|error| NatsError::Thread(ThreadError::new(error)))?,
        };
        let options = self.options.unwrap_or_else(|| our_options(&servers));
        let tap = self.events.unwrap_or_default();
        let connecting = async move {
            let shared = Arc::new(Shared::default());
            tap.attach(&shared);
            let options = options.event_callback(move |event| {
                tap.forward(&event);
                async {}
            });
            let client = options.connect(servers).await;
            let client = client.map_err(|error| NatsError::Connect {
                kind: error.kind(),
                reason: error.to_string(),
            })?;
            shared.attach(client.statistics());
            echoes(&client, &shared).await?;
            Ok((client, shared))
        };
        Ok((home, connecting))
    }
}

impl NatsBus {
    fn new(client: Client, shared: Arc<Shared>, home: Home, dedicated: bool) -> Self {
        Self {
            inner: Arc::new(Inner {
                client,
                shared,
                home,
                trays: Mutex::default(),
                dedicated,
                closed: AtomicBool::new(false),
            }),
        }
    }
}

/// The options of a connection whose maker has given none. The client itself passes over a user
/// that stands in an address.
fn our_options(servers: &[ServerAddr]) -> ConnectOptions {
    let options = ConnectOptions::new().name("afterwrite").ping_interval(PING);
    let named = servers.iter().find_map(|server| {
        let password = server.password().unwrap_or_default();
        Some((server.username()?.to_owned(), password.to_owned()))
    });
    match named {
        Some((user, password)) => options.user_and_password(user, password),
        None => options,
    }
}

fn addresses(servers: impl ToServerAddrs) -> io::Result<Vec<ServerAddr>> {
    Ok(servers.to_server_addrs()?.collect())
}

/// Sends a message to a subject that we alone listen to, and asks for a report, to another such
/// subject, if nobody got it. A server holds a message back from its own sender only under
/// `no_echo`, and then reports that nobody got it. Neither comes when we lack the right to our
/// inbox subjects, or the connection is down: that proves nothing, and is no error here.
async fn echoes(client: &Client, shared: &Shared) -> Result<(), NatsError> {
    if client.connection_state() != State::Connected {
        return Ok(());
    }
    let denied = shared.denied.notified();
    let probe = async {
        let (here, report) = (client.new_inbox(), client.new_inbox());
        let mut heard = client.subscribe(here.clone()).await.ok()?;
        let mut reports = client.subscribe(report.clone()).await.ok()?;
        let empty = bytes::Bytes::new();
        client.publish_with_reply(here, report, empty).await.ok()?;
        tokio::select! {
            biased;
            _ = heard.next() => Some(true),
            report = reports.next() => {
                (report?.status == Some(StatusCode::NO_RESPONDERS)).then_some(false)
            }
        }
    };
    let echo = tokio::select! {
        echo = tokio::time::timeout(PROBE, probe) => echo.ok().flatten(),
        () = denied => None,
    };
    match echo {
        Some(false) => Err(NatsError::NoEcho),
        Some(true) => Ok(()),
        None => {
            tracing::warn!(
                "no proof that this NATS connection hears itself: no right to its inbox?"
            );
            Ok(())
        }
    }
}
