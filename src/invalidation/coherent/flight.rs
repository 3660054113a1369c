//! One load for all who wait, and for nobody who came too late.
//!
//! # Who takes part
//! The first caller that misses *leads*: it makes a flight, waits for its turn, loads, lands. The
//! callers that miss the same id meanwhile *join* the flight, if they may.
//!
//! # Who may join
//! A caller who came after an invalidation must not be given what was read before it. Both the
//! leader, when it begins to read, and each caller, when it arrives, take a mark of the fence.
//!
//! | flight | a caller with its own mark |
//! |---|---|
//! | Queued: not begun to read | joins: the read will begin later than the caller came; but not from [inside a loader](super::nested) |
//! | Loading(mark), Landed(mark) | joins if the marks are the same: nothing was dropped between; and if what was stored at that mark would be served |
//! | Loading, Landed with another mark, or too old | leads a flight of its own, which takes the place on the board |
//! | Abandoned | the same |
//!
//! The mark of a load is taken under the flight's lock, in the step that ends `Queued`, so that a
//! caller either joined before the read began or sees its mark.
//!
//! An entry is served for a lease at most while the state is unproved, and for `max_age` in any, from the
//! beginning of its load. A load that hangs is no younger: who comes when its entry would be too old leads.
//!
//! # When a leader is lost
//! A leader that is cancelled or panics abandons its flight by being dropped. All who joined wake
//! and start again, each with its own loader: one leads, the rest join it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ahash::RandomState;

use super::LoadError;
use crate::invalidation::fence::{Fence, Mark, planted};
use crate::sync::{Arc, Mutex};

/// What a load answers, as its waiters get it.
pub(super) type Answer<V> = Result<Option<V>, LoadError>;

/// The one copy that waiters clone from, outside all locks.
type Shared<V> = std::sync::Arc<Answer<V>>;

#[cfg(not(afterwrite_loom))]
const BOARDS: usize = 64;
#[cfg(afterwrite_loom)]
const BOARDS: usize = 1;

type Board<V> = HashMap<Box<str>, Arc<Flight<V>>, RandomState>;

/// The flights under way, by id.
pub(super) struct Flights<V> {
    boards: Box<[Mutex<Board<V>>]>,
    hasher: RandomState,
}

/// One load.
pub(super) struct Flight<V> {
    state: Mutex<State<V>>,
}

struct State<V> {
    phase: Phase<V>,
    /// Who waits. A slot is emptied when its waiter is dropped, and used again.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

enum Phase<V> {
    Queued,
    Loading(Mark),
    Landed(Mark, Shared<V>),
    Abandoned,
}

/// What a caller finds.
pub(super) enum Boarding<'a, V> {
    Lead(Lead<'a, V>),
    Join(Join<V>),
}

impl<V> Flights<V> {
    pub(super) fn new() -> Self {
        #[cfg(not(afterwrite_loom))]
        let hasher = RandomState::new();
        #[cfg(afterwrite_loom)]
        let hasher = RandomState::with_seeds(5, 6, 7, 8);
        Self {
            boards: (0..BOARDS)
                .map(|_| Mutex::new(HashMap::with_hasher(hasher.clone())))
                .collect(),
            hasher,
        }
    }

    fn board(&self, id: &str) -> &Mutex<Board<V>> {
        // Truncation is meant: any bits of the hash will do.
        &self.boards[(self.hasher.hash_one(id) as usize) & (BOARDS - 1)]
    }

    /// Joins the flight of `id`, or leads one. `arrived` was taken of `fence` after the caller came. Only
    /// who `may_queue` joins a flight that waits for its turn.
    pub(super) fn enter(
        &self,
        id: &str,
        arrived: &Mark,
        fence: &Fence,
        may_queue: bool,
    ) -> Boarding<'_, V> {
        let mut board = self.board(id).lock();
        if let Some(flight) = board.get(id)
            && flight.carries(arrived, fence, may_queue)
        {
            return Boarding::Join(Join {
                flight: flight.clone(),
                slot: None,
            });
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State {
                phase: Phase::Queued,
                wakers: Vec::new(),
                free: Vec::new(),
            }),
        });
        let id: Box<str> = id.into();
        let replaced = board.insert(id.clone(), flight.clone());
        // Outside the lock: it may be the last handle on an answer.
        drop(board);
        drop(replaced);
        Boarding::Lead(Lead {
            flights: self,
            id,
            flight,
        })
    }

    /// How many places for wakers the flight of `id` has made.
    #[cfg(test)]
    pub(super) fn places(&self, id: &str) -> usize {
        let flight = self.board(id).lock().get(id).cloned();
        flight.map_or(0, |flight| flight.state.lock().wakers.len())
    }

    /// How many flights are on the boards.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.boards.iter().map(|board| board.lock().len()).sum()
    }
}

impl<V> Flight<V> {
    fn carries(&self, arrived: &Mark, fence: &Fence, may_queue: bool) -> bool {
        match &self.state.lock().phase {
            Phase::Queued => may_queue,
            Phase::Loading(mark) | Phase::Landed(mark, _) => {
                let fresh = mark.same(arrived) && fence.serves(&mark.stamp());
                fresh || planted("coherent_join_older_flight")
            }
            Phase::Abandoned => false,
        }
    }

    /// Ends the flight, unless it has ended, and wakes all who wait.
    fn end(&self, end: impl FnOnce(&Phase<V>) -> Option<Phase<V>>) {
        let wakers = {
            let mut state = self.state.lock();
            if let Some(phase) = end(&state.phase) {
                state.phase = phase;
            }
            mem::take(&mut state.wakers)
        };
        if planted("coherent_end_silently") {
            return;
        }
        // Outside the lock: a waker is foreign code.
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

/// The leader's hand on its flight. Dropping it without landing abandons the flight.
pub(super) struct Lead<'a, V> {
    flights: &'a Flights<V>,
    id: Box<str>,
    flight: Arc<Flight<V>>,
}

impl<V> Lead<'_, V> {
    /// The read begins: from here on only callers with the same mark may join.
    pub(super) fn begin(&self, mark: impl FnOnce() -> Mark) -> Mark {
        let mut state = self.flight.state.lock();
        let mark = mark();
        state.phase = Phase::Loading(mark);
        mark
    }

    /// The answer is there, and stored if it may be.
    pub(super) fn land(self, mark: Mark, answer: Answer<V>) {
        if answer.is_err() {
            // Off the board first: a caller who comes now loads for itself. (A stored answer goes
            // the other way round: until it is off the board, the cache has it.)
            self.leave();
        }
        let answer = Shared::new(answer);
        self.flight.end(|_| Some(Phase::Landed(mark, answer)));
    }

    /// Takes the flight off the board, if it is still there.
    fn leave(&self) {
        let removed = {
            let mut board = self.flights.board(&self.id).lock();
            match board.get(&*self.id) {
                Some(flight) if Arc::ptr_eq(flight, &self.flight) => board.remove(&*self.id),
                _ => None,
            }
        };
        // Outside the board's lock: it may be the last handle on an answer.
        drop(removed);
    }
}

impl<V> Drop for Lead<'_, V> {
    fn drop(&mut self) {
        self.leave();
        self.flight.end(|phase| match phase {
            Phase::Landed(..) => None,
            Phase::Queued | Phase::Loading(_) | Phase::Abandoned => Some(Phase::Abandoned),
        });
    }
}

/// Waits for a flight: its answer, or `None` if it was abandoned. Cancel-safe.
pub(super) struct Join<V> {
    flight: Arc<Flight<V>>,
    slot: Option<usize>,
}

impl<V: Clone> Future for Join<V> {
    type Output = Option<Answer<V>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.flight.state.lock();
        match &state.phase {
            Phase::Landed(_, answer) => {
                let answer = answer.clone();
                drop(state);
                Poll::Ready(Some((*answer).clone()))
            }
            Phase::Abandoned => Poll::Ready(None),
            Phase::Queued | Phase::Loading(_) => {
                let (slot, replaced) = state.wait(this.slot, cx.waker());
                this.slot = Some(slot);
                // Outside the lock: a waker may own the task that waits here.
                drop(state);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}

impl<V> State<V> {
    /// Keeps a waker, in the slot that its waiter has or in a free one; returns the slot, and the
    /// waker that was there.
    fn wait(&mut self, slot: Option<usize>, waker: &Waker) -> (usize, Option<Waker>) {
        let slot = slot
            .or_else(|| self.free.pop())
            .unwrap_or(self.wakers.len());
        let replaced = match self.wakers.get_mut(slot) {
            Some(Some(kept)) if kept.will_wake(waker) => None,
            Some(place) => place.replace(waker.clone()),
            None => {
                self.wakers.push(Some(waker.clone()));
                None
            }
        };
        (slot, replaced)
    }

    /// Forgets the waker in this slot. Nothing is there once the flight has ended.
    fn forget(&mut self, slot: usize) -> Option<Waker> {
        let waker = self.wakers.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(waker)
    }
}

impl<V> Drop for Join<V> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let waker = self.flight.state.lock().forget(slot);
            drop(waker);
        }
    }
}

impl<V> fmt::Debug for Flights<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}
