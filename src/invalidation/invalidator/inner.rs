//! What the threads, the bus and the handles of one invalidator share.
//!
//! # Locks
//! *Receiving half* (`core`), then *sending half* (`out`), then `listeners`: whoever holds one may
//! take a later one, never an earlier. Those who emit take `out` alone, for the time of numbering
//! one frame, and hold nothing while caches are dropped from, or while those are woken who waited
//! for a frame.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::Instant;

use ahash::RandomState;
use parking_lot::{Mutex, RwLock};

use super::closing::Closing;
use super::deadline::Deadline;
use super::hands::{Board, CatchAll, Hands, Listeners};
use super::types::WatchError;
use crate::bus::{Bus, Delivery, Event, Interest, Publisher, SubscribeError};
use crate::invalidation::done::Done;
use crate::invalidation::frame::Incarnation;
use crate::invalidation::outbox::Outbox;
use crate::invalidation::protocol::{Micros, Node, OwnMarks};
use crate::invalidation::settings::{Settings, micros};
use crate::invalidation::subject::{Address, Entity, IdRef, Pattern};
use crate::invalidation::target::{Driver, Target};
use crate::limit::Limit;

/// The receiving half.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) node: Node,
    pub(super) board: Board,
    pub(super) forked: bool,
    /// What the bus had counted as lost.
    pub(super) lost: u64,
    pub(super) closed: bool,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) outbox: Outbox,
    pub(super) wire: Box<dyn Publisher>,
}

/// The subscription.
#[derive(Debug)]
pub(super) enum Ear {
    /// `None` until it was asked for.
    Open(Option<Interest>),
    /// It is over, and will not be asked for again.
    Closed,
}

/// What an invalidator has that is not alone.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) core: Mutex<Core>,
    pub(super) out: Mutex<Out>,
    pub(super) ear: Mutex<Ear>,
    /// How many wait for a frame of theirs.
    pub(super) awaited: AtomicU64,
    pub(super) beat: Waking,
    pub(super) deadline: Arc<Deadline>,
    pub(super) closing: Mutex<Option<Closing>>,
    pub(super) farewell: Mutex<Option<super::types::Farewell>>,
    pub(super) done: Done,
    pub(super) beats_failed: AtomicU64,
    pub(super) beats_too_large: AtomicU64,
    /// Since when beats are longer than the bus takes; 0 if they are not.
    pub(super) too_large_since: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) complaints: Complaints,
}

/// What is logged, each kind at a rate of its own.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    pub(super) malformed: Limit,
    pub(super) publish_denied: Limit,
    pub(super) subscribe_denied: Limit,
    pub(super) bus_error: Limit,
    pub(super) deaf: Limit,
    pub(super) not_subscribed: Limit,
    pub(super) beat_unsent: Limit,
    pub(super) stray: Limit,
    pub(super) untold: Limit,
    pub(super) forked: Limit,
    pub(super) waker: Limit,
}

/// A thread that can be woken once it is there.
#[derive(Debug, Default)]
pub(super) struct Waking(std::sync::OnceLock<std::thread::Thread>);

impl Waking {
    pub(super) fn set(&self, thread: std::thread::Thread) {
        self.0.get_or_init(|| thread);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) listeners: RwLock<Arc<Listeners>>,
    /// Held by a node that is alone while it changes who listens: in place of `core`.
    pub(super) meeting: Mutex<()>,
    /// What this node itself has sent, and at which positions.
    pub(super) own: Arc<OwnMarks>,
    pub(super) remote: Option<Remote>,
}

/// This node's monotonic clock, in microseconds since it began, plus one so that 0 is never now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Micros {
        micros(self.0.elapsed()) + 1
    }
}

/// Eight bytes that nobody else has.
pub(super) fn random_incarnation() -> Incarnation {
    // Each state is seeded by the operating system's randomness and its own address.
    Incarnation(RandomState::new().hash_one(Instant::now()))
}

impl Remote {
    pub(super) fn new(bus: Arc<dyn Bus>, core: Core, out: Out) -> Self {
        Self {
            bus,
            core: Mutex::new(core),
            out: Mutex::new(out),
            ear: Mutex::new(Ear::Open(None)),
            awaited: AtomicU64::new(0),
            beat: Waking::default(),
            deadline: Arc::default(),
            closing: Mutex::new(None),
            farewell: Mutex::new(None),
            done: Done::default(),
            beats_failed: AtomicU64::new(0),
            beats_too_large: AtomicU64::new(0),
            too_large_since: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            complaints: Complaints::default(),
        }
    }

    /// Ends the subscription.
    pub(super) fn stop_listening(&self) {
        // Not under the lock: whoever ends a subscription may do as it likes.
        let ear = std::mem::replace(&mut *self.ear.lock(), Ear::Closed);
        drop(ear);
    }

    /// Wakes those whose frames are accounted for by now. Called with no lock held: they may do as
    /// they like.
    #[inline]
    pub(super) fn wake_resolved(&self) {
        if self.awaited.load(Relaxed) > 0 {
            let wakers = self.out.lock().outbox.take_wakers();
            wakers.into_iter().for_each(|waker| self.wake(waker));
        }
    }

    /// Wakes a task of somebody else's, whose panic is its own affair.
    fn wake(&self, waker: Waker) {
        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            let limit = &self.complaints.waker;
            limit.say(|| tracing::error!("a waker panicked"));
        }
    }
}

impl Inner {
    pub(super) fn min_flush(&self) -> Micros {
        micros(self.settings.min_flush)
    }

    /// Becomes the driver of a cache of this entity, alone or not.
    pub(super) fn attach(&self, entity: &Entity, target: &Target) -> Result<Driver, WatchError> {
        let driver = match &self.remote {
            Some(_) => target.attach(self.settings.lease_or_default())?,
            None => target.attach_alone()?,
        };
        Ok(driver.of(entity))
    }

    /// Lets the receiving half act, and takes a new incarnation if it found a twin.
    pub(super) fn with_node<R>(
        &self,
        remote: &Remote,
        core: &mut Core,
        now: Micros,
        act: impl FnOnce(&mut Node, &mut Hands<'_>) -> R,
    ) -> R {
        let Core {
            node,
            board,
            forked,
            ..
        } = core;
        let mut hands = Hands {
            now,
            inner: self,
            remote,
            board,
            forked,
            doubted: Vec::new(),
        };
        let result = act(node, &mut hands);
        hands.tell_doubts();
        if std::mem::take(forked) {
            self.reincarnate(remote, node, now);
        }
        result
    }

    #[cold]
    fn reincarnate(&self, remote: &Remote, node: &mut Node, now: Micros) {
        let incarnation = random_incarnation();
        remote.complaints.forked.say(|| {
            tracing::warn!(
                old = %node.incarnation(), new = %incarnation,
                "another node speaks with this node's incarnation; taking a new one"
            );
        });
        node.reincarnate(incarnation, now);
        remote.out.lock().outbox.reincarnate(incarnation, now);
        remote.beat.wake();
    }

    /// Asks for the subscription, again if there is one: then the old one ends after the new one
    /// was asked for, so that a server that has the old one always has one.
    pub(super) fn subscribe(self: &Arc<Self>, bus: &dyn Bus) -> Result<(), SubscribeError> {
        let weak = Arc::downgrade(self);
        let inbox = move |delivery: Delivery<'_>| {
            if let Some(inner) = weak.upgrade()
                && let Some(remote) = &inner.remote
            {
                match delivery {
                    Delivery::Message { subject, payload } => inner.hear(remote, subject, payload),
                    Delivery::Event(event) => inner.event(remote, event),
                }
            }
        };
        let Some(remote) = &self.remote else {
            return Ok(());
        };
        let interest = bus.subscribe(&self.wanted(), Box::new(inbox))?;
        let mut ear = remote.ear.lock();
        let old = match &mut *ear {
            Ear::Open(open) => open.replace(interest),
            Ear::Closed => Some(interest),
        };
        drop(ear);
        drop(old);
        Ok(())
    }

    /// A message came.
    #[inline]
    pub(super) fn hear(&self, remote: &Remote, subject: &str, payload: &[u8]) {
        let address = match self.settings.prefix.parse(subject) {
            Ok(address) => address,
            Err(error) => {
                remote.malformed.fetch_add(1, Relaxed);
                let limit = &remote.complaints.malformed;
                limit.say(|| tracing::warn!(subject, %error, "a subject makes no sense"));
                return;
            }
        };
        let control = matches!(address, Address::Control { .. });
        let generation = control.then(|| remote.bus.generation());
        let mut core = remote.core.lock();
        // Read under the lock, so that time never runs backwards for what it guards.
        let now = self.clock.now();
        if core.closed {
            return;
        }
        let due = core.node.beat_due();
        self.with_node(remote, &mut core, now, |node, hands| {
            if let Some(generation) = generation {
                node.generation(now, generation, hands);
            }
            node.message(now, &address, payload, hands);
        });
        let hurries = core.node.beat_due() < due;
        drop(core);
        if hurries {
            remote.beat.wake();
        }
        remote.wake_resolved();
    }

    /// The bus says that something happened. All but losses and the end is looked up again by the
    /// thread that beats: events may be late.
    pub(super) fn event(&self, remote: &Remote, event: &Event) {
        match event {
            Event::Closed => {
                let mut core = remote.core.lock();
                let now = self.clock.now();
                self.with_node(remote, &mut core, now, |node, hands| node.ended(now, hands));
                remote.out.lock().outbox.end();
            }
            Event::PublishDenied { subject } => {
                let limit = &remote.complaints.publish_denied;
                limit.say(|| tracing::error!(subject, "the server denies publishing"));
                if let Ok(
                    Address::One { entity, .. }
                    | Address::All { entity }
                    | Address::Batch { entity },
                ) = self.settings.prefix.parse(subject)
                {
                    let mut out = remote.out.lock();
                    out.outbox.deny(entity.as_str(), self.clock.now());
                }
            }
            Event::SubscribeDenied { subject } => {
                if !self.is_ours(subject) {
                    return;
                }
                let limit = &remote.complaints.subscribe_denied;
                limit.say(|| tracing::error!(subject, "the server denies subscribing"));
                let mut core = remote.core.lock();
                let now = self.clock.now();
                self.with_node(remote, &mut core, now, |node, hands| {
                    node.unsubscribed(now, hands);
                });
                remote.out.lock().outbox.expire(Micros::MAX);
            }
            Event::Error { message } => {
                let limit = &remote.complaints.bus_error;
                limit.say(|| tracing::warn!(error = message, "the bus reports an error"));
            }
            Event::Connected { .. } | Event::Disconnected | Event::Lost { .. } => {}
        }
        remote.beat.wake();
        remote.wake_resolved();
    }

    /// Whether a refused subscription is this node's, on a client that others may share.
    fn is_ours(&self, subject: &str) -> bool {
        subject == self.wanted().as_str()
    }

    /// What this node asks the bus for.
    fn wanted(&self) -> Pattern {
        match self.settings.write_only {
            true => self.settings.prefix.beats(),
            false => self.settings.prefix.everything(),
        }
    }

    /// Drops an id in this node's own caches, before anybody else hears of it.
    #[inline]
    pub(super) fn drop_here(&self, entity: &Entity, id: IdRef<'_>, position: Option<u64>) {
        self.note_position(entity, position);
        self.here(entity, |listener| listener.feed.remove_now(id, position));
    }

    /// Notes what caches have to be asked for that come later. Called before those are told that are
    /// here, see [`OwnMarks`].
    #[inline]
    pub(super) fn note_position(&self, entity: &Entity, position: Option<u64>) {
        if let Some(position) = position {
            self.own.note_position(entity, position);
        }
    }

    pub(super) fn here(
        &self,
        entity: &Entity,
        tell: impl Fn(&Arc<crate::invalidation::watch::Listener>),
    ) {
        let listeners = {
            let listeners = self.listeners.read();
            if listeners.is_empty() {
                return;
            }
            // Nothing is held while caches are told: they may do as they like.
            Arc::clone(&listeners)
        };
        let known = listeners.by_entity.get(entity);
        let known = known.map_or(&[][..], Vec::as_slice);
        let meets = |watcher: &CatchAll| known.iter().any(|one| one.works_for(&watcher.worker));
        if listeners.catch_all.iter().all(meets) {
            known.iter().for_each(tell);
            return;
        }
        self.meet(entity);
        let listeners = self.listeners.read().clone();
        let known = listeners.by_entity.get(entity);
        known.into_iter().flatten().for_each(tell);
    }

    /// An entity that those who watch everything have not seen yet.
    #[cold]
    fn meet(&self, entity: &Entity) {
        match &self.remote {
            Some(remote) => {
                let mut core = remote.core.lock();
                let now = self.clock.now();
                self.with_node(remote, &mut core, now, |node, hands| {
                    node.meet(entity, now, hands);
                });
            }
            None => {
                let _alone = self.meeting.lock();
                self.adopt_by_all(&mut Board::default(), 0, entity);
            }
        }
    }
}
