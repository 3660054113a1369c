//! One node: its subscriptions, its connection, and what waits for either.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use super::leg::{Faults, Leg};
use super::{Event, Inbox};
use crate::bus::{Link, PublishError, Status};
use crate::invalidation::subject::Pattern;

/// What waits for one inbox, as many as async-nats keeps by default.
const RECEIVE: usize = 65_536;
/// What waits for one connection, as many as async-nats keeps by default.
const SEND: usize = 2_048;

#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) subject: Arc<str>,
    pub(super) payload: Arc<[u8]>,
}

/// What an inbox is shown.
#[derive(Debug)]
pub(super) enum Item {
    Message(Packet),
    Event(Event),
}

/// What a connection or a route carries.
#[derive(Debug, Clone)]
pub(super) enum Cargo {
    Publish(Packet),
    Subscribe(Interest),
    Unsubscribe(SubId),
    /// To a node: a message for one of its subscriptions.
    Deliver(u64, Packet),
    /// To a node: what its server refuses.
    Denied(Event),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubId {
    pub(super) node: usize,
    pub(super) sub: u64,
    /// The connection on which it was sent: a later one knows nothing of it.
    pub(super) generation: u64,
}

/// What a server knows of a subscription.
#[derive(Debug, Clone)]
pub(super) struct Interest {
    pub(super) id: SubId,
    pub(super) home: usize,
    pub(super) pattern: Arc<Pattern>,
}

/// The end of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Server { node: usize, generation: u64 },
    Route { from: usize, to: usize },
    Node { node: usize, generation: u64 },
}

pub(super) struct Sub {
    pub(super) id: u64,
    pub(super) pattern: Arc<Pattern>,
    pub(super) ended: Arc<AtomicBool>,
    /// Away while it is called.
    pub(super) inbox: Option<Box<dyn Inbox>>,
    pub(super) queue: VecDeque<Item>,
    pub(super) lost: u64,
}

pub(super) struct Node {
    pub(super) server: usize,
    pub(super) generation: Arc<AtomicU64>,
    pub(super) connected: bool,
    pub(super) closed: bool,
    pub(super) paused: bool,
    pub(super) subs: Vec<Sub>,
    pub(super) up: Leg<Cargo>,
    pub(super) down: Leg<Cargo>,
    /// What was sent while there was no connection.
    pub(super) waiting: VecDeque<Cargo>,
    pub(super) receive: usize,
    pub(super) send: usize,
    pub(super) wakers: Vec<Waker>,
    /// Its server refuses what it publishes to these.
    pub(super) may_not_publish: Option<Pattern>,
    /// Its server takes its subscriptions.
    pub(super) may_subscribe: bool,
    pub(super) lost: u64,
    pub(super) publish_denied: u64,
    pub(super) subscribe_denied: u64,
    pub(super) panics: u64,
}

/// A call of an inbox, taken out of the lock.
pub(super) struct Parcel {
    pub(super) node: usize,
    pub(super) sub: u64,
    pub(super) ended: Arc<AtomicBool>,
    pub(super) inbox: Box<dyn Inbox>,
    pub(super) item: Item,
}

impl Node {
    pub(super) fn new(server: usize, generation: Arc<AtomicU64>) -> Self {
        Self {
            server,
            generation,
            connected: true,
            closed: false,
            paused: false,
            subs: Vec::new(),
            up: Leg::new(Faults::NONE),
            down: Leg::new(Faults::NONE),
            waiting: VecDeque::new(),
            receive: RECEIVE,
            send: SEND,
            wakers: Vec::new(),
            may_not_publish: None,
            may_subscribe: true,
            lost: 0,
            publish_denied: 0,
            subscribe_denied: 0,
            panics: 0,
        }
    }

    pub(super) fn status(&self, generation: u64) -> Status {
        Status {
            link: match (self.closed, self.connected) {
                (true, _) => Link::Closed,
                (false, true) => Link::Up,
                (false, false) => Link::Down,
            },
            generation,
            lost: self.lost,
            publish_denied: self.publish_denied,
            subscribe_denied: self.subscribe_denied,
            inbox_panics: self.panics,
        }
    }

    pub(super) fn sub_id(&self, node: usize, sub: u64) -> SubId {
        let generation = self.generation.load(Ordering::Acquire);
        SubId {
            node,
            sub,
            generation,
        }
    }

    /// The far end of the way up, or the near end of the way down.
    pub(super) fn end(&self, node: usize, up: bool) -> To {
        let generation = self.generation.load(Ordering::Acquire);
        match up {
            true => To::Server { node, generation },
            false => To::Node { node, generation },
        }
    }

    pub(super) fn backlog(&self) -> usize {
        self.waiting.len() + self.up.held()
    }

    pub(super) fn poll_below(
        &mut self,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PublishError>> {
        if self.closed {
            return Poll::Ready(Err(PublishError::Closed));
        }
        if self.backlog() < room {
            return Poll::Ready(Ok(()));
        }
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether there is something to hand out now.
    pub(super) fn has_items(&self) -> bool {
        let waits = |sub: &Sub| sub.inbox.is_some() && (!sub.queue.is_empty() || sub.lost > 0);
        !self.paused && self.subs.iter().any(waits)
    }

    pub(super) fn take_parcel(&mut self, node: usize) -> Option<Parcel> {
        if self.paused {
            return None;
        }
        for sub in &mut self.subs {
            if sub.inbox.is_none() {
                continue;
            }
            let item = match sub.queue.pop_front() {
                // Losses came after whatever was queued before them; the end comes after both.
                Some(Item::Event(Event::Closed)) if sub.lost > 0 => {
                    sub.queue.push_front(Item::Event(Event::Closed));
                    Item::Event(Event::Lost {
                        n: mem::take(&mut sub.lost),
                    })
                }
                Some(item) => item,
                None if sub.lost > 0 => Item::Event(Event::Lost {
                    n: mem::take(&mut sub.lost),
                }),
                None => continue,
            };
            if let Some(inbox) = sub.inbox.take() {
                return Some(Parcel {
                    node,
                    sub: sub.id,
                    ended: Arc::clone(&sub.ended),
                    inbox,
                    item,
                });
            }
        }
        None
    }
}
