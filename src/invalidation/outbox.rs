//! The sending half: numbers what is handed over, in the order of sending, and never makes a
//! caller wait.
//!
//! # Role
//! A writer hands over what it dropped. If the bus has room the frame is numbered and published
//! at once, on the writer's thread: no other thread has to wake. If it has none, the job waits in
//! a bounded queue for the thread that beats; if that is full too, the entity *collapses*: all
//! that is handed over for it from then on becomes one "all" frame, for which there is a reserved
//! place.
//!
//! # The order that beats rely on
//! 1. A beat is stamped (`Node::plan_beat`).
//! 2. Whatever was handed over before is numbered: handing over and beating hold the same lock,
//!    so it is in the queue or numbered already, and [`Outbox::beat`] empties the queue first.
//! 3. The beat's marks are read.
//!
//! So a mark counts everything that was handed over before the stamp. A frame that the bus took
//! and lost has a number, and shows as a gap; one that could not be numbered holds back the beat.
//!
//! # What is refused
//! after the write has happened (the server denies it, it is too large, the end has begun) takes a
//! number all the same. The next beat's mark counts it, so that the others find it missing, and
//! flush. A guard is refused before the write: that costs nothing.
//!
//! # A goodbye
//! tells the others that nothing is left to be said. It is refused while a guard is open, and
//! after an emit was refused: then the others find this node silent, and doubt.
//!
//! # Wakers
//! are foreign code. They are gathered here, and woken by whoever held the lock once it has let go
//! of all locks ([`Outbox::take_wakers`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use ahash::RandomState;

use super::frame::Incarnation;
use super::protocol::{Micros, Mutant, OwnMarks};
use super::subject::{Entity, Id, IdRef, Prefix, Topic};
use crate::bus::{PublishError, Publisher};

mod queue;
mod send;
mod topic;

#[cfg(test)]
mod tests;

pub(crate) use topic::{GuardId, Outcome, Ticket};
use topic::{Outgoing, Rider};

/// A topic's place in the outbox.
pub(crate) type TopicId = usize;

/// No batch frame is longer, whatever the bus takes: receivers apply it in one go.
const MAX_BATCH: usize = 64 << 10;

/// What became of something handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The bus has it.
    Sent,
    /// It waits for the bus.
    Queued,
    /// It was merged into an "all" that waits for the bus.
    Collapsed,
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Closed,
    TooManyEntities,
    /// The bus takes nothing of that length.
    TooLarge {
        len: usize,
        max: usize,
    },
    /// The server has refused what was sent for this entity, not long ago.
    Denied,
}

/// Who hands something over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Giver {
    Anyone,
    /// The holder of an open guard, who is heard until the very end.
    Guard,
}

/// One id to drop.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) id: IdRef<'a>,
    pub(crate) position: Option<u64>,
    /// Told when the frame comes back.
    pub(crate) ticket: Option<Arc<Ticket>>,
    pub(crate) giver: Giver,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Only open guards may still hand over.
    Closing,
    /// A goodbye was said, or never will be.
    Ended,
}

/// How far [`Outbox::drain`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left.
    Empty,
    /// There is more.
    More,
    /// The bus has no room.
    Blocked,
    /// The bus has ended.
    Closed,
}

/// Why a beat was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoBeat {
    /// The bus has no room, or has ended, or the beat is too large for it.
    Bus(PublishError),
    /// A goodbye would be a lie: a guard is open, or an emit was refused.
    Unsettled,
    /// It was planned for an incarnation that has ended.
    Stale,
}

/// The numbers that an outbox keeps to.
#[derive(Debug, Clone)]
pub(crate) struct OutboxRules {
    pub(crate) prefix: Prefix,
    pub(crate) name: Box<str>,
    pub(crate) reader: bool,
    /// Whether peers without frames listen: then a batch goes out as singles.
    pub(crate) plain_peers: bool,
    pub(crate) lease: Micros,
    /// How long a guard may be open before its entity counts as unsettled.
    pub(crate) write_limit: Micros,
    /// How many ids wait at most.
    pub(crate) capacity: usize,
    pub(crate) max_entities: usize,
    /// The simulator's broken rule.
    #[cfg(test)]
    pub(crate) mutant: Option<Mutant>,
}

/// How often things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutboxCounts {
    /// Frames given to the bus, beats aside.
    pub(crate) sent: u64,
    /// Handed over while the bus had no room.
    pub(crate) queued: u64,
    /// Merged into an "all".
    pub(crate) collapsed: u64,
    /// Refused.
    pub(crate) refused: u64,
    /// Frames that were numbered but that the bus did not take.
    pub(crate) failed: u64,
}

/// Something that waits for the bus.
#[derive(Debug)]
enum Job {
    One {
        topic: TopicId,
        id: Id,
        position: Option<u64>,
        rider: Option<Rider>,
    },
    Batch {
        topic: TopicId,
        ids: VecDeque<Id>,
        position: Option<u64>,
    },
}

/// The sending half of a node. One lock around it serialises writers; see the [module](self).
#[derive(Debug)]
pub(crate) struct Outbox {
    rules: OutboxRules,
    own: Arc<OwnMarks>,
    incarnation: Incarnation,
    born: Micros,
    topics: Vec<Outgoing>,
    by_entity: HashMap<Entity, TopicId, RandomState>,
    queue: VecDeque<Job>,
    /// Ids in the queue.
    waiting: usize,
    /// Jobs in the queue that somebody waits for.
    ridden: usize,
    /// Topics that have collapsed, in that order.
    collapsed: VecDeque<TopicId>,
    phase: Phase,
    subject: String,
    frame: Vec<u8>,
    /// The ids of a batch that is being gathered, and how many there are.
    scratch: Vec<u8>,
    batched: u64,
    /// The longest payload that the bus takes.
    max_payload: usize,
    next_guard: u64,
    counts: OutboxCounts,
    /// Who waited for what is known by now.
    wakers: Vec<Waker>,
}

impl Outbox {
    /// An outbox that counts in `own`, where the receiving half looks.
    pub(crate) fn new(
        rules: OutboxRules,
        incarnation: Incarnation,
        born: Micros,
        own: Arc<OwnMarks>,
    ) -> Self {
        Self {
            rules,
            own,
            incarnation,
            born,
            topics: Vec::new(),
            by_entity: HashMap::default(),
            queue: VecDeque::new(),
            waiting: 0,
            ridden: 0,
            collapsed: VecDeque::new(),
            phase: Phase::Open,
            subject: Topic::buffer(),
            frame: Vec::with_capacity(256),
            scratch: Vec::new(),
            batched: 0,
            max_payload: MAX_BATCH,
            next_guard: 0,
            counts: OutboxCounts::default(),
            wakers: Vec::new(),
        }
    }

    /// The place of an entity, made at its first use.
    ///
    /// # Errors
    /// [`Refusal::TooManyEntities`], which counts: something was written that nobody will hear of.
    #[inline]
    pub(crate) fn topic(&mut self, entity: &Entity) -> Result<TopicId, Refusal> {
        match self.by_entity.get(entity) {
            Some(&topic) => Ok(topic),
            None => self
                .new_topic(entity)
                .inspect_err(|_| self.counts.refused += 1),
        }
    }

    #[cold]
    fn new_topic(&mut self, entity: &Entity) -> Result<TopicId, Refusal> {
        if self.topics.len() == self.rules.max_entities {
            return Err(Refusal::TooManyEntities);
        }
        let id = self.topics.len();
        let outgoing = Outgoing::new(self.rules.prefix.topic(entity));
        self.own.insert(entity, outgoing.mark.clone());
        self.topics.push(outgoing);
        self.by_entity.insert(entity.clone(), id);
        Ok(id)
    }

    /// The highest number given out.
    #[cfg(test)]
    pub(crate) fn mark(&self, topic: TopicId) -> u64 {
        self.topics[topic].mark.get()
    }

    pub(crate) const fn counts(&self) -> OutboxCounts {
        self.counts
    }

    /// Whether something waits for the bus.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.collapsed.is_empty()
    }

    /// What the bus takes may change with a reconnect.
    pub(crate) fn set_max_payload(&mut self, bytes: usize) {
        self.max_payload = bytes;
    }

    /// Refuses what comes from now on, but for the holders of open guards. What is queued stays.
    pub(crate) fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
    }

    /// Refuses everything from now on.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.expire_waiting(Micros::MAX);
    }

    /// Whether everything is refused: nothing may follow a goodbye.
    pub(crate) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// The server refuses what is sent for this entity. It is tried again after a lease: a right
    /// that is given back is told to nobody.
    pub(crate) fn deny(&mut self, entity: &str, now: Micros) {
        if let Some(&topic) = self.by_entity.get(entity) {
            self.topics[topic].denied_until = now.saturating_add(self.rules.lease);
        }
    }

    /// Another connection: what was denied may be allowed.
    pub(crate) fn allow(&mut self) {
        for topic in &mut self.topics {
            topic.denied_until = 0;
        }
    }

    /// Whether this would be taken now.
    fn admits(&self, topic: TopicId, giver: Giver, now: Micros) -> Result<(), Refusal> {
        match (self.phase, giver) {
            (Phase::Open, _) | (Phase::Closing, Giver::Guard) => {}
            (Phase::Closing, Giver::Anyone) | (Phase::Ended, _) => return Err(Refusal::Closed),
        }
        if now < self.topics[topic].denied_until {
            return Err(Refusal::Denied);
        }
        Ok(())
    }

    /// Whether this may be handed over now. It was written: if not, the others have to notice.
    fn admit(
        &mut self,
        topic: TopicId,
        giver: Giver,
        position: Option<u64>,
        now: Micros,
    ) -> Result<(), Refusal> {
        self.admits(topic, giver, now).map_err(|refusal| {
            let unnoticed = match refusal {
                Refusal::Denied => Mutant::DeniedUnnoticed,
                _ => Mutant::ClosingUnnoticed,
            };
            if self.broken(unnoticed) {
                return refusal;
            }
            self.skip(topic, position);
            self.refuse(refusal)
        })
    }

    /// After a fork: the same entities, numbered from 1 again. What waits is sent under the new name.
    pub(crate) fn reincarnate(&mut self, incarnation: Incarnation, born: Micros) {
        self.incarnation = incarnation;
        self.born = born;
        for topic in &mut self.topics {
            topic.restart(&mut self.wakers);
            self.own.insert(topic.subjects.entity(), topic.mark.clone());
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.counts.refused += 1;
        refusal
    }

    /// The bus took something neither now nor will it later. It has its number.
    fn failed(&mut self, error: &PublishError) -> Refusal {
        self.refuse(match *error {
            PublishError::TooLarge { len, max } => Refusal::TooLarge { len, max },
            PublishError::Full | PublishError::Closed => Refusal::Closed,
        })
    }

    /// Takes one drop.
    #[inline]
    pub(crate) fn emit(
        &mut self,
        topic: TopicId,
        request: Request<'_>,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<Handed, Refusal> {
        self.admit(topic, request.giver, request.position, now)?;
        let Request {
            id,
            position,
            ticket,
            ..
        } = request;
        let rider = ticket.map(|ticket| Rider { ticket, at: now });
        if self.is_idle() {
            match self.send_one(topic, id, position, rider.as_ref(), now, wire) {
                Ok(()) => return Ok(Handed::Sent),
                Err(PublishError::Full) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        self.ridden += usize::from(rider.is_some());
        Ok(self.enqueue(topic, 1, position, || Job::One {
            topic,
            id: id.to_id(),
            position,
            rider,
        }))
    }

    /// Takes many drops of one entity.
    pub(crate) fn emit_batch<'a>(
        &mut self,
        topic: TopicId,
        ids: impl IntoIterator<Item = IdRef<'a>>,
        position: Option<u64>,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<Handed, Refusal> {
        self.admit(topic, Giver::Anyone, position, now)?;
        let mut ids = ids.into_iter().peekable();
        let mut left = VecDeque::new();
        while self.is_idle()
            && left.is_empty()
            && let Some(&id) = ids.peek()
        {
            let alone = self.rules.plain_peers || self.fill_batch(&mut ids) == 0;
            let sent = if alone {
                ids.next();
                self.send_one(topic, id, position, None, now, wire)
            } else {
                self.send_batch(topic, position, now, wire)
            };
            match sent {
                Ok(()) => {}
                Err(PublishError::Full) if alone => left.push_back(id.to_id()),
                Err(PublishError::Full) => left.extend(self.built_batch().map(IdRef::to_id)),
                Err(error) => return Err(self.failed(&error)),
            }
        }
        let mut handed = Handed::Sent;
        while !left.is_empty() || ids.peek().is_some() {
            // No more is gathered than has room: a caller's iterator may be long.
            let room = self.rules.capacity.saturating_sub(self.waiting).max(1);
            left.extend(
                ids.by_ref()
                    .take(room.saturating_sub(left.len()))
                    .map(IdRef::to_id),
            );
            let (count, ids) = (left.len(), std::mem::take(&mut left));
            handed = self.enqueue(topic, count, position, || Job::Batch {
                topic,
                ids,
                position,
            });
            if handed == Handed::Collapsed {
                break;
            }
        }
        Ok(handed)
    }

    /// Takes the drop of everything.
    pub(crate) fn emit_all(
        &mut self,
        topic: TopicId,
        position: Option<u64>,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<Handed, Refusal> {
        self.admit(topic, Giver::Anyone, position, now)?;
        let idle = self.is_idle();
        self.collapse(topic, position, None);
        if idle {
            return match self.drain(usize::MAX, now, wire) {
                Drained::Empty => Ok(Handed::Sent),
                Drained::More | Drained::Blocked => Ok(Handed::Queued),
                Drained::Closed => Err(self.refuse(Refusal::Closed)),
            };
        }
        Ok(Handed::Queued)
    }
}
