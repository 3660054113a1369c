//! An orderly end: hand over what waits, wait for open guards, say goodbye, see it written out.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::inner::{Inner, Remote};
use super::types::Farewell;
use crate::bus::PublishError;
use crate::invalidation::outbox::NoBeat;

/// An end that has begun.
#[derive(Debug)]
pub(super) struct Closing {
    deadline: Option<Instant>,
    said: bool,
}

/// The earlier of two ends; `None` is never.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Inner {
    /// Begins the end, or shortens one that has begun.
    pub(super) fn begin_closing(&self, remote: &Remote, within: Duration) {
        let deadline = Instant::now().checked_add(within);
        let mut closing = remote.closing.lock();
        match closing.as_mut() {
            Some(closing) => closing.deadline = earlier(closing.deadline, deadline),
            None => {
                *closing = Some(Closing {
                    deadline,
                    said: false,
                });
            }
        }
        drop(closing);
        remote.out.lock().outbox.close();
        remote.beat.wake();
    }

    /// Takes the end one step further, on the thread that beats. `Some` once it is there.
    pub(super) fn step_closing(&self, remote: &Remote, waker: &Waker) -> Option<Farewell> {
        let (late, said) = {
            let closing = remote.closing.lock();
            let closing = closing.as_ref()?;
            let late = closing.deadline.is_some_and(|at| at <= Instant::now());
            (late, closing.said)
        };
        let end = if said {
            self.step_flush(remote, waker)
        } else {
            self.step_goodbye(remote, waker)
        };
        end.or_else(|| late.then(|| self.give_up(remote, said)))
    }

    fn step_goodbye(&self, remote: &Remote, waker: &Waker) -> Option<Farewell> {
        // As long as a guard holds up the end this node beats as ever: a goodbye that is planned
        // takes the place of the next beat.
        let out = remote.out.lock();
        if out.outbox.has_ended() {
            // With its bus: nothing will carry a goodbye.
            return Some(Farewell::Unsaid);
        }
        if !out.outbox.wants_bye() {
            return None;
        }
        drop(out);
        let (plan, now) = {
            let mut core = remote.core.lock();
            let now = self.clock.now();
            (core.node.plan_beat(now, remote.bus.generation()), now)
        };
        let mut out = remote.out.lock();
        let super::inner::Out { outbox, wire } = &mut *out;
        match outbox.beat(&plan, true, now, wire.as_mut()) {
            Ok(()) => {
                outbox.end();
                drop(out);
                if let Some(closing) = remote.closing.lock().as_mut() {
                    closing.said = true;
                }
                self.step_flush(remote, waker)
            }
            // A guard may still be let go of; a refused emit stays refused.
            Err(NoBeat::Unsettled) if outbox.has_guards() => None,
            Err(NoBeat::Bus(PublishError::Full) | NoBeat::Stale) => {
                drop(out);
                remote.core.lock().node.retry_beat(now);
                None
            }
            Err(NoBeat::Unsettled | NoBeat::Bus(_)) => {
                outbox.end();
                Some(Farewell::Unsaid)
            }
        }
    }

    /// What was handed to the bus should leave before its owner does.
    fn step_flush(&self, remote: &Remote, waker: &Waker) -> Option<Farewell> {
        let mut out = remote.out.lock();
        match out.wire.poll_flush(&mut Context::from_waker(waker)) {
            Poll::Ready(Ok(())) => Some(Farewell::Said),
            Poll::Ready(Err(_)) => Some(Farewell::TimedOut),
            Poll::Pending => None,
        }
    }

    fn give_up(&self, remote: &Remote, said: bool) -> Farewell {
        let mut out = remote.out.lock();
        let guarded = out.outbox.has_guards();
        out.outbox.end();
        if guarded && !said {
            Farewell::Unsaid
        } else {
            Farewell::TimedOut
        }
    }
}
