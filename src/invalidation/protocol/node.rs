//! The state of one node's receiving half, and the calls that tell it what happened.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;

use super::entity::{Belief, Row};
use super::own::OwnMarks;
use super::peer::PeerWhy;
use super::peers::{Peers, Slot};
use super::{Micros, Mutant, Rules};
use crate::invalidation::frame::{Echo, Incarnation};
use crate::invalidation::subject::{Entity, IdRef};

pub(crate) use crate::invalidation::cache::Reason;

/// A tracked entity's place. Reused after `untrack`.
pub(crate) type RowId = usize;

/// What a node wants done. Called in order, while the node is borrowed.
pub(crate) trait Effects {
    /// Drop one id. `age` is an upper bound of the time since its emit, if the clock is understood.
    fn remove(&mut self, row: RowId, id: IdRef<'_>, position: Option<u64>, age: Option<Micros>);
    /// Drop everything and stay as trusted as before: somebody asked for it.
    fn flush(&mut self, row: RowId, reason: Reason, floor: Option<u64>);
    /// Something may have been missed.
    fn doubt(&mut self, row: RowId, reason: Reason);
    /// It is proved that all arrives: drop everything, then trust.
    fn recover(&mut self, row: RowId, reason: Reason, floor: Option<u64>);
    /// What is trusted now may be trusted until then, unless renewed.
    fn trust_until(&mut self, until: Micros);
    /// A publisher without frames was heard for the first time.
    fn plain(&mut self, _row: RowId) {}
    /// A beat of ours, sent then, came back: so did all that was sent before it, or it never will.
    fn proved(&mut self, _sent: Micros) {}
    /// This node's own frame came back.
    fn returned(&mut self, entity: &str, sequence: u64);
    /// An entity was heard of for the first time, and is tracked from now on because all are.
    fn tracked(&mut self, row: RowId, entity: &Entity);
    /// An entity that was tracked because all are makes room for another.
    fn untracked(&mut self, _row: RowId) {}
    /// An entity was heard of that should be tracked because all are, and there is no room.
    fn stray(&mut self, _entity: &Entity) {}
    /// Somebody else uses our incarnation: take a new one.
    fn forked(&mut self);
}

/// How often things happened since the node began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodeCounts {
    pub(crate) gaps: u64,
    pub(crate) flushes: u64,
    pub(crate) doubts: u64,
    pub(crate) retired: u64,
    pub(crate) unreadable: u64,
    pub(crate) plain: u64,
    pub(crate) forks: u64,
    pub(crate) expired_beats: u64,
    pub(crate) crowded: u64,
    pub(crate) strays: u64,
}

/// What the next beat has to say about others; the outbox adds its marks.
#[derive(Debug)]
pub(crate) struct BeatPlan {
    pub(crate) incarnation: Incarnation,
    pub(crate) sequence: u64,
    /// Since the incarnation began.
    pub(crate) sent: Micros,
    pub(crate) solicit: bool,
    pub(crate) echoes: Vec<Echo>,
}

/// A beat of ours that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnBeat {
    pub(super) sequence: u64,
    pub(super) sent: Micros,
    pub(super) generation: u64,
    pub(super) returned: bool,
}

/// That our own subscription works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// p: when it began to.
    pub(super) since: Micros,
    /// When the latest beat that came back was sent.
    pub(super) sent: Micros,
}

/// What is kept of an entity that is no longer tracked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Once {
    /// It has publishers without frames.
    plain: bool,
    /// The highest position that another node has spoken of, which may have left since.
    floor: u64,
}

/// A beat that is to be echoed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) incarnation: Incarnation,
    pub(super) sent: Micros,
    pub(super) at: Micros,
}

/// One node's receiving half. See the [module](super).
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) rules: Rules,
    pub(super) incarnation: Incarnation,
    /// When the incarnation began.
    pub(super) born: Micros,
    pub(super) generation: u64,
    /// Since when the bus has ended.
    pub(super) ended: Option<Micros>,
    pub(super) proof: Option<Proof>,
    /// Why there is no proof, in words of a reason.
    pub(super) unproved: Reason,
    /// Since when there is none.
    pub(super) unproved_since: Micros,
    /// The latest of our beats, oldest first.
    pub(super) own_beats: VecDeque<OwnBeat>,
    pub(super) next_sequence: u64,
    pub(super) beat_due: Micros,
    /// When a beat of ours came back last, or the subscription was asked for.
    pub(super) heard_itself: Micros,
    pub(super) last_beat: Option<Micros>,
    pub(super) to_echo: Vec<Heard>,
    pub(super) own: Arc<OwnMarks>,
    /// The highest number of ours that came back, by entity.
    pub(super) returned: HashMap<Entity, u64, RandomState>,
    pub(super) peers: Peers,
    /// Publishers by name that have to be heard.
    pub(super) expected: Vec<Expected>,
    /// From and until when there were more publishers than are kept track of.
    pub(super) crowded_since: Micros,
    pub(super) crowded_until: Micros,
    pub(super) rows: Vec<Option<Row>>,
    pub(super) by_entity: HashMap<Entity, RowId, RandomState>,
    pub(super) watch_unknown: bool,
    /// Entities that are no longer tracked, and of which something has to be kept; no more of them than
    /// of the others.
    pub(super) once: HashMap<Entity, Once, RandomState>,
    /// There was no room for one of them that was plain: any entity may be.
    pub(super) any_plain: bool,
    /// Where ids with escapes are decoded.
    pub(super) decoded: String,
    pub(super) counts: NodeCounts,
}

/// A name that has to be heard.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) name: Box<str>,
    /// Since when nothing vouches for it, as of the last tick.
    pub(super) missed: Option<Micros>,
}

/// Who keeps an entity from being coherent, why, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubter {
    /// This node's own beats do not come back.
    OwnPath { since: Micros },
    /// The bus has ended.
    Ended { since: Micros },
    /// There are more publishers than are kept track of.
    Crowded { since: Micros },
    /// A publisher that is expected was not heard.
    Expected { name: Box<str>, since: Micros },
    /// A publisher.
    Peer {
        name: Box<str>,
        incarnation: Incarnation,
        why: PeerWhy,
        since: Micros,
    },
    /// A publisher holds an unsettled write; `None` is this node.
    Unsettled {
        name: Option<Box<str>>,
        incarnation: Incarnation,
        since: Micros,
    },
}

impl Node {
    pub(crate) fn new(
        rules: Rules,
        incarnation: Incarnation,
        now: Micros,
        own: Arc<OwnMarks>,
    ) -> Self {
        Self {
            rules,
            incarnation,
            born: now,
            generation: 0,
            ended: None,
            proof: None,
            unproved: Reason::Joined,
            unproved_since: now,
            own_beats: VecDeque::new(),
            next_sequence: 1,
            beat_due: now,
            heard_itself: now,
            last_beat: None,
            to_echo: Vec::new(),
            own,
            returned: HashMap::default(),
            peers: Peers::default(),
            expected: Vec::new(),
            crowded_since: 0,
            crowded_until: 0,
            rows: Vec::new(),
            by_entity: HashMap::default(),
            watch_unknown: false,
            once: HashMap::default(),
            any_plain: false,
            decoded: String::new(),
            counts: NodeCounts::default(),
        }
    }

    /// Publishers without whose beats nothing is coherent.
    pub(crate) fn expect(&mut self, names: impl IntoIterator<Item = Box<str>>) {
        let missed = Some(self.born);
        let expected = names.into_iter().map(|name| Expected { name, missed });
        self.expected.extend(expected);
    }

    /// Tracks every entity that is heard of.
    pub(crate) fn watch_unknown(&mut self, on: bool) {
        self.watch_unknown = on;
    }

    /// Begins to track an entity, which is `Joining` until proved; `None` when there are too many.
    /// An entity that is tracked already keeps its state.
    pub(crate) fn track(&mut self, entity: &Entity, now: Micros) -> Option<RowId> {
        if let Some(&row) = self.by_entity.get(entity) {
            return Some(row);
        }
        let id = match self.rows.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.rows.len() < self.rules.max_entities => {
                self.rows.push(None);
                self.rows.len() - 1
            }
            None => return None,
        };
        let mut row = Row::new(entity.clone(), now);
        let once = self.once.remove(entity).unwrap_or_default();
        row.plain = once.plain || self.any_plain;
        row.floor = once.floor;
        self.rows[id] = Some(row);
        self.by_entity.insert(entity.clone(), id);
        Some(id)
    }

    /// As [`track`](Self::track), and lets go of another entity if there is no room and one that
    /// nobody needs.
    pub(super) fn track_or_evict(
        &mut self,
        entity: &Entity,
        now: Micros,
        fx: &mut impl Effects,
    ) -> Option<RowId> {
        if let Some(row) = self.track(entity, now) {
            return Some(row);
        }
        let rows = self.rows.iter().enumerate();
        let expendable = rows
            .filter_map(|(id, row)| Some((id, row.as_ref()?)))
            .filter(|(_, row)| row.is_expendable(now, &self.rules))
            .min_by_key(|(_, row)| row.heard);
        let (id, _) = expendable?;
        self.untrack(id);
        fx.untracked(id);
        self.track(entity, now)
    }

    /// Tracks an entity that somebody watches by its name, until it is [released](Self::release).
    pub(crate) fn pin(
        &mut self,
        entity: &Entity,
        now: Micros,
        fx: &mut impl Effects,
    ) -> Option<RowId> {
        let id = self.track_or_evict(entity, now, fx)?;
        if let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut) {
            row.pins += 1;
        }
        Some(id)
    }

    /// The reverse of [`pin`](Self::pin). The entity is tracked until [`untrack`](Self::untrack).
    pub(crate) fn release(&mut self, id: RowId) {
        if let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut) {
            row.pins = row.pins.saturating_sub(1);
        }
    }

    /// This node itself has written to an entity: those who track all track it from now on.
    pub(crate) fn meet(&mut self, entity: &Entity, now: Micros, fx: &mut impl Effects) {
        self.row_of(now, entity.borrowed(), fx);
    }

    /// The place of an entity that is tracked.
    pub(crate) fn find(&self, entity: &Entity) -> Option<RowId> {
        self.by_entity.get(entity).copied()
    }

    /// The tracked entities.
    pub(crate) fn entities(&self) -> impl Iterator<Item = (RowId, &Entity)> {
        let rows = self.rows.iter().enumerate();
        rows.filter_map(|(id, row)| Some((id, &row.as_ref()?.entity)))
    }

    /// The highest position that publishers of an entity have spoken of, this node among them.
    pub(crate) fn floor(&self, id: RowId) -> Option<u64> {
        let row = self.row(id)?;
        match self.rules.broken(Mutant::OwnPositionsUncounted) {
            true => row.floor(),
            false => row.floor().max(self.own.position(&row.entity)),
        }
    }

    /// Ends the tracking of an entity.
    pub(crate) fn untrack(&mut self, id: RowId) {
        if let Some(row) = self.rows.get_mut(id).and_then(Option::take) {
            self.by_entity.remove(&row.entity);
            let once = Once {
                plain: row.plain,
                floor: row.floor,
            };
            if self.once.len() < self.rules.max_entities {
                if once != Once::default() {
                    self.once.insert(row.entity, once);
                }
            } else {
                self.any_plain |= once.plain;
            }
        }
    }

    /// Whether an entity is trusted, by its place.
    pub(crate) fn belief(&self, id: RowId) -> Belief {
        self.row(id).map_or(Belief::Joining, |row| row.belief)
    }

    /// Whether an entity has publishers without frames.
    pub(crate) fn has_plain(&self, id: RowId) -> bool {
        self.row(id).is_some_and(|row| row.plain)
    }

    /// The same by its name, also of one that is no longer tracked.
    pub(crate) fn is_plain(&self, entity: &Entity) -> bool {
        match self.find(entity) {
            Some(row) => self.has_plain(row),
            None => self.any_plain || self.once.get(entity).is_some_and(|once| once.plain),
        }
    }

    pub(crate) const fn counts(&self) -> NodeCounts {
        self.counts
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether this node's own beats come back.
    pub(crate) const fn has_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// The generation that it was told last.
    pub(crate) const fn seen_generation(&self) -> u64 {
        self.generation
    }

    /// Publishers that are heard now.
    pub(crate) fn heard(&self) -> usize {
        self.peers.heard()
    }

    /// Takes a new incarnation after a fork: begins anew towards all others. What the outbox counts
    /// starts again at 0 too.
    pub(crate) fn reincarnate(&mut self, incarnation: Incarnation, now: Micros) {
        self.incarnation = incarnation;
        self.born = now;
        self.own_beats.clear();
        self.next_sequence = 1;
        self.returned.clear();
        self.beat_due = now;
        self.last_beat = None;
    }

    /// Whether the simulator broke this rule.
    #[cfg(test)]
    pub(crate) fn broken(&self, mutant: Mutant) -> bool {
        self.rules.broken(mutant)
    }

    /// Whether a publisher is kept track of, and not taken for dead.
    #[cfg(test)]
    pub(crate) fn hears(&self, incarnation: Incarnation) -> bool {
        let mut peers = self.peers.iter().map(|(_, peer)| peer);
        peers.any(|peer| {
            peer.incarnation == incarnation && peer.hearing != super::peer::Hearing::Retired
        })
    }

    pub(super) fn row(&self, id: RowId) -> Option<&Row> {
        self.rows.get(id)?.as_ref()
    }

    /// Forgets a publisher: should it speak again, it is one that was never heard.
    pub(super) fn drop_peer(&mut self, slot: Slot) {
        self.peers.remove(slot);
        for row in self.rows.iter_mut().flatten() {
            row.forget(slot);
        }
    }

    /// A publisher's slot, found or made. `None` when there are too many: everything is in doubt.
    pub(super) fn peer_slot(
        &mut self,
        incarnation: Incarnation,
        now: Micros,
        fx: &mut impl Effects,
    ) -> Option<Slot> {
        if let Some(slot) = self.peers.find(incarnation) {
            return Some(slot);
        }
        if let Some(slot) = self.peers.expendable(&self.rules) {
            self.drop_peer(slot);
        }
        let slot = self.peers.add(incarnation, now, &self.rules);
        if slot.is_none() {
            self.counts.crowded += 1;
            if self.crowded_until <= now {
                self.crowded_since = now;
            }
            self.crowded_until = now + self.rules.lease;
            self.doubt_all(Reason::Overflow, fx);
        }
        slot
    }
}
