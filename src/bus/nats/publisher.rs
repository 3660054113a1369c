//! The sending side: lays messages on a tray, from which a courier takes them to the client.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::{PublishError, Publisher};
use super::Inner;
use super::courier::Tray;
use crate::invalidation::subject::Subject;

type Flushing = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

/// A place in the client's queue.
pub(super) struct NatsPublisher {
    inner: Arc<Inner>,
    tray: Arc<Tray>,
    flushing: Option<Flushing>,
}

impl NatsPublisher {
    /// The publisher of a tray that somebody carries from.
    pub(super) fn new(inner: Arc<Inner>, tray: Arc<Tray>) -> Self {
        Self {
            inner,
            tray,
            flushing: None,
        }
    }

    /// The end of the client's queue, or of who carries to it, is the end of the bus.
    fn note_end(&self, outcome: Result<(), PublishError>) -> Result<(), PublishError> {
        if outcome == Err(PublishError::Closed) {
            self.inner.shared.end();
        }
        outcome
    }
}

impl Publisher for NatsPublisher {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        self.inner.check_open()?;
        let (len, max) = (payload.len(), self.inner.client.max_payload());
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        let laid = self.tray.lay(subject.as_str(), payload);
        self.note_end(laid)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.inner.check_open()?;
        let room = self.tray.poll_room(cx);
        room.map(|room| self.note_end(room))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        if self.flushing.is_none() {
            self.inner.check_open()?;
            let (client, tray) = (self.inner.client.clone(), Arc::clone(&self.tray));
            let laid = tray.laid();
            self.flushing = Some(Box::pin(async move {
                tray.passed(laid).await?;
                client.flush().await.map_err(|_| PublishError::Closed)
            }));
        }
        let Some(flushing) = &mut self.flushing else {
            return Poll::Ready(Ok(()));
        };
        let flushed = flushing.as_mut().poll(cx);
        if flushed.is_ready() {
            self.flushing = None;
        }
        flushed.map(|flushed| self.note_end(flushed))
    }
}

impl Drop for NatsPublisher {
    fn drop(&mut self) {
        self.tray.abandon();
    }
}

impl fmt::Debug for NatsPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsPublisher").finish_non_exhaustive()
    }
}
