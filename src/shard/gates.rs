//! A gate that waits on its shard, and one read of it.

use std::sync::Arc as StdArc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::inbox::Counts;
use super::job::Delivery;
use super::ready::Node;
use crate::gate::{Attempt, Reached, Read, Registration, Source, SyncProducer};
use crate::observer::SkipReason;
use crate::sync::Ordering::Relaxed;
use crate::sync::panics::contain;

/// A gate in its key's lane.
pub(super) struct Waiting<T> {
    pub(super) lane: usize,
    pub(super) delivery: Delivery<T>,
    /// Whether it stands for a payload that was published: no gate holds it back.
    pub(super) published: bool,
    pub(super) state: State<T>,
    pub(super) submitted: Option<Instant>,
    /// When the budget began.
    pub(super) first_read: Option<Instant>,
    pub(super) attempts: u32,
    pub(super) timer: Option<Instant>,
    pub(super) node: Option<StdArc<Node>>,
}

pub(super) enum State<T> {
    /// The view does not show the change yet.
    Closed(Producer<T>),
    /// What became of it; waits for its turn in the lane.
    Open(Outcome<T>),
    /// Being looked at.
    Taken,
}

/// What becomes of a gate.
pub(super) enum Outcome<T> {
    Push(T),
    Lose,
    /// It expired, in silence.
    Skip,
    /// There is nobody to tell.
    Nothing,
}

/// A producer on its shard.
pub(super) enum Producer<T> {
    Sync(SyncProducer<T>),
    Async(Box<dyn Read<T>>),
    Reached {
        reached: Reached,
        payload: T,
        registration: Option<Registration>,
    },
}

/// What a read answered.
pub(super) enum Answer<T> {
    Open(T),
    /// Not visible: to be asked again at the retry's pace.
    NotYet(Producer<T>),
    /// Its waker tells when to look again.
    Waits(Producer<T>),
    Failed(SkipReason),
}

/// A producer as it comes out of the queue: some are open at once, none has been read.
pub(super) enum Arrived<T> {
    Open(T),
    Closed(Producer<T>),
    Failed(SkipReason),
}

impl<T> Arrived<T> {
    pub(super) fn of(source: Source<T>) -> Self {
        match source {
            Source::Ready(payload) => Arrived::Open(payload),
            Source::Sync(producer) => Arrived::Closed(Producer::Sync(producer)),
            Source::Async(start) => match contain(|| start.start()) {
                Some(read) => Arrived::Closed(Producer::Async(read)),
                None => Arrived::Failed(SkipReason::Panicked),
            },
            Source::Reached(reached, payload) => Arrived::Closed(Producer::Reached {
                reached,
                payload,
                registration: None,
            }),
        }
    }
}

impl<T> Producer<T> {
    /// Whether a read needs a waker.
    pub(super) fn needs_waker(&self) -> bool {
        match self {
            Producer::Sync(_) => false,
            Producer::Async(_) => true,
            Producer::Reached { reached, .. } => !reached.is_ready(),
        }
    }

    /// Whether an asynchronous read is under way.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Producer::Async(read) if read.is_reading())
    }

    /// Whether it waits for a watermark.
    pub(super) fn is_reached(&self) -> bool {
        matches!(self, Producer::Reached { .. })
    }

    /// Whether it waited for a watermark that is there now.
    pub(super) fn has_reached(&self) -> bool {
        matches!(self, Producer::Reached { reached, .. } if reached.is_ready())
    }

    /// Takes the position of one that this takes the place of, if that is further on.
    pub(super) fn not_before(&mut self, older: &Producer<T>) {
        if let (Producer::Reached { reached, .. }, Producer::Reached { reached: older, .. }) =
            (self, older)
            && reached.watermark().is_same(older.watermark())
            && older.position() > reached.position()
        {
            *reached = older.clone();
        }
    }

    /// Asks once. A panic of the user's code is caught, and ends the gate.
    #[inline]
    pub(super) fn read(
        self,
        attempt: &Attempt,
        node: Option<&StdArc<Node>>,
        counts: &Counts,
        timed: bool,
    ) -> Answer<T> {
        match self {
            Producer::Sync(mut producer) => {
                let began = timed.then(Instant::now);
                counts.reading.store(true, Relaxed);
                let answer = contain(|| producer(attempt));
                counts.reading.store(false, Relaxed);
                if let Some(began) = began {
                    let nanos = began.elapsed().as_nanos().min(u128::from(u64::MAX)) as u64;
                    counts.longest_read_nanos.fetch_max(nanos, Relaxed);
                }
                match answer {
                    Some(Some(payload)) => {
                        discard(producer);
                        Answer::Open(payload)
                    }
                    Some(None) => Answer::NotYet(Producer::Sync(producer)),
                    None => {
                        discard(producer);
                        Answer::Failed(SkipReason::Panicked)
                    }
                }
            }
            Producer::Async(mut read) => {
                let waker = node.map_or_else(|| std::task::Waker::noop().clone(), Node::waker);
                let mut cx = Context::from_waker(&waker);
                match contain(|| read.poll(attempt, &mut cx)) {
                    Some(Poll::Ready(Some(payload))) => {
                        discard(read);
                        Answer::Open(payload)
                    }
                    Some(Poll::Ready(None)) => Answer::NotYet(Producer::Async(read)),
                    Some(Poll::Pending) => Answer::Waits(Producer::Async(read)),
                    None => {
                        discard(read);
                        Answer::Failed(SkipReason::Panicked)
                    }
                }
            }
            Producer::Reached {
                reached,
                payload,
                mut registration,
            } => {
                let waits = !reached.is_ready()
                    && match (&registration, node) {
                        (Some(_), _) => true,
                        (None, Some(node)) => {
                            registration = reached.register(&node.waker());
                            registration.is_some()
                        }
                        (None, None) => true,
                    };
                if waits {
                    Answer::Waits(Producer::Reached {
                        reached,
                        payload,
                        registration,
                    })
                } else {
                    Answer::Open(payload)
                }
            }
        }
    }
}

/// Drops what is the user's; a panic of its drop stays here.
pub(super) fn discard<V>(value: V) {
    contain(|| drop(value));
}
