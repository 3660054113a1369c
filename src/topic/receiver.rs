//! The receiver's side: what comes next, what was missed, and how to sleep until then.
//!
//! A receiver accounts for every ticket after the one it started with: `last` is the last ticket
//! that it has reported, as a payload, as missed or as merged. A payload bears its ticket, so a gap
//! before it is a loss; a ticket that is complete and has no payload here is one as well.

use std::task::Waker;

use super::chunk;
use super::faults::{self, planted};
use super::turn::{ATTN, OWED, SHUT, Turn};
use super::{Attached, FirstNotice, Topic};
use crate::mailbox::{EvictOwn, Flags, Header, InRing, Ledger, Mailbox, Overflow, Place};
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
/// as no push overlapped its beginning or its end. One that a [`Closer`](crate::Closer) ended counts what
/// it discarded when it is next asked for a notice, or closed.
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

/// The next payload's place in the order.
#[derive(Clone, Copy)]
struct Peeked {
    ticket: u64,
    lost: u64,
    /// Where it is, unless the mailbox evicts.
    slot: Option<InRing>,
}

/// What few receivers have need of.
struct Origin<T> {
    /// The subscription's own first notice, until it is taken.
    first: Option<Arc<FirstNotice<T>>>,
    /// What the rooms above had counted for the key when the subscription began.
    counted: [u64; 2],
}

/// The one owner of a subscription's mailbox. 24 bytes: where it stands is in the mailbox.
pub(crate) struct Receiver<T, A: Attached = ()> {
    mailbox: Mailbox<T>,
    topic: Arc<Topic<T, A>>,
    origin: Option<Box<Origin<T>>>,
}

impl<T, A: Attached> Receiver<T, A> {
    pub(super) fn new(
        topic: Arc<Topic<T, A>>,
        mailbox: Mailbox<T>,
        overflow: Overflow,
        before: Turn,
        joined: Turn,
        lost: u64,
    ) -> Self {
        let mut receiver = Self {
            mailbox,
            topic,
            origin: None,
        };
        let place = receiver.place();
        place.last = before.completed();
        if overflow != Overflow::DropNewest {
            place.flags.set(Flags::EVICTING);
        }
        if overflow == Overflow::Conflate {
            place.flags.set(Flags::CONFLATE);
        }
        let ledger = receiver.ledger();
        ledger.start = before.completed();
        ledger.overlapped_or_discarded = joined.ticket();
        if let Some(own) = receiver.evict_own() {
            own.lost = lost;
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

    /// Pushes up to this ticket overlapped the registration.
    fn overlapped(&mut self) -> u64 {
        match self.has_ended() {
            true => 0,
            false => self.ledger().overlapped_or_discarded,
        }
    }

    fn flags(&self) -> Flags {
        // SAFETY: this is the receiver, borrowed; the flags are copied.
        unsafe { self.mailbox.header().peek_place() }.flags
    }

    pub(crate) fn topic(&self) -> &Arc<Topic<T, A>> {
        &self.topic
    }

    pub(crate) fn mailbox(&self) -> &Mailbox<T> {
        &self.mailbox
    }

    pub(crate) fn tally(&self) -> Tally {
        // SAFETY: this is the receiver, borrowed; the results are copied from.
        let (place, ledger) = unsafe {
            (
                self.mailbox.header().peek_place(),
                self.mailbox.peek_ledger(),
            )
        };
        let merged = match place.flags.has(Flags::EVICTING) {
            // SAFETY: as above, and the mailbox evicts.
            true => unsafe { self.mailbox.peek_evict_own() }.merged,
            false => 0,
        };
        let discarded = match place.flags.has(Flags::ENDED) {
            true => ledger.overlapped_or_discarded,
            false => 0,
        };
        let missed = ledger.missed;
        Tally {
            received: place.last - ledger.start - missed - merged - discarded,
            missed,
            merged,
            discarded,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.flags().has(Flags::ENDED)
    }

    /// Makes this subscription's own first notice come in its place.
    pub(crate) fn await_first(&mut self) -> Arc<FirstNotice<T>> {
        let first = Arc::new(FirstNotice::new());
        self.origin().first = Some(first.clone());
        self.place().flags.set(Flags::FIRST);
        first
    }

    /// Keeps what the rooms above had counted for the key when this subscription began.
    pub(crate) fn keep_counted(&mut self, counted: [u64; 2]) {
        // Most keys never count anything.
        if counted != [0; 2] {
            self.origin().counted = counted;
        }
    }

    /// What was kept.
    pub(crate) fn counted(&self) -> [u64; 2] {
        self.origin.as_ref().map_or([0; 2], |origin| origin.counted)
    }

    fn origin(&mut self) -> &mut Origin<T> {
        self.origin.get_or_insert_with(|| {
            Box::new(Origin {
                first: None,
                counted: [0; 2],
            })
        })
    }

    fn first(&self) -> Option<&Arc<FirstNotice<T>>> {
        self.origin.as_ref()?.first.as_ref()
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
                slot: None,
            });
        }
        let place = self.place();
        // SAFETY: as above, but it is a ring.
        let found = unsafe { place.oldest(mailbox) }?;
        Some(Peeked {
            ticket: place.ticket_of(found),
            lost: 0,
            slot: Some(found),
        })
    }

    /// Takes what `peek` found.
    #[inline(always)]
    fn take(&mut self, slot: Option<InRing>) -> T {
        let mailbox = self.mailbox.as_ptr();
        match slot {
            // SAFETY: this is the receiver, and `peek` has just answered.
            Some(found) => unsafe { self.place().take(mailbox, found) },
            // SAFETY: as above; it names a slot unless the mailbox evicts.
            None => unsafe { self.mailbox.evict_own().reader.take(mailbox) },
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
            self.discard();
            return Next::Ended;
        }
        loop {
            let peeked = self.peek();
            if self.first().is_some()
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
        let first = self.origin.as_mut()?.first.take()?;
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

    /// Accounts for the tickets up to `to`, of which `missed` were lost.
    fn account(&mut self, to: u64, missed: u64) -> Option<Next<T>> {
        let last = self.place().last;
        let visible = self.topic.blind.load(Relaxed) <= last;
        if let Some(own) = self.evict_own() {
            own.merged += to - last - missed;
        }
        self.ledger().missed += missed;
        self.place().last = to;
        (missed > 0).then_some(Next::Missed { n: missed, visible })
    }

    /// Accounts for the tickets up to `to`, all of which were lost.
    fn account_lost(&mut self, to: u64) -> Option<Next<T>> {
        self.pass_overlapped(to);
        let missed = to.saturating_sub(self.place().last);
        if missed == 0 {
            return None;
        }
        if let Some(own) = self.evict_own() {
            own.lost = own.lost.wrapping_add(missed);
        }
        self.account(to, missed)
    }

    /// The tickets before the payload that was found.
    fn gap_before(&mut self, found: Peeked) -> Option<Next<T>> {
        self.pass_overlapped(found.ticket - 1);
        let gap = found.ticket - 1 - self.place().last;
        let conflates = self.flags().has(Flags::CONFLATE);
        let missed = match self.evict_own() {
            Some(own) if conflates => {
                let lost = found.lost.saturating_sub(own.lost).min(gap);
                own.lost = found.lost;
                lost
            }
            _ => gap,
        };
        self.account(found.ticket - 1, missed)
    }

    /// Of the tickets up to `to`, none of which is here, those that overlapped the registration do
    /// not count.
    fn pass_overlapped(&mut self, to: u64) {
        let last = self.place().last;
        let passed = to.min(self.overlapped());
        if passed > last {
            self.ledger().start += passed - last;
            self.place().last = passed;
        }
    }

    /// Nothing is here: what is complete elsewhere was missed. `None` to look again.
    #[cold]
    fn next_of_empty(&mut self) -> Option<Next<T>> {
        let turn = self.topic.load(order::turn_read());
        if turn.completed() > self.place().last {
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
        // Whoever holds the turn may yet count losses, or fill the first notice. `ATTN` comes with `SHUT`,
        // and is answered last: when it is gone all is delivered and counted. That the turn be free is
        // not asked for, since who is woken under it would be woken for nothing, and ask again.
        let over = !turn.has(ATTN | OWED) && !turn.in_flight() || planted(faults::END_WHILE_HELD);
        if turn.has(SHUT) && over {
            // The first notice was filled before the end, or never will be.
            if self.first().is_some_and(|first| first.after().is_some()) {
                return None;
            }
            self.ledger().overlapped_or_discarded = 0;
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
        self.topic.update(order::turn_wait(), |turn| {
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
        drop(self.mailbox.take_waker());
    }

    /// Ends the subscription, drops what it has not read, and leaves what a push under way still
    /// delivers to that push; true if it had not been ended before. Takes the writers' lock, waits
    /// for no push.
    pub(crate) fn close(&mut self) -> bool {
        let until = self.topic.retire(&self.mailbox);
        if !self.has_ended() {
            self.discard();
        } else if let Some(until) = until {
            // The registry had ended; losses may have come since.
            self.discard_up_to(until);
        }
        until.is_some()
    }

    /// The subscription ended: drops what is here, and counts what is not.
    #[cold]
    fn discard(&mut self) {
        let mut discarded = 0;
        while let Some(found) = self.peek() {
            self.pass_overlapped(found.ticket - 1);
            discarded += found.ticket - self.place().last;
            self.place().last = found.ticket;
            let payload = self.take(found.slot);
            // Its drop is the user's code, and others are still to be dropped.
            contain(|| drop(payload));
        }
        // Also what was missed, and not reported before the end. Whoever ended it may not have said yet
        // which ticket that was.
        let now = self.topic.load(order::turn_read()).completed();
        let until = self.mailbox.tail().end_after(now);
        self.pass_overlapped(until);
        self.ledger().overlapped_or_discarded = discarded;
        self.end();
        self.discard_up_to(until);
        self.detach();
    }

    /// Counts the tickets up to `until` as discarded. After the end.
    fn discard_up_to(&mut self, until: u64) {
        let last = self.place().last;
        self.ledger().overlapped_or_discarded += until.saturating_sub(last);
        self.place().last = last.max(until);
    }

    /// Leaves what may still be delivered to whoever finds that nothing more can be.
    fn detach(&mut self) {
        if !self.flags().has(Flags::DETACHED) {
            self.place().flags.set(Flags::DETACHED);
            // SAFETY: this is the receiver, and it takes nothing any more: all callers are at its end.
            unsafe { self.mailbox.set_detached() };
        }
    }

    /// From here on the ledger says what was discarded, and no more what overlapped.
    fn end(&mut self) {
        self.place().flags.set(Flags::ENDED);
        if !self.has_skipped_first() {
            self.origin
                .iter_mut()
                .for_each(|origin| origin.first = None);
        }
        self.forget_waker();
    }
}

impl<T, A: Attached> Drop for Receiver<T, A> {
    fn drop(&mut self) {
        // Closed already, as a rule, by whoever held the registration, and waited for there.
        if !self.mailbox.is_closed() {
            self.topic.retire(&self.mailbox);
        }
        if self.evict_own().is_some_and(|own| own.reader.has_claimed()) {
            let payload = self.take(None);
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
            .field("tally", &self.tally())
            .field("ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}
