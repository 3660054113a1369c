//! Who is told what the protocol decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ahash::RandomState;

use super::inner::{Inner, Remote};
use crate::invalidation::cache::{Invalidation, Reason};
use crate::invalidation::protocol::{Effects, Micros, RowId};
use crate::invalidation::subject::{Entity, IdRef};
use crate::invalidation::target::Target;
use crate::invalidation::watch::{Feed, Listener, Work, Worker};

/// A watcher of every entity.
pub(crate) type EveryEntity = dyn Fn(&Entity, Invalidation<'_>) + Send + Sync;

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

    /// Takes a listener away; says whether its row is empty now.
    pub(crate) fn remove(&mut self, row: RowId, listener: &Arc<Listener>) -> bool {
        let Some(row) = self.0.get_mut(row) else {
            return true;
        };
        row.retain(|known| !Arc::ptr_eq(known, listener));
        row.is_empty()
    }

    #[inline]
    fn of(&self, row: RowId) -> &[Arc<Listener>] {
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
}

impl Hands<'_> {
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
    }

    fn recover(&mut self, row: RowId, reason: Reason, floor: Option<u64>) {
        if let Some(listener) = self.board.of(row).first() {
            tracing::debug!(entity = %listener.entity.as_str(), %reason, "trusted again");
        }
        self.each(row, |feed| feed.recover(reason, floor, self.now));
    }

    fn trust_until(&mut self, until: Micros) {
        for listener in self.board.all() {
            listener.wake(listener.feed.trust(until, self.now));
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
        let catch_all = self.inner.listeners.read().catch_all.clone();
        for watcher in catch_all {
            self.inner.adopt(self.board, row, entity, &watcher);
        }
    }

    fn forked(&mut self) {
        *self.forked = true;
    }
}

impl Inner {
    /// Has a watcher of everything watch one entity more.
    pub(super) fn adopt(
        &self,
        board: &mut Board,
        row: RowId,
        entity: &Entity,
        watcher: &CatchAll,
    ) -> Option<Arc<Listener>> {
        let (tell, name) = (watcher.tell.clone(), entity.clone());
        let target = Target::new(move |what: Invalidation<'_>| tell(&name, what));
        // A fresh target has no driver.
        let driver = self.attach(&target).ok()?;
        let feed = Feed::queued(driver, self.settings.watch_queue, self.min_flush());
        let worker = Some(watcher.worker.clone());
        let listener = Arc::new(Listener::new(entity.clone(), row, feed, worker));
        watcher.worker.serve(listener.clone());
        board.add(row, listener.clone());
        self.list(listener.clone());
        Some(listener)
    }

    /// Makes a listener known to those who emit.
    pub(super) fn list(&self, listener: Arc<Listener>) {
        let mut listeners = self.listeners.write();
        let mut changed = Listeners::clone(&listeners);
        let entity = listener.entity.clone();
        changed.by_entity.entry(entity).or_default().push(listener);
        *listeners = Arc::new(changed);
    }

    pub(super) fn push_catch_all(&self, watcher: CatchAll) {
        let mut listeners = self.listeners.write();
        let mut changed = Listeners::clone(&listeners);
        changed.catch_all.push(watcher);
        *listeners = Arc::new(changed);
    }

    pub(super) fn drop_catch_all(&self, worker: &Arc<Worker>) {
        let mut listeners = self.listeners.write();
        let mut changed = Listeners::clone(&listeners);
        changed
            .catch_all
            .retain(|watcher| !Arc::ptr_eq(&watcher.worker, worker));
        *listeners = Arc::new(changed);
    }

    /// The reverse of [`list`](Self::list).
    pub(super) fn unlist(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.write();
        let mut changed = Listeners::clone(&listeners);
        if let Some(known) = changed.by_entity.get_mut(&listener.entity) {
            known.retain(|known| !Arc::ptr_eq(known, listener));
            if known.is_empty() {
                changed.by_entity.remove(&listener.entity);
            }
        }
        *listeners = Arc::new(changed);
    }
}
