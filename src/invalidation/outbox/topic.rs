//! What an outbox keeps for one entity: numbers, open guards, who waits for a frame's return.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::{Giver, Job, NoBeat, Outbox, Refusal, TopicId};
use crate::invalidation::protocol::{Micros, Mutant, OwnMark};
use crate::invalidation::subject::{Entity, Topic};

/// Names one open guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuardId(u64);

/// The state of one entity's sending.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) subjects: Topic,
    /// The highest number given out.
    pub(super) mark: Arc<OwnMark>,
    /// The highest position handed over.
    pub(super) position: Option<u64>,
    /// Whether an "all" waits.
    pub(super) collapsed: bool,
    /// The server refused a frame of this entity: until then none is tried.
    pub(super) denied_until: Micros,
    /// The highest position that the waiting "all" stands for.
    pub(super) all_position: Option<u64>,
    /// Who waits for the "all".
    pub(super) riders: Waiting<Rider>,
    /// Who waits for a number to come back, in order.
    pub(super) awaited: Waiting<Awaited>,
    /// Open guards and since when, oldest first.
    guards: BTreeMap<GuardId, Micros>,
}

/// Somebody who waits, and since when: what was handed over earlier stands before it, everywhere.
#[derive(Debug, Clone)]
pub(super) struct Rider {
    pub(super) ticket: Arc<Ticket>,
    pub(super) at: Micros,
}

/// A numbered frame that somebody waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) number: u64,
    pub(super) rider: Rider,
}

/// Something that stands for a rider.
pub(super) trait Rides {
    fn rider(&self) -> &Rider;
}

impl Rides for Rider {
    fn rider(&self) -> &Rider {
        self
    }
}

impl Rides for Awaited {
    fn rider(&self) -> &Rider {
        &self.rider
    }
}

/// Who waits, first come first. Those who have given up are let go of before there is need for more room,
/// so that its size follows the number of those who wait.
#[derive(Debug)]
pub(super) struct Waiting<T>(VecDeque<T>);

impl<T: Rides> Waiting<T> {
    const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn push(&mut self, one: T) {
        if self.0.len() == self.0.capacity() {
            // Only the outbox has it.
            self.0
                .retain(|one| Arc::strong_count(&one.rider().ticket) > 1);
            // At least as many can come before the next look.
            self.0.reserve(self.0.len().max(16));
        }
        self.0.push_back(one);
    }

    pub(super) fn extend(&mut self, more: impl IntoIterator<Item = T>) {
        more.into_iter().for_each(|one| self.push(one));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn pop_back(&mut self) -> Option<T> {
        self.0.pop_back()
    }

    /// Takes the last `n` away.
    pub(super) fn cut(&mut self, n: usize) {
        self.0.truncate(self.0.len().saturating_sub(n));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn expire(&mut self, before: Micros, wakers: &mut Vec<Waker>) {
        while let Some(first) = self.0.pop_front_if(|first| first.rider().at < before) {
            wakers.extend(first.rider().ticket.resolve(Outcome::Unknown));
        }
    }
}

impl Outgoing {
    pub(super) fn new(subjects: Topic) -> Self {
        Self {
            subjects,
            mark: Arc::default(),
            position: None,
            collapsed: false,
            denied_until: 0,
            all_position: None,
            riders: Waiting::new(),
            awaited: Waiting::new(),
            guards: BTreeMap::new(),
        }
    }

    /// Numbered from 1 again, with a mark of its own.
    pub(super) fn restart(&mut self, wakers: &mut Vec<Waker>) {
        self.mark = Arc::default();
        self.awaited.expire(Micros::MAX, wakers);
    }

    /// Guards that have been open for longer than `limit`.
    pub(super) fn unsettled(&self, now: Micros, limit: Micros) -> u64 {
        let overdue = |&&opened: &&Micros| opened + limit <= now;
        self.guards.values().take_while(overdue).count() as u64
    }
}

impl Outbox {
    /// A write is about to happen.
    ///
    /// # Errors
    /// Nothing was written yet, so nobody misses anything.
    pub(crate) fn open_guard(
        &mut self,
        entity: &Entity,
        now: Micros,
    ) -> Result<(TopicId, GuardId), Refusal> {
        let topic = match self.by_entity.get(entity) {
            Some(&topic) => topic,
            None => self.new_topic(entity)?,
        };
        self.admits(topic, Giver::Anyone, now)?;
        let guard = GuardId(self.next_guard);
        self.next_guard += 1;
        self.topics[topic].guards.insert(guard, now);
        Ok((topic, guard))
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
        let awaited = &mut self.topics[topic].awaited.0;
        while let Some(first) = awaited.pop_front_if(|first| first.number <= sequence) {
            let waker = first.rider.ticket.resolve(match first.number {
                number if number == sequence => Outcome::Returned,
                // Its successor was faster than it could have been.
                _ => Outcome::Unknown,
            });
            self.wakers.extend(waker);
        }
    }

    /// What was handed over before then, and sent, has come back by now, or never will.
    pub(crate) fn expire(&mut self, before: Micros) {
        for topic in &mut self.topics {
            topic.awaited.expire(before, &mut self.wakers);
        }
    }

    /// Who has waited since before then waits no longer, though it may yet be sent.
    pub(crate) fn expire_waiting(&mut self, before: Micros) {
        self.expire(before);
        for topic in &mut self.topics {
            topic.riders.expire(before, &mut self.wakers);
        }
        let mut ridden = self.ridden;
        for job in &mut self.queue {
            if ridden == 0 {
                break;
            }
            if let Job::One { rider, .. } = job
                && let Some(found) = rider
            {
                if found.at >= before {
                    break;
                }
                self.wakers.extend(found.ticket.resolve(Outcome::Unknown));
                *rider = None;
                ridden -= 1;
                self.ridden -= 1;
            }
        }
    }

    /// Who is to be woken, once no lock is held.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    /// Whether a goodbye is worth a beat: no guard holds it up.
    pub(crate) fn wants_bye(&self) -> bool {
        !self.has_guards()
            || self.broken(Mutant::GoodbyeWithOpenGuard)
            || self.broken(Mutant::MuteWhileClosing)
    }

    /// Whether a goodbye would be true.
    pub(super) fn may_say_bye(&self) -> Result<(), NoBeat> {
        let broken = self.broken(Mutant::GoodbyeWithOpenGuard);
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
    /// Says what became of it; the answer is to be woken once no lock is held.
    #[must_use]
    pub(crate) fn resolve(&self, outcome: Outcome) -> Option<Waker> {
        let mut state = self.state.lock();
        state.0.get_or_insert(outcome);
        state.1.take()
    }

    /// What became of it, if that is known.
    #[cfg(test)]
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.state.lock().0
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        // Foreign code both: neither the clone nor the old one's end happens under the lock.
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        let (poll, old) = match state.0 {
            Some(outcome) => (Poll::Ready(outcome), None),
            None => (Poll::Pending, state.1.replace(waker)),
        };
        drop(state);
        drop(old);
        poll
    }
}
