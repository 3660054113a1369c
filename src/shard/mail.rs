//! What came through the queue: taken out, counted off and admitted, a hand at a time.

use super::engine::Engine;
use super::job::{Job, Message};

/// Messages that the shard takes into its hand at once: their keys are fetched together, and they
/// leave the count of what is queued together, which is a line that submitters write.
const HAND: usize = 32;

impl<T: Clone + Send + 'static> Engine<T> {
    /// Admits all that is queued or was refused by now.
    pub(super) fn take_mail(&mut self) {
        // What was refused by now came after what is queued by now.
        let mut refused = std::mem::take(&mut self.refused);
        self.inbox.refused_by_now(&mut refused);
        let mut messages = std::mem::take(&mut self.messages);
        self.inbox.drain(&mut messages);
        let mut mail = messages.drain(..);
        while !mail.as_slice().is_empty() {
            let hand = &mail.as_slice()[..mail.as_slice().len().min(HAND)];
            self.inbox.take_in_hand(hand.iter().map(Message::len).sum());
            prefetch(hand);
            for message in mail.by_ref().take(HAND) {
                let jobs = message.len();
                match message {
                    Message::One(job) => self.admit(job),
                    Message::Many(jobs) => self.admit_many(jobs),
                }
                self.inbox.put_down(jobs);
            }
        }
        drop(mail);
        for channel in refused.drain(..) {
            self.admit_refusal(&channel);
        }
        self.messages = messages;
        self.refused = refused;
    }

    fn admit_many(&mut self, jobs: Vec<Job<T>>) {
        let mut jobs = jobs.into_iter();
        for left in (1..=jobs.len()).rev() {
            if left.is_multiple_of(HAND) {
                let hand = &jobs.as_slice()[..HAND];
                fetch(hand.iter());
            }
            let Some(job) = jobs.next() else { break };
            self.admit(job);
        }
    }
}

/// Has the keys of these fetched, so that their cache misses overlap; not worth it for a few.
fn prefetch<T>(hand: &[Message<T>]) {
    if hand.len() >= 4 {
        fetch(hand.iter().filter_map(|message| match message {
            Message::One(job) => Some(job),
            Message::Many(_) => None,
        }));
    }
}

/// First all topics, then what their entries name, so that there are two cache misses for all of them.
fn fetch<'a, T: 'a>(jobs: impl Iterator<Item = &'a Job<T>> + Clone) {
    jobs.clone().for_each(|job| job.channel.prefetch());
    jobs.for_each(|job| job.channel.prefetch_first());
}
