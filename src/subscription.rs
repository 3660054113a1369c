//! A subscription: every way to wait for the next notice, and to stop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::{FusedStream, Stream};

use crate::error::{RecvTimeoutError, TryRecvError};
use crate::mailbox::Mailbox;
use crate::registry::Registration;
use crate::shard::{Channel, KeyState};
use crate::sync::Arc;
use crate::sync::parker::Parker;
use crate::topic::{Next, Receiver, Tally};

/// What a subscriber gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Notice<T> {
    /// The key changed, and the read view shows it.
    Changed(T),
    /// Changes were lost: the buffer was full, or they never got as far as a push. Refetch.
    Missed {
        /// How many.
        n: u64,
        /// Whether the read view shows them. `true` if this subscriber's buffer was full, `false` if a
        /// queue was, a gate expired or a producer panicked: then a refetch may come too early.
        visible: bool,
    },
}

/// Names a subscription; no other in this process has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SubscriptionId(u64);

impl SubscriptionId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One subscriber of a key. Dropping it unsubscribes.
///
/// It has one owner and one reader: receiving takes `&mut self`. It needs no runtime: `recv` and the
/// [`Stream`] work in any, the blocking calls in none. It ends when it is closed, or when the
/// registry is, also because the last [`Registry`](crate::Registry) handle was dropped (a
/// subscription does not keep it open): then it yields what it still has, and after that nothing.
///
/// | | waits | notice | ended |
/// |---|---|---|---|
/// | [`recv`](Self::recv) | as a future | `Some` | `None` |
/// | [`Stream`] | as a stream | `Some` | `None` |
/// | [`recv_blocking`](Self::recv_blocking) | blocks | `Some` | `None` |
/// | [`recv_timeout`](Self::recv_timeout) | blocks, so long | `Ok` | `Err(Ended)` |
/// | [`try_recv`](Self::try_recv) | not at all | `Ok` | `Err(Ended)` |
#[must_use = "dropping a subscription unsubscribes"]
pub struct Subscription<T: Clone + Send + 'static> {
    receiver: Receiver<T, KeyState<T>>,
    registration: Registration<T>,
    /// What the key had counted when this began.
    coalesced: u64,
    skipped: u64,
}

impl<T: Clone + Send + 'static> Subscription<T> {
    pub(crate) fn new(receiver: Receiver<T, KeyState<T>>, registration: Registration<T>) -> Self {
        let state = &receiver.topic().attached;
        let coalesced = state.coalesced.load(Relaxed);
        let skipped = state.skipped.load(Relaxed);
        Self {
            receiver,
            registration,
            coalesced,
            skipped,
        }
    }

    pub(crate) fn receiver(&self) -> &Receiver<T, KeyState<T>> {
        &self.receiver
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.receiver.topic().attached.key()
    }

    /// This subscription's name.
    #[must_use]
    pub fn id(&self) -> SubscriptionId {
        self.registration.id
    }

    /// What became of the pushes of the key, for this subscription, so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.receiver.tally()
    }

    /// Gates of the key that a later one took the place of, since this subscription began
    /// ([`Builder::coalesce`](crate::Builder::coalesce)).
    #[must_use]
    pub fn coalesced(&self) -> u64 {
        let now = self.receiver.topic().attached.coalesced.load(Relaxed);
        now.saturating_sub(self.coalesced)
    }

    /// Gates of the key that expired silently, since this subscription began
    /// ([`Expiry::Skip`](crate::Expiry::Skip)).
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.receiver
            .topic()
            .attached
            .skipped
            .load(Relaxed)
            .saturating_sub(self.skipped)
    }

    /// The next notice, if there is one. Wait-free with [`Overflow::DropNewest`](crate::Overflow),
    /// otherwise lock-free.
    ///
    /// # Errors
    /// [`TryRecvError`] if there is none.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Notice<T>, TryRecvError> {
        match self.receiver.next() {
            Next::Changed(payload) => Ok(Notice::Changed(payload)),
            Next::Missed { n, visible } => Ok(Notice::Missed { n, visible }),
            Next::Empty => Err(TryRecvError::Empty),
            Next::Ended => Err(TryRecvError::Ended),
        }
    }

    /// Waits for the next notice; `None` at the end.
    ///
    /// Cancel-safe: dropping the future loses neither a notice nor a wake-up.
    pub fn recv(&mut self) -> Recv<'_, T> {
        Recv {
            subscription: self,
            waits: false,
        }
    }

    /// Blocks the thread until the next notice; `None` at the end.
    pub fn recv_blocking(&mut self) -> Option<Notice<T>> {
        self.block(None).ok()
    }

    /// Blocks the thread until the next notice, for at most this long.
    ///
    /// # Errors
    /// [`RecvTimeoutError`] if none came.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Notice<T>, RecvTimeoutError> {
        // A time that the clock cannot show never comes.
        self.block(Some(timeout))
    }

    fn block(&mut self, timeout: Option<Duration>) -> Result<Notice<T>, RecvTimeoutError> {
        match self.try_recv() {
            Ok(notice) => return Ok(notice),
            Err(TryRecvError::Ended) => return Err(RecvTimeoutError::Ended),
            Err(TryRecvError::Empty) => {}
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        thread_local! {
            static PARKER: (Parker, Waker) = {
                let parker = Parker::default();
                let waker = parker.waker();
                (parker, waker)
            };
        }
        let mut wait = |parker: &Parker, waker: &Waker| loop {
            match self.poll_with(waker) {
                Poll::Ready(Some(notice)) => return Ok(notice),
                Poll::Ready(None) => return Err(RecvTimeoutError::Ended),
                Poll::Pending => {}
            }
            if !parker.wait(deadline) {
                self.receiver.forget_waker();
                // What came at the last moment is not left for later.
                return self.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Ended => RecvTimeoutError::Ended,
                });
            }
        };
        PARKER
            .try_with(|(parker, waker)| wait(parker, waker))
            // The thread is ending, and its parker has gone.
            .unwrap_or_else(|_| {
                let parker = Parker::default();
                wait(&parker, &parker.waker())
            })
    }

    #[inline]
    fn poll_with(&mut self, waker: &Waker) -> Poll<Option<Notice<T>>> {
        let next = match self.receiver.next() {
            Next::Empty => self.receiver.next_or_wait(waker),
            next => next,
        };
        match next {
            Next::Changed(payload) => Poll::Ready(Some(Notice::Changed(payload))),
            Next::Missed { n, visible } => Poll::Ready(Some(Notice::Missed { n, visible })),
            Next::Empty => Poll::Pending,
            Next::Ended => Poll::Ready(None),
        }
    }

    /// Unsubscribes, and drops what has not been received. Idempotent; never waits for a push.
    pub fn close(&mut self) {
        if self.receiver.close() {
            self.registration
                .core
                .unregister(self.receiver.topic(), self.registration.id);
        }
    }

    /// A handle with which any thread can close this subscription.
    pub fn closer(&self) -> Closer {
        Closer {
            ending: std::sync::Arc::new(Ending {
                channel: self.receiver.topic().clone(),
                mailbox: self.receiver.mailbox().clone(),
                registration: Registration {
                    core: self.registration.core.clone(),
                    id: self.registration.id,
                },
            }),
        }
    }
}

impl<T: Clone + Send + 'static> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T: Clone + Send + 'static> Stream for Subscription<T> {
    type Item = Notice<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice<T>>> {
        self.get_mut().poll_with(cx.waker())
    }
}

impl<T: Clone + Send + 'static> FusedStream for Subscription<T> {
    fn is_terminated(&self) -> bool {
        self.receiver.has_ended()
    }
}

impl<T: Clone + Send + 'static> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("key", &self.key())
            .field("id", &self.id())
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}

/// The next notice of a subscription; made by [`Subscription::recv`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Recv<'a, T: Clone + Send + 'static> {
    subscription: &'a mut Subscription<T>,
    waits: bool,
}

impl<T: Clone + Send + 'static> Future for Recv<'_, T> {
    type Output = Option<Notice<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.subscription.poll_with(cx.waker());
        self.waits = polled.is_pending();
        polled
    }
}

impl<T: Clone + Send + 'static> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        if self.waits {
            self.subscription.receiver.forget_waker();
        }
    }
}

/// Closes a subscription from elsewhere; made by [`Subscription::closer`].
#[derive(Clone)]
pub struct Closer {
    ending: std::sync::Arc<dyn End>,
}

trait End: Send + Sync {
    fn end(&self);
    fn has_ended(&self) -> bool;
}

struct Ending<T> {
    channel: Arc<Channel<T>>,
    mailbox: Mailbox<T>,
    registration: Registration<T>,
}

impl<T: Clone + Send + 'static> End for Ending<T> {
    fn end(&self) {
        self.registration.end(&self.channel, &self.mailbox);
    }

    fn has_ended(&self) -> bool {
        self.mailbox.is_closed()
    }
}

impl Closer {
    /// Stops pushes and ends a receiver that waits elsewhere: its next call yields the end, and drops
    /// what it has not received. Idempotent; never waits for a push or for the receiver.
    ///
    /// A push that begins after this has returned never touches the subscription.
    pub fn close(&self) {
        self.ending.end();
    }

    /// Whether the subscription was closed, by whomever.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ending.has_ended()
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closer")
            .field("closed", &self.is_closed())
            .finish()
    }
}
