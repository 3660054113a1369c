//! The thread of a watch, so that it may be slow at nobody's cost but its own.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use super::feed::{Feed, Work};
use crate::invalidation::done::Done;
use crate::invalidation::protocol::{Micros, RowId};
use crate::invalidation::subject::Entity;

/// One feed, with what it belongs to and who works on it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) entity: Entity,
    pub(crate) row: RowId,
    pub(crate) feed: Feed,
    worker: Option<Arc<Worker>>,
}

impl Listener {
    pub(crate) const fn new(
        entity: Entity,
        row: RowId,
        feed: Feed,
        worker: Option<Arc<Worker>>,
    ) -> Self {
        Self {
            entity,
            row,
            feed,
            worker,
        }
    }

    /// Wakes the worker if there is work that it does not know of.
    #[inline]
    pub(crate) fn wake(&self, work: Work) {
        if work == Work::Wake
            && let Some(worker) = &self.worker
        {
            worker.wake();
        }
    }
}

/// Works off the lanes of the feeds that it serves, in turn.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    thread: OnceLock<Thread>,
    serves: Mutex<Vec<Arc<Listener>>>,
    /// Whether `serves` has changed since the thread looked.
    changed: AtomicBool,
    stopping: AtomicBool,
    pub(crate) done: Done,
}

/// Items of one feed before the next has its turn.
const TURN: usize = 64;

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn start(
        name: &str,
        now: impl Fn() -> Micros + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let worker = Arc::new(Self::default());
        let works = worker.clone();
        let handle = thread::Builder::new()
            .name(format!("aw-watch-{name}"))
            .spawn(move || {
                works.run(now);
                works.done.set();
            })?;
        worker.thread.get_or_init(|| handle.thread().clone());
        worker.wake();
        Ok(worker)
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(crate) fn serve(&self, listener: Arc<Listener>) {
        self.serves.lock().push(listener);
        self.changed.store(true, Release);
        self.wake();
    }

    /// What it serves now.
    pub(crate) fn served(&self) -> Vec<Arc<Listener>> {
        self.serves.lock().clone()
    }

    /// Ends the thread once its lanes are empty.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Release);
        self.wake();
    }

    fn run(&self, now: impl Fn() -> Micros) {
        let mut serves = Vec::new();
        loop {
            if self.changed.swap(false, AcqRel) {
                serves.clone_from(&self.serves.lock());
            }
            // Looked at before the lanes: what was put there before the stop is still applied.
            let stopping = self.stopping.load(Acquire);
            let mut worked = false;
            for listener in &serves {
                for _ in 0..TURN {
                    if !listener.feed.work(&now) {
                        break;
                    }
                    worked = true;
                }
            }
            if !worked && !self.changed.load(Acquire) {
                if stopping {
                    self.serves.lock().clear();
                    return;
                }
                // Woken by `wake`, whose token is kept if it came before this.
                thread::park();
            }
        }
    }
}
