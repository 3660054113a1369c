//! A subscription: every way to wait for the next notice, and to stop.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::{FusedFuture, FusedStream, Stream};

use crate::arena::Shared;
use crate::error::{RecvTimeoutError, TryRecvError};
use crate::mailbox::Mailbox;
use crate::notice::Notice;
use crate::registry::Core;
use crate::shard::{Channel, KeyState};
use crate::sync::Arc;
use crate::sync::parker::Parker;
use crate::topic::{Next, Receiver, Tally};

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
/// | [`iter`](Self::iter), [`try_iter`](Self::try_iter) | blocks, not at all | item | end |
///
/// # A receive loop
///
/// One that also refetches what it missed, until the end:
///
/// ```
/// use std::time::{Duration, Instant};
/// use afterwrite::{Notice, RecvTimeoutError, Registry};
///
/// let registry: Registry<String> = Registry::new()?;
/// let mut order = registry.subscribe("order/17")?;
/// # let _ = registry.publish("order/17", "paid".to_owned());
/// # let _ = registry.submit("order/17", |_| None);
/// # registry.close();
///
/// # let mut sent = Vec::new();
/// # let mut send = |message: String| sent.push(message);
/// # let fetch = || "read from the view".to_owned();
/// let mut again: Option<Instant> = None; // when to fetch once more
/// loop {
///     let wait = again.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
///     match order.recv_timeout(wait) {
///         Ok(Notice::Changed(order)) => send(order),
///         // The view shows it: what is fetched now is current.
///         Ok(Notice::Missed { visible: true, .. }) => send(fetch()),
///         // The view may lag still, and nothing follows to say when it no longer does.
///         Ok(Notice::Missed { visible: false, .. }) => {
///             send(fetch());
///             again = Some(Instant::now() + Duration::from_secs(5));
///         }
///         Err(RecvTimeoutError::Timeout) => {
///             send(fetch());
///             again = None;
///         }
///         Err(RecvTimeoutError::Ended) => break,
///     }
/// }
/// # assert_eq!(sent, ["paid", "read from the view"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Asynchronous code puts its runtime's timeout around [`recv`](Self::recv), which is cancel-safe.
#[must_use = "dropping a subscription unsubscribes"]
pub struct Subscription<T> {
    receiver: Receiver<T, KeyState<T>>,
    id: SubscriptionId,
    /// A count, whose pointer is with the key.
    _registry: PhantomData<Arc<Core<T>>>,
}

impl<T> Subscription<T> {
    /// The receiver is that of a channel of this registry.
    pub(crate) fn new(
        mut receiver: Receiver<T, KeyState<T>>,
        registry: Arc<Core<T>>,
        id: SubscriptionId,
    ) -> Self {
        let state = &receiver.topic().attached;
        let counted = [&state.coalesced, &state.skipped].map(|count| count.load(Relaxed));
        state.registry.keep(registry);
        receiver.keep_counted(counted);
        Self {
            receiver,
            id,
            _registry: PhantomData,
        }
    }

    /// The count of the registry that this subscription keeps.
    #[allow(unsafe_code)]
    fn registry(&self) -> ManuallyDrop<Arc<Core<T>>> {
        // SAFETY: `new` has kept one with the key, and only `drop` gives it up.
        unsafe { self.receiver.topic().attached.registry.count() }
    }

    #[cfg(all(test, not(afterwrite_loom)))]
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
        self.id
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
        now.saturating_sub(self.receiver.counted()[0])
    }

    /// Gates of the key that expired silently, since this subscription began
    /// ([`Expiry::Skip`](crate::Expiry::Skip)); that of its own first notice among them
    /// ([`subscribe_gated`](crate::Registry::subscribe_gated)).
    #[must_use]
    pub fn skipped(&self) -> u64 {
        let now = self.receiver.topic().attached.skipped.load(Relaxed);
        now.saturating_sub(self.receiver.counted()[1])
            + u64::from(self.receiver.has_skipped_first())
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
            state: Receiving::Asked,
        }
    }

    /// Blocks the thread until the next notice; `None` at the end.
    ///
    /// Not for asynchronous code: it holds up the thread.
    pub fn recv_blocking(&mut self) -> Option<Notice<T>> {
        self.block(None).ok()
    }

    /// The notices to come, each waited for as by [`recv_blocking`](Self::recv_blocking), until the end.
    ///
    /// ```
    /// use afterwrite::{Notice, Registry};
    ///
    /// let registry: Registry<u64> = Registry::new()?;
    /// let mut order = registry.subscribe("order/17")?;
    /// let _ = registry.publish("order/17", 1);
    /// let _ = registry.publish("order/17", 2);
    /// registry.close();
    /// let all: Vec<u64> = order.iter().filter_map(Notice::changed).collect();
    /// assert_eq!(all, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&mut self) -> Iter<'_, T> {
        Iter { subscription: self }
    }

    /// The notices that are here, without waiting for more.
    pub fn try_iter(&mut self) -> TryIter<'_, T> {
        TryIter { subscription: self }
    }

    /// Blocks the thread until the next notice, for at most this long.
    ///
    /// A timeout of zero only looks. One that goes beyond what the clock can represent, such as
    /// [`Duration::MAX`], is none. Not for asynchronous code: it holds up the thread.
    ///
    /// # Errors
    /// [`RecvTimeoutError`] if none came.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Notice<T>, RecvTimeoutError> {
        self.block(Some(timeout))
    }

    fn block(&mut self, timeout: Option<Duration>) -> Result<Notice<T>, RecvTimeoutError> {
        match self.try_recv() {
            Ok(notice) => return Ok(notice),
            Err(TryRecvError::Ended) => return Err(RecvTimeoutError::Ended),
            Err(TryRecvError::Empty) => {}
        }
        // A time that the clock cannot show never comes.
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
            self.registry().unregister(self.receiver.topic(), self.id);
        }
    }

    /// Whether nothing is pushed to it any more: it was closed, by whomever, or the registry was. What
    /// it still has can be received after the latter.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.receiver.mailbox().is_closed() || self.receiver.topic().is_shut()
    }
}

impl<T: Clone + Send + 'static> Subscription<T> {
    /// A handle with which any thread can close this subscription.
    ///
    /// ```
    /// use afterwrite::Registry;
    ///
    /// let registry: Registry<u64> = Registry::new()?;
    /// let mut order = registry.subscribe("order/17")?;
    /// let closer = order.closer();
    /// let receiver = std::thread::spawn(move || order.recv_blocking());
    /// closer.close();
    /// assert_eq!(receiver.join().unwrap(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "dropping a closer closes nothing"]
    pub fn closer(&self) -> Closer {
        Closer {
            ending: std::sync::Arc::new(Ending {
                channel: self.receiver.clone_topic(),
                mailbox: self.receiver.mailbox().clone(),
                registry: Arc::clone(&self.registry()),
                id: self.id,
            }),
        }
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        // The count that `new` kept, given up last of all.
        let _registry = ManuallyDrop::into_inner(self.registry());
        self.close();
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Notice<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice<T>>> {
        self.get_mut().poll_with(cx.waker())
    }
}

impl<T> FusedStream for Subscription<T> {
    fn is_terminated(&self) -> bool {
        self.receiver.has_ended()
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("key", &self.key())
            .field("id", &self.id())
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}

impl<'a, T> IntoIterator for &'a mut Subscription<T> {
    type Item = Notice<T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The next notice of a subscription; made by [`Subscription::recv`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Recv<'a, T> {
    subscription: &'a mut Subscription<T>,
    state: Receiving,
}

/// How far a [`Recv`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiving {
    /// Nothing of it is in the subscription.
    Asked,
    /// Its waker is.
    Waits,
    Answered,
}

impl<T> Future for Recv<'_, T> {
    type Output = Option<Notice<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.subscription.poll_with(cx.waker());
        self.state = if polled.is_pending() {
            Receiving::Waits
        } else {
            Receiving::Answered
        };
        polled
    }
}

impl<T> FusedFuture for Recv<'_, T> {
    fn is_terminated(&self) -> bool {
        self.state == Receiving::Answered
    }
}

impl<T> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        if self.state == Receiving::Waits {
            self.subscription.receiver.forget_waker();
        }
    }
}

/// The notices to come; made by [`Subscription::iter`].
#[derive(Debug)]
#[must_use = "iterators do nothing unless they are asked"]
pub struct Iter<'a, T> {
    subscription: &'a mut Subscription<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = Notice<T>;

    fn next(&mut self) -> Option<Notice<T>> {
        self.subscription.recv_blocking()
    }
}

impl<T> std::iter::FusedIterator for Iter<'_, T> {}

/// The notices that are here; made by [`Subscription::try_iter`].
#[derive(Debug)]
#[must_use = "iterators do nothing unless they are asked"]
pub struct TryIter<'a, T> {
    subscription: &'a mut Subscription<T>,
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = Notice<T>;

    fn next(&mut self) -> Option<Notice<T>> {
        self.subscription.try_recv().ok()
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
    fn key(&self) -> &str;
    fn id(&self) -> SubscriptionId;
}

struct Ending<T> {
    channel: Shared<Channel<T>>,
    mailbox: Mailbox<T>,
    registry: Arc<Core<T>>,
    id: SubscriptionId,
}

impl<T: Clone + Send + 'static> End for Ending<T> {
    fn end(&self) {
        self.registry.end(&self.channel, &self.mailbox, self.id);
    }

    fn has_ended(&self) -> bool {
        self.mailbox.is_closed() || self.channel.is_shut()
    }

    fn key(&self) -> &str {
        self.channel.attached.key()
    }

    fn id(&self) -> SubscriptionId {
        self.id
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

    /// Whether nothing is pushed to the subscription any more: it was closed or dropped, by whomever, or
    /// the registry was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ending.has_ended()
    }

    /// The subscription's key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.ending.key()
    }

    /// The subscription's name.
    #[must_use]
    pub fn id(&self) -> SubscriptionId {
        self.ending.id()
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closer")
            .field("key", &self.key())
            .field("id", &self.id())
            .field("closed", &self.is_closed())
            .finish()
    }
}
