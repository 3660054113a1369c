//! What this node itself has sent: shared by its two halves, so that the receiving one knows a frame
//! of its own from a twin's, who speaks with the same incarnation (a fork, a restored snapshot).
//!
//! A frame is this node's own if its number was given out, and at the time that it says. The times of
//! the latest numbers are kept in a ring. A number that is older than the ring tells nothing: its frame
//! is applied, as every frame is that is not certainly our own, and is no news otherwise: a twin that is so
//! far behind is known by its beats.
//!
//! # Positions
//! The caches that are here when this node emits are told its positions one by one. A cache that comes
//! later is not, so the highest of each entity is kept. It is noted *before* the caches are told, and
//! asked for *after* a new one is listed among them: of an emit and a watch that meet, one sees the other.
//!
//! # Orderings
//! The sender stores the time of number n, and then the mark n, and only then sends. Who reads a frame
//! loads the mark, the time, and the mark once more. Had the time been overwritten already, by that of
//! number n + [`RING`], then the mark n + [`RING`] - 1 was stored before that: so unless the second look
//! at the mark finds at least as much, the time is that of n.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use ahash::RandomState;
use parking_lot::Mutex;

use super::Micros;
use crate::invalidation::subject::Entity;

/// So many of the latest numbers of an entity are remembered: more than are under way at once.
const RING: usize = 1_024;

/// No frame bears it.
const NEVER: Micros = Micros::MAX;

/// Whose frame it is that bears our incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    /// A number that was not given out, or not then.
    Twins,
    /// It is too old to tell.
    Unknown,
}

/// How far this node's own outbox has got with one entity.
#[derive(Debug)]
pub(crate) struct OwnMark {
    /// The highest number given out. Raised before the frame is sent, so that whoever sees the
    /// frame come back sees its number too.
    number: AtomicU64,
    /// When the latest were sent, by number.
    sent: Box<[AtomicU64]>,
}

impl Default for OwnMark {
    fn default() -> Self {
        Self {
            number: AtomicU64::new(0),
            sent: (0..RING).map(|_| AtomicU64::new(NEVER)).collect(),
        }
    }
}

const fn place(number: u64) -> usize {
    (number % RING as u64) as usize
}

impl OwnMark {
    /// The highest number given out, as the outbox knows it.
    pub(crate) fn get(&self) -> u64 {
        // Relaxed: only the outbox writes it, under its lock.
        self.number.load(Relaxed)
    }

    /// `number` is about to be sent.
    pub(crate) fn raise(&self, number: u64, sent: Micros) {
        // Release, both: the partners are the Acquire loads in `whose`.
        self.sent[place(number)].store(sent, Release);
        self.number.store(number, Release);
    }

    /// `number` is given out, and never sent.
    pub(crate) fn skip(&self, number: u64) {
        self.raise(number, NEVER);
    }

    /// `number` was not sent: it is given out again.
    pub(crate) fn lower(&self, number: u64) {
        self.number.store(number - 1, Release);
    }

    fn whose(&self, number: u64, sent: Micros) -> Whose {
        if number > self.number.load(Acquire) {
            return Whose::Twins;
        }
        let known = self.sent[place(number)].load(Acquire);
        let passed = self.number.load(Acquire).saturating_sub(number);
        match passed + 1 < RING as u64 {
            false => Whose::Unknown,
            true if known == sent => Whose::Ours,
            true => Whose::Twins,
        }
    }
}

/// So many entities have a position of their own; all others share one.
const POSITIONS: usize = 1 << 13;

/// The marks of all entities that this node emits for; the locks are held for a look only.
#[derive(Debug, Default)]
pub(crate) struct OwnMarks {
    marks: Mutex<HashMap<Entity, Arc<OwnMark>, RandomState>>,
    positions: Mutex<Positions>,
}

/// The highest positions that this node has emitted at.
#[derive(Debug, Default)]
struct Positions {
    by_entity: HashMap<Entity, u64, RandomState>,
    /// Of entities for which there was no room.
    others: u64,
}

impl OwnMarks {
    pub(crate) fn insert(&self, entity: &Entity, mark: Arc<OwnMark>) {
        self.marks.lock().insert(entity.clone(), mark);
    }

    /// This node emits at a position. Called before any cache is told.
    pub(crate) fn note_position(&self, entity: &Entity, position: u64) {
        let mut positions = self.positions.lock();
        let room = positions.by_entity.len() < POSITIONS;
        let known = match positions.by_entity.get_mut(entity) {
            Some(known) => known,
            None if room => positions.by_entity.entry(entity.clone()).or_default(),
            None => &mut positions.others,
        };
        *known = position.max(*known);
    }

    /// The highest position that this node has emitted at, if any.
    pub(crate) fn position(&self, entity: &Entity) -> Option<u64> {
        let positions = self.positions.lock();
        let known = positions.by_entity.get(entity);
        Some(known.copied().unwrap_or(positions.others)).filter(|&position| position > 0)
    }

    /// Whose frame of this entity has that number and was sent then.
    pub(super) fn whose(&self, entity: &str, number: u64, sent: Micros) -> Whose {
        let marks = self.marks.lock();
        marks
            .get(entity)
            .map_or(Whose::Twins, |mark| mark.whose(number, sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8_own_positions_are_kept_by_entity_in_bounded_room() {
        let own = OwnMarks::default();
        let entity = |n: usize| Entity::new(&format!("e{n}")).unwrap();
        for n in 0..POSITIONS {
            own.note_position(&entity(n), n as u64 + 1);
        }
        own.note_position(&entity(1), 1);
        assert_eq!(own.position(&entity(1)), Some(2), "never lowered");
        assert_eq!(own.position(&entity(POSITIONS)), None);
        own.note_position(&entity(POSITIONS), 7);
        assert_eq!(own.position(&entity(POSITIONS)), Some(7));
        assert_eq!(own.position(&entity(0)), Some(1));
        assert_eq!(own.positions.lock().by_entity.len(), POSITIONS);
    }

    #[test]
    fn rule_6_a_frame_is_ours_by_its_number_and_its_time() {
        let mark = OwnMark::default();
        assert_eq!(mark.whose(1, 10), Whose::Twins, "not given out");
        mark.raise(1, 10);
        assert_eq!(mark.whose(1, 10), Whose::Ours);
        assert_eq!(mark.whose(1, 11), Whose::Twins);
        mark.lower(1);
        assert_eq!((mark.get(), mark.whose(1, 10)), (0, Whose::Twins));
        mark.skip(1);
        assert_eq!(mark.whose(1, 10), Whose::Twins, "it was never sent");
        for number in 2..=RING as u64 {
            mark.raise(number, 10 * number);
        }
        assert_eq!(mark.whose(1, 10), Whose::Unknown);
        assert_eq!(mark.whose(2, 20), Whose::Ours);
        assert_eq!(mark.whose(RING as u64, 1), Whose::Twins);
    }
}
