//! The sending side: hands messages to the client's queue, or not at all.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_nats::client::FlushError;
use async_nats::message::OutboundMessage;
use async_nats::{Client, PublishErrorKind};
use bytes::Bytes;
use futures_util::Sink;
use tokio::task::unconstrained;

use super::super::{PublishError, Publisher};
use super::Inner;
use crate::invalidation::subject::Subject;

type Flushing = Pin<Box<dyn Future<Output = Result<(), FlushError>> + Send>>;

/// A place in the client's queue.
pub(super) struct NatsPublisher {
    inner: Arc<Inner>,
    /// Its own handle: the handle holds the place in the queue.
    client: Client,
    /// [`Publisher::poll_ready`] has taken a place in the queue, for the next message.
    reserved: bool,
    flushing: Option<Flushing>,
}

impl NatsPublisher {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            client: inner.client.clone(),
            inner,
            reserved: false,
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
        self.inner.check_open()?;
        let (len, max) = (payload.len(), self.client.max_payload());
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        let subject = async_nats::Subject::from(subject.as_str());
        let payload = Bytes::copy_from_slice(payload);
        let sent = if mem::take(&mut self.reserved) {
            let message = OutboundMessage {
                subject,
                reply: None,
                payload,
                headers: None,
            };
            Pin::new(&mut self.client).start_send(message)
        } else {
            // Polled once: a place in the queue is taken now or not at all. Outside the budget of
            // whatever task this is, so that "not now" means that the queue is full.
            let sending = pin!(unconstrained(self.client.publish(subject, payload)));
            match sending.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(sent) => sent,
                Poll::Pending => return Err(PublishError::Full),
            }
        };
        sent.map_err(|error| match error.kind() {
            // The limit shrank meanwhile, with another connection.
            PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge {
                len,
                max: self.client.max_payload(),
            },
            _ => self.ended(),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.inner.check_open()?;
        let ready = Pin::new(&mut self.client).poll_ready(cx);
        self.reserved = matches!(ready, Poll::Ready(Ok(())));
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
