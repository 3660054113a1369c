//! The thread of a watch, so that it may be slow at nobody's cost but its own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use super::feed::{Budget, Feed, Work};
use crate::invalidation::cache::{Invalidation, Reason};
use crate::invalidation::done::Done;
use crate::invalidation::protocol::{Micros, RowId};
use crate::invalidation::subject::Entity;
use crate::limit::Limit;

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

    /// Whether this worker serves it.
    pub(crate) fn works_for(&self, worker: &Arc<Worker>) -> bool {
        self.worker
            .as_ref()
            .is_some_and(|own| Arc::ptr_eq(own, worker))
    }

    /// Ends the feed, and has the worker forget it once its lane is empty.
    pub(crate) fn retire(&self) {
        self.feed.end();
        if let Some(worker) = &self.worker {
            worker.changed.store(true, Release);
            worker.wake();
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

/// A watcher of every entity.
pub(crate) type EveryEntity = dyn Fn(&Entity, Invalidation<'_>) + Send + Sync;

/// Entities that a watcher of everything cannot follow: so many names wait at most to be told.
const STRAYS: usize = 1_024;

/// Works off the lanes of the feeds that it serves, in turn.
pub(crate) struct Worker {
    thread: OnceLock<Thread>,
    /// What may wait in all its lanes together.
    pub(crate) budget: Arc<Budget>,
    serves: Mutex<Vec<Arc<Listener>>>,
    /// Whether `serves` has changed since the thread looked.
    changed: AtomicBool,
    stopping: AtomicBool,
    /// Of a watcher of everything: whom to tell of entities for which there is no room, which of them
    /// are still to be told, and until when that keeps it in doubt.
    every: Option<Arc<EveryEntity>>,
    strays: Mutex<Vec<Entity>>,
    astray_until: AtomicU64,
    panics: Limit,
    pub(crate) done: Done,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Items of one feed before the next has its turn.
const TURN: usize = 64;

impl Worker {
    /// Starts the thread, for whose lanes at most `capacity` drops wait. Whenever a feed is trusted
    /// `trusted` is told until when.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn start(
        name: &str,
        capacity: usize,
        every: Option<Arc<EveryEntity>>,
        now: impl Fn() -> Micros + Send + 'static,
        trusted: impl Fn(Micros) + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let worker = Arc::new(Self {
            thread: OnceLock::new(),
            budget: Budget::new(capacity),
            serves: Mutex::default(),
            changed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            every,
            strays: Mutex::default(),
            astray_until: AtomicU64::new(0),
            panics: Limit::new(),
            done: Done::default(),
        });
        let works = worker.clone();
        let handle = thread::Builder::new()
            .name(format!("aw-watch-{name}"))
            .spawn(move || {
                // Caches' panics are caught where they are called. What is left is a cache that
                // panics when it is dropped: whoever waits for the end waits for no more than that.
                let _ended = catch_unwind(AssertUnwindSafe(|| works.run(now, trusted)));
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
        let serves = self.serves.lock();
        let live = |listener: &&Arc<Listener>| !listener.feed.has_ended();
        serves.iter().filter(live).cloned().collect()
    }

    /// There is an entity that it cannot follow: in doubt until then, and everything of that entity is
    /// told to be dropped.
    pub(crate) fn stray(&self, entity: &Entity, until: Micros) {
        // Release: who reads that the time is over has seen what was told before.
        self.astray_until.fetch_max(until, Release);
        let mut strays = self.strays.lock();
        if strays.len() < STRAYS && !strays.contains(entity) {
            strays.push(entity.clone());
        }
        drop(strays);
        self.wake();
    }

    /// Until when there are entities that it cannot follow.
    pub(crate) fn astray_until(&self) -> Micros {
        self.astray_until.load(Acquire)
    }

    fn tell_strays(&self) -> bool {
        let strays = std::mem::take(&mut *self.strays.lock());
        for entity in &strays {
            if let Some(tell) = &self.every {
                let what = Invalidation::All(Reason::Overflow);
                // A watcher's panic is its own failure.
                if catch_unwind(AssertUnwindSafe(|| tell(entity, what))).is_err() {
                    let entity = entity.as_str();
                    self.panics
                        .say(|| tracing::error!(entity, "a watcher of everything panicked"));
                }
            }
        }
        !strays.is_empty()
    }

    /// Ends the thread once its lanes are empty.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Release);
        self.wake();
    }

    fn run(&self, now: impl Fn() -> Micros, trusted: impl Fn(Micros)) {
        let mut serves = Vec::new();
        loop {
            if self.changed.swap(false, AcqRel) {
                let mut all = self.serves.lock();
                all.retain(|listener| !(listener.feed.has_ended() && listener.feed.waiting() == 0));
                serves.clone_from(&all);
            }
            // Looked at before the lanes: what was put there before the stop is still applied.
            let stopping = self.stopping.load(Acquire);
            let mut worked = self.tell_strays();
            for listener in &serves {
                for _ in 0..TURN {
                    if !listener.feed.work(&now) {
                        break;
                    }
                    worked = true;
                    // At once: the next item may be one at which the cache gets stuck.
                    if let Some(until) = listener.feed.trusted_until() {
                        trusted(until);
                    }
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
