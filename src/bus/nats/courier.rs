//! From a publisher to the client's queue.
//!
//! *Role.* A publisher lays its messages on a tray, which takes a lock and a copy; a courier, a task
//! on the bus's runtime, carries what lies there to the client. So a burst costs its writer neither a
//! wake nor an allocation for each message, and reaches the socket in large pieces: the courier
//! is woken only if it waits, and takes all there is.
//!
//! *Who takes part.* One tray and one courier a publisher, so that each has its own place in the
//! client's queue.
//!
//! *The order.* A tray is emptied whole and carried in order before it is looked at again. A
//! subscription that was made before a message was laid down is in the client's queue before it.
//!
//! *The bounds.* [`CAPACITY`] messages and about [`BYTES`] on the tray, and as much under way; then the
//! client's own queue.
//!
//! *The end.* A courier ends when its publisher is gone and the tray empty, when the client takes
//! no more, or with its runtime. Then the tray is over: nothing is laid down that nobody carries.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_nats::{Client, PublishErrorKind};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::unconstrained;

use super::super::PublishError;
use super::events::Shared;
use crate::limit::Limit;

/// How many messages a tray holds at most.
const CAPACITY: usize = 8_192;
/// How many bytes, the last message aside.
const BYTES: usize = 1 << 25;

/// Where messages lie until they are carried.
#[derive(Debug, Default)]
pub(super) struct Tray {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    load: Load,
    /// Messages ever laid down, and ever taken by the client.
    laid: u64,
    carried: u64,
    /// Whether the publisher is gone.
    abandoned: bool,
    /// Whether nobody carries any more.
    over: bool,
    /// Who waits: the courier for messages, the publisher for room, and for what it has laid down.
    courier: Option<Waker>,
    room: Option<Waker>,
    passed: Vec<Waker>,
}

/// Messages, one behind the other.
#[derive(Debug, Default)]
struct Load {
    bytes: Vec<u8>,
    /// The lengths of each subject and payload.
    lengths: Vec<(usize, usize)>,
}

impl Tray {
    /// Lays one message down.
    pub(super) fn lay(&self, subject: &str, payload: &[u8]) -> Result<(), PublishError> {
        let mut state = self.state.lock();
        if state.over {
            return Err(PublishError::Closed);
        }
        if !state.load.has_room() {
            return Err(PublishError::Full);
        }
        state.load.bytes.extend_from_slice(subject.as_bytes());
        state.load.bytes.extend_from_slice(payload);
        state.load.lengths.push((subject.len(), payload.len()));
        state.laid += 1;
        let courier = state.courier.take();
        drop(state);
        if let Some(courier) = courier {
            courier.wake();
        }
        Ok(())
    }

    /// Ready when a message has room.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        let mut state = self.state.lock();
        if state.over {
            return Poll::Ready(Err(PublishError::Closed));
        }
        if state.load.has_room() {
            return Poll::Ready(Ok(()));
        }
        state.room = Some(cx.waker().clone());
        Poll::Pending
    }

    /// How many messages were ever laid down.
    pub(super) fn laid(&self) -> u64 {
        self.state.lock().laid
    }

    /// Ready when the client has taken the first so many of them.
    pub(super) fn passed(&self, laid: u64) -> impl Future<Output = Result<(), PublishError>> {
        poll_fn(move |cx| {
            let mut state = self.state.lock();
            if state.carried >= laid {
                return Poll::Ready(Ok(()));
            }
            if state.over {
                return Poll::Ready(Err(PublishError::Closed));
            }
            state.passed.retain(|waker| !waker.will_wake(cx.waker()));
            state.passed.push(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Nothing more will be laid down.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        let courier = state.courier.take();
        drop(state);
        if let Some(courier) = courier {
            courier.wake();
        }
    }

    /// All that lies there; `None` when nothing will.
    fn poll_load(&self, cx: &mut Context<'_>) -> Poll<Option<Load>> {
        let mut state = self.state.lock();
        if state.load.lengths.is_empty() {
            if state.abandoned {
                return Poll::Ready(None);
            }
            state.courier = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let load = mem::take(&mut state.load);
        let room = state.room.take();
        drop(state);
        if let Some(room) = room {
            room.wake();
        }
        Poll::Ready(Some(load))
    }

    fn carried(&self, messages: u64) {
        let mut state = self.state.lock();
        state.carried += messages;
        let passed = mem::take(&mut state.passed);
        drop(state);
        passed.into_iter().for_each(Waker::wake);
    }

    fn end(&self) {
        let mut state = self.state.lock();
        state.over = true;
        let room = state.room.take();
        let passed = mem::take(&mut state.passed);
        drop(state);
        room.into_iter().chain(passed).for_each(Waker::wake);
    }
}

impl Load {
    /// Whether there is room for one message, however long.
    fn has_room(&self) -> bool {
        self.lengths.len() < CAPACITY && self.bytes.len() < BYTES
    }

    /// The messages, in order; all share one piece of memory.
    fn messages(self) -> impl Iterator<Item = (Bytes, Bytes)> {
        let mut rest = Bytes::from(self.bytes);
        self.lengths.into_iter().map(move |(subject, payload)| {
            let subject = rest.split_to(subject);
            (subject, rest.split_to(payload))
        })
    }
}

/// Ends the tray with the task, however that ends.
struct Courier(Arc<Tray>);

impl Drop for Courier {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Carries what is laid on `tray` to the client.
pub(super) fn carry(
    tray: Arc<Tray>,
    client: Client,
    shared: Arc<Shared>,
) -> impl Future<Output = ()> + Send {
    let courier = Courier(tray);
    let too_long = Limit::new();
    // Outside the task's budget: what paces it is the room in the client's queue.
    unconstrained(async move {
        let tray = &courier.0;
        while let Some(load) = poll_fn(|cx| tray.poll_load(cx)).await {
            let messages = load.lengths.len() as u64;
            for (subject, payload) in load.messages() {
                // It was laid down as text.
                let Ok(subject) = async_nats::Subject::from_utf8(subject) else {
                    continue;
                };
                match client.publish(subject, payload).await {
                    Ok(()) => {}
                    // The limit shrank meanwhile, with another connection: it is lost.
                    Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                        too_long.say(|| {
                            tracing::warn!("a message is longer than the new server takes");
                        });
                    }
                    Err(_) => return shared.end(),
                }
            }
            tray.carried(messages);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn take(tray: &Tray) -> Vec<(Bytes, Bytes)> {
        match tray.poll_load(&mut context()) {
            Poll::Ready(Some(load)) => load.messages().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_laid_down_is_carried_in_order_and_unaltered() {
        let tray = Tray::default();
        assert!(tray.poll_load(&mut context()).is_pending());
        tray.lay("a.b", b"one").unwrap();
        tray.lay("a", b"").unwrap();
        tray.lay("c.d.e", b"\0\xff").unwrap();
        let wanted: [(&[u8], &[u8]); 3] = [(b"a.b", b"one"), (b"a", b""), (b"c.d.e", b"\0\xff")];
        let seen = take(&tray);
        assert!(seen.iter().map(|(s, p)| (&s[..], &p[..])).eq(wanted));
        assert!(tray.poll_load(&mut context()).is_pending());
    }

    #[test]
    fn a_full_tray_refuses_until_it_is_taken() {
        let tray = Tray::default();
        assert!(tray.poll_room(&mut context()).is_ready());
        let long = vec![7; BYTES];
        tray.lay("long", &long).unwrap();
        assert_eq!(tray.lay("a", b""), Err(PublishError::Full));
        assert!(tray.poll_room(&mut context()).is_pending());
        assert_eq!(take(&tray).len(), 1);
        assert!(tray.poll_room(&mut context()).is_ready());
        for _ in 0..CAPACITY {
            tray.lay("a", b"").unwrap();
        }
        assert_eq!(tray.lay("a", b""), Err(PublishError::Full));
    }

    #[test]
    fn what_was_laid_down_has_passed_when_it_was_carried() {
        let tray = Tray::default();
        tray.lay("a", b"").unwrap();
        let mut passed = std::pin::pin!(tray.passed(1));
        assert!(passed.as_mut().poll(&mut context()).is_pending());
        tray.lay("b", b"").unwrap();
        let _taken = take(&tray);
        assert!(passed.as_mut().poll(&mut context()).is_pending());
        tray.carried(1);
        assert_eq!(passed.as_mut().poll(&mut context()), Poll::Ready(Ok(())));
        let mut later = std::pin::pin!(tray.passed(2));
        tray.end();
        let over = Poll::Ready(Err(PublishError::Closed));
        assert_eq!(later.as_mut().poll(&mut context()), over);
        assert_eq!(tray.lay("c", b""), Err(PublishError::Closed));
    }

    #[test]
    fn an_abandoned_tray_is_emptied_first() {
        let tray = Tray::default();
        tray.lay("a", b"").unwrap();
        tray.abandon();
        assert_eq!(take(&tray).len(), 1);
        assert!(matches!(tray.poll_load(&mut context()), Poll::Ready(None)));
    }
}
