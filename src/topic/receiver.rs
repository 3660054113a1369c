//! The receiver's side: what comes next, what was missed, and how to sleep until then.
//!
//! A receiver accounts for every ticket after the one it started with: `last` is the last ticket
//! that it has reported, as a payload, as missed or as merged. A payload bears its ticket, so a gap
//! before it is a loss; a ticket that is complete and has no payload here is one as well.

use std::ptr::NonNull;
use std::task::Waker;

use super::chunk::Chunk;
use super::faults::{self, planted};
use super::turn::{ATTN, HELD, SHUT, Stamp, Turn};
use super::{Attached, FirstNotice, Topic};
use crate::mailbox::{EvictReader, Mailbox, Overflow, RingReader};
use crate::sync::{Arc, Ordering::Relaxed, order};

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
/// as no push overlapped its beginning or its end.
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
    /// Pushes up to this ticket overlapped the registration: they may be here, and are not missed if
    /// they are not.
    overlapped: u64,
    /// The stamp of the ticket after `last`.
    expected: Stamp,
    /// Losses of the key that were accounted for (`Conflate` only).
    lost: u64,
    first: Option<Arc<FirstNotice<T>>>,
    bit: u8,
    conflate: bool,
    ended: bool,
    /// Whether the mailbox was left to the pusher.
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
        before: Turn,
        joined: Turn,
        lost: u64,
    ) -> Self {
        let last = before.completed();
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
            overlapped: joined.ticket(),
            expected: Stamp::of(last + 1),
            lost,
            first: None,
            bit: bit as u8,
            conflate: overflow == Overflow::Conflate,
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

    /// The first notice, if it stands before the payload that was found (or before everything), or
    /// the losses before it.
    fn take_first(&mut self, found: Option<Peeked>) -> Option<Next<T>> {
        let after = self.first.as_ref()?.after()?;
        // What came before it may have come between the caller's look and ours.
        let found = found.or_else(|| self.peek());
        if found.is_some_and(|found| found.ticket <= after) {
            return None;
        }
        let missed = match found {
            // Which of the tickets before the payload were lost, it does not say.
            Some(found) if self.conflate && after > self.last => self.gap_before(found),
            _ => self.account_lost(after),
        };
        if missed.is_some() {
            return missed;
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

    /// Accounts for the tickets up to `to`, all of which were lost.
    fn account_lost(&mut self, to: u64) -> Option<Next<T>> {
        self.pass_overlapped(to);
        let missed = to.saturating_sub(self.last);
        if missed == 0 {
            return None;
        }
        self.lost = self.lost.wrapping_add(missed);
        self.account(to, missed)
    }

    /// The tickets before the payload that was found.
    fn gap_before(&mut self, found: Peeked) -> Option<Next<T>> {
        self.pass_overlapped(found.ticket - 1);
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

    /// Of the tickets up to `to`, none of which is here, those that overlapped the registration do
    /// not count.
    fn pass_overlapped(&mut self, to: u64) {
        let passed = to.min(self.overlapped);
        if passed > self.last {
            self.last = passed;
            self.expected = Stamp::of(passed + 1);
        }
    }

    /// Nothing is here: what is complete elsewhere was missed. `None` to look again.
    #[cold]
    fn next_of_empty(&mut self) -> Option<Next<T>> {
        let turn = self.topic.load(order::turn_read());
        if turn.completed() > self.last {
            // Delivered between the two looks? Then it is here now: the turn was read with Acquire.
            if self.peek().is_some() && !planted(faults::MISS_AFTER_ONE_LOOK) {
                return None;
            }
            // Closed before those pushes? Then that shows by now as well, and they are not missed.
            if self.mailbox.is_closed() {
                self.discard();
                return Some(Next::Ended);
            }
            if let Some(missed) = self.account_lost(turn.completed()) {
                return Some(missed);
            }
        }
        // Whoever holds the turn may yet count losses, or fill the first notice.
        let held = turn.has(HELD) && !planted(faults::END_WHILE_HELD);
        if turn.has(SHUT) && !held {
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
        if planted(faults::SLEEP_WITHOUT_TURN) {
            return self.next();
        }
        self.topic.update(order::turn_wait(), |turn| {
            // Past the deliveries a holder concerns only those who wait for the end.
            if turn.in_flight() || (turn.has(SHUT) && turn.has(HELD)) {
                turn.with(ATTN)
            } else {
                turn
            }
        });
        if planted(faults::SLEEP_WITHOUT_LOOK) {
            return Next::Empty;
        }
        self.next()
    }

    /// Takes the waker of a wait that is given up out of its cell.
    pub(crate) fn forget_waker(&mut self) {
        drop(self.mailbox.header().take_waker());
    }

    /// Ends the subscription; drops what it has not read, and leaves what a push under way still
    /// delivers to that push. Takes the writers' lock, waits for no push.
    pub(crate) fn close(&mut self) {
        if self.ended {
            return;
        }
        let until = self.topic.retire(&self.mailbox);
        self.discard();
        if let Some(until) = until {
            self.pass_overlapped(until);
            // Also what was missed, and not reported before the end.
            self.tally.discarded += until.saturating_sub(self.last);
            self.last = self.last.max(until);
        }
    }

    /// The registration ended: drops what is here.
    #[cold]
    fn discard(&mut self) {
        self.end();
        while let Some(found) = self.peek() {
            self.pass_overlapped(found.ticket - 1);
            self.tally.discarded += found.ticket - self.last;
            self.last = found.ticket;
            self.expected = Stamp::of(found.ticket + 1);
            drop(self.take());
        }
        self.detach();
    }

    /// Leaves what may still be delivered to whoever finds that nothing more can be.
    fn detach(&mut self) {
        if !std::mem::replace(&mut self.detached, true) {
            // SAFETY: this is the receiver, and it takes nothing any more: all callers are at its end.
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
            drop(self.take());
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
