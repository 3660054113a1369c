//! The pusher's side: taking the turn, the walk over the subscribers, leaving.

use std::ops::Deref;
use std::ptr::NonNull;

use super::chunk::Chunk;
use super::faults::{LEAVE_WITHOUT_ATTENTION, planted};
use super::turn::{ATTN, DONE, HELD, MORE, OWED, SHUT, SWEEP, Stamp, Turn};
use super::wakers::Wakers;
use super::{Attached, Topic};
use crate::mailbox::{Delivered, Mailbox};
use crate::sync::{Ordering::Relaxed, order, panics::contain};

/// The payload comes back: the topic could not be pushed to.
#[derive(Debug)]
pub(crate) enum Busy<T> {
    /// Another push is under way.
    Held(T),
    /// The registry is closed.
    Shut(T),
}

/// What a push did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pushed {
    /// Subscribers that got the payload.
    pub(crate) reached: u32,
    /// Subscribers whose buffer was full.
    pub(crate) full: u32,
    /// Subscribers for whom the payload's clone (or an evicted payload's drop) panicked.
    pub(crate) panicked: u32,
}

/// A push under way: holds the turn, and goes over the subscribers in slices.
///
/// Dropping it before the end leaves the turn properly; those not yet reached see a loss.
pub(crate) struct Walk<P, T, A>
where
    P: Deref<Target = Topic<T, A>>,
    A: Attached,
{
    topic: P,
    payload: Option<T>,
    cursor: Cursor,
    left: bool,
}

/// How far a walk has come.
struct Cursor {
    ticket: u64,
    stamp: Stamp,
    /// The chunk to go on with; none at the end.
    chunk: Option<NonNull<Chunk>>,
    chunks_left: u32,
    /// Bits of the chunk that are still to be visited.
    unvisited: u64,
    pushed: Pushed,
    sleepers: bool,
}

// SAFETY: a walk is its topic's holder wherever it goes; it carries a `T` and the topic's pointer.
unsafe impl<P, T, A> Send for Walk<P, T, A>
where
    P: Deref<Target = Topic<T, A>> + Send,
    T: Send,
    A: Attached,
{
}

impl<T, A: Attached> Topic<T, A> {
    /// Delivers to every subscriber, or gives the payload back. Lock-free, allocates nothing.
    #[inline]
    pub(crate) fn try_push(&self, payload: T) -> Result<Pushed, Busy<T>>
    where
        T: Clone,
    {
        let mut walk = Walk::begin(self, payload)?;
        while !walk.step(u32::MAX) {}
        Ok(walk.finish())
    }

    /// Asks that the shard be rung when the turn is free; false when it is free already.
    pub(crate) fn ring_when_free(&self) -> bool {
        let (_, turn) = self.update(Relaxed, |turn| {
            if turn.has(HELD) {
                turn.with(MORE)
            } else {
                turn
            }
        });
        turn.has(HELD)
    }

    /// Whether nothing begins any more.
    pub(crate) fn is_shut(&self) -> bool {
        self.load(Relaxed).has(SHUT)
    }

    /// Holds the turn without a push while `f` runs with the last ticket; `None` if it is not free.
    pub(crate) fn with_turn<R>(&self, f: impl FnOnce(u64) -> R) -> Option<R> {
        let (turn, _) = self.update(order::turn_acquire(), |turn| {
            if turn.is_free() {
                turn.with(HELD | DONE)
            } else {
                turn
            }
        });
        if !turn.is_free() {
            return None;
        }
        let result = f(turn.ticket());
        let mut wakers = Wakers::new();
        self.leave(&mut wakers);
        Some(result)
    }

    /// Takes the wakers of sleeping receivers. The caller holds the turn.
    #[inline(never)]
    fn take_sleepers(&self, wakers: &mut Wakers) {
        let mut left = self.chunks_in_use.load(Relaxed);
        let mut next = Some(self.first_chunk());
        while let (Some(at), 1..) = (next, left) {
            // SAFETY: chunks live as long as the topic.
            let chunk = unsafe { at.as_ref() };
            if chunk.waiting.load(Relaxed) != 0 {
                let live = chunk.live.load(order::live_read());
                // A bit that is not live yet stays: its receiver asks for attention itself.
                let mut sleeping = chunk.waiting.fetch_and(!live, Relaxed) & live;
                while sleeping != 0 {
                    let bit = sleeping.trailing_zeros();
                    sleeping &= sleeping - 1;
                    // SAFETY: the bit is live, and we hold the turn.
                    let mailbox = unsafe { Chunk::entry(at, bit) }
                        .with(|entry| unsafe { (*entry).mailbox() });
                    // SAFETY: a live entry's mailbox is kept by the registration until it is swept.
                    if let Some(waker) =
                        mailbox.and_then(|mailbox| unsafe { mailbox.as_ref() }.take_waker())
                    {
                        wakers.push(waker);
                    }
                }
            }
            next = chunk.next();
            left -= 1;
        }
    }

    /// Answers what was asked of the holder, and gives the turn back.
    #[inline(always)]
    pub(super) fn leave(&self, wakers: &mut Wakers) {
        let now = self.load(Relaxed);
        if !now.has(ATTN | SWEEP | OWED | MORE)
            && self.exchange(now, now.left(), order::turn_leave()).is_ok()
        {
            return;
        }
        self.answer_and_leave(wakers);
    }

    #[inline(never)]
    fn answer_and_leave(&self, wakers: &mut Wakers) {
        loop {
            let now = self.load(Relaxed);
            if now.has(SWEEP) {
                let answered = now.without(SWEEP).with(DONE);
                if self.exchange(now, answered, order::turn_answer()).is_ok() {
                    self.sweep();
                }
            } else if now.has(OWED) {
                self.settle_owed(now, wakers);
            } else if now.has(ATTN) && !planted(LEAVE_WITHOUT_ATTENTION) {
                let answered = now.without(ATTN).with(DONE);
                if self.exchange(now, answered, order::turn_answer()).is_ok() {
                    self.take_sleepers(wakers);
                }
            } else if self.exchange(now, now.left(), order::turn_leave()).is_ok() {
                if now.has(MORE) {
                    self.attached.turn_is_free();
                }
                return;
            }
        }
    }

    /// Turns the debt of lost pushes into tickets, and wakes everyone to learn of it.
    fn settle_owed(&self, now: Turn, wakers: &mut Wakers) {
        // Cleared before the debt is read: who adds to it later raises the flag again.
        if self
            .exchange(now, now.without(OWED).with(DONE), order::turn_answer())
            .is_err()
        {
            return;
        }
        let owed = self.owed.swap(0, Relaxed);
        if owed == 0 {
            return;
        }
        // Only the holder changes the ticket. Receivers read both before they are told of it.
        self.lost.store(self.lost.load(Relaxed) + owed, Relaxed);
        self.blind.store(now.ticket() + owed, Relaxed);
        self.update(order::turn_answer(), |turn| turn.advanced(owed));
        self.take_sleepers(wakers);
    }

    /// Declares every retired mailbox quiet, and leaves it to the writers.
    #[inline(never)]
    fn sweep(&self) {
        let mut next = NonNull::new(
            self.retired
                .swap(std::ptr::null_mut(), order::retired_take()),
        );
        while let Some(at) = next {
            // SAFETY: on the list, so the registration's reference is alive.
            next = NonNull::new(unsafe { at.as_ref() }.next.load(Relaxed));
            // SAFETY: as above; the reference goes on to the swept list.
            let mailbox = std::mem::ManuallyDrop::new(unsafe { Mailbox::<T>::adopt(at) });
            // A payload's drop is the user's code.
            contain(|| {
                // SAFETY: its closer cleared the live bit before it listed the mailbox, our walk is
                // over, and later walks see the bit cleared. Once, by the closed bit.
                unsafe { mailbox.set_quiet() }
            });
            self.put(&self.swept, at, order::swept_put());
        }
    }
}

impl<P, T, A> Walk<P, T, A>
where
    P: Deref<Target = Topic<T, A>>,
    A: Attached,
{
    /// Takes the turn, or gives the payload back.
    #[inline(always)]
    pub(crate) fn begin(topic: P, payload: T) -> Result<Self, Busy<T>> {
        let mut turn = topic.load(Relaxed);
        loop {
            if !turn.is_free() {
                return Err(if turn.has(SHUT) {
                    Busy::Shut(payload)
                } else {
                    Busy::Held(payload)
                });
            }
            let taken = turn.advanced(1).with(HELD);
            match topic.exchange(turn, taken, order::turn_acquire()) {
                Ok(()) => break,
                Err(now) => turn = now,
            }
        }
        let ticket = turn.ticket() + 1;
        let cursor = Cursor {
            ticket,
            stamp: Stamp::of(ticket),
            chunk: Some(topic.first_chunk()),
            chunks_left: topic.chunks_in_use.load(Relaxed),
            unvisited: u64::MAX,
            pushed: Pushed::default(),
            sleepers: false,
        };
        Ok(Self {
            topic,
            payload: Some(payload),
            cursor,
            left: false,
        })
    }

    /// Delivers to at most about `budget` subscribers; true at the end. A panic of the payload's
    /// clone costs that subscriber the payload, and nobody else.
    #[inline(always)]
    pub(crate) fn step(&mut self, budget: u32) -> bool
    where
        T: Clone,
    {
        let Self {
            topic,
            payload,
            cursor,
            ..
        } = self;
        loop {
            match contain(|| cursor.deliver(topic, payload, budget)) {
                Some(()) => return cursor.chunk.is_none(),
                None => cursor.pushed.panicked += 1,
            }
        }
    }

    /// Wakes those who sleep and gives the turn back.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> Pushed {
        self.leave();
        self.cursor.pushed
    }

    #[inline(always)]
    fn leave(&mut self) {
        self.left = true;
        let mut wakers = Wakers::new();
        // Who was not reached has a loss to learn of.
        if self.cursor.sleepers || self.cursor.chunk.is_some() {
            self.topic.take_sleepers(&mut wakers);
        }
        self.topic.leave(&mut wakers);
    }
}

impl Cursor {
    #[inline(always)]
    fn deliver<T: Clone, A>(&mut self, topic: &Topic<T, A>, payload: &mut Option<T>, budget: u32) {
        let mut budget = i64::from(budget);
        while let Some(at) = self.chunk {
            if budget <= 0 {
                return;
            }
            // SAFETY: chunks live as long as the topic.
            let chunk = unsafe { at.as_ref() };
            let mut live = chunk.live.load(order::live_read()) & self.unvisited;
            budget -= i64::from(live.count_ones());
            if self.chunks_left == 1 && live.is_power_of_two() {
                // The last one takes the payload itself.
                self.unvisited = 0;
                if let Some(payload) = payload.take() {
                    self.deliver_to(topic, at, live.trailing_zeros(), || payload);
                }
            } else if let Some(payload) = payload {
                while live != 0 {
                    let bit = live.trailing_zeros();
                    live &= live - 1;
                    // A clone that panics is not asked again.
                    self.unvisited = live;
                    self.deliver_to(topic, at, bit, || payload.clone());
                }
            }
            self.sleepers |= chunk.waiting.load(Relaxed) != 0;
            self.unvisited = u64::MAX;
            self.chunks_left -= 1;
            self.chunk = if self.chunks_left == 0 {
                None
            } else {
                chunk.next()
            };
        }
    }

    /// Delivers to one live entry. The caller holds the turn.
    #[inline(always)]
    fn deliver_to<T, A>(
        &mut self,
        topic: &Topic<T, A>,
        at: NonNull<Chunk>,
        bit: u32,
        payload: impl FnOnce() -> T,
    ) {
        // SAFETY: a set live bit is below the chunk's size.
        let entry = unsafe { Chunk::entry(at, bit) };
        entry.with_mut(|entry| {
            // SAFETY: a live entry belongs to the holder of the turn; its registration was made
            // visible by the live bit, and lasts until a holder or a free turn says it is quiet.
            let entry = unsafe { &mut *entry };
            if entry.is_evicting() {
                // SAFETY: as above.
                unsafe { entry.replace(self.ticket, topic.lost.load(Relaxed), payload) };
                self.pushed.reached += 1;
                return;
            }
            // SAFETY: as above.
            match unsafe { entry.deliver(self.stamp, payload) } {
                Delivered::Yes => self.pushed.reached += 1,
                Delivered::Full => self.pushed.full += 1,
            }
        });
    }
}

impl<P, T, A> Drop for Walk<P, T, A>
where
    P: Deref<Target = Topic<T, A>>,
    A: Attached,
{
    fn drop(&mut self) {
        if !self.left {
            self.leave();
        }
    }
}
