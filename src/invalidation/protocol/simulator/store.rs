//! The truth: what was committed when, and by when a watch has to know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::net::Time;
use crate::invalidation::frame::Incarnation;

/// The entity whose drops carry positions, and whose loads read a lagging replica.
pub(super) const STAMPED: usize = 0;
/// The entity whose loads read the primary.
pub(super) const PLAIN: usize = 1;
/// The entity of whose drops some carry positions, and whose loads read a lagging replica: without one,
/// only time tells when a replica shows a write.
pub(super) const MIXED: usize = 2;
pub(super) const ENTITIES: [&str; 3] = ["stamped", "plain", "mixed"];
/// So many that a key rests for longer than B between two writes: a missed drop shows.
pub(super) const IDS: usize = 60;
/// Commits that are remembered of each key.
const REMEMBERED: usize = 24;

/// An entity and an id.
pub(super) type Key = (usize, usize);

/// The position that the emit for a version carries.
pub(super) fn stated(entity: usize, version: u64) -> Option<u64> {
    let states = match entity {
        STAMPED => true,
        MIXED => version.is_multiple_of(2),
        _ => false,
    };
    states.then_some(version)
}

/// One commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    /// Counts all commits; also the position of the log.
    pub(super) version: u64,
    pub(super) at: Time,
    pub(super) by: Incarnation,
    /// When the emit was handed over, or has to have been: B runs from here. `None` as long as
    /// nobody promised anything.
    pub(super) due: Option<Time>,
}

/// The database, with its history.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) version: u64,
    keys: BTreeMap<Key, VecDeque<Commit>>,
    /// When each version was committed, for the replica.
    log: VecDeque<(Time, u64)>,
    /// Frames that came back to who had sent them, by incarnation, entity and number.
    pub(super) returned: BTreeSet<(Incarnation, usize, u64)>,
}

impl Store {
    /// Commits; the answer names the version.
    pub(super) fn commit(&mut self, key: Key, now: Time, by: Incarnation) -> u64 {
        self.version += 1;
        let commits = self.keys.entry(key).or_default();
        if commits.len() == REMEMBERED {
            commits.pop_front();
        }
        commits.push_back(Commit {
            version: self.version,
            at: now,
            by,
            due: None,
        });
        self.log.push_back((now, self.version));
        if self.log.len() > 2_000 {
            self.log.pop_front();
        }
        self.version
    }

    /// The emit for `version` was handed over, or has to be by then.
    pub(super) fn due(&mut self, key: Key, version: u64, at: Time) {
        let commits = self.keys.entry(key).or_default();
        if let Some(commit) = commits.iter_mut().find(|commit| commit.version == version) {
            commit.due = Some(commit.due.map_or(at, |due| due.min(at)));
        }
    }

    /// The version of a key that a read at `now` finds.
    pub(super) fn read(&self, key: Key, now: Time) -> u64 {
        let commits = self.keys.get(&key).into_iter().flatten();
        commits
            .rev()
            .find(|commit| commit.at <= now)
            .map_or(0, |commit| commit.version)
    }

    /// The position of a replica that shows what was committed until `then`.
    pub(super) fn position(&self, then: Time) -> u64 {
        let shown = self.log.partition_point(|&(at, _)| at <= then);
        match shown.checked_sub(1) {
            Some(last) => self.log[last].1,
            None => self.log.front().map_or(0, |&(_, version)| version - 1),
        }
    }

    /// Commits of a key that a value of `version` does not show, newest last.
    pub(super) fn newer(&self, key: Key, version: u64) -> impl Iterator<Item = &Commit> {
        let commits = self.keys.get(&key).into_iter().flatten();
        commits.filter(move |commit| commit.version > version)
    }
}
