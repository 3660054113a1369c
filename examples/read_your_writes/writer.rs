//! Writers: append to the log, commit, and tell the registry.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use afterwrite::{Published, Registry, Submitted};

use crate::options::Options;
use crate::random::Random;
use crate::run::{Change, Mode, Shared, Worker, entity_key, spawn};
use crate::store::{Event, Log};

/// Writes a second, of all writers together.
pub(crate) const RATE: u32 = 400;
const WRITERS: usize = 2;

/// By entity: how many notices each of its clients is to get.
pub(crate) type Sent = Vec<(usize, u64)>;

/// Starts the writers. Each has entities of its own, and tells of them in the order of its commits.
pub(crate) fn start(
    shared: &Arc<Shared>,
    registry: &Registry<Change>,
    log: &Path,
    options: &Options,
) -> io::Result<Vec<Worker<Sent>>> {
    let writers = WRITERS.min(options.keys);
    (0..writers)
        .map(|index| {
            let (log, registry) = (Log::open(log), registry.clone());
            // The remainders go to the first ones.
            let writes = (options.writes + writers - 1 - index) / writers;
            let entities = (options.keys + writers - 1 - index) / writers;
            let mut random = Random::new(options.seed, 2 + index as u64);
            let tell = Tell::new(shared.clone(), registry, options);
            spawn(shared.clone(), "writer", move |shared| {
                let mut log = log?;
                let mut sent: Sent = (0..entities).map(|e| (e * writers + index, 0)).collect();
                let mut due = shared.began.elapsed();
                for _ in 0..writes {
                    due += random.pause(Duration::from_secs(1) / RATE * writers as u32);
                    if shared.stop.wait_until(shared.began + due) {
                        break;
                    }
                    let (entity, count) = &mut sent[random.below(entities)];
                    let event = log.append(*entity, shared.began.elapsed())?;
                    shared.counts.writes.fetch_add(1, Relaxed);
                    *count += u64::from(tell.of(&event));
                    shared.committed.advance(event.number);
                }
                Ok(sent)
            })
        })
        .collect()
}

/// Tells the registry of a commit, the way the run's mode has it.
struct Tell {
    shared: Arc<Shared>,
    registry: Registry<Change>,
    /// By entity.
    clients: Vec<u64>,
}

impl Tell {
    fn new(shared: Arc<Shared>, registry: Registry<Change>, options: &Options) -> Self {
        let mut clients = vec![0; options.keys];
        (0..options.subscribers).for_each(|client| clients[client % options.keys] += 1);
        Self {
            shared,
            registry,
            clients,
        }
    }

    /// Whether the entity's clients are to get a notice, or to be told that they missed one.
    fn of(&self, event: &Event) -> bool {
        let key = entity_key(event.entity);
        let change = Change {
            number: event.number,
            version: event.version,
        };
        let taken = match self.shared.mode {
            Mode::NoGate => self.registry.publish(&key, change) != Published::Closed,
            Mode::Polling => {
                let (shared, entity) = (self.shared.clone(), event.entity);
                is_taken(self.registry.submit(&key, move |_attempt| {
                    shared.counts.gate_reads.fetch_add(1, Relaxed);
                    // A view that cannot be read now is asked again, as one that lags.
                    let shown = shared.view.version(entity).ok()?;
                    (shown >= change.version).then_some(change)
                }))
            }
            Mode::Watermark => {
                let reached = self.shared.applied.reached(event.number);
                is_taken(self.registry.submit_at(&key, reached, change))
            }
        };
        let counts = &self.shared.counts;
        if taken {
            counts.sent.fetch_add(self.clients[event.entity], Relaxed);
        } else {
            counts.refused.fetch_add(1, Relaxed);
        }
        taken
    }
}

fn is_taken(submitted: Submitted) -> bool {
    // A full queue is a loss that subscribers are told of.
    matches!(submitted, Submitted::Queued | Submitted::QueueFull)
}
