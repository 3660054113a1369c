//! The projection: applies the log's events to the read view, in their order, some time later.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::options::Options;
use crate::random::Random;
use crate::run::{RunError, Shared, Worker, spawn};
use crate::store::{Event, Log};

/// What the projection is behind the log: most often some 40 ms, never under 3 ms.
const LEAST_LAG: Duration = Duration::from_millis(3);
const MEDIAN_LAG: Duration = Duration::from_millis(40);
const MOST_LAG: Duration = Duration::from_millis(190);
const LAG_SPREAD: f64 = 0.9;
const BATCH: usize = 512;
/// How often a projection without work looks whether the run was stopped.
const IDLE: Duration = Duration::from_millis(50);

/// Starts the projection's thread; it ends once it has applied every write of the run.
pub(crate) fn start(shared: Arc<Shared>, log: &Path, options: &Options) -> io::Result<Worker<()>> {
    let (log, writes) = (log.to_owned(), options.writes as u64);
    let random = Random::new(options.seed, 1);
    spawn(shared, "projection", move |shared| {
        let log = Log::open(&log)?;
        project(shared, &log, writes, random)
    })
}

/// Applies batch after batch. Each is taken when its first event has reached an age that is drawn for
/// the batch, so the events of a batch are between the least lag and that age behind.
fn project(shared: &Shared, log: &Log, writes: u64, mut random: Random) -> Result<(), RunError> {
    let mut view = shared.view.writer()?;
    let mut applied = 0;
    while applied < writes {
        if shared
            .committed
            .wait_for_timeout(applied + 1, IDLE)
            .is_err()
        {
            if shared.stop.is_stopped() {
                return Ok(());
            }
            continue;
        }
        let lag = random.log_normal(MEDIAN_LAG, LAG_SPREAD, LEAST_LAG, MOST_LAG);
        let first = log.after(applied, 1)?;
        let first = first.first().ok_or(RunError::NoEvent(applied + 1))?;
        if shared
            .stop
            .wait_until(shared.began + first.written_at + lag)
        {
            return Ok(());
        }
        let mut batch = log.after(applied, BATCH)?;
        batch.truncate(due(&batch, applied, shared.began.elapsed())?);
        view.apply(&batch)?;
        shared.shows(&batch);
        if let Some(last) = batch.last() {
            applied = last.number;
            // After the commit, never before: whoever is woken by this reads the view at once.
            shared.applied.advance(applied);
        }
    }
    Ok(())
}

/// How many events from the front of a batch are old enough. Never one behind another that is not:
/// a writer looks at the clock before it has the log's lock, so numbers and times may disagree, and
/// the watermark says that *everything* up to its position is in the view.
pub(crate) fn due(batch: &[Event], applied: u64, now: Duration) -> Result<usize, RunError> {
    let old_enough = |event: &&Event| event.written_at + LEAST_LAG <= now;
    let due = batch.iter().take_while(old_enough).count();
    for (event, expected) in batch[..due].iter().zip(applied + 1..) {
        if event.number != expected {
            return Err(RunError::NoEvent(expected));
        }
    }
    Ok(due)
}
