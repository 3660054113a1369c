//! A bus that can be harmed: silently, as networks do it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use afterwrite::bus::{
    Bus, Delivery, Inbox, Interest, PublishError, Publisher, Status, SubscribeError,
};
use afterwrite::invalidation::subject::{Pattern, Subject};

/// What is wrong with one node's wire now.
#[derive(Debug, Default)]
pub(crate) struct Harm {
    /// Nothing comes through, either way, and nobody is told.
    cut: AtomicBool,
    /// The next invalidation that is published gets lost.
    lose_one: AtomicBool,
    lost: AtomicU64,
    lost_at: Mutex<Option<Instant>>,
}

impl Harm {
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, SeqCst);
    }

    pub(crate) fn lose_one(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.lose_one.store(true, SeqCst);
    }

    /// When the one that was to be lost was lost.
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Invalidations that this node published in vain.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }

    fn swallows(&self, subject: &str) -> bool {
        let beat = subject.contains(".%-c.");
        let one = !beat && self.lose_one.swap(false, SeqCst);
        if one {
            let now = Some(Instant::now());
            *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        let swallowed = one || self.cut.load(SeqCst);
        if swallowed && !beat {
            self.lost.fetch_add(1, SeqCst);
        }
        swallowed
    }
}

/// One node's way to a bus.
#[derive(Debug)]
pub(crate) struct Wire {
    bus: Box<dyn Bus>,
    harm: Arc<Harm>,
}

impl Wire {
    pub(crate) fn new(bus: Box<dyn Bus>, harm: Arc<Harm>) -> Self {
        Self { bus, harm }
    }
}

impl Bus for Wire {
    fn publisher(&self) -> Box<dyn Publisher> {
        Box::new(WirePublisher {
            publisher: self.bus.publisher(),
            harm: self.harm.clone(),
        })
    }

    fn subscribe(
        &self,
        pattern: &Pattern,
        mut inbox: Box<dyn Inbox>,
    ) -> Result<Interest, SubscribeError> {
        let harm = self.harm.clone();
        let guarded = move |delivery: Delivery<'_>| {
            if !harm.cut.load(SeqCst) {
                inbox.deliver(delivery);
            }
        };
        self.bus.subscribe(pattern, Box::new(guarded))
    }

    fn generation(&self) -> u64 {
        self.bus.generation()
    }

    fn status(&self) -> Status {
        self.bus.status()
    }

    fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }

    fn close(&self) {
        self.bus.close();
    }
}

#[derive(Debug)]
struct WirePublisher {
    publisher: Box<dyn Publisher>,
    harm: Arc<Harm>,
}

impl Publisher for WirePublisher {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        if self.harm.swallows(subject.as_str()) {
            return Ok(());
        }
        self.publisher.publish(subject, payload)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.publisher.poll_ready(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.publisher.poll_flush(cx)
    }
}
