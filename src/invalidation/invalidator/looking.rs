//! The rest of the front door: watching, asking, ending.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::hands::{Board, CatchAll, Hands};
use super::inner::{Core, Remote};
use super::types::{Farewell, InvalidatorStats, Suspect, WatchError, Why};
use super::{Coherence, Invalidator};
use crate::error::ThreadError;
use crate::invalidation::cache::{Invalidation, Reason};
use crate::invalidation::protocol::{Belief, Doubter, Micros, Node, PeerWhy, RowId};
use crate::invalidation::subject::Entity;
use crate::invalidation::target::Target;
use crate::invalidation::watch::{EveryEntity, Feed, Listener, Watch, Worker};

impl Invalidator {
    /// Has `cache` drop what is written anywhere, on a thread of its own: it may be as slow as it
    /// likes at nobody's cost but its own.
    ///
    /// What this node itself writes is dropped on the writer's thread. A closure, or another cache
    /// whose hits ask no fence, is told to drop everything when a doubt begins and again when it ends,
    /// since a doubt bypasses nothing of it. Takes a
    /// [`Coherent`](crate::invalidation::coherent::Coherent) by reference, any
    /// [`Cache`](crate::invalidation::cache::Cache), also in an `Arc`, or a closure.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, Mutex};
    ///
    /// use afterwrite::invalidation::cache::{Cache, Invalidation, Reason, Unfinished};
    /// use afterwrite::invalidation::{Invalidator, subject::Entity};
    ///
    /// #[derive(Default)]
    /// struct Names(Mutex<HashMap<String, String>>);
    ///
    /// impl Cache for Names {
    ///     fn remove(&self, id: &str) -> Result<(), Unfinished> {
    ///         self.0.lock().unwrap().remove(id);
    ///         Ok(())
    ///     }
    ///
    ///     fn clear(&self, _: Reason) -> Result<(), Unfinished> {
    ///         self.0.lock().unwrap().clear();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let invalidator = Invalidator::local(); // or one on a bus
    /// let user = Entity::new("user")?;
    ///
    /// // Its readers hold one handle, and the watch another.
    /// let names = Arc::new(Names::default());
    /// let _watch = invalidator.watch(&user, names.clone())?;
    /// let _log = invalidator.watch(&user, |what: Invalidation<'_>| match what {
    ///     Invalidation::One(id) => println!("user {id} has changed"),
    ///     Invalidation::All(reason) => println!("any user may have changed: {reason}"),
    /// })?;
    ///
    /// names.0.lock().unwrap().insert("42".to_owned(), "Ada".to_owned());
    /// invalidator.emit(&user, "42")?;
    /// assert!(names.0.lock().unwrap().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch(&self, entity: &Entity, cache: impl Into<Target>) -> Result<Watch, WatchError> {
        self.may_watch()?;
        let worker = self.worker(entity.as_str(), None)?;
        self.watch_with(entity, &cache.into(), Some(worker))
    }

    /// As [`watch`](Self::watch), but applied on the thread that receives, without a hop: for caches
    /// that drop at once and call nobody, as those of this crate do. A slow one holds up everything
    /// that this node receives; then leases run out, and all its caches are in doubt. It must not
    /// call this invalidator back.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch_inline(
        &self,
        entity: &Entity,
        cache: impl Into<Target>,
    ) -> Result<Watch, WatchError> {
        self.may_watch()?;
        self.watch_with(entity, &cache.into(), None)
    }

    fn may_watch(&self) -> Result<(), WatchError> {
        match self.settings().write_only {
            true => Err(WatchError::WriteOnly),
            false => Ok(()),
        }
    }

    fn worker(
        &self,
        name: &str,
        every: Option<Arc<EveryEntity>>,
    ) -> Result<Arc<Worker>, WatchError> {
        let clock = self.inner().clock;
        let deadline = self.remote().map(|remote| remote.deadline.clone());
        let trusted = move |until| {
            if let Some(deadline) = &deadline {
                deadline.no_later_than(until);
            }
        };
        let capacity = self.settings().watch_queue;
        Worker::start(name, capacity, every, move || clock.now(), trusted)
            .map_err(|error| WatchError::Thread(ThreadError::new(error)))
    }

    fn watch_with(
        &self,
        entity: &Entity,
        target: &Target,
        worker: Option<Arc<Worker>>,
    ) -> Result<Watch, WatchError> {
        let stop = worker.clone();
        let watch = self.try_watch(entity, target, worker);
        if watch.is_err()
            && let Some(worker) = stop
        {
            worker.stop();
        }
        watch
    }

    fn try_watch(
        &self,
        entity: &Entity,
        target: &Target,
        worker: Option<Arc<Worker>>,
    ) -> Result<Watch, WatchError> {
        let inner = self.inner();
        let feed = |driver| match &worker {
            Some(worker) => Feed::queued(driver, worker.budget.clone(), inner.min_flush()),
            None => Feed::inline(driver, inner.min_flush()),
        };
        let listener = |row, feed| {
            let listener = Listener::new(entity.clone(), row, feed, worker.clone());
            let listener = Arc::new(listener);
            if let Some(worker) = &worker {
                worker.serve(listener.clone());
            }
            listener
        };
        // Those who watch everything watch an entity that comes in this way as well.
        let listener = match self.remote() {
            None => {
                let _alone = inner.meeting.lock();
                let listener = listener(0, feed(inner.attach(entity, target)?));
                inner.list(listener.clone());
                inner.adopt_by_all(&mut Board::default(), 0, entity);
                listener
            }
            Some(remote) => {
                let mut core = remote.core.lock();
                let now = inner.clock.now();
                if core.closed {
                    return Err(WatchError::Closed);
                }
                let pin = |node: &mut Node, hands: &mut Hands<'_>| node.pin(entity, now, hands);
                let row = inner.with_node(remote, &mut core, now, pin);
                let row = row.ok_or(WatchError::TooManyEntities {
                    max: self.settings().max_entities,
                })?;
                let Core { node, board, .. } = &mut *core;
                // Last, so that a cache whose watch is refused is as it was.
                let driver = inner.attach(entity, target).inspect_err(|_| {
                    node.release(row);
                    if board.of(row).is_empty() {
                        node.untrack(row);
                    }
                })?;
                let listener = listener(row, feed(driver));
                board.add(row, listener.clone());
                inner.list(listener.clone());
                let adopted = inner.adopt_by_all(board, row, entity);
                for listener in adopted.iter().chain([&listener]) {
                    self.welcome(remote, node, row, listener, now);
                }
                listener
            }
        };
        Ok(Watch::new(self.clone(), vec![listener], worker))
    }

    /// A cache that comes to an entity which is trusted already is cleared, and trusted as well.
    fn welcome(&self, remote: &Remote, node: &Node, row: RowId, listener: &Listener, now: Micros) {
        if node.belief(row) == Belief::Coherent {
            let until = node.horizon(now);
            let clock = || self.inner().clock.now();
            listener.wake(listener.feed.trust(until, now, clock));
            let floor = node.floor(row);
            listener.wake(listener.feed.recover(Reason::Joined, floor, clock));
            remote.deadline.no_later_than(until);
        }
        if node.has_plain(row)
            && let Some(max_age) = self.settings().max_age
        {
            listener.feed.driver().cap_age(Some(max_age));
        }
    }

    /// Tells `tell` what is written anywhere, of every entity, as soon as one is heard of; on a
    /// thread of its own.
    ///
    /// It follows [`max_entities`](crate::invalidation::Settings::max_entities). Of one more it is told to
    /// drop everything, and is in doubt for as long as that one is spoken of. Entities that only plain
    /// publishers wrote to, and not lately, make room.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch_all<F>(&self, tell: F) -> Result<Watch, WatchError>
    where
        F: Fn(&Entity, Invalidation<'_>) + Send + Sync + 'static,
    {
        self.may_watch()?;
        let inner = self.inner();
        let tell: Arc<EveryEntity> = Arc::new(tell);
        let worker = self.worker("all", Some(tell.clone()))?;
        let watcher = CatchAll {
            tell,
            worker: worker.clone(),
        };
        if let Some(remote) = self.remote() {
            let mut core = remote.core.lock();
            let now = inner.clock.now();
            if core.closed {
                worker.stop();
                return Err(WatchError::Closed);
            }
            core.node.watch_unknown(true);
            let known: Vec<_> = core
                .node
                .entities()
                .map(|(row, entity)| (row, entity.clone()))
                .collect();
            for (row, entity) in known {
                let core = &mut *core;
                if let Some(listener) = inner.adopt(&mut core.board, row, &entity, &watcher) {
                    self.welcome(remote, &core.node, row, &listener, now);
                }
            }
            inner.push_catch_all(watcher);
        } else {
            let _alone = inner.meeting.lock();
            let known: Vec<_> = inner.listeners.read().by_entity.keys().cloned().collect();
            for entity in known {
                inner.adopt(&mut Board::default(), 0, &entity, &watcher);
            }
            inner.push_catch_all(watcher);
        }
        Ok(Watch::new(self.clone(), Vec::new(), Some(worker)))
    }

    /// Ends a watch: its caches are in doubt at once, and nothing more is applied but what its lane
    /// holds.
    pub(crate) fn unwatch(&self, watch: Vec<Arc<Listener>>, worker: Option<&Arc<Worker>>) {
        let inner = self.inner();
        let mut core = self.remote().map(|remote| remote.core.lock());
        let alone = core.is_none().then(|| inner.meeting.lock());
        if let Some(worker) = worker {
            inner.drop_catch_all(worker);
        }
        let served = worker.map(|worker| worker.served()).unwrap_or_default();
        let gone = [watch.as_slice(), served.as_slice()].concat();
        for listener in &gone {
            listener.feed.end();
            if let Some(core) = core.as_deref_mut() {
                core.board.remove(listener.row, listener);
            }
        }
        inner.unlist(&gone);
        if let Some(core) = core.as_deref_mut() {
            for listener in &watch {
                core.node.release(listener.row);
            }
        }
        if let Some(core) = core.as_deref_mut()
            && inner.listeners.read().catch_all.is_empty()
        {
            core.node.watch_unknown(false);
            let all: Vec<_> = core.node.entities().map(|(row, _)| row).collect();
            let empty = all.into_iter().filter(|&row| core.board.of(row).is_empty());
            for row in empty.collect::<Vec<_>>() {
                core.node.untrack(row);
            }
        }
        drop((core, alone));
        // Before the thread ends: what it serves is dropped there, and not on this one.
        drop((watch, served, gone));
        if let Some(worker) = worker {
            worker.stop();
        }
    }

    /// How far the caches of `entity` on this node may be trusted: as far as the worst of them. Without
    /// any it is `Joining`.
    ///
    /// Takes a lock for reading, held only for a moment by others, and looks the entity up. A single
    /// cache answers faster: [`Watch::coherence`], one atomic load.
    #[must_use]
    pub fn coherence(&self, entity: &Entity) -> Coherence {
        let alone = match self.remote() {
            Some(_) => Coherence::Joining,
            None => Coherence::Standalone,
        };
        let listeners = self.inner().listeners.read().clone();
        let known = listeners.by_entity.get(entity).into_iter().flatten();
        worst(known.map(|listener| listener.feed.driver().coherence())).unwrap_or(alone)
    }

    /// Whether publishers without frames write to `entity`: what is lost on the way from them may go
    /// unnoticed, and [`Settings::max_age`](crate::invalidation::Settings::max_age) bounds the harm.
    #[must_use]
    pub fn is_plain(&self, entity: &Entity) -> bool {
        self.remote()
            .is_some_and(|remote| remote.core.lock().node.is_plain(entity))
    }

    /// Who keeps `entity` from being coherent, why, and for how long. Empty if nobody does, or nobody watches it.
    #[must_use]
    pub fn suspects(&self, entity: &Entity) -> Vec<Suspect> {
        let Some(remote) = self.remote() else {
            return Vec::new();
        };
        let core = remote.core.lock();
        let now = self.inner().clock.now();
        let Some(row) = core.node.find(entity) else {
            return Vec::new();
        };
        let doubters = core.node.doubters(row, now);
        let own = (self.settings().name.clone(), core.node.incarnation());
        drop(core);
        let suspect = |doubter| match doubter {
            Doubter::OwnPath { since } => {
                let too_large = remote.too_large_since.load(Relaxed);
                let (why, since) = match too_large {
                    0 => (Why::OwnPath, since),
                    since => (Why::BeatTooLarge, since),
                };
                (own.0.clone(), Some(own.1), why, since)
            }
            Doubter::Ended { since } => (own.0.clone(), Some(own.1), Why::Ended, since),
            Doubter::Crowded { since } => (String::new(), None, Why::TooManyPublishers, since),
            Doubter::Expected { name, since } => (name.into(), None, Why::Expected, since),
            Doubter::Unsettled {
                name,
                incarnation,
                since,
            } => {
                let name = name.map_or_else(|| own.0.clone(), String::from);
                (name, Some(incarnation), Why::Unsettled, since)
            }
            Doubter::Peer {
                name,
                incarnation,
                why,
                since,
            } => {
                let why = match why {
                    PeerWhy::Silent => Why::Silent,
                    PeerWhy::Uncalibrated => Why::Uncalibrated,
                    PeerWhy::Awaited => Why::Awaited,
                };
                (name.into(), Some(incarnation), why, since)
            }
        };
        let public = |(name, incarnation, why, since)| Suspect {
            name,
            incarnation,
            why,
            for_how_long: Duration::from_micros(now.saturating_sub(since)),
        };
        doubters.into_iter().map(suspect).map(public).collect()
    }

    /// Takes publishers for dead at once that are not heard, by their name or by their incarnation's
    /// sixteen digits: for operators who know. What they had not said is lost. Says how many there
    /// were.
    ///
    /// A name that is [expected](crate::invalidation::Settings::expect) stays so: nothing is coherent
    /// until somebody of that name is heard.
    pub fn forget(&self, who: &str) -> usize {
        let Some(remote) = self.remote() else {
            return 0;
        };
        let mut core = remote.core.lock();
        let now = self.inner().clock.now();
        let forgotten = self
            .inner()
            .with_node(remote, &mut core, now, |node, hands| {
                // Whose lease has just ended is not heard either.
                node.tick(now, hands);
                node.forget(who)
            });
        drop(core);
        remote.beat.wake();
        forgotten
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> InvalidatorStats {
        let Some(remote) = self.remote() else {
            return InvalidatorStats::default();
        };
        let (node, publishers) = {
            let core = remote.core.lock();
            (core.node.counts(), core.node.heard())
        };
        let outbox = remote.out.lock().outbox.counts();
        let lateness = remote.deadline.lateness(self.inner().clock);
        InvalidatorStats {
            sent: outbox.sent,
            queued: outbox.queued,
            collapsed: outbox.collapsed,
            refused: outbox.refused,
            failed: outbox.failed,
            beats_failed: remote.beats_failed.load(Relaxed),
            beats_too_large: remote.beats_too_large.load(Relaxed),
            publishers,
            gaps: node.gaps,
            flushes: node.flushes,
            doubts: node.doubts,
            retired: node.retired,
            malformed: remote.malformed.load(Relaxed),
            unreadable: node.unreadable,
            plain: node.plain,
            strays: node.strays,
            forks: node.forks,
            expired_beats: node.expired_beats,
            late_deadlines: lateness.late,
            worst_lateness: lateness.worst,
        }
    }

    /// Ends in order: refuses what is new, hands over what waits, waits for open guards, says
    /// goodbye and sees it written out; at most `within`. Watches fall into doubt. Idempotent.
    ///
    /// The end begins at once, whether the future is polled or not; it waits. Needs no runtime.
    /// [`close`](Self::close) does the same on the calling thread.
    pub fn close_async(&self, within: Duration) -> impl Future<Output = Farewell> + Send + 'static {
        self.begin_end(within);
        let this = self.clone();
        async move {
            let Some(remote) = this.remote() else {
                return Farewell::Said;
            };
            remote.done.wait().await;
            this.ended(remote)
        }
    }

    /// As [`close_async`](Self::close_async), on this thread, which waits: at most `within`, and a moment
    /// for the thread that ends it to say so. A [`Registry`](crate::Registry) names its two ends alike.
    pub fn close(&self, within: Duration) -> Farewell {
        let Some(remote) = self.begin_end(within) else {
            return Farewell::Said;
        };
        // The thread that beats keeps to the time; the rest is for it to get there.
        if !remote
            .done
            .wait_timeout(within.saturating_add(Duration::from_secs(1)))
        {
            return Farewell::TimedOut;
        }
        self.ended(remote)
    }

    fn begin_end(&self, within: Duration) -> Option<&Remote> {
        let remote = self.remote()?;
        if remote.farewell.lock().is_none() {
            self.inner().begin_closing(remote, within);
        }
        Some(remote)
    }

    fn ended(&self, remote: &Remote) -> Farewell {
        remote.stop_listening();
        let said = *remote.farewell.lock();
        said.unwrap_or(Farewell::TimedOut)
    }
}

/// The least trustworthy of several.
pub(crate) fn worst(states: impl Iterator<Item = Coherence>) -> Option<Coherence> {
    states.max_by_key(|state| match state {
        Coherence::Standalone => 0,
        Coherence::Coherent => 1,
        Coherence::Joining => 2,
        Coherence::Suspect => 3,
    })
}
