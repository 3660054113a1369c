//! Where receivers count, and where the sender waits for them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long something may take that takes microseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts what arrived. One sender waits, as a thread or as a task.
#[derive(Debug)]
pub(super) struct Arrivals {
    begin: Instant,
    count: AtomicU64,
    wanted: AtomicU64,
    /// The count at which the sender goes on.
    room: AtomicU64,
    /// When the wanted count was reached, in nanoseconds since the beginning.
    reached: AtomicU64,
    thread: Mutex<Option<Thread>>,
    task: Notify,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            count: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
            room: AtomicU64::new(u64::MAX),
            reached: AtomicU64::new(0),
            thread: Mutex::new(None),
            task: Notify::new(),
        }
    }
}

impl Arrivals {
    /// The receiver's part.
    #[inline]
    pub(super) fn arrived(&self) {
        let count = self.count.fetch_add(1, SeqCst) + 1;
        let is_last = count == self.wanted.load(SeqCst);
        if is_last {
            let now = self.begin.elapsed().as_nanos() as u64;
            self.reached.store(now, SeqCst);
        }
        if is_last || count == self.room.load(SeqCst) {
            match &*self.thread.lock().expect("nobody panics here") {
                Some(thread) => thread.unpark(),
                None => self.task.notify_one(),
            }
        }
    }

    /// Waits until so many have arrived, so that the sender does not run ahead.
    pub(super) fn pass(&self, count: u64) {
        self.room.store(count, SeqCst);
        while self.count() < count {
            let begun = Instant::now();
            std::thread::park_timeout(PATIENCE);
            assert!(begun.elapsed() < PATIENCE, "only {} arrived", self.count());
        }
    }

    /// As [`pass`](Self::pass), as a task.
    pub(super) async fn pass_async(&self, count: u64) {
        self.room.store(count, SeqCst);
        while self.count() < count {
            let come = tokio::time::timeout(PATIENCE, self.task.notified());
            assert!(come.await.is_ok(), "only {} arrived", self.count());
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// The calling thread is the one that waits.
    pub(super) fn by_thread(&self) {
        *self.thread.lock().expect("nobody panics here") = Some(std::thread::current());
    }

    /// The sender's part: so many more are to come. Said before the first is sent.
    pub(super) fn expect(&self, more: u64) -> Instant {
        self.reached.store(0, SeqCst);
        self.wanted.store(self.count() + more, SeqCst);
        Instant::now()
    }

    fn since(&self, sent: Instant) -> Option<Duration> {
        match self.reached.load(SeqCst) {
            0 => None,
            at => Some(Duration::from_nanos(at) - sent.duration_since(self.begin)),
        }
    }

    /// Waits on this thread until all have come: how long after `sent` that was.
    pub(super) fn wait(&self, sent: Instant) -> Duration {
        loop {
            if let Some(took) = self.since(sent) {
                return took;
            }
            std::thread::park_timeout(PATIENCE);
            assert!(sent.elapsed() < PATIENCE, "only {} arrived", self.count());
        }
    }

    /// As [`wait`](Self::wait), as a task.
    pub(super) async fn wait_async(&self, sent: Instant) -> Duration {
        loop {
            if let Some(took) = self.since(sent) {
                return took;
            }
            let come = tokio::time::timeout(PATIENCE, self.task.notified());
            assert!(come.await.is_ok(), "only {} arrived", self.count());
        }
    }
}
