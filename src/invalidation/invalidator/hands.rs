//! Who is told what the protocol decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ahash::RandomState;

use super::inner::{Inner, Remote};
use crate::invalidation::cache::{Invalidation, Reason};
use crate::invalidation::protocol::{Effects, Micros, RowId};
use crate::invalidation::settings::micros;
use crate::invalidation::subject::{Entity, IdRef};
use crate::invalidation::target::Target;
use crate::invalidation::watch::{EveryEntity, Feed, Listener, Work, Worker};

/// One `watch_all`.
#[derive(Clone)]
pub(crate) struct CatchAll {
    pub(crate) tell: Arc<EveryEntity>,
    pub(crate) worker: Arc<Worker>,
}

impl std::fmt::Debug for CatchAll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatchAll").finish_non_exhaustive()
    }
}

/// Who listens, as those who emit see it: replaced whole when it changes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Listeners {
    pub(crate) by_entity: HashMap<Entity, Vec<Arc<Listener>>, RandomState>,
    pub(crate) catch_all: Vec<CatchAll>,
}

impl Listeners {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_entity.is_empty() && self.catch_all.is_empty()
    }
}

/// Who listens, by the protocol's rows.
#[derive(Debug, Default)]
pub(crate) struct Board(Vec<Vec<Arc<Listener>>>);

impl Board {
    pub(crate) fn add(&mut self, row: RowId, listener: Arc<Listener>) {
        if self.0.len() <= row {
            self.0.resize_with(row + 1, Vec::new);
        }
        self.0[row].push(listener);
    }

    /// Takes all listeners of a row away.
    fn take(&mut self, row: RowId) -> Vec<Arc<Listener>> {
        self.0.get_mut(row).map(std::mem::take).unwrap_or_default()
    }

    /// Takes a listener away.
    pub(crate) fn remove(&mut self, row: RowId, listener: &Arc<Listener>) {
        if let Some(row) = self.0.get_mut(row) {
            row.retain(|known| !Arc::ptr_eq(known, listener));
        }
    }

    #[inline]
    pub(crate) fn of(&self, row: RowId) -> &[Arc<Listener>] {
        self.0.get(row).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.0.iter().flatten()
    }
}

/// Carries out a node's effects, under the lock of the receiving half.
pub(super) struct Hands<'a> {
    pub(super) now: Micros,
    pub(super) inner: &'a Inner,
    pub(super) remote: &'a Remote,
    pub(super) board: &'a mut Board,
    pub(super) forked: &'a mut bool,
    /// Who fell into doubt and has not left it.
    pub(super) doubted: Vec<(RowId, Reason)>,
}

impl Hands<'_> {
    /// Tells the caches that cannot see a doubt, unless it is over already.
    pub(super) fn tell_doubts(&mut self) {
        for (row, reason) in std::mem::take(&mut self.doubted) {
            self.each(row, |feed| feed.tell(reason, self.now));
        }
    }

    fn each(&self, row: RowId, tell: impl Fn(&Feed) -> Work) {
        for listener in self.board.of(row) {
            listener.wake(tell(&listener.feed));
        }
    }
}

impl Effects for Hands<'_> {
    #[inline]
    fn remove(&mut self, row: RowId, id: IdRef<'_>, position: Option<u64>, age: Option<Micros>) {
        self.each(row, |feed| feed.remove(id, position, age, self.now));
    }

    fn flush(&mut self, row: RowId, reason: Reason, floor: Option<u64>) {
        self.each(row, |feed| feed.flush(reason, floor));
    }

    fn doubt(&mut self, row: RowId, reason: Reason) {
        if let Some(listener) = self.board.of(row).first() {
            tracing::debug!(entity = %listener.entity.as_str(), %reason, "in doubt");
        }
        self.each(row, |feed| {
            feed.doubt();
            Work::Known
        });
        self.doubted.push((row, reason));
    }

    fn recover(&mut self, row: RowId, reason: Reason, floor: Option<u64>) {
        if let Some(listener) = self.board.of(row).first() {
            tracing::debug!(entity = %listener.entity.as_str(), %reason, "trusted again");
        }
        let clock = self.inner.clock;
        for listener in self.board.of(row) {
            listener.wake(listener.feed.recover(reason, floor, || clock.now()));
            // It may have looked while the cache was cleared, and found nothing to do.
            if let Some(until) = listener.feed.trusted_until() {
                self.remote.deadline.no_later_than(until);
            }
        }
        self.doubted.retain(|&(doubted, _)| doubted != row);
    }

    fn trust_until(&mut self, until: Micros) {
        let clock = self.inner.clock;
        for listener in self.board.all() {
            listener.wake(listener.feed.trust(until, self.now, || clock.now()));
        }
        self.remote.deadline.no_later_than(until);
    }

    fn plain(&mut self, row: RowId) {
        if let Some(max_age) = self.inner.settings.max_age {
            for listener in self.board.of(row) {
                listener.feed.driver().cap_age(Some(max_age));
            }
        }
    }

    fn proved(&mut self, sent: Micros) {
        if self.remote.awaited.load(Relaxed) > 0 {
            self.remote.out.lock().outbox.expire(sent);
        }
    }

    fn returned(&mut self, entity: &str, sequence: u64) {
        if self.remote.awaited.load(Relaxed) > 0 {
            self.remote.out.lock().outbox.returned(entity, sequence);
        }
    }

    fn tracked(&mut self, row: RowId, entity: &Entity) {
        self.inner.adopt_by_all(self.board, row, entity);
    }

    fn untracked(&mut self, row: RowId) {
        // Nobody watches it by name, and what waits in lanes is still applied.
        let gone = self.board.take(row);
        self.inner.unlist(&gone);
        for listener in &gone {
            listener.retire();
        }
    }

    fn stray(&mut self, entity: &Entity) {
        self.remote.complaints.stray.say(|| {
            let max = self.inner.settings.max_entities;
            tracing::warn!(entity = %entity.as_str(), max, "more entities than are kept track of");
        });
        let until = self.now + micros(self.inner.settings.lease_or_default());
        for watcher in &self.inner.listeners.read().catch_all {
            watcher.worker.stray(entity, until);
        }
    }

    fn forked(&mut self) {
        *self.forked = true;
    }
}

impl Inner {
    /// Has all watchers of everything watch one entity more. Returns the new listeners.
    pub(super) fn adopt_by_all(
        &self,
        board: &mut Board,
        row: RowId,
        entity: &Entity,
    ) -> Vec<Arc<Listener>> {
        let catch_all = self.listeners.read().catch_all.clone();
        let adopt = |watcher: &CatchAll| self.adopt(board, row, entity, watcher);
        catch_all.iter().filter_map(adopt).collect()
    }

    /// Has a watcher of everything watch one entity more, unless it does.
    pub(super) fn adopt(
        &self,
        board: &mut Board,
        row: RowId,
        entity: &Entity,
        watcher: &CatchAll,
    ) -> Option<Arc<Listener>> {
        let listeners = self.listeners.read().clone();
        let mut known = listeners.by_entity.get(entity).into_iter().flatten();
        if known.any(|known| known.works_for(&watcher.worker)) {
            return None;
        }
        drop(listeners);
        let (tell, name) = (watcher.tell.clone(), entity.clone());
        let target = Target::new(move |what: Invalidation<'_>| tell(&name, what));
        // A fresh target has no driver.
        let driver = self.attach(entity, &target).ok()?;
        let feed = Feed::queued(driver, watcher.worker.budget.clone(), self.min_flush());
        let worker = Some(watcher.worker.clone());
        let listener = Arc::new(Listener::new(entity.clone(), row, feed, worker));
        watcher.worker.serve(listener.clone());
        board.add(row, listener.clone());
        self.list(listener.clone());
        Some(listener)
    }

    fn change_listeners(&self, change: impl FnOnce(&mut Listeners)) {
        let mut listeners = self.listeners.write();
        let mut changed = Listeners::clone(&listeners);
        change(&mut changed);
        let before = std::mem::replace(&mut *listeners, Arc::new(changed));
        // Not under the lock: it may hold the last handle on a cache.
        drop(listeners);
        drop(before);
    }

    /// Makes a listener known to those who emit, and asks of its loads what they asked before.
    pub(super) fn list(&self, listener: Arc<Listener>) {
        self.change_listeners(|listeners| {
            let entity = listener.entity.clone();
            let known = listeners.by_entity.entry(entity).or_default();
            known.push(listener.clone());
        });
        // After it is listed: who emits notes its position first.
        if let Some(position) = self.own.position(&listener.entity) {
            listener.feed.driver().raise_floor(position);
        }
        // A load that began when it was attached may have read before an emit that did not see it.
        listener.feed.driver().target().fence().bypass_older();
    }

    pub(super) fn push_catch_all(&self, watcher: CatchAll) {
        self.change_listeners(|listeners| listeners.catch_all.push(watcher));
    }

    pub(super) fn drop_catch_all(&self, worker: &Arc<Worker>) {
        self.change_listeners(|listeners| {
            let others = |watcher: &CatchAll| !Arc::ptr_eq(&watcher.worker, worker);
            listeners.catch_all.retain(others);
        });
    }

    /// The reverse of [`list`](Self::list).
    pub(super) fn unlist(&self, gone: &[Arc<Listener>]) {
        self.change_listeners(|listeners| {
            for listener in gone {
                if let Some(known) = listeners.by_entity.get_mut(&listener.entity) {
                    known.retain(|known| !Arc::ptr_eq(known, listener));
                    if known.is_empty() {
                        listeners.by_entity.remove(&listener.entity);
                    }
                }
            }
        });
    }
}
