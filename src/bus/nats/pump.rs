//! One subscription: takes messages from the client and calls the inbox.
//!
//! *Counting losses.* The client drops the newest message when a subscription's channel is full,
//! and says so in an event that may itself be dropped. On a connection of our own with one
//! subscription, the ledger closes without events: the client counts a message (`in_messages`)
//! before it tries to queue it, one message after the other. So when the pump reads the count and
//! then finds its channel empty, every counted message but the last is either received or lost;
//! and the last one is lost as well if it has not come after a pause. A message that is counted
//! early, or a stray one that belongs to nobody, may make the ledger tell a loss that was none:
//! it errs towards telling.
//!
//! *Yielding.* A tokio channel also claims to be empty when its task has used up its budget, which
//! the ledger would take for losses. So the channel is polled outside the budget, and the pump
//! yields by itself after a batch.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::Stream;
use tokio::task::unconstrained;
use tokio::time::{Sleep, sleep};

use super::super::{Delivery, Event, Inbox, Interest, deliver};
use super::events::{Listener, Shared};
use crate::invalidation::subject::Pattern;

/// How long a message may be counted and not yet queued before it is taken for lost.
const SETTLE: Duration = Duration::from_millis(50);

/// How many messages are delivered before other tasks have their turn.
const BATCH: usize = 128;

type Subscribing = Pin<Box<dyn Future<Output = Result<Subscriber, SubscribeError>> + Send>>;

/// The task of one subscription.
pub(super) struct Pump {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    stream: Source,
    inbox: Box<dyn Inbox>,
    ledger: Option<Ledger>,
    told_end: bool,
}

enum Source {
    /// The client's command queue was full when the subscription was made.
    Waiting(Subscribing),
    Open(Subscriber),
    Over,
}

/// What was counted and what was received, on a connection of our own.
pub(super) struct Ledger {
    /// Ours while no other subscription is on the connection.
    token: u64,
    /// The client's count when the subscription was made.
    base: u64,
    pub(super) received: u64,
    /// What events have spoken of.
    heard: u64,
    /// What the inbox was told.
    told: u64,
    settle: Option<Pin<Box<Sleep>>>,
}

impl Pump {
    /// Subscribes, and gives the task that will deliver.
    pub(super) fn new(
        client: &Client,
        shared: Arc<Shared>,
        dedicated: bool,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
    ) -> (Self, Interest) {
        let listener = Arc::new(Listener::default());
        let token = shared.enter(&listener);
        let ledger = dedicated.then(|| Ledger::new(token, shared.in_messages()));
        let subscribe = {
            let (client, pattern) = (client.clone(), pattern.as_str().to_owned());
            async move { client.subscribe(pattern).await }
        };
        // Outside a task's budget one poll is enough unless the client's queue is full, so that
        // what our publishers send after this comes after the subscription.
        let mut subscribe: Subscribing = Box::pin(unconstrained(subscribe));
        let mut context = Context::from_waker(Waker::noop());
        let stream = match subscribe.as_mut().poll(&mut context) {
            Poll::Ready(Ok(subscriber)) => Source::Open(subscriber),
            Poll::Ready(Err(_)) => Source::Over,
            Poll::Pending => Source::Waiting(subscribe),
        };
        let interest = {
            let listener = Arc::clone(&listener);
            Interest::new(move || listener.end())
        };
        let pump = Self {
            shared,
            listener,
            stream,
            inbox,
            ledger,
            told_end: false,
        };
        (pump, interest)
    }

    fn deliver(&mut self, delivery: Delivery<'_>) {
        if !self.listener.has_ended() && deliver(self.inbox.as_mut(), delivery) {
            self.shared.inbox_panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lost(&mut self, n: u64) {
        if n > 0 {
            self.shared.count_lost(n);
            self.deliver(Delivery::Event(&Event::Lost { n }));
        }
    }

    /// Delivers what is there. Ready when nothing will follow.
    fn run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Registered before anything is looked at, so that what comes later wakes.
        self.listener.waker.register(cx.waker());
        for _ in 0..BATCH {
            if self.listener.has_ended() || self.shared.has_ended() {
                return Poll::Ready(());
            }
            while let Some(event) = self.listener.pop() {
                self.deliver(Delivery::Event(&event));
            }
            // Looked at before it is written to: it is zero, but for the worst of times.
            if self.listener.slow.load(Ordering::Acquire) > 0 {
                let slow = self.listener.slow.swap(0, Ordering::AcqRel);
                let n = self.ledger.as_mut().map_or(slow, |it| it.hear(slow));
                self.lost(n);
            }
            let counted = self.shared.in_messages();
            match self.stream.poll_next(cx) {
                Poll::Ready(Some(message)) => {
                    if let Some(ledger) = &mut self.ledger {
                        ledger.received += 1;
                        ledger.settle = None;
                    }
                    self.deliver(Delivery::Message {
                        subject: &message.subject,
                        payload: &message.payload,
                    });
                }
                Poll::Ready(None) => {
                    // The client ends a stream only when its connection ends for good.
                    self.shared.end();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    let Some(ledger) = &mut self.ledger else {
                        return Poll::Pending;
                    };
                    if !self.shared.is_alone(ledger.token) {
                        self.ledger = None;
                        continue;
                    }
                    match ledger.close(counted, cx) {
                        0 => return Poll::Pending,
                        n => self.lost(n),
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let pump = self.get_mut();
        pin!(unconstrained(poll_fn(|cx| pump.run(cx)))).poll(cx)
    }
}

impl Drop for Pump {
    /// The end is told also when the runtime goes away under the pump.
    fn drop(&mut self) {
        if !self.told_end {
            self.told_end = true;
            self.deliver(Delivery::Event(&Event::Closed));
            self.listener.end();
            self.shared.leave();
        }
    }
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<async_nats::Message>> {
        loop {
            match self {
                Self::Waiting(subscribing) => match subscribing.as_mut().poll(cx) {
                    Poll::Ready(Ok(subscriber)) => *self = Self::Open(subscriber),
                    Poll::Ready(Err(_)) => *self = Self::Over,
                    Poll::Pending => return Poll::Pending,
                },
                Self::Open(subscriber) => return Pin::new(subscriber).poll_next(cx),
                Self::Over => return Poll::Ready(None),
            }
        }
    }
}

impl Ledger {
    pub(super) fn new(token: u64, base: u64) -> Self {
        Self {
            token,
            base,
            received: 0,
            heard: 0,
            told: 0,
            settle: None,
        }
    }

    /// Events spoke of `n` more losses. They come late, so that the count may have shown them
    /// already: both are lower bounds, and what is told is the greater of them.
    pub(super) fn hear(&mut self, n: u64) -> u64 {
        self.heard += n;
        self.tell(self.heard)
    }

    /// How many of `certain` losses were not told yet; they are now.
    fn tell(&mut self, certain: u64) -> u64 {
        let new = certain.saturating_sub(self.told);
        self.told += new;
        new
    }

    /// The channel is empty, and `counted` was read before it was found so: how many losses are
    /// certain now and were not told.
    pub(super) fn close(&mut self, counted: u64, cx: &mut Context<'_>) -> u64 {
        let missing = counted.saturating_sub(self.base + self.received);
        let mut certain = missing.saturating_sub(1);
        if missing > self.told {
            let settle = self.settle.get_or_insert_with(|| Box::pin(sleep(SETTLE)));
            if settle.as_mut().poll(cx).is_ready() {
                self.settle = None;
                certain = missing;
            }
        } else {
            self.settle = None;
        }
        self.tell(certain)
    }

    /// Whether the last counted message may still come.
    #[cfg(test)]
    pub(super) fn is_settling(&self) -> bool {
        self.settle.is_some()
    }
}
