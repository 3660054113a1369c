//! Watches: where what arrives is applied.

mod feed;
mod lag;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::sync::Arc;

pub use lag::Lag;

#[cfg(test)]
pub(crate) use feed::Budget;
pub(crate) use feed::{Feed, Work};
pub(crate) use worker::{EveryEntity, Listener, Worker};

use super::fence::{Coherence, Fence};
use super::invalidator::{Invalidator, worst};

/// A cache under watch. Dropping it ends the watch: what is still queued may be applied or not, and the
/// cache falls into doubt, since nobody listens for it any more.
#[must_use = "dropping a watch ends it"]
pub struct Watch {
    invalidator: Invalidator,
    /// Empty for a watch of everything, whose worker knows its feeds.
    listeners: Vec<Arc<Listener>>,
    worker: Option<Arc<Worker>>,
    /// That of a watch of one entity, so that to ask for its state is one step.
    fence: Option<Arc<Fence>>,
    ended: bool,
}

/// What a watch has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WatchStats {
    /// Drops of single ids applied that other nodes emitted.
    pub applied: u64,
    /// Drops that wait for this watch's thread.
    pub waiting: usize,
    /// Times that its queue was full, which drops everything.
    pub overflows: u64,
    /// Times that its cache failed or panicked, which drops everything.
    pub failures: u64,
}

impl Watch {
    pub(super) fn new(
        invalidator: Invalidator,
        listeners: Vec<Arc<Listener>>,
        worker: Option<Arc<Worker>>,
    ) -> Self {
        let fence = match listeners.as_slice() {
            [listener] => Some(listener.feed.driver().target().fence().clone()),
            _ => None,
        };
        Self {
            invalidator,
            listeners,
            worker,
            fence,
            ended: false,
        }
    }

    fn feeds<R>(&self, read: impl FnMut(&Arc<Listener>) -> R) -> Vec<R> {
        match &self.worker {
            Some(worker) if self.listeners.is_empty() => worker.served().iter().map(read).collect(),
            _ => self.listeners.iter().map(read).collect(),
        }
    }

    /// How far this cache may be trusted, its queue's lag included. One atomic load for a watch of one
    /// entity. A watch of everything asks each, under a lock, and is `Joining` while it knows of none
    /// and `Suspect` while there are more than it can follow
    /// ([`Settings::max_entities`](super::Settings::max_entities)).
    #[inline]
    #[must_use]
    pub fn coherence(&self) -> Coherence {
        match &self.fence {
            Some(fence) => fence.coherence(),
            None => self.coherence_of_all(),
        }
    }

    fn coherence_of_all(&self) -> Coherence {
        let states = self.feeds(|listener| listener.feed.driver().coherence());
        let astray = self
            .worker
            .as_ref()
            .map_or(0, |worker| worker.astray_until());
        let astray = (astray > self.invalidator.now()).then_some(Coherence::Suspect);
        worst(states.into_iter().chain(astray)).unwrap_or(Coherence::Joining)
    }

    /// How long drops took from their emit to here; of the slowest entity for a watch of everything.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let lags = self.feeds(|listener| listener.feed.lag().read());
        lags.into_iter()
            .max_by_key(|lag| lag.p99)
            .unwrap_or_default()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> WatchStats {
        let mut stats = WatchStats::default();
        for (applied, waiting, overflows, failures) in self.feeds(|listener| {
            let feed = &listener.feed;
            let (overflows, failures) = (feed.overflows(), feed.failures());
            (feed.applied(), feed.waiting(), overflows, failures)
        }) {
            stats.applied += applied;
            stats.waiting += waiting;
            stats.overflows += overflows;
            stats.failures += failures;
        }
        stats
    }

    /// Ends the watch, and waits until everything that was queued is applied. Needs no runtime.
    pub async fn stop(mut self) {
        let worker = self.worker.clone();
        self.end();
        if let Some(worker) = worker {
            worker.done.wait().await;
        }
    }

    /// As [`stop`](Self::stop), on this thread; `false` if that took longer than `within`.
    #[must_use = "`false`: what was queued is not all applied yet"]
    pub fn stop_blocking(mut self, within: std::time::Duration) -> bool {
        let worker = self.worker.clone();
        self.end();
        worker.is_none_or(|worker| worker.done.wait_timeout(within))
    }

    /// Watches until `token` is cancelled, then [stops](Self::stop). Spawn it to tie the watch to the
    /// token; dropping the future ends the watch as well.
    #[cfg(feature = "tokio")]
    pub async fn until_cancelled(self, token: tokio_util::sync::CancellationToken) {
        token.cancelled().await;
        self.stop().await;
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            let listeners = std::mem::take(&mut self.listeners);
            self.invalidator.unwatch(listeners, self.worker.as_ref());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("coherence", &self.coherence())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
