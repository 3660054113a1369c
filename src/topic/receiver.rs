//! The receiver's side: what comes next, what was missed, and how to sleep until then.
//!
//! A receiver accounts for every ticket after the one it started with: `last` is the last ticket
//! that it has reported, as a payload, as missed or as merged. A payload bears its ticket, so a gap
//! before it is a loss; a ticket that is complete and has no payload here is one as well.

use std::ptr::NonNull;
use std::task::Waker;

use super::chunk::Chunk;
use super::turn::{ATTN, OWED, SHUT, Stamp, Turn};
use super::{Attached, FirstNotice, Topic};
use crate::mailbox::{EvictReader, Mailbox, Overflow, RingReader};
use crate::sync::{Arc, Ordering::Relaxed, order, panics::contain};

/// What a receiver finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next<T> {
    Changed(T),
    Missed { n: u64, visible: bool },
    Empty,
    Ended,
}

/// What became of the pushes of a key, for one of its subscribers.
///
/// For a subscription that has been read to its end, or closed, `received + missed + merged +
/// discarded` is the number of pushes and losses that were ordered after its registration, as long
/// as no push overlapped its beginning or its end. One that a [`Closer`](crate::Closer) ended does
/// not learn what its full buffer had missed last: that is not among the discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Payloads that were received.
    pub received: u64,
    /// Pushes that were reported as missed.
    pub missed: u64,
    /// Pushes that a later one replaced ([`Overflow::Conflate`]).
    pub merged: u64,
    /// Pushes that the subscription's close discarded.
    pub discarded: u64,
}

enum Side {
    Ring(RingReader),
    Evicting(EvictReader),
}

/// The next payload's place in the order.
#[derive(Clone, Copy)]
struct Peeked {
    ticket: u64,
    lost: u64,
}

/// The one owner of a subscription's mailbox.
pub(crate) struct Receiver<T, A: Attached = ()> {
    topic: Arc<Topic<T, A>>,
    mailbox: Mailbox<T>,
    chunk: NonNull<Chunk>,
    side: Side,
    last: u64,
    /// The stamp of the ticket after `last`.
    expected: Stamp,
    /// Losses of the key that were accounted for (`Conflate` only).
    lost: u64,
    first: Option<Arc<FirstNotice<T>>>,
    bit: u8,
    conflate: bool,
    /// Whether the ticket after `last` was under way when this began: it may be here, and is not
    /// missed if it is not.
    overlap: bool,
    ended: bool,
    /// Whether the mailbox was told that nothing is taken any more.
    detached: bool,
    tally: Tally,
}

// SAFETY: the chunk pointer is to memory that the topic, which is held, owns; payloads are `Send`.
unsafe impl<T: Send, A: Attached + Send + Sync> Send for Receiver<T, A> {}
// SAFETY: a shared receiver gives out nothing but counts.
unsafe impl<T: Send, A: Attached + Send + Sync> Sync for Receiver<T, A> {}

impl<T, A: Attached> Receiver<T, A> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        topic: Arc<Topic<T, A>>,
        mailbox: Mailbox<T>,
        chunk: NonNull<Chunk>,
        bit: u32,
        overflow: Overflow,
        capacity: u16,
        turn: Turn,
        lost: u64,
    ) -> Self {
        let overlap = turn.in_flight();
        let last = turn.completed();
        let side = match overflow {
            Overflow::DropNewest => Side::Ring(RingReader::new(capacity)),
            _ => Side::Evicting(EvictReader::new(capacity)),
        };
        Self {
            topic,
            mailbox,
            chunk,
            side,
            last,
            expected: Stamp::of(last + 1),
            lost,
            first: None,
            bit: bit as u8,
            conflate: overflow == Overflow::Conflate,
            overlap,
            ended: false,
            detached: false,
            tally: Tally::default(),
        }
    }

    pub(crate) fn topic(&self) -> &Arc<Topic<T, A>> {
        &self.topic
    }

    pub(crate) fn mailbox(&self) -> &Mailbox<T> {
        &self.mailbox
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Makes this subscription's own first notice come in its place.
    pub(crate) fn await_first(&mut self) -> Arc<FirstNotice<T>> {
        let first = Arc::new(FirstNotice::new());
        self.first = Some(first.clone());
        first
    }

    #[inline(always)]
    fn peek(&mut self) -> Option<Peeked> {
        match &mut self.side {
            // SAFETY: this is the receiver, and holds the mailbox.
            Side::Ring(reader) => unsafe { reader.peek::<T>(self.mailbox.as_ptr()) }.map(|stamp| {
                let ticket = if stamp == self.expected {
                    self.last + 1
                } else {
                    stamp.ticket_after(self.last)
                };
                Peeked { ticket, lost: 0 }
            }),
            // SAFETY: as above.
            Side::Evicting(reader) => {
                unsafe { reader.peek::<T>(self.mailbox.as_ptr()) }.map(|found| Peeked {
                    ticket: found.ticket,
                    lost: found.lost,
                })
            }
        }
    }

    /// Takes what `peek` found.
    #[inline(always)]
    fn take(&mut self) -> T {
        match &mut self.side {
            // SAFETY: this is the receiver, and `peek` has just answered.
            Side::Ring(reader) => unsafe { reader.take(self.mailbox.as_ptr()) },
            // SAFETY: as above.
            Side::Evicting(reader) => unsafe { reader.take(self.mailbox.as_ptr()) },
        }
    }

    /// What comes next, without waiting. Lock-free; wait-free for `DropNewest`.
    #[inline]
    pub(crate) fn next(&mut self) -> Next<T> {
        if self.ended {
            return Next::Ended;
        }
        if self.mailbox.is_closed() {
            self.discard();
            return Next::Ended;
        }
        loop {
            let peeked = self.peek();
            if self.first.is_some()
                && let Some(next) = self.take_first(peeked)
            {
                return next;
            }
            match peeked {
                Some(found) if found.ticket == self.last + 1 => {
                    self.last += 1;
                    self.expected = self.expected.successor();
                    self.overlap = false;
                    self.tally.received += 1;
                    return Next::Changed(self.take());
                }
                Some(found) => {
                    if let Some(missed) = self.gap_before(found) {
                        return missed;
                    }
                }
                None => {
                    if let Some(next) = self.next_of_empty() {
                        return next;
                    }
                }
            }
        }
    }

    /// The first notice, if it stands before the payload that was found (or before everything);
    /// what was lost before it comes before it.
    fn take_first(&mut self, found: Option<Peeked>) -> Option<Next<T>> {
        let first = self.first.as_ref()?;
        let after = first.after()?;
        // What came before it may have come between the caller's look and ours.
        let found = found.or_else(|| self.peek());
        if found.is_some_and(|found| found.ticket <= after) {
            return None;
        }
        if after > self.last {
            let missed = match found {
                Some(found) => self.gap_before(found),
                None => {
                    let turn = self.topic.load(order::turn_read());
                    if self.peek().is_some() {
                        return None;
                    }
                    self.missed_by_now(turn)
                }
            };
            if missed.is_some() {
                return missed;
            }
        }
        let first = self.first.take()?;
        // SAFETY: this is the receiver, and the notice is there.
        let payload = unsafe { first.take() };
        Some(match payload {
            Some(payload) => Next::Changed(payload),
            None => Next::Missed {
                n: 1,
                visible: false,
            },
        })
    }

    /// Accounts for the tickets up to `to`, of which `missed` were lost.
    fn account(&mut self, to: u64, missed: u64) -> Option<Next<T>> {
        let visible = self.topic.blind.load(Relaxed) <= self.last;
        self.tally.merged += to - self.last - missed;
        self.tally.missed += missed;
        self.last = to;
        self.expected = Stamp::of(to + 1);
        (missed > 0).then_some(Next::Missed { n: missed, visible })
    }

    /// The tickets before the payload that was found.
    fn gap_before(&mut self, found: Peeked) -> Option<Next<T>> {
        self.pass_overlap();
        let gap = found.ticket - 1 - self.last;
        let missed = if self.conflate {
            let lost = found.lost.saturating_sub(self.lost).min(gap);
            self.lost = found.lost;
            lost
        } else {
            gap
        };
        self.account(found.ticket - 1, missed)
    }

    /// A push that was under way when this began did not come here: it does not count.
    fn pass_overlap(&mut self) {
        if std::mem::take(&mut self.overlap) {
            self.last += 1;
            self.expected = self.expected.successor();
        }
    }

    /// Nothing is here of what `turn` says is complete: all of it was missed.
    fn missed_by_now(&mut self, turn: Turn) -> Option<Next<T>> {
        self.pass_overlap();
        let missed = turn.completed().saturating_sub(self.last);
        self.lost = self.lost.wrapping_add(missed);
        self.account(turn.completed().max(self.last), missed)
    }

    /// Nothing is here: what is complete elsewhere was missed. `None` to look again.
    #[cold]
    fn next_of_empty(&mut self) -> Option<Next<T>> {
        let turn = self.topic.load(order::turn_read());
        if turn.completed() > self.last {
            // Delivered between the two looks? Then it is here now: the turn was read with Acquire.
            if self.peek().is_some() {
                return None;
            }
            if let Some(missed) = self.missed_by_now(turn) {
                return Some(missed);
            }
        }
        if turn.has(SHUT) && !turn.in_flight() && !turn.has(OWED) {
            // The first notice was filled before the end, or never will be.
            if self
                .first
                .as_ref()
                .is_some_and(|first| first.after().is_some())
            {
                return None;
            }
            self.end();
            return Some(Next::Ended);
        }
        Some(Next::Empty)
    }

    /// Makes the next push wake `waker`, then looks once more.
    pub(crate) fn next_or_wait(&mut self, waker: &Waker) -> Next<T> {
        // SAFETY: this is the receiver.
        unsafe { self.mailbox.header().register_waker(waker) };
        // SAFETY: chunks live as long as the topic. A bit set after a close may belong to the
        // entry's next owner, whom it costs a look into its waker's cell.
        unsafe { self.chunk.as_ref() }
            .waiting
            .fetch_or(1 << self.bit, Relaxed);
        self.topic.update(order::turn_wait(), |turn| {
            if turn.in_flight() {
                turn.with(ATTN)
            } else {
                turn
            }
        });
        self.next()
    }

    /// Takes the waker of a wait that is given up out of its cell.
    pub(crate) fn forget_waker(&mut self) {
        drop(self.mailbox.header().take_waker());
    }

    /// Ends the subscription, and drops what it has not read; true if it had not been ended before.
    /// Takes the writers' lock, waits for no push.
    pub(crate) fn close(&mut self) -> bool {
        let until = self.topic.retire(&self.mailbox);
        if !self.ended {
            self.discard();
        }
        if let Some(until) = until {
            // Also what was missed, and not reported before the end.
            self.tally.discarded += until.saturating_sub(self.last);
            self.last = self.last.max(until);
        }
        until.is_some()
    }

    /// The registration ended: drops what is here.
    #[cold]
    fn discard(&mut self) {
        self.end();
        while let Some(found) = self.peek() {
            if found.ticket > self.last + 1 {
                self.pass_overlap();
            }
            self.tally.discarded += found.ticket - self.last;
            self.last = found.ticket;
            self.expected = Stamp::of(found.ticket + 1);
            let payload = self.take();
            // Its drop is the user's code, and others are still to be dropped.
            contain(|| drop(payload));
        }
        self.detach();
    }

    /// Nothing is taken any more: what a push under way still writes, it drops.
    fn detach(&mut self) {
        if !std::mem::replace(&mut self.detached, true) {
            // SAFETY: this is the receiver, `ended` or being dropped, and here only once.
            unsafe { self.mailbox.set_detached() };
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.first = None;
        self.forget_waker();
    }
}

impl<T, A: Attached> Drop for Receiver<T, A> {
    fn drop(&mut self) {
        self.topic.retire(&self.mailbox);
        if let Side::Evicting(reader) = &self.side
            && reader.has_claimed()
        {
            let payload = self.take();
            contain(|| drop(payload));
        }
        self.forget_waker();
        self.detach();
    }
}

impl<T, A: Attached> std::fmt::Debug for Receiver<T, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("mailbox", &self.mailbox)
            .field("tally", &self.tally)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
