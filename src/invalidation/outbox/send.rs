//! Numbering and publishing.

use std::iter::Peekable;

use super::topic::{Awaited, Outcome, Rider};
use super::{MAX_BATCH, NoBeat, Outbox, TopicId};
use crate::bus::{PublishError, Publisher};
use crate::invalidation::frame::{
    BatchWriter, BeatWriter, Body, Frame, Header, Mark, write_all, write_batch, write_one,
};
use crate::invalidation::protocol::{BeatPlan, Micros, Mutant};
use crate::invalidation::subject::{IdRef, Subject};

/// Which of an entity's subjects a frame goes to.
enum To<'a> {
    One(IdRef<'a>),
    All,
    Batch,
}

impl Outbox {
    #[inline]
    pub(super) fn send_one(
        &mut self,
        topic: TopicId,
        id: IdRef<'_>,
        position: Option<u64>,
        rider: Option<&Rider>,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<(), PublishError> {
        let number = self.number(topic);
        if let Some(rider) = rider {
            // Before it is sent: it may be back before this call ends.
            self.topics[topic].awaited.push(Awaited {
                number,
                rider: rider.clone(),
            });
        }
        let sent = self.send(topic, To::One(id), number, position, now, wire);
        if sent.is_ok()
            && self.broken(Mutant::FlushIsConfirmation)
            && let Some(rider) = rider
        {
            self.wakers.extend(rider.ticket.resolve(Outcome::Returned));
        }
        if sent.is_err()
            && let Some(last) = rider.and_then(|_| self.topics[topic].awaited.pop_back())
            && sent != Err(PublishError::Full)
        {
            let waker = last.rider.ticket.resolve(Outcome::Unknown);
            self.wakers.extend(waker);
        }
        sent
    }

    pub(super) fn send_all(
        &mut self,
        topic: TopicId,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<(), PublishError> {
        let number = self.number(topic);
        let outgoing = &mut self.topics[topic];
        let position = outgoing.all_position;
        let riders = outgoing.riders.len();
        let waiting = outgoing.riders.iter().cloned();
        let awaited = waiting.map(|rider| Awaited { number, rider });
        outgoing.awaited.extend(awaited);
        let sent = self.send(topic, To::All, number, position, now, wire);
        let outgoing = &mut self.topics[topic];
        if sent == Err(PublishError::Full) {
            outgoing.awaited.cut(riders);
        } else {
            outgoing.collapsed = false;
            outgoing.all_position = None;
            outgoing.riders.clear();
        }
        sent
    }

    /// Gathers a batch from the front of `ids`; says how many. None: the first fits no batch.
    pub(super) fn fill_batch<'a>(
        &mut self,
        ids: &mut Peekable<impl Iterator<Item = IdRef<'a>>>,
    ) -> usize {
        let limit = self.max_payload.min(MAX_BATCH);
        let mut batch = BatchWriter::new(&mut self.scratch);
        while let Some(&id) = ids.peek()
            && batch.push(id, limit)
        {
            ids.next();
        }
        self.batched = batch.count();
        usize::try_from(self.batched).unwrap_or(usize::MAX)
    }

    /// Sends what [`fill_batch`](Self::fill_batch) gathered.
    pub(super) fn send_batch(
        &mut self,
        topic: TopicId,
        position: Option<u64>,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<(), PublishError> {
        let number = self.number(topic);
        self.send(topic, To::Batch, number, position, now, wire)
    }

    /// The ids of the batch frame built last.
    pub(super) fn built_batch(&self) -> impl Iterator<Item = IdRef<'_>> {
        let ids = match Frame::decode(&self.frame) {
            Ok(Frame {
                body: Body::Batch(ids),
                ..
            }) => Some(ids.iter()),
            _ => None,
        };
        ids.into_iter().flatten()
    }

    fn number(&self, topic: TopicId) -> u64 {
        self.topics[topic].mark.get() + 1
    }

    /// Numbers what was refused after it was written, so that the next mark counts it.
    #[cold]
    pub(super) fn skip(&mut self, topic: TopicId, position: Option<u64>) {
        let number = self.number(topic);
        let outgoing = &mut self.topics[topic];
        outgoing.mark.skip(number);
        outgoing.position = outgoing.position.max(position);
    }

    fn send(
        &mut self,
        topic: TopicId,
        to: To<'_>,
        number: u64,
        position: Option<u64>,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<(), PublishError> {
        let own = match self.broken(Mutant::FloorIsOwnPosition) {
            true => position.max(self.topics[topic].position),
            false => position,
        };
        let outgoing = &mut self.topics[topic];
        let header = Header {
            incarnation: self.incarnation,
            sequence: number,
            sent: now.saturating_sub(self.born),
            position: Header::position(own, outgoing.position),
        };
        self.frame.clear();
        let subject = match to {
            To::One(id) => {
                write_one(&mut self.frame, &header);
                outgoing.subjects.one(id, &mut self.subject)
            }
            To::All => {
                write_all(&mut self.frame, &header);
                outgoing.subjects.all()
            }
            To::Batch => {
                write_batch(&mut self.frame, &header, self.batched, &self.scratch);
                outgoing.subjects.batch()
            }
        };
        // It may be back before `publish` returns.
        outgoing.mark.raise(number, header.sent);
        let sent = wire.publish(subject, &self.frame);
        match sent {
            Ok(()) => self.counts.sent += 1,
            Err(PublishError::Full) => {
                // Nobody has seen it: the number goes to whatever is sent next.
                outgoing.mark.lower(number);
                return sent;
            }
            Err(_) => {}
        }
        outgoing.position = header.highest_position();
        sent
    }

    /// Sends everything that was handed over, then the beat that was planned before.
    ///
    /// # Errors
    /// Why there is no beat. Nothing is lost: another can be planned.
    pub(crate) fn beat(
        &mut self,
        plan: &BeatPlan,
        bye: bool,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Result<(), NoBeat> {
        if plan.incarnation != self.incarnation || self.has_ended() {
            return Err(NoBeat::Stale);
        }
        if bye {
            self.may_say_bye()?;
        }
        let early = self
            .broken(Mutant::MarkBeforeDrain)
            .then(|| self.marks_now());
        match self.drain(usize::MAX, now, wire) {
            super::Drained::Empty => {}
            super::Drained::More | super::Drained::Blocked => {
                return Err(NoBeat::Bus(PublishError::Full));
            }
            super::Drained::Closed => return Err(NoBeat::Bus(PublishError::Closed)),
        }
        self.frame.clear();
        let limit = self.rules.write_limit;
        let silent = self.broken(Mutant::SilentGuard);
        let marks: Vec<Mark<'_>> = self
            .topics
            .iter()
            .enumerate()
            .map(|(id, topic)| Mark {
                entity: topic.subjects.entity().borrowed(),
                mark: match &early {
                    Some(early) => early[id],
                    None => topic.mark.get(),
                },
                position: topic.position.unwrap_or(0),
                unsettled: if silent {
                    0
                } else {
                    topic.unsettled(now, limit)
                },
            })
            .filter(|mark| mark.mark > 0 || mark.unsettled > 0)
            .collect();
        BeatWriter {
            incarnation: plan.incarnation,
            sequence: plan.sequence,
            sent: plan.sent,
            solicit: plan.solicit,
            reader: self.rules.reader,
            bye,
            name: &self.rules.name,
            lease: self.rules.lease,
        }
        .write(
            &mut self.frame,
            plan.echoes.iter().copied(),
            marks.into_iter(),
        );
        let subject: Subject<'_> = self
            .rules
            .prefix
            .control(self.incarnation.0, &mut self.subject);
        wire.publish(subject, &self.frame).map_err(NoBeat::Bus)
    }

    /// How far every entity has got. Only a mutant looks before it drains.
    fn marks_now(&self) -> Vec<u64> {
        let mark = |topic: &super::topic::Outgoing| topic.mark.get();
        self.topics.iter().map(mark).collect()
    }

    pub(super) fn broken(&self, _mutant: Mutant) -> bool {
        #[cfg(test)]
        return self.rules.mutant == Some(_mutant);
        #[cfg(not(test))]
        false
    }
}
