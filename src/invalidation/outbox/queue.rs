//! What waits for the bus, and how it leaves.

use super::topic::Rider;
use super::{Drained, Handed, Job, Outbox, TopicId};
use crate::bus::{PublishError, Publisher};
use crate::invalidation::protocol::Micros;
use crate::invalidation::subject::Id;

impl Outbox {
    pub(super) fn enqueue(
        &mut self,
        topic: TopicId,
        count: usize,
        position: Option<u64>,
        job: impl FnOnce() -> Job,
    ) -> Handed {
        let full = self.waiting + count > self.rules.capacity;
        if full || self.topics[topic].collapsed {
            let rider = match job() {
                Job::One { rider, .. } => rider,
                Job::Batch { .. } => None,
            };
            self.ridden -= usize::from(rider.is_some());
            self.collapse(topic, position, rider);
            self.counts.collapsed += count as u64;
            return Handed::Collapsed;
        }
        self.waiting += count;
        self.counts.queued += count as u64;
        self.queue.push_back(job());
        Handed::Queued
    }

    pub(super) fn collapse(&mut self, topic: TopicId, position: Option<u64>, rider: Option<Rider>) {
        let outgoing = &mut self.topics[topic];
        outgoing.riders.extend(rider);
        outgoing.all_position = outgoing.all_position.max(position);
        if !std::mem::replace(&mut outgoing.collapsed, true) {
            self.collapsed.push_back(topic);
        }
    }

    /// Sends what waits, up to `budget` frames.
    pub(crate) fn drain(
        &mut self,
        budget: usize,
        now: Micros,
        wire: &mut dyn Publisher,
    ) -> Drained {
        for _ in 0..budget {
            match self.send_next(now, wire) {
                Ok(true) => {}
                Ok(false) => return Drained::Empty,
                Err(PublishError::Full) => return Drained::Blocked,
                Err(PublishError::Closed) => return Drained::Closed,
                // It has its number: the others will find it missing, and flush.
                Err(_) => self.counts.failed += 1,
            }
        }
        if self.is_idle() {
            Drained::Empty
        } else {
            Drained::More
        }
    }

    /// Sends the first of what waits; `false` if nothing does.
    fn send_next(&mut self, now: Micros, wire: &mut dyn Publisher) -> Result<bool, PublishError> {
        let Some(job) = self.queue.pop_front() else {
            let Some(&topic) = self.collapsed.front() else {
                return Ok(false);
            };
            let sent = self.send_all(topic, now, wire);
            if sent != Err(PublishError::Full) {
                self.collapsed.pop_front();
            }
            return sent.map(|()| true);
        };
        match job {
            Job::One {
                topic,
                id,
                position,
                rider,
            } => {
                let sent = self.send_one(topic, id.borrowed(), position, rider.as_ref(), now, wire);
                if sent == Err(PublishError::Full) {
                    self.queue.push_front(Job::One {
                        topic,
                        id,
                        position,
                        rider,
                    });
                } else {
                    self.waiting -= 1;
                    self.ridden -= usize::from(rider.is_some());
                }
                sent?;
            }
            Job::Batch {
                topic,
                mut ids,
                position,
            } => {
                let together = match self.rules.plain_peers {
                    true => 0,
                    false => self.fill_batch(&mut ids.iter().map(Id::borrowed).peekable()),
                };
                let (done, sent) = if together == 0 {
                    let sent = ids.front().map_or(Ok(()), |id| {
                        self.send_one(topic, id.borrowed(), position, None, now, wire)
                    });
                    (1, sent)
                } else {
                    (together, self.send_batch(topic, position, now, wire))
                };
                if sent != Err(PublishError::Full) {
                    ids.drain(..done.min(ids.len()));
                    self.waiting -= done;
                }
                if !ids.is_empty() {
                    self.queue.push_front(Job::Batch {
                        topic,
                        ids,
                        position,
                    });
                }
                sent?;
            }
        }
        Ok(true)
    }
}
