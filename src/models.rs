//! The topic and the mailbox as the models see them: the crate's own types under public names.
//!
//! It exists under `--cfg afterwrite_loom` only, and adds no logic: every call goes to the code that
//! ships.

use std::task::Waker;

use crate::arena::Shared;
use crate::mailbox::Mailbox;
use crate::sync::{Arc, AtomicUsize, Ordering::Relaxed};
use crate::topic::{self, Attached, Busy, Next, Refused, Tally};

pub use crate::mailbox::Overflow;
pub use crate::sync::mutant;
pub use crate::sync::order::ROLES;
pub use crate::topic::faults::ALL as STEPS;

/// Counts the rings that a shard asked for.
#[derive(Debug, Default)]
struct Bell(AtomicUsize);

impl Attached for Bell {
    fn turn_is_free(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// What a receiver finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// A payload.
    Changed(T),
    /// Losses.
    Missed {
        /// How many.
        n: u64,
        /// Whether they may be looked up.
        visible: bool,
    },
    /// Nothing now.
    Empty,
    /// Nothing ever.
    Ended,
}

/// Why a push did not begin; the payload comes back.
#[derive(Debug)]
pub enum NotNow<T> {
    /// The turn is taken.
    Held(T),
    /// The topic is shut.
    Shut(T),
}

impl<T> From<Busy<T>> for NotNow<T> {
    fn from(busy: Busy<T>) -> Self {
        match busy {
            Busy::Held(payload) => Self::Held(payload),
            Busy::Shut(payload) => Self::Shut(payload),
        }
    }
}

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Subscribers that got it.
    pub reached: u32,
    /// Subscribers that were full.
    pub full: u32,
}

impl From<topic::Pushed> for Pushed {
    fn from(pushed: topic::Pushed) -> Self {
        Self {
            reached: pushed.reached,
            full: pushed.full,
        }
    }
}

/// One key.
#[derive(Debug)]
pub struct Topic<T>(Shared<topic::Topic<T, Bell>>);

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self(Shared::clone(&self.0))
    }
}

impl<T: Clone + 'static> Topic<T> {
    /// A key with nobody listening.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Shared::new(topic::Topic::new(Bell::default())))
    }

    /// Adds a subscriber; `None` once the topic is shut.
    pub fn subscribe(&self, overflow: Overflow, capacity: u16) -> Option<Receiver<T>> {
        match topic::Topic::subscribe(&self.0, overflow, capacity, usize::MAX) {
            Ok(receiver) => Some(Receiver(receiver)),
            Err(Refused::Shut | Refused::Full | Refused::Denied) => None,
        }
    }

    /// Delivers to every subscriber.
    pub fn push(&self, payload: T) -> Result<Pushed, NotNow<T>> {
        Ok(self.0.try_push(payload)?.into())
    }

    /// Takes the turn for a push in slices.
    pub fn walk(&self, payload: T) -> Result<Walk<T>, NotNow<T>> {
        Ok(Walk(topic::Walk::begin(Shared::clone(&self.0), payload)?))
    }

    /// Counts pushes that nobody gets.
    pub fn lose(&self, n: u64) {
        self.0.lose(n);
    }

    /// Lets nothing begin any more.
    pub fn shut(&self) {
        self.0.shut();
    }

    /// Fills a first notice and wakes its receiver; false if the turn is not free.
    pub fn fill(&self, notice: &FirstNotice<T>, payload: T) -> bool {
        let filled = self
            .0
            .with_turn(|ticket| notice.notice.fill_once(ticket, Some(payload)));
        if filled.is_some()
            && let Some(waker) = notice.mailbox.take_waker()
        {
            waker.wake();
        }
        filled.is_some()
    }

    /// Asks to be rung when the turn is free; false if it is.
    pub fn ring_when_free(&self) -> bool {
        self.0.ring_when_free()
    }

    /// How often the topic rang.
    pub fn rings(&self) -> usize {
        self.0.attached.0.load(Relaxed)
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.0.subscribers()
    }
}

/// A push under way.
#[allow(missing_debug_implementations)]
pub struct Walk<T>(topic::Walk<Shared<topic::Topic<T, Bell>>, T, Bell>);

impl<T: Clone> Walk<T> {
    /// Delivers to at most about `budget` subscribers; true at the end.
    pub fn step(&mut self, budget: u32) -> bool {
        self.0.step(budget)
    }

    /// Gives the turn back.
    pub fn finish(self) -> Pushed {
        self.0.finish().into()
    }
}

/// A place for one subscriber's first notice.
#[allow(missing_debug_implementations)]
pub struct FirstNotice<T> {
    notice: Arc<topic::FirstNotice<T>>,
    mailbox: Mailbox<T>,
}

/// Ends a subscription from elsewhere.
#[derive(Debug)]
pub struct Closer<T> {
    topic: Topic<T>,
    mailbox: Mailbox<T>,
}

impl<T: Clone> Closer<T> {
    /// Whether this call ended it.
    pub fn close(&self) -> bool {
        self.topic.0.retire(&self.mailbox).is_some()
    }
}

/// The owner of a subscription.
#[derive(Debug)]
pub struct Receiver<T>(topic::Receiver<T, Bell>);

impl<T: Clone> Receiver<T> {
    /// What comes next, without waiting.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Found<T> {
        found(self.0.next())
    }

    /// Makes the next push wake `waker`, then looks once more.
    pub fn next_or_wait(&mut self, waker: &Waker) -> Found<T> {
        found(self.0.next_or_wait(waker))
    }

    /// Gives a wait up.
    pub fn forget_waker(&mut self) {
        self.0.forget_waker();
    }

    /// Ends the subscription.
    pub fn close(&mut self) {
        self.0.close();
    }

    /// A handle that ends the subscription from elsewhere.
    pub fn closer(&self) -> Closer<T> {
        Closer {
            topic: Topic(self.0.clone_topic()),
            mailbox: self.0.mailbox().clone(),
        }
    }

    /// Makes a first notice come in its place.
    pub fn await_first(&mut self) -> FirstNotice<T> {
        FirstNotice {
            notice: self.0.await_first(),
            mailbox: self.0.mailbox().clone(),
        }
    }

    /// What became of the pushes.
    pub fn tally(&self) -> Tally {
        self.0.tally()
    }
}

fn found<T>(next: Next<T>) -> Found<T> {
    match next {
        Next::Changed(payload) => Found::Changed(payload),
        Next::Missed { n, visible } => Found::Missed { n, visible },
        Next::Empty => Found::Empty,
        Next::Ended => Found::Ended,
    }
}
