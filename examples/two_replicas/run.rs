//! The run: start two nodes, let them work, harm the wire, and see what they make of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, LocalBus};
use afterwrite::invalidation::coherent::LoadError;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::{Prefix, SubjectError};
use afterwrite::invalidation::{EmitError, Farewell, StartError, WatchError};
use thiserror::Error;

use crate::ledger::Ledger;
use crate::node::Node;
use crate::options::Options;
use crate::random::Random;
use crate::store::{Rows, Scratch};
use crate::timeline::Timeline;

/// The nodes' names; the second one is the one that is cut off.
const NAMES: [&str; 2] = ["node-a", "node-b"];
/// How long nodes may take to be Coherent, at first and after a harm.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often the main thread looks whether something has happened.
const LOOK: Duration = Duration::from_millis(2);
/// Between two harms.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the run could not be made.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("the temporary directory: {0}")]
    Scratch(#[from] std::io::Error),
    #[error("the database: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("a name: {0}")]
    Name(#[from] SubjectError),
    #[error("a node did not start: {0}")]
    Start(#[from] StartError),
    #[error("a cache is not watched: {0}")]
    Watch(#[from] WatchError),
    #[error("a write was not told: {0}")]
    Emit(#[from] EmitError),
    #[error("a read: {0}")]
    Load(#[from] LoadError),
    #[error("row {0} is gone")]
    NoRow(usize),
    #[error("{0} is not Coherent after {PATIENCE:?}")]
    NeverCoherent(&'static str),
    #[error("no write came to be lost within {PATIENCE:?}")]
    NothingLost,
    #[error("a thread panicked")]
    Panicked,
    #[cfg(feature = "nats")]
    #[error("nats, {url}: {reason}")]
    Nats { url: String, reason: String },
}

/// Tells all threads to stop.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    told: Condvar,
}

impl Stop {
    /// Waits for so long, or until told to stop; whether it was told.
    pub(crate) fn wait(&self, within: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(stopped, within, |told| !*told);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }
}

/// Stops, whichever way the scope is left.
struct StopOnDrop<'a>(&'a Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What is done to the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    LostFrame,
    Cut,
    #[cfg(feature = "nats")]
    Reconnect,
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LostFrame => "a frame of node-a is lost",
            Self::Cut => "node-b is cut off, without an error",
            #[cfg(feature = "nats")]
            Self::Reconnect => "node-b's connection is made anew",
        }
    }

    /// Who has to notice.
    fn noticed_by(self) -> &'static [usize] {
        match self {
            Self::Cut => &[0, 1],
            _ => &[1],
        }
    }
}

/// What a node made of a fault.
#[derive(Debug, Clone)]
pub(crate) struct Episode {
    pub(crate) fault: Fault,
    pub(crate) node: &'static str,
    /// From the harm to Suspect.
    pub(crate) noticed: Option<Duration>,
    /// Reads that found an entry and did not get it.
    pub(crate) bypassed: u64,
    pub(crate) flushes: u64,
    /// From the harm to the last Coherent.
    pub(crate) recovered: Option<Duration>,
}

/// All that is to be reported.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) episodes: Vec<Episode>,
    pub(crate) farewells: Vec<Farewell>,
    pub(crate) bound: Duration,
}

/// What the nodes are connected by.
enum Medium {
    Embedded(LocalBus),
    #[cfg(feature = "nats")]
    Nats {
        runtime: tokio::runtime::Runtime,
        links: Vec<crate::nats::Link>,
        url: String,
    },
}

impl Medium {
    fn new(options: &Options) -> Result<Self, RunError> {
        match &options.nats {
            #[cfg(feature = "nats")]
            Some(url) => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                Ok(Self::Nats {
                    runtime: builder.worker_threads(1).enable_all().build()?,
                    links: Vec::new(),
                    url: url.clone(),
                })
            }
            _ => Ok(Self::Embedded(LocalBus::new())),
        }
    }

    #[cfg_attr(not(feature = "nats"), allow(unused_variables))]
    fn connect(&mut self, name: &str) -> Result<Box<dyn Bus>, RunError> {
        match self {
            Self::Embedded(bus) => Ok(Box::new(bus.clone())),
            #[cfg(feature = "nats")]
            Self::Nats {
                runtime,
                links,
                url,
            } => {
                let (bus, link) = crate::nats::Link::connect(runtime, url, name)?;
                links.push(link);
                Ok(Box::new(bus))
            }
        }
    }

    fn faults(&self) -> &'static [Fault] {
        match self {
            Self::Embedded(_) => &[Fault::LostFrame, Fault::Cut],
            #[cfg(feature = "nats")]
            Self::Nats { .. } => &[Fault::LostFrame, Fault::Cut, Fault::Reconnect],
        }
    }
}

/// Makes the run.
pub(crate) fn run(options: &Options) -> Result<Outcome, RunError> {
    let scratch = Scratch::new()?;
    let database = scratch.database();
    Rows::open(&database)?.create(options.keys)?;
    // Of this run alone: others may share the server.
    let prefix = Prefix::new(&format!("two-replicas-{}", std::process::id()))?;
    let mut medium = Medium::new(options)?;
    let mut nodes = Vec::new();
    for name in NAMES {
        let bus = medium.connect(name)?;
        let node = Node::start(name, prefix.clone(), bus, options.keys)?;
        nodes.push(Arc::new(node));
    }
    let bound = nodes[0].invalidator.settings().bound();
    println!(
        "{} rows, on each node {} readers and {} writes a second, over {}; B = {bound:?}",
        options.keys,
        options.readers,
        options.rate,
        options.nats.as_deref().unwrap_or("the embedded bus"),
    );
    let (ledger, stop, timeline) = (Ledger::new(options.keys), Stop::default(), Timeline::new());
    let every = Duration::from_secs(1) / u32::try_from(options.rate).unwrap_or(u32::MAX);
    let episodes = thread::scope(|scope| {
        let ending = StopOnDrop(&stop);
        scope.spawn(|| timeline.watch(&nodes, &stop));
        let mut workers = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let (database, ledger, stop) = (&database, &ledger, &stop);
            let stream = |worker: usize| Random::new(options.seed, (number * 100 + worker) as u64);
            let random = stream(0);
            workers.push(scope.spawn(move || {
                let _ending = StopOnDrop(stop);
                node.write(database, ledger, options.keys, every, random, stop)
            }));
            for reader in 1..=options.readers {
                let random = stream(reader);
                workers.push(scope.spawn(move || {
                    let _ending = StopOnDrop(stop);
                    node.read(database, ledger, options.keys, random, stop)
                }));
            }
        }
        let episodes = conduct(options, &medium, &nodes, &timeline, &stop);
        drop(ending);
        for worker in workers {
            worker.join().map_err(|_| RunError::Panicked)??;
        }
        episodes
    })?;
    let within = Duration::from_secs(1);
    let farewells = nodes.iter().map(|n| n.invalidator.close(within));
    Ok(Outcome {
        farewells: farewells.collect(),
        nodes,
        episodes,
        bound,
    })
}

/// The calm while, then one harm after the other.
fn conduct(
    options: &Options,
    medium: &Medium,
    nodes: &[Arc<Node>],
    timeline: &Timeline,
    stop: &Stop,
) -> Result<Vec<Episode>, RunError> {
    settle(nodes, stop)?;
    stop.wait(Duration::from_secs(options.seconds));
    let mut episodes = Vec::new();
    for &fault in medium.faults() {
        let noticing = fault.noticed_by();
        let figures = |at: &usize| {
            let node: &Node = &nodes[*at];
            let flushes = node.invalidator.stats().flushes;
            (node.counts.bypassed.load(Relaxed), flushes)
        };
        let before: Vec<_> = noticing.iter().map(figures).collect();
        timeline.say(fault.name());
        let began = harm(fault, medium, nodes, timeline, stop)?;
        let bound = nodes[0].invalidator.settings().bound();
        let noticed = |at: &usize| timeline.first(*at, Coherence::Suspect, began).is_some();
        until(stop, bound + LATE, || noticing.iter().all(noticed));
        settle(nodes, stop)?;
        stop.wait(PAUSE);
        for (&at, (bypassed, flushes)) in noticing.iter().zip(before) {
            let change = timeline.first(at, Coherence::Suspect, began);
            let recovered =
                change.and_then(|noticed| timeline.last(at, Coherence::Coherent, noticed));
            let after = figures(&at);
            episodes.push(Episode {
                fault,
                node: nodes[at].name,
                noticed: change.map(|at| at - began),
                bypassed: after.0 - bypassed,
                flushes: after.1 - flushes,
                recovered: recovered.map(|at| at - began),
            });
        }
    }
    Ok(episodes)
}

/// Beyond the bound, for this program's own threads to see what the nodes know.
pub(crate) const LATE: Duration = Duration::from_millis(100);

/// Does harm, and says when it was done.
#[cfg_attr(not(feature = "nats"), allow(unused_variables))]
fn harm(
    fault: Fault,
    medium: &Medium,
    nodes: &[Arc<Node>],
    timeline: &Timeline,
    stop: &Stop,
) -> Result<Instant, RunError> {
    match fault {
        Fault::LostFrame => {
            let harm = &nodes[0].harm;
            harm.lose_one();
            until(stop, PATIENCE, || harm.lost_at().is_some());
            harm.lost_at().ok_or(RunError::NothingLost)
        }
        Fault::Cut => {
            let began = Instant::now();
            nodes[1].harm.cut(true);
            let bound = nodes[1].invalidator.settings().bound();
            stop.wait(bound + LATE);
            nodes[1].harm.cut(false);
            timeline.say("node-b is reached again");
            Ok(began)
        }
        #[cfg(feature = "nats")]
        Fault::Reconnect => {
            let began = Instant::now();
            if let Medium::Nats { runtime, links, .. } = medium {
                links[1].reconnect(runtime)?;
            }
            Ok(began)
        }
    }
}

/// Waits until all nodes are Coherent.
fn settle(nodes: &[Arc<Node>], stop: &Stop) -> Result<(), RunError> {
    let coherent = |node: &Arc<Node>| node.watch.coherence() == Coherence::Coherent;
    until(stop, PATIENCE, || nodes.iter().all(coherent));
    match nodes.iter().find(|node| !coherent(node)) {
        // A thread that stopped all others has an error of its own to tell.
        Some(node) if !stop.wait(Duration::ZERO) => Err(RunError::NeverCoherent(node.name)),
        _ => Ok(()),
    }
}

/// Waits for something, or as long as it may take, or until told to stop.
fn until(stop: &Stop, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() && Instant::now() < deadline && !stop.wait(LOOK) {}
}
