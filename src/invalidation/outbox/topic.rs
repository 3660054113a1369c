//! What an outbox keeps for one entity: numbers, open guards, who waits for a frame's return.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::{Giver, NoBeat, Outbox, Refusal, TopicId};
use crate::invalidation::protocol::Micros;
use crate::invalidation::subject::{Entity, Topic};

/// Names one open guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuardId(u64);

/// The state of one entity's sending.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) subjects: Topic,
    /// The highest number given out. Raised before the frame is sent, so that whoever sees the
    /// frame come back sees its number too.
    pub(super) mark: Arc<AtomicU64>,
    /// The highest position handed over.
    pub(super) position: Option<u64>,
    /// Whether an "all" waits.
    pub(super) collapsed: bool,
    /// Whether the server refused a frame of this entity, on this connection.
    pub(super) denied: bool,
    /// The highest position that the waiting "all" stands for.
    pub(super) all_position: Option<u64>,
    /// Who waits for the "all".
    pub(super) riders: Vec<Arc<Ticket>>,
    /// Who waits for a number to come back, in order.
    pub(super) awaited: VecDeque<Awaited>,
    /// Open guards and since when, oldest first.
    guards: BTreeMap<GuardId, Micros>,
}

/// A numbered frame that somebody waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) number: u64,
    /// When it was numbered.
    pub(super) at: Micros,
    pub(super) ticket: Arc<Ticket>,
}

impl Outgoing {
    pub(super) fn new(subjects: Topic) -> Self {
        Self {
            subjects,
            mark: Arc::default(),
            position: None,
            collapsed: false,
            denied: false,
            all_position: None,
            riders: Vec::new(),
            awaited: VecDeque::new(),
            guards: BTreeMap::new(),
        }
    }

    /// Numbered from 1 again, with a mark of its own.
    pub(super) fn restart(&mut self) {
        self.mark = Arc::new(AtomicU64::new(0));
        self.give_up();
    }

    /// Nobody will hear of what is under way.
    pub(super) fn give_up(&mut self) {
        let awaited = self.awaited.drain(..).map(|awaited| awaited.ticket);
        for ticket in awaited.chain(self.riders.drain(..)) {
            ticket.resolve(Outcome::Unknown);
        }
    }

    /// Guards that have been open for longer than `limit`.
    pub(super) fn unsettled(&self, now: Micros, limit: Micros) -> u64 {
        let overdue = |&&opened: &&Micros| opened + limit <= now;
        self.guards.values().take_while(overdue).count() as u64
    }
}

impl Outbox {
    /// A write is about to happen.
    pub(crate) fn open_guard(&mut self, topic: TopicId, now: Micros) -> Result<GuardId, Refusal> {
        self.admit(topic, Giver::Anyone)?;
        let guard = GuardId(self.next_guard);
        self.next_guard += 1;
        self.topics[topic].guards.insert(guard, now);
        Ok(guard)
    }

    /// A write has ended; what it changed, if anything, was handed over before this call.
    pub(crate) fn close_guard(&mut self, topic: TopicId, guard: GuardId) {
        self.topics[topic].guards.remove(&guard);
    }

    /// The entities emitted for, and whether writes of each have been under way for too long.
    pub(crate) fn unsettled_entities(&self, now: Micros) -> impl Iterator<Item = (&Entity, bool)> {
        let limit = self.rules.write_limit;
        self.topics.iter().map(move |topic| {
            let unsettled = topic.unsettled(now, limit) > 0;
            (topic.subjects.entity(), unsettled)
        })
    }

    /// Whether a write is under way anywhere.
    pub(crate) fn has_guards(&self) -> bool {
        self.topics.iter().any(|topic| !topic.guards.is_empty())
    }

    /// How many writes of an entity have been under way for too long.
    #[cfg(test)]
    pub(crate) fn unsettled(&self, topic: TopicId, now: Micros) -> u64 {
        self.topics[topic].unsettled(now, self.rules.write_limit)
    }

    /// When the next guard will have been open for too long, if it stays so.
    pub(crate) fn next_unsettled(&self, now: Micros) -> Option<Micros> {
        let due = |opened: &Micros| opened + self.rules.write_limit;
        self.topics
            .iter()
            .flat_map(|topic| topic.guards.values().map(due).find(|&due| due > now))
            .min()
    }

    /// A frame came back: whoever waits for it, or for an earlier one that did not, is told.
    pub(crate) fn returned(&mut self, entity: &str, sequence: u64) {
        let Some(&topic) = self.by_entity.get(entity) else {
            return;
        };
        let awaited = &mut self.topics[topic].awaited;
        while let Some(first) = awaited.pop_front_if(|first| first.number <= sequence) {
            first.ticket.resolve(match first.number {
                number if number == sequence => Outcome::Returned,
                // Its successor was faster than it could have been.
                _ => Outcome::Unknown,
            });
        }
    }

    /// What was numbered before then has come back by now, or never will.
    pub(crate) fn expire(&mut self, before: Micros) {
        for topic in &mut self.topics {
            while let Some(first) = topic.awaited.pop_front_if(|first| first.at < before) {
                first.ticket.resolve(Outcome::Unknown);
            }
        }
    }

    /// Whether a goodbye would be true.
    pub(super) fn may_say_bye(&self) -> Result<(), NoBeat> {
        let broken = self.broken(crate::invalidation::protocol::Mutant::GoodbyeWithOpenGuard);
        if self.counts.refused > 0 || (self.has_guards() && !broken) {
            return Err(NoBeat::Unsettled);
        }
        Ok(())
    }
}

/// What became of a frame that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It came back through our own subscription.
    Returned,
    /// It may or may not have been sent.
    Unknown,
}

/// Where somebody waits for a frame to come back.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    state: Mutex<(Option<Outcome>, Option<Waker>)>,
}

impl Ticket {
    pub(crate) fn resolve(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        state.0.get_or_insert(outcome);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What became of it, if that is known.
    #[cfg(test)]
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.state.lock().0
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.state.lock();
        match state.0 {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
