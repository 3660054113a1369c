//! A receiver whose ledger is kept: what it got, in which order, and what it was told it missed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use afterwrite::models::{Found, Receiver, Topic};
use afterwrite::{Overflow, Tally};

use crate::{Payload, Woken};

/// A receiver and its ledger.
#[derive(Debug)]
pub struct Subscriber {
    receiver: Receiver<Payload>,
    got: Vec<u64>,
    missed: u64,
    missed_visible: u64,
    ended: bool,
}

impl Subscriber {
    /// Subscribes; `None` once the topic is shut.
    pub fn try_new(topic: &Topic<Payload>, overflow: Overflow, capacity: u16) -> Option<Self> {
        Some(Self {
            receiver: topic.subscribe(overflow, capacity)?,
            got: Vec::new(),
            missed: 0,
            missed_visible: 0,
            ended: false,
        })
    }

    /// Subscribes to an open topic.
    pub fn new(topic: &Topic<Payload>, overflow: Overflow, capacity: u16) -> Self {
        Self::try_new(topic, overflow, capacity).expect("the topic is open")
    }

    /// The receiver itself.
    pub fn receiver(&mut self) -> &mut Receiver<Payload> {
        &mut self.receiver
    }

    fn note(&mut self, found: &Found<Payload>) -> bool {
        match found {
            Found::Changed(payload) => self.got.push(payload.value),
            Found::Missed { n, visible } => {
                assert_ne!(*n, 0, "a loss of nothing");
                self.missed += n;
                self.missed_visible += if *visible { *n } else { 0 };
            }
            Found::Empty => return false,
            Found::Ended => {
                self.ended = true;
                return false;
            }
        }
        assert!(!self.ended, "something came after the end");
        true
    }

    /// Looks once; whether there was something.
    pub fn look(&mut self) -> bool {
        let found = self.receiver.next();
        self.note(&found)
    }

    /// Looks until there is nothing more.
    pub fn drain(&mut self) -> &mut Self {
        while self.look() {}
        self
    }

    /// Looks once, and leaves a waker if there is nothing; whether it has to wait.
    pub fn look_or_wait(&mut self, waker: &Waker) -> bool {
        if self.look() || self.ended {
            return false;
        }
        let found = self.receiver.next_or_wait(waker);
        let waits = matches!(found, Found::Empty);
        self.note(&found);
        waits
    }

    /// Waits for one thing; false at the end.
    pub fn wait(&mut self) -> bool {
        loom::future::block_on(poll_fn(|context| {
            if self.look_or_wait(context.waker()) {
                Poll::Pending
            } else {
                Poll::Ready(!self.ended)
            }
        }))
    }

    /// Waits until `n` pushes are accounted for, or the end.
    pub fn wait_for(&mut self, n: u64) -> &mut Self {
        while self.accounted() < n && self.wait() {}
        self
    }

    /// What came, in order.
    pub fn got(&self) -> &[u64] {
        &self.got
    }

    /// How many it was told it missed.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// How many of those it was told are visible already.
    pub fn missed_visible(&self) -> u64 {
        self.missed_visible
    }

    /// Whether it saw the end.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// How many pushes are accounted for.
    pub fn accounted(&self) -> u64 {
        let Tally {
            received,
            missed,
            merged,
            discarded,
            ..
        } = self.receiver.tally();
        assert_eq!(missed, self.missed, "what was told and what was counted");
        received + missed + merged + discarded
    }

    /// Conservation: received, missed, merged and discarded make `n`. Order: values rise.
    #[track_caller]
    pub fn assert_accounts_for(&self, n: impl std::ops::RangeBounds<u64> + std::fmt::Debug) {
        let accounted = self.accounted();
        assert!(
            n.contains(&accounted),
            "{accounted} accounted for, not {n:?}: {self:?}"
        );
        self.assert_in_order();
    }

    /// Order: values rise.
    #[track_caller]
    pub fn assert_in_order(&self) {
        assert!(
            self.got.is_sorted_by(|a, b| a < b),
            "out of order: {self:?}"
        );
    }
}

/// A receiver that looked, left a waker and looked again. It costs the checker less than a wait.
#[derive(Debug)]
pub struct Sleep {
    woken: Arc<Woken>,
    waits: bool,
}

impl Sleep {
    /// The subscriber looks; if there is nothing it leaves a waker.
    pub fn begin(subscriber: &mut Subscriber) -> Self {
        let (woken, waker) = Woken::pair();
        let waits = subscriber.look_or_wait(&waker);
        Self { woken, waits }
    }

    /// The others are done: if there is something now, or the end, the one who waits was woken.
    #[track_caller]
    pub fn assert_woken_if_any(&self, subscriber: &mut Subscriber) {
        let any = subscriber.look() || subscriber.ended();
        assert!(
            !(self.waits && any) || self.woken.times() > 0,
            "a lost wake-up: {subscriber:?}"
        );
    }
}
