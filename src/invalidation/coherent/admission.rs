//! How many loads may run at once, and how slowly they start again after everything was dropped.
//!
//! # Protocol
//! A leader asks for a permit before it reads. Up to `limit` permits are out; further leaders queue,
//! first come, first served, and beyond `waiting` of them are turned away. A permit is given back by
//! being dropped, which admits the next.
//!
//! # After a flush
//! When a flush or a doubt has made every entry worthless on every node at once, all of them would
//! load their hottest ids together. So the limit starts again at an eighth, and grows to the
//! full one over `ramp`, stretched on each node and for each flush by a random factor from a half to
//! one and a half. The spread comes from the rate of admission: no load sleeps, and no timer is
//! needed. The limit is looked at whenever a load comes or ends, so that it is at worst late while
//! neither happens, and it never is below one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ahash::RandomState;

use super::LoadError;
use crate::invalidation::fence::planted;
use crate::sync::Mutex;

/// Hands out permits to load.
pub(super) struct Admission {
    full: usize,
    waiting: usize,
    /// Nanoseconds from a flush to the full limit, before stretching.
    ramp: u64,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Permits given: in use, or granted and not yet picked up.
    out: usize,
    next_ticket: u64,
    /// First come, first served, as tickets rise.
    queue: BTreeMap<u64, Waker>,
    granted: BTreeSet<u64>,
    /// The epoch whose ramp is the present one.
    epoch: u64,
    /// When that ramp began and how long it is; zero long for none.
    ramp_began: u64,
    ramp_length: u64,
}

/// What the fence's clock and word say, as a permit is asked for or given back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) epoch: u64,
    pub(super) now: u64,
}

impl Admission {
    pub(super) fn new(limit: usize, waiting: usize, ramp: u64, epoch: u64) -> Self {
        Self {
            full: limit.max(1),
            waiting,
            ramp,
            hasher: RandomState::new(),
            state: Mutex::new(State {
                out: 0,
                next_ticket: 0,
                queue: BTreeMap::new(),
                granted: BTreeSet::new(),
                epoch,
                ramp_began: 0,
                ramp_length: 0,
            }),
        }
    }

    /// A permit, once it is this caller's turn. `moment` is asked for whenever the limit is looked at.
    pub(super) const fn permit<M: Fn() -> Moment + Clone>(&self, moment: M) -> Turn<'_, M> {
        Turn {
            admission: self,
            moment,
            ticket: None,
        }
    }

    /// A factor from a half to one and a half, another one for each epoch and node.
    fn stretch(&self, epoch: u64) -> f64 {
        // The upper 53 bits make an even fraction.
        let fraction = (self.hasher.hash_one(epoch) >> 11) as f64 / (1u64 << 53) as f64;
        0.5 + fraction
    }

    fn limit(&self, state: &mut State, moment: Moment) -> usize {
        if state.epoch != moment.epoch {
            state.epoch = moment.epoch;
            state.ramp_began = moment.now;
            // A rounded length is as random as an exact one.
            state.ramp_length = (self.ramp as f64 * self.stretch(moment.epoch)) as u64;
        }
        let elapsed = moment.now.saturating_sub(state.ramp_began);
        if elapsed >= state.ramp_length {
            return self.full;
        }
        let start = (self.full / 8).max(1);
        let share = elapsed as f64 / state.ramp_length as f64;
        start + ((self.full - start) as f64 * share) as usize
    }

    /// Grants permits to the head of the queue for as long as the limit allows.
    fn admit(&self, state: &mut State, moment: Moment) -> Vec<Waker> {
        let mut admitted = Vec::new();
        if state.queue.is_empty() {
            return admitted;
        }
        let limit = self.limit(state, moment);
        while state.out < limit
            && let Some((ticket, waker)) = state.queue.pop_first()
        {
            state.out += 1;
            state.granted.insert(ticket);
            admitted.push(waker);
        }
        admitted
    }

    fn give_back(&self, moment: Moment) {
        let admitted = {
            let mut state = self.state.lock();
            state.out -= 1;
            self.admit(&mut state, moment)
        };
        for waker in admitted {
            waker.wake();
        }
    }

    #[cfg(test)]
    pub(super) fn limit_at(&self, moment: Moment) -> usize {
        self.limit(&mut self.state.lock(), moment)
    }

    #[cfg(test)]
    pub(super) fn ramp_length(&self) -> u64 {
        self.state.lock().ramp_length
    }

    /// Loads under way and loads that wait for their turn.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.out, state.queue.len())
    }
}

/// Waits for a permit. Cancel-safe: a turn that came is passed on.
pub(super) struct Turn<'a, M: Fn() -> Moment + Clone> {
    admission: &'a Admission,
    moment: M,
    ticket: Option<u64>,
}

impl<'a, M: Fn() -> Moment + Clone + Unpin> Future for Turn<'a, M> {
    type Output = Result<Permit<'a, M>, LoadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let moment = (this.moment)();
        let (poll, admitted, replaced) = {
            let mut replaced = None;
            let mut state = this.admission.state.lock();
            // A look at the limit: it may have grown since the queue was last served.
            let admitted = this.admission.admit(&mut state, moment);
            let poll = match this.ticket {
                Some(ticket) if state.granted.remove(&ticket) => Poll::Ready(Ok(())),
                Some(ticket) => {
                    replaced = state.queue.insert(ticket, cx.waker().clone());
                    Poll::Pending
                }
                // Nobody waits longer: whoever could go has been admitted just now.
                None if state.out < this.admission.limit(&mut state, moment) => {
                    state.out += 1;
                    Poll::Ready(Ok(()))
                }
                None if state.queue.len() >= this.admission.waiting => {
                    Poll::Ready(Err(LoadError::Overloaded {
                        waiting: this.admission.waiting,
                    }))
                }
                None => {
                    let ticket = state.next_ticket;
                    state.next_ticket += 1;
                    state.queue.insert(ticket, cx.waker().clone());
                    this.ticket = Some(ticket);
                    Poll::Pending
                }
            };
            (poll, admitted, replaced)
        };
        // Outside the lock: a waker may own the task that waits here.
        drop(replaced);
        for waker in admitted {
            waker.wake();
        }
        match poll {
            Poll::Pending => Poll::Pending,
            Poll::Ready(turn) => {
                this.ticket = None;
                Poll::Ready(turn.map(|()| Permit {
                    admission: this.admission,
                    moment: this.moment.clone(),
                }))
            }
        }
    }
}

impl<M: Fn() -> Moment + Clone> Drop for Turn<'_, M> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let granted = {
            let mut state = self.admission.state.lock();
            let waited = state.queue.remove(&ticket);
            let granted = state.granted.remove(&ticket);
            drop(state);
            drop(waited);
            granted
        };
        if granted && !planted("coherent_keep_turn") {
            self.admission.give_back((self.moment)());
        }
    }
}

/// Permission to load, given back when dropped.
pub(super) struct Permit<'a, M: Fn() -> Moment + Clone> {
    admission: &'a Admission,
    moment: M,
}

impl<M: Fn() -> Moment + Clone> Drop for Permit<'_, M> {
    fn drop(&mut self) {
        self.admission.give_back((self.moment)());
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("full", &self.full)
            .field("state", &*self.state.lock())
            .finish_non_exhaustive()
    }
}
