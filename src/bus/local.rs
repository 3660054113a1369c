//! The bus inside a process.
//!
//! *Role.* The default when there is no server: the same semantics as over a wire, delivery apart
//! from the publisher's thread included, so that code written against it keeps working over NATS.
//!
//! *Who takes part.* Publishers append to the lines of the subscriptions that match, under one
//! short lock, so that all subscriptions see one order. Each subscription has a thread, which
//! takes what its line holds and delivers it without a lock: an inbox may publish, subscribe and
//! unsubscribe, and a slow one delays nobody else.
//!
//! *Bounds.* A line holds a number of messages and of bytes; what comes beyond is dropped, the
//! newest first, and told as [`Event::Lost`] after the messages that preceded it.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::{
    Bus, Delivery, Event, Inbox, Interest, Link, PublishError, Publisher, Status, SubscribeError,
    deliver,
};
use crate::error::ThreadError;
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
/// let interest = bus.subscribe(
///     &Pattern::new("cache.>")?,
///     Box::new(move |delivery: Delivery<'_>| {
///         if let Delivery::Message { subject, .. } = delivery {
///             seen.send(subject.to_owned()).ok();
///         }
///     }),
/// )?;
/// bus.publisher().publish(Subject::new("cache.user.42")?, b"")?;
/// assert_eq!(received.recv()?, "cache.user.42");
/// drop(interest);
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
    capacity: usize,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Arc<Line>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Counters {
    lost: AtomicU64,
    panics: AtomicU64,
}

/// What waits for one inbox.
#[derive(Debug)]
struct Line {
    pattern: Pattern,
    /// Set before the subscription's end is through: no delivery begins after it.
    ended: AtomicBool,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Packet>,
    bytes: usize,
    lost: u64,
    closed: bool,
}

#[derive(Debug, Clone)]
struct Packet {
    subject: Arc<str>,
    payload: Arc<[u8]>,
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
            capacity: messages.max(1),
            counters: Arc::default(),
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
    ) -> Result<Interest, SubscribeError> {
        let core = self.core();
        let mut state = core.state.lock();
        if state.closed {
            return Err(SubscribeError::Closed);
        }
        let line = Arc::new(Line {
            pattern: pattern.clone(),
            ended: AtomicBool::new(false),
            queue: Mutex::default(),
            work: Condvar::new(),
        });
        let (own, counters) = (Arc::clone(&line), Arc::clone(&core.counters));
        thread::Builder::new()
            .name("afterwrite-local".into())
            .spawn(move || own.run(inbox, &counters))
            .map_err(|error| SubscribeError::Thread(ThreadError::new(error)))?;
        state.lines.push(Arc::clone(&line));
        let core = Arc::downgrade(core);
        Ok(Interest::new(move || {
            line.end();
            if let Some(core) = core.upgrade() {
                let mut state = core.state.lock();
                state.lines.retain(|each| !Arc::ptr_eq(each, &line));
            }
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
            lost: core.counters.lost.load(Ordering::Relaxed),
            publish_denied: 0,
            subscribe_denied: 0,
            inbox_panics: core.counters.panics.load(Ordering::Relaxed),
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
        let state = self.state.lock();
        if state.closed {
            return Err(PublishError::Closed);
        }
        // Shared by all who get it, and made for the first of them only.
        let mut packet = None;
        for line in &state.lines {
            if line.pattern.matches(subject.as_str()) {
                let packet = packet.get_or_insert_with(|| Packet {
                    subject: subject.as_str().into(),
                    payload: payload.into(),
                });
                line.push(packet, self.capacity, &self.counters);
            }
        }
        Ok(())
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for line in state.lines.drain(..) {
            line.queue.lock().closed = true;
            line.work.notify_one();
        }
    }
}

impl Line {
    fn push(&self, packet: &Packet, capacity: usize, counters: &Counters) {
        let size = packet.subject.len() + packet.payload.len();
        let mut queue = self.queue.lock();
        if queue.packets.len() >= capacity || queue.bytes + size > CAPACITY_BYTES {
            queue.lost += 1;
            counters.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += size;
        queue.packets.push_back(packet.clone());
        drop(queue);
        self.work.notify_one();
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.queue.lock().closed = true;
        self.work.notify_one();
    }

    /// The delivering thread.
    fn run(&self, mut inbox: Box<dyn Inbox>, counters: &Counters) {
        let mut packets = VecDeque::new();
        let mut closed = false;
        while !closed {
            let mut queue = self.queue.lock();
            while queue.packets.is_empty() && queue.lost == 0 && !queue.closed {
                self.work.wait(&mut queue);
            }
            // Losses happen while the line is full, so that all it holds came before them.
            mem::swap(&mut packets, &mut queue.packets);
            queue.bytes = 0;
            let lost = mem::take(&mut queue.lost);
            closed = queue.closed;
            drop(queue);
            for packet in packets.drain(..) {
                let message = Delivery::Message {
                    subject: &packet.subject,
                    payload: &packet.payload,
                };
                self.hand(inbox.as_mut(), message, counters);
            }
            if lost > 0 {
                let lost = Event::Lost { n: lost };
                self.hand(inbox.as_mut(), Delivery::Event(&lost), counters);
            }
        }
        self.hand(inbox.as_mut(), Delivery::Event(&Event::Closed), counters);
    }

    fn hand(&self, inbox: &mut dyn Inbox, delivery: Delivery<'_>, counters: &Counters) {
        if !self.ended.load(Ordering::Acquire) && deliver(inbox, delivery) {
            counters.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}
