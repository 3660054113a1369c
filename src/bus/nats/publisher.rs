//! The sending side: formats into one arena, hands over to the client's queue.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_nats::message::OutboundMessage;
use async_nats::{Client, client::FlushError};
use bytes::{BufMut, BytesMut};
use futures_util::Sink;

use super::super::{PublishError, Publisher};
use super::Inner;
use crate::invalidation::subject::Subject;

/// The room from which messages are cut. Some hundred small messages share one allocation, and it
/// is used again once all of them are written out.
const ARENA: usize = 16 << 10;

type Flushing = Pin<Box<dyn Future<Output = Result<(), FlushError>> + Send>>;

/// A place in the client's queue.
pub(super) struct NatsPublisher {
    inner: Arc<Inner>,
    /// Its own handle: the handle holds the place in the queue.
    client: Client,
    arena: BytesMut,
    flushing: Option<Flushing>,
}

impl NatsPublisher {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            client: inner.client.clone(),
            inner,
            arena: BytesMut::new(),
            flushing: None,
        }
    }

    /// The end of the client's queue is the end of its connection.
    fn ended(&self) -> PublishError {
        self.inner.shared.end();
        PublishError::Closed
    }
}

impl Publisher for NatsPublisher {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        let max = self.client.max_payload();
        if payload.len() > max {
            let len = payload.len();
            return Err(PublishError::TooLarge { len, max });
        }
        // A place in the queue is taken at once or not at all.
        let mut context = Context::from_waker(Waker::noop());
        match self.poll_ready(&mut context) {
            Poll::Ready(ready) => ready?,
            Poll::Pending => return Err(PublishError::Full),
        }
        let subject = subject.as_str().as_bytes();
        let len = subject.len() + payload.len();
        if self.arena.capacity() < len {
            self.arena.reserve(len.max(ARENA));
        }
        self.arena.put_slice(subject);
        let subject = self.arena.split().freeze();
        self.arena.put_slice(payload);
        let payload = self.arena.split().freeze();
        let message = OutboundMessage {
            // The bytes are those of a `str`: the check cannot fail.
            subject: async_nats::Subject::from_utf8(subject).unwrap_or("".into()),
            reply: None,
            payload,
            headers: None,
        };
        let sent = Pin::new(&mut self.client).start_send(message);
        sent.map_err(|error| match error.kind() {
            async_nats::PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge {
                len,
                max: self.client.max_payload(),
            },
            _ => self.ended(),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.inner.check_open()?;
        let ready = Pin::new(&mut self.client).poll_ready(cx);
        ready.map_err(|_| self.ended())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        if self.flushing.is_none() {
            self.inner.check_open()?;
            let client = self.client.clone();
            self.flushing = Some(Box::pin(async move { client.flush().await }));
        }
        let Some(flushing) = &mut self.flushing else {
            return Poll::Ready(Ok(()));
        };
        let flushed = flushing.as_mut().poll(cx);
        if flushed.is_ready() {
            self.flushing = None;
        }
        flushed.map_err(|_| self.ended())
    }
}

impl fmt::Debug for NatsPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsPublisher").finish_non_exhaustive()
    }
}
