//! The bus inside a process.
//!
//! *Role.* The default when there is no server: the same semantics as over a wire, delivery apart
//! from the publisher's thread included, so that code written against it keeps working over NATS.
//!
//! *Who takes part.* Publishers append to the queues of the subscriptions that match, under one
//! short lock. One thread, started by the first subscription, takes a queue whole and delivers it
//! without the lock, so that an inbox may publish, subscribe and unsubscribe.
//!
//! *Bounds.* A subscription's queue holds a number of messages and of bytes; what comes beyond is
//! dropped, newest first to go, and told as [`Event::Lost`] after the messages that preceded it.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::{
    Bus, Delivery, Event, Inbox, Link, PublishError, Publisher, Status, SubscribeError,
    Subscription, deliver,
};
use crate::invalidation::subject::{Pattern, Subject};

/// Messages that wait for one inbox, as many as async-nats keeps by default.
const CAPACITY: usize = 65_536;
/// Bytes that wait for one inbox.
const CAPACITY_BYTES: usize = 64 << 20;
/// The limit of a NATS server's default configuration.
const MAX_PAYLOAD: usize = 1 << 20;

/// A bus inside one process. Clones share it; it closes when the last one and its last publisher
/// are dropped.
///
/// ```
/// use std::sync::mpsc;
///
/// use afterwrite::bus::{Bus, Delivery, LocalBus};
/// use afterwrite::invalidation::subject::{Pattern, Subject};
///
/// let bus = LocalBus::new();
/// let (seen, received) = mpsc::channel();
/// let subscription = bus.subscribe(
///     &Pattern::new("cache.>")?,
///     Box::new(move |delivery: Delivery<'_>| {
///         if let Delivery::Message { subject, .. } = delivery {
///             seen.send(subject.to_owned()).ok();
///         }
///     }),
/// )?;
/// bus.publisher().publish(Subject::new("cache.user.42")?, b"")?;
/// assert_eq!(received.recv()?, "cache.user.42");
/// drop(subscription);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LocalBus {
    handle: Arc<Handle>,
}

/// Closes the bus when the last one who can publish is gone.
#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    state: Mutex<State>,
    work: Condvar,
    capacity: usize,
    lost: AtomicU64,
    panics: AtomicU64,
}

#[derive(Default)]
struct State {
    subscribers: Vec<Subscriber>,
    next_id: u64,
    /// Where the thread looks first, so that each inbox has its turn.
    turn: usize,
    running: bool,
    closed: bool,
}

struct Subscriber {
    id: u64,
    pattern: Pattern,
    ended: Arc<AtomicBool>,
    /// Away while the thread delivers.
    inbox: Option<Box<dyn Inbox>>,
    queue: VecDeque<Packet>,
    bytes: usize,
    lost: u64,
}

#[derive(Clone)]
struct Packet {
    subject: Arc<str>,
    payload: Arc<[u8]>,
}

/// What the thread takes away to deliver.
struct Parcel {
    id: u64,
    ended: Arc<AtomicBool>,
    inbox: Box<dyn Inbox>,
    packets: VecDeque<Packet>,
    lost: u64,
}

impl LocalBus {
    /// A bus whose subscriptions hold 65,536 messages, as async-nats' do.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// A bus whose subscriptions hold `messages` each; 0 counts as 1.
    pub fn with_capacity(messages: usize) -> Self {
        let core = Core {
            state: Mutex::default(),
            work: Condvar::new(),
            capacity: messages.max(1),
            lost: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        };
        Self {
            handle: Arc::new(Handle {
                core: Arc::new(core),
            }),
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

impl Default for LocalBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus for LocalBus {
    fn publisher(&self) -> Box<dyn Publisher> {
        Box::new(LocalPublisher {
            handle: Arc::clone(&self.handle),
        })
    }

    fn subscribe(
        &self,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
    ) -> Result<Subscription, SubscribeError> {
        let core = self.core();
        let mut state = core.state.lock();
        if state.closed {
            return Err(SubscribeError::Closed);
        }
        if !state.running {
            let core = Arc::clone(core);
            thread::Builder::new()
                .name("afterwrite-local".into())
                .spawn(move || core.run())
                .map_err(|error| SubscribeError::Thread {
                    reason: error.to_string(),
                })?;
            state.running = true;
        }
        let id = state.next_id;
        state.next_id += 1;
        let ended = Arc::new(AtomicBool::new(false));
        state.subscribers.push(Subscriber {
            id,
            pattern: pattern.clone(),
            ended: Arc::clone(&ended),
            inbox: Some(inbox),
            queue: VecDeque::new(),
            bytes: 0,
            lost: 0,
        });
        let core = Arc::downgrade(core);
        Ok(Subscription::new(move || {
            ended.store(true, Ordering::Release);
            let removed = core.upgrade().map(|core| core.state.lock().remove(id));
            // Dropped here, after the lock: what an inbox owns may well call back into the bus.
            drop(removed);
        }))
    }

    fn generation(&self) -> u64 {
        1
    }

    fn status(&self) -> Status {
        let core = self.core();
        Status {
            link: if core.state.lock().closed {
                Link::Closed
            } else {
                Link::Up
            },
            generation: self.generation(),
            lost: core.lost.load(Ordering::Relaxed),
            publish_denied: 0,
            subscribe_denied: 0,
            inbox_panics: core.panics.load(Ordering::Relaxed),
        }
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    fn close(&self) {
        self.core().close();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.close();
    }
}

/// The sending side of a [`LocalBus`].
#[derive(Debug)]
struct LocalPublisher {
    handle: Arc<Handle>,
}

impl LocalPublisher {
    fn open(&self) -> Result<(), PublishError> {
        match self.handle.core.state.lock().closed {
            true => Err(PublishError::Closed),
            false => Ok(()),
        }
    }
}

impl Publisher for LocalPublisher {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLarge {
                len: payload.len(),
                max: MAX_PAYLOAD,
            });
        }
        self.handle.core.publish(subject, payload)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        Poll::Ready(self.open())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        Poll::Ready(self.open())
    }
}

impl Core {
    fn publish(&self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(PublishError::Closed);
        }
        // Shared by all who get it, and made for the first of them only.
        let mut packet = None;
        let size = subject.as_str().len() + payload.len();
        for subscriber in &mut state.subscribers {
            if !subscriber.pattern.matches(subject.as_str()) {
                continue;
            }
            if subscriber.queue.len() >= self.capacity || subscriber.bytes + size > CAPACITY_BYTES {
                subscriber.lost += 1;
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let packet = packet.get_or_insert_with(|| Packet {
                subject: subject.as_str().into(),
                payload: payload.into(),
            });
            subscriber.bytes += size;
            subscriber.queue.push_back(packet.clone());
        }
        drop(state);
        if packet.is_some() {
            self.work.notify_one();
        }
        Ok(())
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }

    /// The delivering thread.
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(mut parcel) = state.take_parcel() {
                drop(state);
                self.hand_out(&mut parcel);
                state = self.state.lock();
                let inbox = state.give_back(parcel);
                if inbox.is_some() {
                    drop(state);
                    drop(inbox);
                    state = self.state.lock();
                }
            } else if state.closed {
                break;
            } else {
                self.work.wait(&mut state);
            }
        }
        let mut left = mem::take(&mut state.subscribers);
        drop(state);
        for subscriber in &mut left {
            if let Some(inbox) = subscriber.inbox.as_deref_mut() {
                self.hand(inbox, &subscriber.ended, Delivery::Event(&Event::Closed));
            }
        }
    }

    fn hand_out(&self, parcel: &mut Parcel) {
        for packet in parcel.packets.drain(..) {
            let message = Delivery::Message {
                subject: &packet.subject,
                payload: &packet.payload,
            };
            self.hand(parcel.inbox.as_mut(), &parcel.ended, message);
        }
        if parcel.lost > 0 {
            let lost = Event::Lost { n: parcel.lost };
            self.hand(parcel.inbox.as_mut(), &parcel.ended, Delivery::Event(&lost));
        }
    }

    fn hand(&self, inbox: &mut dyn Inbox, ended: &AtomicBool, delivery: Delivery<'_>) {
        // Pairs with the store in the subscription's end: no delivery begins after it.
        if !ended.load(Ordering::Acquire) && deliver(inbox, delivery) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl State {
    /// The next queue that holds something, its inbox and all.
    fn take_parcel(&mut self) -> Option<Parcel> {
        let count = self.subscribers.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some(subscriber) = self.subscribers.get_mut(index) else {
                continue;
            };
            if subscriber.queue.is_empty() && subscriber.lost == 0 {
                continue;
            }
            let Some(inbox) = subscriber.inbox.take() else {
                continue;
            };
            self.turn = index + 1;
            subscriber.bytes = 0;
            return Some(Parcel {
                id: subscriber.id,
                ended: Arc::clone(&subscriber.ended),
                inbox,
                packets: mem::take(&mut subscriber.queue),
                lost: mem::take(&mut subscriber.lost),
            });
        }
        None
    }

    /// Puts an inbox back; returns it if its subscription has ended meanwhile.
    fn give_back(&mut self, parcel: Parcel) -> Option<Box<dyn Inbox>> {
        let mut subscribers = self.subscribers.iter_mut();
        match subscribers.find(|subscriber| subscriber.id == parcel.id) {
            Some(subscriber) => {
                subscriber.inbox = Some(parcel.inbox);
                if subscriber.queue.is_empty() {
                    // Keep the room that has already been paid for.
                    subscriber.queue = parcel.packets;
                }
                None
            }
            None => Some(parcel.inbox),
        }
    }

    fn remove(&mut self, id: u64) -> Option<Subscriber> {
        let index = self.subscribers.iter().position(|each| each.id == id)?;
        Some(self.subscribers.swap_remove(index))
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("subscribers", &self.subscribers.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
