//! What is handed to a shard.

use std::time::Instant;

use super::channel::Channel;
use crate::arena::Shared;
use crate::gate::Source;
use crate::mailbox::Mailbox;
use crate::sync::Arc;
use crate::topic::FirstNotice;

/// One gate on its way to the shard of its key.
pub(crate) struct Job<T> {
    pub(crate) channel: Shared<Channel<T>>,
    pub(crate) source: Source<T>,
    pub(crate) delivery: Delivery<T>,
    /// When it was submitted, if the observer wants timing.
    pub(crate) submitted: Option<Instant>,
    /// Tells the jobs of calls that are under way apart: an address on the caller's stack.
    pub(super) caller: usize,
}

impl<T> Job<T> {
    pub(crate) fn new(
        channel: Shared<Channel<T>>,
        source: Source<T>,
        delivery: Delivery<T>,
        submitted: Option<Instant>,
    ) -> Self {
        Self {
            channel,
            source,
            delivery,
            submitted,
            caller: 0,
        }
    }
}

/// Who gets what comes out of a gate.
pub(crate) enum Delivery<T> {
    /// Every subscriber of the key.
    All,
    /// Every subscriber, from a publisher that found the turn taken.
    HandedOver,
    /// One subscriber, as its first notice.
    First(Arc<FirstNotice<T>>, Mailbox<T>),
    /// Every subscriber learns that it missed this many.
    Lost(u64),
}

impl<T> Delivery<T> {
    /// Whether it holds one of the key's places for gates.
    pub(crate) fn has_place(&self) -> bool {
        matches!(self, Delivery::All | Delivery::First(..))
    }

    /// Whether it stands for submits that were refused, each of which the observer has heard of.
    pub(crate) fn was_refused(&self) -> bool {
        matches!(self, Delivery::Lost(_))
    }
}

/// What travels through a shard's queue.
pub(crate) enum Message<T> {
    One(Job<T>),
    Many(Vec<Job<T>>),
}

impl<T> Message<T> {
    /// How many jobs are in it.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(jobs) => jobs.len(),
        }
    }

    /// All the jobs in it, in order.
    pub(super) fn into_jobs(self) -> Vec<Job<T>> {
        match self {
            Self::One(job) => vec![job],
            Self::Many(jobs) => jobs,
        }
    }
}

/// Producers of one key that were not taken over: the newest gate, for all.
pub(crate) struct Refusal<T> {
    pub(crate) lost: u64,
    pub(crate) source: Source<T>,
}

impl<T> Refusal<T> {
    pub(crate) fn absorb(&mut self, older: Box<Refusal<T>>) {
        self.lost += older.lost;
        let mut older = older;
        // What was published says nothing of the view that an older gate waits for.
        if matches!(self.source, Source::Ready(_)) && !matches!(older.source, Source::Ready(_)) {
            std::mem::swap(&mut self.source, &mut older.source);
        }
        // A payload or a producer is the user's: so is its drop.
        crate::sync::panics::contain(|| drop(older));
    }
}

impl<T> std::fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("channel", &self.channel)
            .field("source", &self.source.kind())
            .finish_non_exhaustive()
    }
}
