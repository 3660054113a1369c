//! Waiting for one's own frame to come back.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;

use super::Invalidator;
use super::inner::Remote;
use super::types::{ConfirmError, Emitted};
use crate::bus::Link;
use crate::invalidation::outbox::{Outcome, Ticket};
use crate::invalidation::subject::Entity;

/// Counts who waits, so that nobody looks for waiting ones when there are none.
struct Awaiting(Invalidator);

impl Awaiting {
    fn new(invalidator: Invalidator) -> Self {
        if let Some(remote) = invalidator.remote() {
            remote.awaited.fetch_add(1, AcqRel);
        }
        Self(invalidator)
    }
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        if let Some(remote) = self.0.remote() {
            remote.awaited.fetch_sub(1, AcqRel);
        }
    }
}

impl Invalidator {
    /// As [`emit`](Self::emit), and waits until this very message came back through this node's own
    /// subscription: then the server has had it. That says nothing about the other nodes, which
    /// find out by themselves if they missed it.
    ///
    /// Drops and hands over at once, before the future is polled. Needs no runtime. It ends two
    /// leases from now at the latest, mostly within one round trip; dropping it takes nothing back.
    ///
    /// # Errors
    /// [`ConfirmError::Emit`] if it was not handed over; [`ConfirmError::Unconfirmable`] if this node
    /// is known not to hear itself; [`ConfirmError::Unknown`] if the message cannot come back any
    /// more, though it may have been sent.
    pub fn emit_confirmed(
        &self,
        entity: &Entity,
        id: &str,
    ) -> impl Future<Output = Result<(), ConfirmError>> + use<> {
        let ticket = Arc::new(Ticket::default());
        // Counted before it is sent: it may be back at once.
        let awaiting = Awaiting::new(self.clone());
        let emitted = self.hand_over(entity, id, None, Some(ticket.clone()));
        async move {
            let invalidator = &awaiting.0;
            let emitted = emitted?;
            let Some(remote) = invalidator.remote() else {
                return Err(ConfirmError::Unconfirmable);
            };
            let status = remote.bus.status();
            let deaf = status.subscribe_denied > 0 && !invalidator.hears_itself(remote);
            let deaf = deaf || invalidator.settings().write_only;
            if emitted == Emitted::Standalone || deaf || status.link == Link::Closed {
                return Err(ConfirmError::Unconfirmable);
            }
            match poll_fn(|cx| ticket.poll(cx)).await {
                Outcome::Returned => Ok(()),
                Outcome::Unknown => Err(ConfirmError::Unknown),
            }
        }
    }

    fn hears_itself(&self, remote: &Remote) -> bool {
        remote.core.lock().node.has_proof()
    }
}
