//! One run: the databases, the threads, the clients, and what became of every notice.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afterwrite::{BuildError, Registry, SubscribeError, Watermark};
use thiserror::Error;

use crate::client::{self, Receipt};
use crate::histogram::Histogram;
use crate::options::Options;
use crate::progress::Progress;
use crate::random::Random;
use crate::scratch::Scratch;
use crate::store::{Event, Log, View};
use crate::{projection, writer};

/// How often the main thread looks, and shows progress.
const TICK: Duration = Duration::from_millis(100);
/// How long clients may take for what is left, once the view shows the last write.
const PATIENCE: Duration = Duration::from_secs(15);

/// When a notice is pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Right after the commit.
    NoGate,
    /// Once the producer, asked again and again, finds the change in the view.
    Polling,
    /// Once the projection has advanced the watermark to the event.
    Watermark,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::NoGate, Self::Polling, Self::Watermark];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoGate => "no gate",
            Self::Polling => "polling gate",
            Self::Watermark => "watermark",
        }
    }

    pub(crate) fn is_gated(self) -> bool {
        self != Self::NoGate
    }
}

/// What a run could not do.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("the temporary directory, or a thread, is not to be had")]
    Io(#[from] io::Error),
    #[error("a database refused")]
    Database(#[from] rusqlite::Error),
    #[error("the registry could not be built")]
    Build(#[from] BuildError),
    #[error("a client was refused")]
    Subscribe(#[from] SubscribeError),
    #[error("{0} panicked")]
    Panicked(&'static str),
    #[error("the log has no event {0}, though the writer says it is committed")]
    NoEvent(u64),
}

/// What a notice says: which event, and the entity's version that it wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) version: u64,
}

/// Ends the waits of every thread of a run.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until then, or until stopped; whether it was stopped.
    pub(crate) fn wait_until(&self, then: Instant) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let left = then.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(stopped, left, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What is counted while a run goes on.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) writes: AtomicU64,
    /// Notices that clients are to get.
    pub(crate) sent: AtomicU64,
    /// Submits that were neither queued nor reported as lost.
    pub(crate) refused: AtomicU64,
    /// Notices that clients got or were told to have missed.
    pub(crate) accounted: AtomicU64,
    pub(crate) refetches: AtomicU64,
    /// Refetches that found less than the notice promised.
    pub(crate) old: AtomicU64,
    /// How often a gate asked the view.
    pub(crate) gate_reads: AtomicU64,
}

/// What all threads of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mode: Mode,
    pub(crate) began: Instant,
    pub(crate) view: View,
    /// How far the log is committed.
    pub(crate) committed: Watermark,
    /// How far the view shows the log.
    pub(crate) applied: Watermark,
    /// By event number: when the view showed it, in nanoseconds since `began`; 0 while it does not.
    visible: Box<[AtomicU64]>,
    pub(crate) stop: Stop,
    pub(crate) counts: Counts,
    /// From the moment the view shows an event to the moment a client has its notice.
    pub(crate) delay: Histogram,
}

impl Shared {
    /// The view shows the batch, as of now.
    pub(crate) fn shows(&self, batch: &[Event]) {
        let now = self.began.elapsed().as_nanos() as u64;
        for event in batch {
            if let Some(visible) = self.visible.get(event.number as usize) {
                visible.store(now, Relaxed);
            }
        }
    }

    /// How long the view had shown an event by then. Nothing if the notice was faster than the
    /// projection's own look at the clock after its commit.
    pub(crate) fn shown_for(&self, number: u64, then: Duration) -> Duration {
        match self.visible.get(number as usize).map(|v| v.load(Relaxed)) {
            Some(nanos) if nanos > 0 => then.saturating_sub(Duration::from_nanos(nanos)),
            _ => Duration::ZERO,
        }
    }
}

/// What came out of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) mode: Mode,
    /// For each client: what was sent to it, and what it says it got.
    pub(crate) ledgers: Vec<(u64, Receipt)>,
    pub(crate) refused: u64,
    pub(crate) gate_reads: u64,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) took: Duration,
}

pub(crate) fn entity_key(entity: usize) -> String {
    format!("order/{entity}")
}

/// Makes one run.
pub(crate) fn run(mode: Mode, options: &Options, scratch: &Scratch) -> Result<Outcome, RunError> {
    let folder = scratch.folder(mode.name())?;
    let log = folder.join("log.db");
    Log::create(&log)?;
    let shared = Arc::new(Shared {
        mode,
        began: Instant::now(),
        view: View::create(&folder.join("view.db"))?,
        committed: Watermark::new(0),
        applied: Watermark::new(0),
        visible: (0..=options.writes).map(|_| AtomicU64::new(0)).collect(),
        stop: Stop::default(),
        counts: Counts::default(),
        delay: Histogram::default(),
    });
    let outcome = drive(&shared, options, &log);
    shared.stop.stop();
    outcome
}

fn drive(shared: &Arc<Shared>, options: &Options, log: &Path) -> Result<Outcome, RunError> {
    let registry: Registry<Change> = Registry::builder().build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("clients")
        .enable_time()
        .build()?;
    let mut random = Random::new(options.seed, 0);
    let mut clients = Vec::with_capacity(options.subscribers);
    for client in 0..options.subscribers {
        let entity = client % options.keys;
        let subscription = registry.subscribe(&entity_key(entity))?;
        let away = client::round_trip(&mut random);
        let task = client::follow(shared.clone(), subscription, entity, away);
        clients.push((entity, runtime.spawn(task)));
    }

    let mut progress = Progress::new(shared.clone(), options);
    let projection = projection::start(shared.clone(), log, options)?;
    let writers = writer::start(shared, &registry, log, options)?;
    let busy = || !projection.is_finished() || writers.iter().any(|w| !w.is_finished());
    while busy() && !shared.stop.wait_until(Instant::now() + TICK) {
        progress.show();
    }
    join(projection, "the projection")?;
    let mut sent = vec![0; options.keys];
    for writer in writers {
        for (entity, count) in join(writer, "a writer")? {
            sent[entity] += count;
        }
    }

    let until = Instant::now() + PATIENCE;
    let counts = &shared.counts;
    let waits = || counts.accounted.load(Relaxed) < counts.sent.load(Relaxed);
    while waits() && Instant::now() < until && !shared.stop.wait_until(Instant::now() + TICK) {
        progress.show();
    }
    // Streams end once they are drained, and with them the clients.
    registry.close();
    let mut ledgers = Vec::with_capacity(clients.len());
    for (entity, task) in clients {
        let receipt = runtime
            .block_on(task)
            .map_err(|_| RunError::Panicked("a client"))??;
        ledgers.push((sent[entity], receipt));
    }
    progress.end();
    Ok(Outcome {
        mode: shared.mode,
        ledgers,
        refused: counts.refused.load(Relaxed),
        gate_reads: counts.gate_reads.load(Relaxed),
        p50: shared.delay.quantile(0.50),
        p99: shared.delay.quantile(0.99),
        took: shared.began.elapsed(),
    })
}

/// What a thread of the run came to.
pub(crate) type Worker<T> = JoinHandle<Result<T, RunError>>;

/// Starts a thread of the run; should it fail, the others are stopped.
pub(crate) fn spawn<T: Send + 'static>(
    shared: Arc<Shared>,
    name: &str,
    work: impl FnOnce(&Shared) -> Result<T, RunError> + Send + 'static,
) -> io::Result<Worker<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&shared).inspect_err(|_| shared.stop.stop()))
}

fn join<T>(worker: Worker<T>, name: &'static str) -> Result<T, RunError> {
    worker.join().map_err(|_| RunError::Panicked(name))?
}
