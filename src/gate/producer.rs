//! Producers: the user's code that reads the read view, and what the shard makes of it.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use smallbox::space::S4;
use smallbox::{SmallBox, smallbox};

use super::{Attempt, Reached};

/// A gate with its producer, ready to be submitted.
///
/// [`Registry::submit`](crate::Registry::submit), `submit_async` and `submit_at` make one
/// themselves; a `Gate` is for calls that take any kind, such as
/// [`submit_batch`](crate::Registry::submit_batch).
///
/// ```
/// use afterwrite::{Gate, Watermark};
///
/// let watermark = Watermark::new(0);
/// let gates: Vec<Gate<u64>> = vec![
///     Gate::read(|attempt| (attempt.number() > 2).then_some(7)),
///     Gate::read_async(|_attempt| async { Some(8) }),
///     Gate::reached(watermark.reached(3), 9),
/// ];
/// # drop(gates);
/// ```
#[must_use = "a gate does nothing until it is submitted"]
pub struct Gate<T> {
    pub(crate) source: Source<T>,
}

impl<T: Send + 'static> Gate<T> {
    /// A synchronous producer: answers `Some` once the read view shows the change, `None` to be
    /// asked again.
    pub fn read<F>(producer: F) -> Self
    where
        F: FnMut(&Attempt) -> Option<T> + Send + 'static,
    {
        Self {
            source: Source::Sync(smallbox!(producer)),
        }
    }

    /// An asynchronous producer. Its futures are created and polled on the shard's thread and need
    /// not be `Send`.
    pub fn read_async<F, Fut>(producer: F) -> Self
    where
        F: FnMut(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = Option<T>> + 'static,
    {
        Self {
            source: Source::Async(Box::new(Unstarted {
                producer,
                _future: PhantomData,
            })),
        }
    }

    /// Opens when a watermark has reached a position; nothing polls.
    pub fn reached(reached: Reached, payload: T) -> Self {
        Self {
            source: Source::Reached(reached, payload),
        }
    }
}

// A gate pins nothing in itself: as if the producer were boxed.
impl<T> Unpin for Gate<T> {}

impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.source.kind()).finish()
    }
}

/// A synchronous producer. Up to four words of it travel inside the job: what is allocated by one
/// thread and freed by another makes the two wait for each other in the allocator.
pub(crate) type SyncProducer<T> = SmallBox<dyn FnMut(&Attempt) -> Option<T> + Send, S4>;

/// Where a payload comes from, on its way to the shard.
pub(crate) enum Source<T> {
    /// Handed over by a publisher.
    Ready(T),
    Sync(SyncProducer<T>),
    Async(Box<dyn Start<T>>),
    Reached(Reached, T),
}

impl<T> Source<T> {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Source::Ready(_) => "ready",
            Source::Sync(_) => "read",
            Source::Async(_) => "read_async",
            Source::Reached(..) => "reached",
        }
    }
}

/// An asynchronous producer that has not reached its shard: `Send`, whatever its futures are.
pub(crate) trait Start<T>: Send {
    fn start(self: Box<Self>) -> Box<dyn Read<T>>;
}

/// An asynchronous producer on its shard.
pub(crate) trait Read<T> {
    /// Polls the read under way, or begins one.
    fn poll(&mut self, attempt: &Attempt, cx: &mut Context<'_>) -> Poll<Option<T>>;

    /// Whether a read is under way.
    fn is_reading(&self) -> bool;
}

struct Unstarted<F, Fut> {
    producer: F,
    _future: PhantomData<fn() -> Fut>,
}

struct Started<F, Fut> {
    producer: F,
    /// One place for all of the gate's futures, one after the other.
    reading: Pin<Box<Option<Fut>>>,
}

impl<T, F, Fut> Start<T> for Unstarted<F, Fut>
where
    T: 'static,
    F: FnMut(Attempt) -> Fut + Send + 'static,
    Fut: Future<Output = Option<T>> + 'static,
{
    fn start(self: Box<Self>) -> Box<dyn Read<T>> {
        Box::new(Started {
            producer: self.producer,
            reading: Box::pin(None),
        })
    }
}

impl<T, F, Fut> Read<T> for Started<F, Fut>
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Option<T>>,
{
    fn poll(&mut self, attempt: &Attempt, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.reading.is_none() {
            let future = (self.producer)(attempt.clone());
            self.reading.set(Some(future));
        }
        let Some(future) = self.reading.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let answer = future.poll(cx);
        if answer.is_ready() {
            self.reading.set(None);
        }
        answer
    }

    fn is_reading(&self) -> bool {
        self.reading.is_some()
    }
}
