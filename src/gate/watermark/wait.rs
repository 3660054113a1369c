//! Waiting for a position: a future, and a blocking call with a timeout.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::FusedFuture;

use super::{Reached, Registration};
use crate::sync::parker::Parker;

/// Ends once a watermark has reached a position; made by [`Watermark::wait_for`].
///
/// Registers with the watermark when it is first polled, and deregisters when it ends or is
/// dropped. Polling it again after its end is allowed and ends at once.
///
/// [`Watermark::wait_for`]: super::Watermark::wait_for
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct WaitFor {
    reached: Reached,
    registration: Option<Registration>,
    answered: bool,
}

impl WaitFor {
    pub(super) fn new(reached: Reached) -> Self {
        Self {
            reached,
            registration: None,
            answered: false,
        }
    }
}

impl Future for WaitFor {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let waits = !this.reached.is_ready()
            && match &mut this.registration {
                Some(registration) => registration.rearm(cx.waker()),
                none => {
                    *none = this.reached.register(cx.waker());
                    none.is_some()
                }
            };
        if waits {
            return Poll::Pending;
        }
        this.registration = None;
        this.answered = true;
        Poll::Ready(())
    }
}

impl FusedFuture for WaitFor {
    fn is_terminated(&self) -> bool {
        self.answered
    }
}

/// A position was not reached in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("position {wanted} was not reached in time: the watermark stands at {reached}")]
#[non_exhaustive]
pub struct WaitTimeout {
    /// The position waited for.
    pub wanted: u64,
    /// The position when the wait was given up.
    pub reached: u64,
}

/// Blocks until `reached` holds, for `timeout` at the longest.
pub(super) fn block(reached: &Reached, timeout: Duration) -> Result<(), WaitTimeout> {
    // The common case, without a look at the clock.
    if reached.is_ready() {
        return Ok(());
    }
    // No such point in time: wait without one.
    let deadline = Instant::now().checked_add(timeout);
    let parker = Parker::default();
    let Some(_registration) = reached.register(&parker.waker()) else {
        return Ok(());
    };
    // Only an advance that reached the position calls the waker, so there is no need to go on
    // waiting after it; and after a timeout this look is the last.
    parker.wait(deadline);
    let position = reached.watermark().get();
    if position >= reached.position() {
        return Ok(());
    }
    Err(WaitTimeout {
        wanted: reached.position(),
        reached: position,
    })
}
