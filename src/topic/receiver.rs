//! The receiver's side: what comes next, what was missed, and how to sleep until then.
//!
//! A receiver accounts for every ticket after the one it started with: `last` is the last ticket
//! that it has reported, as a payload, as missed or as merged. A payload bears its ticket, so a gap
//! before it is a loss; a ticket that is complete and has no payload here is one as well.

mod accounts;

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::task::Waker;

use super::chunk;
use super::faults::{self, planted};
use super::turn::{ATTN, OWED, SHUT, Turn};
use super::{Attached, FirstNotice, Topic};
use crate::arena::Shared;
use crate::mailbox::{Cells, EvictOwn, Flags, Header, InRing, Ledger, Mailbox, Overflow, Place};
use crate::sync::{Arc, Ordering::Relaxed, order, panics::contain};

pub use accounts::Tally;

/// What a receiver finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next<T> {
    Changed(T),
    Missed { n: u64, visible: bool },
    Empty,
    Ended,
}

/// The next payload's place in the order.
#[derive(Clone, Copy)]
struct Peeked {
    ticket: u64,
    lost: u64,
    slot: Slot,
}

/// Where it is.
#[derive(Clone, Copy)]
enum Slot {
    Ring(InRing),
    /// Claimed already.
    Record,
    /// The last push.
    Mark,
}

/// What few receivers have need of; made when it is first needed.
struct Extra<T> {
    /// The subscription's own first notice, until it is taken.
    first: Option<Arc<FirstNotice<T>>>,
    /// What the rooms above had counted for the key when the subscription began.
    counted: [u64; 2],
    /// Pushes up to this ticket overlapped the registration, so they may be here, and are not missed if
    /// they are not.
    overlapped: u64,
    /// Losses of the key that are none of this subscription's, which conflates.
    lost: u64,
}

/// The one owner of a subscription's mailbox, and of a count of its topic. One word: where it stands is
/// in the mailbox, and the topic is where the mailbox's entry is.
pub(crate) struct Receiver<T, A: Attached = ()> {
    mailbox: Mailbox<T>,
    _topic: PhantomData<Shared<Topic<T, A>>>,
}

impl<T, A: Attached> Receiver<T, A> {
    /// # Safety
    /// The mailbox is registered with a topic, of which the receiver takes over a count.
    pub(super) unsafe fn new(
        mailbox: Mailbox<T>,
        overflow: Overflow,
        before: Turn,
        joined: Turn,
        lost: u64,
    ) -> Self {
        let mut receiver = Self {
            mailbox,
            _topic: PhantomData,
        };
        receiver.place().last = before.completed();
        match receiver.mailbox.cells() {
            Cells::Ring => {}
            Cells::Evicting => receiver.place().flags.set(Flags::EVICTING),
            Cells::Latest => receiver.place().flags.set(Flags::LATEST),
        }
        receiver.ledger().start = before.completed();
        if joined.ticket() > before.completed() {
            receiver.extra_mut().overlapped = joined.ticket();
        }
        if overflow == Overflow::Conflate {
            receiver.place().flags.set(Flags::CONFLATE);
            if lost != 0 {
                receiver.extra_mut().lost = lost;
            }
        }
        receiver
    }

    #[inline(always)]
    fn place(&mut self) -> &mut Place {
        // SAFETY: this is the receiver, borrowed for as long as the result.
        unsafe { self.mailbox.header().place() }
    }

    #[inline(always)]
    fn ledger(&mut self) -> &mut Ledger {
        // SAFETY: this is the receiver, borrowed for as long as the result.
        unsafe { self.mailbox.ledger() }
    }

    #[inline(always)]
    fn evict_own(&mut self) -> Option<&mut EvictOwn> {
        // SAFETY: this is the receiver, borrowed for as long as the result, and the mailbox evicts.
        (self.flags().has(Flags::EVICTING)).then(|| unsafe { self.mailbox.evict_own() })
    }

    fn extra(&self) -> Option<&Extra<T>> {
        // SAFETY: this is the receiver, borrowed for as long as the result, and what it put there is a
        // box of this type.
        unsafe { self.mailbox.peek_ledger().extra.cast::<Extra<T>>().as_ref() }
    }

    /// What there is of it already.
    fn extra_if_any(&mut self) -> Option<&mut Extra<T>> {
        // SAFETY: as for `extra`.
        unsafe { self.ledger().extra.cast::<Extra<T>>().as_mut() }
    }

    fn extra_mut(&mut self) -> &mut Extra<T> {
        let at = &mut self.ledger().extra;
        if at.is_null() {
            let extra: Box<Extra<T>> = Box::new(Extra {
                first: None,
                counted: [0; 2],
                overlapped: 0,
                lost: 0,
            });
            *at = Box::into_raw(extra).cast();
        }
        // SAFETY: as for `extra`; it is there.
        unsafe { &mut *at.cast::<Extra<T>>() }
    }

    fn flags(&self) -> Flags {
        // SAFETY: this is the receiver, borrowed; the flags are copied.
        unsafe { self.mailbox.header().peek_place() }.flags
    }

    pub(crate) fn topic(&self) -> &Topic<T, A> {
        // SAFETY: registered with a topic of this type, of which the receiver has a count.
        unsafe { chunk::topic_of(&self.mailbox).as_ref() }
    }

    /// Another count of the topic.
    pub(crate) fn clone_topic(&self) -> Shared<Topic<T, A>> {
        // SAFETY: the receiver has a count, which this leaves to it.
        let ours = ManuallyDrop::new(unsafe { Shared::from_raw(chunk::topic_of(&self.mailbox)) });
        Shared::clone(&ours)
    }

    pub(crate) fn mailbox(&self) -> &Mailbox<T> {
        &self.mailbox
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.flags().has(Flags::ENDED)
    }

    /// Makes this subscription's own first notice come in its place.
    pub(crate) fn await_first(&mut self) -> Arc<FirstNotice<T>> {
        let first = Arc::new(FirstNotice::new());
        self.extra_mut().first = Some(first.clone());
        self.place().flags.set(Flags::FIRST);
        first
    }

    /// Keeps what the rooms above had counted for the key when this subscription began.
    pub(crate) fn keep_counted(&mut self, counted: [u64; 2]) {
        // Most keys never count anything.
        if counted != [0; 2] {
            self.extra_mut().counted = counted;
        }
    }

    /// What was kept.
    pub(crate) fn counted(&self) -> [u64; 2] {
        self.extra().map_or([0; 2], |extra| extra.counted)
    }

    fn first(&self) -> Option<&Arc<FirstNotice<T>>> {
        self.extra()?.first.as_ref()
    }

    /// Whether the gate of the first notice expired in silence.
    pub(crate) fn has_skipped_first(&self) -> bool {
        self.first().is_some_and(|first| first.is_skipped())
    }

    #[inline(always)]
    fn peek(&mut self) -> Option<Peeked> {
        let mailbox = self.mailbox.as_ptr();
        if let Some(own) = self.evict_own() {
            // SAFETY: this is the receiver, and holds the mailbox, which evicts.
            let found = unsafe { own.reader.peek::<T>(mailbox) };
            return found.map(|found| Peeked {
                ticket: found.ticket,
                lost: found.lost,
                slot: Slot::Record,
            });
        }
        if self.flags().has(Flags::LATEST) {
            return self.peek_mark();
        }
        let place = self.place();
        // SAFETY: as above, but it is a ring.
        let found = unsafe { place.oldest(mailbox) }?;
        Some(Peeked {
            ticket: place.ticket_of(found),
            lost: 0,
            slot: Slot::Ring(found),
        })
    }

    #[inline(never)]
    fn peek_mark(&mut self) -> Option<Peeked> {
        // SAFETY: the mailbox has a mark alone.
        let mark = unsafe { self.mailbox.mark() };
        // Read after the mark, and so no earlier than its push.
        let ticket = mark.ticket_until(self.topic().load(order::turn_read()).ticket());
        (ticket > self.place().last).then(|| Peeked {
            ticket,
            lost: mark.lost_from(self.known_lost()),
            slot: Slot::Mark,
        })
    }

    /// Takes what `peek` found.
    #[inline(always)]
    fn take(&mut self, slot: Slot) -> T {
        let mailbox = self.mailbox.as_ptr();
        match slot {
            // SAFETY: this is the receiver, and `peek` has just answered.
            Slot::Ring(found) => unsafe { self.place().take(mailbox, found) },
            // SAFETY: as above; only an evicting mailbox has records.
            Slot::Record => unsafe { self.mailbox.evict_own().reader.take(mailbox) },
            // SAFETY: as above; only a mailbox with a mark alone has marks.
            Slot::Mark => unsafe { self.mailbox.payload_of_mark() },
        }
    }

    /// What comes next, without waiting. Lock-free; wait-free for `DropNewest`.
    #[inline]
    pub(crate) fn next(&mut self) -> Next<T> {
        let mailbox = self.mailbox.as_ptr();
        let closed = self.mailbox.is_closed();
        let place = self.place();
        if place.flags == Flags::NONE && !closed {
            // SAFETY: this is the receiver, it holds the mailbox, which is a ring without the flag.
            if let Some(payload) = unsafe { place.take_next(mailbox) } {
                return Next::Changed(payload);
            }
        }
        self.next_of_any()
    }

    /// What comes next when it is not simply the next payload of a ring.
    #[inline(never)]
    fn next_of_any(&mut self) -> Next<T> {
        if self.has_ended() {
            return Next::Ended;
        }
        if self.mailbox.is_closed() {
            self.discard(None);
            return Next::Ended;
        }
        loop {
            let peeked = self.peek();
            if self.flags().has(Flags::FIRST)
                && let Some(next) = self.take_first(peeked)
            {
                return next;
            }
            match peeked {
                Some(found) if found.ticket == self.place().last + 1 => {
                    self.place().last += 1;
                    return Next::Changed(self.take(found.slot));
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
        let first = self.first()?;
        let Some(after) = first.after() else {
            if first.is_skipped() {
                // Kept to be counted, no longer awaited.
                self.place().flags.clear(Flags::FIRST);
            }
            return None;
        };
        // What came before it may have come between the caller's look and ours.
        let found = found.or_else(|| self.peek());
        if found.is_some_and(|found| found.ticket <= after) {
            return None;
        }
        let conflate = self.flags().has(Flags::CONFLATE);
        let missed = match found {
            // Which of the tickets before the payload were lost, it does not say.
            Some(found) if conflate && after > self.place().last => self.gap_before(found),
            _ => self.account_lost(after),
        };
        if missed.is_some() {
            return missed;
        }
        let first = self.extra_if_any()?.first.take()?;
        self.place().flags.clear(Flags::FIRST);
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

    /// Nothing is here: what is complete elsewhere was missed. `None` to look again.
    #[cold]
    fn next_of_empty(&mut self) -> Option<Next<T>> {
        let turn = self.topic().load(order::turn_read());
        if turn.completed() > self.place().last {
            // Delivered between the two looks? Then it is here now: the turn was read with Acquire.
            if self.peek().is_some() && !planted(faults::MISS_AFTER_ONE_LOOK) {
                return None;
            }
            // Closed before those pushes? Then that shows by now as well, and they are not missed.
            if self.mailbox.is_closed() {
                self.discard(None);
                return Some(Next::Ended);
            }
            // The first notice was filled between the two looks, before those losses? That shows by now too.
            if !planted(faults::LOSS_BEFORE_FIRST)
                && self.flags().has(Flags::FIRST)
                && self.first().is_some_and(|first| first.after().is_some())
            {
                return None;
            }
            if let Some(missed) = self.account_lost(turn.completed()) {
                return Some(missed);
            }
        }
        // Whoever holds the turn may yet count losses, or fill the first notice. `ATTN` comes with `SHUT`,
        // and is answered last: when it is gone all is delivered and counted. That the turn be free is
        // not asked for, since who is woken under it would be woken for nothing, and ask again.
        let over = !turn.has(ATTN | OWED) && !turn.in_flight() || planted(faults::END_WHILE_HELD);
        if turn.has(SHUT) && over {
            // The first notice was filled before the end, or never will be.
            if self.first().is_some_and(|first| first.after().is_some()) {
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
        unsafe { Header::register_waker(self.mailbox.as_ptr(), waker) };
        // A bit set after a close may belong to the entry's next owner, whom it costs a look into its
        // waker's cell.
        let (chunk, bit) = chunk::home(&self.mailbox);
        chunk.waiting.fetch_or(1 << bit, Relaxed);
        if planted(faults::SLEEP_WITHOUT_TURN) {
            return self.next();
        }
        self.topic().update(order::turn_wait(), |turn| {
            // A holder past its deliveries does not concern us: what it did our last look finds.
            if turn.in_flight() {
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
        let waker = self.mailbox.take_waker();
        // Its drop is the user's code.
        contain(|| drop(waker));
    }

    /// Ends the subscription, drops what it has not read, and leaves what a push under way still
    /// delivers to that push; true if it had not been ended before. Takes the writers' lock, waits
    /// for no push.
    pub(crate) fn close(&mut self) -> bool {
        let until = self.topic().retire_own(&self.mailbox);
        if !self.has_ended() {
            self.discard(until);
        } else if let Some(until) = until {
            // The registry had ended; losses may have come since.
            self.settle(0, until);
        }
        until.is_some()
    }

    /// The subscription ended, after the push of this ticket if that is known: drops what is here, and
    /// counts what is not.
    #[cold]
    fn discard(&mut self, until: Option<u64>) {
        let mut discarded = 0;
        // Behind a mark nothing lies.
        while !self.flags().has(Flags::LATEST)
            && let Some(found) = self.peek()
        {
            let payload = self.take(found.slot);
            self.pass_overlapped(found.ticket - 1);
            discarded += found.ticket - self.place().last;
            self.place().last = found.ticket;
            // Its drop is the user's code, and others are still to be dropped.
            contain(|| drop(payload));
        }
        // Also what was missed, and not reported before the end.
        let until = until.unwrap_or_else(|| {
            // Whoever ended it may not have said yet which ticket that was. In this order: a ticket of
            // after the close shows only with what the close had said.
            let now = self.topic().load(order::turn_read()).completed();
            self.mailbox.ended_after().unwrap_or(now)
        });
        self.pass_overlapped(until);
        self.settle(discarded, until);
        self.end();
        self.detach();
    }

    /// Leaves what may still be delivered to whoever finds that nothing more can be.
    fn detach(&mut self) {
        if !self.flags().has(Flags::DETACHED) {
            self.place().flags.set(Flags::DETACHED);
            // SAFETY: this is the receiver, and it takes nothing any more: all callers are at its end.
            unsafe { self.mailbox.set_detached() };
        }
    }

    /// Nothing comes any more.
    fn end(&mut self) {
        self.place().flags.set(Flags::ENDED);
        if !self.has_skipped_first()
            && let Some(extra) = self.extra_if_any()
        {
            let first = extra.first.take();
            // A notice's drop is the user's code.
            contain(|| drop(first));
        }
        self.forget_waker();
    }
}

impl<T, A: Attached> Drop for Receiver<T, A> {
    fn drop(&mut self) {
        // Closed already, as a rule, by whoever held the registration, and waited for there.
        if !self.mailbox.is_closed() {
            self.topic().retire_own(&self.mailbox);
        }
        if self.evict_own().is_some_and(|own| own.reader.has_claimed()) {
            let payload = self.take(Slot::Record);
            contain(|| drop(payload));
        }
        self.forget_waker();
        self.detach();
        let extra = self.ledger().extra.cast::<Extra<T>>();
        if !extra.is_null() {
            // SAFETY: this is the receiver, at its end, and what it put there is a box of this type.
            let extra = unsafe { Box::from_raw(extra) };
            // A first notice's drop is the user's code.
            contain(|| drop(extra));
        }
        // SAFETY: the receiver's count, given up at its end; the mailbox does without.
        drop(unsafe { Shared::from_raw(chunk::topic_of::<T, A>(&self.mailbox)) });
    }
}

impl<T, A: Attached> std::fmt::Debug for Receiver<T, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("mailbox", &self.mailbox)
            .field("tally", &self.tally())
            .field("ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}
