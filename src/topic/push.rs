//! The pusher's side: taking the turn, the walk over the subscribers, leaving.

use std::ops::Deref;
use std::ptr::NonNull;

use super::chunk::Chunk;
use super::faults::{LEAVE_WITHOUT_ATTENTION, planted};
use super::sleepers::Sleepers;
use super::turn::{ATTN, DONE, HELD, MORE, OWED, SHUT, SWEEP, Turn};
use super::wakers::Wakers;
use super::{Attached, Topic};
use crate::mailbox::{Entry, Header, Mailbox, Stamp};
use crate::sync::{Ordering::Relaxed, order, panics::contain};

/// Subscribers of a chunk of full size.
const CHUNK: u32 = Chunk::FULL_SIZE;

/// The bits of such a chunk.
const ALL: u64 = u64::MAX >> (u64::BITS - CHUNK);

/// The payload comes back: the topic could not be pushed to.
#[derive(Debug)]
pub(crate) enum Busy<T> {
    /// Another push is under way.
    Held(T),
    /// The registry is closed.
    Shut(T),
}

impl<T> Busy<T> {
    fn of(turn: Turn, payload: T) -> Self {
        if turn.has(SHUT) {
            Self::Shut(payload)
        } else {
            Self::Held(payload)
        }
    }
}

/// What a push did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pushed {
    /// Subscribers that got the payload.
    pub(crate) reached: u32,
    /// Subscribers whose buffer was full: they did not get it, or lost their oldest payload for it.
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
}

/// How far a walk has come.
struct Cursor {
    ticket: u64,
    stamp: Stamp,
    /// The chunk to go on with; none at the end.
    chunk: Option<NonNull<Chunk>>,
    chunks_left: u32,
    /// Whether there are so many chunks that fetching ahead pays.
    far: bool,
    /// Bits of the chunk that are still to be visited.
    unvisited: u64,
    pushed: Pushed,
    sleepers: bool,
    /// Where the wakes go on, once they have begun.
    waking: Option<Sleepers>,
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
        let ticket = match self.take_turn() {
            Ok(ticket) => ticket,
            Err(turn) => return Err(Busy::of(turn, payload)),
        };
        let payload = match self.push_to_one(ticket, payload) {
            Ok(pushed) => return Ok(pushed),
            Err(payload) => payload,
        };
        let mut walk = Walk::holding(self, ticket, payload);
        while !walk.step(u32::MAX) {}
        let pushed = walk.finish();
        if pushed.panicked > 0 {
            self.attached.payloads_panicked(pushed.panicked);
        }
        Ok(pushed)
    }

    /// Takes the turn for a push, whose ticket it returns, or tells why it cannot.
    #[inline(always)]
    fn take_turn(&self) -> Result<u64, Turn> {
        let mut turn = self.load(Relaxed);
        loop {
            if !turn.is_free() {
                return Err(turn);
            }
            let taken = turn.advanced(1).with(HELD);
            match self.exchange(turn, taken, order::turn_acquire()) {
                Ok(()) => return Ok(taken.ticket()),
                Err(now) => turn = now,
            }
        }
    }

    /// The push of most keys: moves the payload to the one subscriber, into a ring with room, and
    /// leaves. Anything else is a walk's; the payload then comes back, and the turn stays taken.
    #[inline(always)]
    fn push_to_one(&self, ticket: u64, payload: T) -> Result<Pushed, T> {
        let chunk = &self.first.chunk;
        if self.chunks_in_use.load(Relaxed) != 1 || chunk.live.load(order::live_read()) == 0 {
            return Err(payload);
        }
        // SAFETY: the first chunk's only entry.
        let entry = unsafe { Chunk::entry(self.first_chunk(), 0) };
        // SAFETY: as for `Visit::deliver_to`: the entry is live, and we hold the turn.
        let entry = entry.with(|entry| unsafe { *entry });
        // SAFETY: as above.
        if unsafe { entry.is_no_ring() } {
            return Err(payload);
        }
        // SAFETY: as above; and it is a ring.
        match unsafe { entry.vacant() } {
            // SAFETY: as above.
            Some(slot) => unsafe { Entry::fill(slot, Stamp::of(ticket), payload) },
            None => return Err(payload),
        }
        let sleepers = (chunk.waiting.load(Relaxed) != 0).then(|| self.all_chunks());
        self.leave_after(ticket, sleepers);
        Ok(Pushed {
            reached: 1,
            ..Pushed::default()
        })
    }

    /// Gives the turn back after the push of a ticket; see [`Topic::leave`].
    #[inline(always)]
    fn leave_after(&self, ticket: u64, sleepers: Option<Sleepers>) {
        // The word as `take_turn` made it: nobody came by.
        let ours = Turn(0).advanced(ticket).with(HELD);
        if sleepers.is_some()
            || self
                .exchange(ours, ours.left(), order::turn_leave())
                .is_err()
        {
            self.leave(sleepers);
        }
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
        self.leave(None);
        Some(result)
    }

    /// Takes the wakers of sleeping receivers. The caller holds the turn.
    #[inline(never)]
    fn take_sleepers(&self, wakers: &mut Wakers) {
        self.all_chunks().take(wakers, u32::MAX);
    }

    /// Every chunk that may have sleepers.
    fn all_chunks(&self) -> Sleepers {
        Sleepers::from(self.first_chunk(), self.chunks_in_use.load(Relaxed))
    }

    /// Wakes those who sleep, answers what was asked of the holder, and gives the turn back.
    /// Apart from the way out that meets nobody, since the wakers take half a kilobyte of stack.
    #[cold]
    #[inline(never)]
    pub(super) fn leave(&self, sleepers: Option<Sleepers>) {
        // Woken when dropped, after the turn is free.
        let mut wakers = Wakers::new();
        if let Some(mut sleepers) = sleepers {
            if sleepers.may_be_many() {
                // Who is woken before the turn is free finds the push complete, and asks for no further
                // look.
                self.update(order::turn_answer(), |turn| turn.with(DONE));
            }
            sleepers.take(&mut wakers, u32::MAX);
        }
        self.answer_and_leave(&mut wakers);
    }

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
        // Only the holder changes the ticket. A receiver that sees it sees where it became blind.
        self.blind.store(now.ticket() + owed, Relaxed);
        self.update(order::turn_answer(), |turn| turn.advanced(owed));
        // Last, so that a subscriber that sees the losses knows that their tickets overlap it.
        self.lost
            .store(self.lost.load(Relaxed) + owed, order::lost_count());
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
            next = NonNull::new(unsafe { Header::tail(at) }.next.load(Relaxed));
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
        match topic.take_turn() {
            Ok(ticket) => Ok(Self::holding(topic, ticket, payload)),
            Err(turn) => Err(Busy::of(turn, payload)),
        }
    }

    /// A walk for the ticket with which the turn was taken.
    #[inline(always)]
    fn holding(topic: P, ticket: u64, payload: T) -> Self {
        let chunks = topic.chunks_in_use.load(Relaxed);
        let cursor = Cursor {
            ticket,
            stamp: Stamp::of(ticket),
            chunk: Some(topic.first_chunk()),
            chunks_left: chunks,
            far: chunks > FAR,
            unvisited: u64::MAX,
            pushed: Pushed::default(),
            sleepers: false,
            waking: None,
        };
        Self {
            topic,
            payload: Some(payload),
            cursor,
        }
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
                Some(()) if cursor.chunk.is_some() => return false,
                Some(()) => break,
                None => cursor.pushed.panicked += 1,
            }
        }
        !cursor.sleepers || self.wake_some(budget / CHUNK)
    }

    /// Wakes the sleepers of so many chunks, and leaves no more than those of as many for the end;
    /// true when that is so.
    #[inline(never)]
    fn wake_some(&mut self, chunks: u32) -> bool {
        let chunks = chunks.max(1);
        let (topic, cursor) = (&self.topic, &mut self.cursor);
        let sleepers = cursor.waking.get_or_insert_with(|| topic.all_chunks());
        if sleepers.left <= chunks {
            return true;
        }
        // Who is woken now finds the push complete, and asks for no further look.
        topic.update(order::turn_answer(), |turn| turn.with(DONE));
        sleepers.take(&mut Wakers::new(), chunks);
        false
    }

    /// Wakes those who sleep and gives the turn back. Panics are the caller's to report.
    #[inline(always)]
    pub(crate) fn finish(self) -> Pushed {
        self.cursor.pushed
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
            let live = chunk.live.load(order::live_read()) & self.unvisited;
            let next = if self.chunks_left == 1 {
                None
            } else {
                chunk.next()
            };
            budget -= i64::from(live.count_ones());
            if self.chunks_left == 1 && live.is_power_of_two() {
                // The last one takes the payload itself.
                if let Some(payload) = payload.take() {
                    let bit = live.trailing_zeros();
                    Visit::new(self, 0).deliver_to(topic, at, bit, || payload);
                }
            } else if let Some(payload) = payload {
                match next {
                    Some(next) if self.far => self.visit_far(topic, at, live, next, payload),
                    _ => self.visit(topic, at, live, payload, || ()),
                }
            }
            self.sleepers |= chunk.waiting.load(Relaxed) != 0;
            self.unvisited = u64::MAX;
            self.chunks_left -= 1;
            self.chunk = next;
        }
    }

    /// Delivers clones to the live entries of a chunk, and calls `before` before each.
    #[inline(always)]
    fn visit<T: Clone, A>(
        &mut self,
        topic: &Topic<T, A>,
        at: NonNull<Chunk>,
        live: u64,
        payload: &T,
        mut before: impl FnMut(),
    ) {
        let mut visit = Visit::new(self, live);
        if live == ALL {
            // As most chunks of a key with many subscribers are: no search for the next bit.
            for bit in 0..CHUNK {
                before();
                // A clone that panics is not asked again.
                visit.unvisited = ALL & (ALL << bit << 1);
                visit.deliver_to(topic, at, bit, || payload.clone());
            }
            return;
        }
        while visit.unvisited != 0 {
            before();
            let bit = visit.unvisited.trailing_zeros();
            // A clone that panics is not asked again.
            visit.unvisited &= visit.unvisited - 1;
            visit.deliver_to(topic, at, bit, || payload.clone());
        }
    }

    /// As [`Cursor::visit`], and fetches the mailboxes of the next chunk meanwhile.
    #[inline(never)]
    fn visit_far<T: Clone, A>(
        &mut self,
        topic: &Topic<T, A>,
        at: NonNull<Chunk>,
        live: u64,
        next: NonNull<Chunk>,
        payload: &T,
    ) {
        // SAFETY: chunks live as long as the topic.
        let mut ahead = unsafe { next.as_ref() }.live.load(order::live_read());
        self.visit(topic, at, live, payload, || {
            if ahead != 0 {
                // SAFETY: a set live bit is below the chunk's size.
                let entry = unsafe { Chunk::entry(next, ahead.trailing_zeros()) };
                // SAFETY: as for `Visit::deliver_to`; a bit that is cleared meanwhile leaves the
                // entry as it is until we have left.
                entry.with(|entry| unsafe { (*entry).prefetch::<T>() });
                ahead &= ahead - 1;
            }
        });
    }
}

/// From how many chunks on a walk fetches ahead: the lines it touches then outgrow the nearer
/// caches between two pushes. Below, the look ahead costs more than it saves.
const FAR: u32 = if cfg!(afterwrite_loom) { 1 } else { 32 };

/// A walk within one chunk: what changes with each entry, kept in registers. Its drop, which a
/// panicking clone runs as well, tells the cursor.
struct Visit<'a> {
    cursor: &'a mut Cursor,
    unvisited: u64,
    /// Entries visited without a panic, and those of them that were full and took nothing.
    visited: u32,
    full: u32,
}

impl Drop for Visit<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.cursor.unvisited = self.unvisited;
        self.cursor.pushed.reached += self.visited - self.full;
        self.cursor.pushed.full += self.full;
    }
}

impl<'a> Visit<'a> {
    #[inline(always)]
    fn new(cursor: &'a mut Cursor, unvisited: u64) -> Self {
        Self {
            cursor,
            unvisited,
            visited: 0,
            full: 0,
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
        // SAFETY: a live entry belongs to the holder of the turn; its registration was made visible
        // by the live bit, and lasts until a holder or a free turn says it is quiet.
        let entry = entry.with(|entry| unsafe { *entry });
        // SAFETY: as above.
        if unsafe { entry.is_no_ring() } {
            let lost = topic.lost.load(Relaxed);
            // SAFETY: as above.
            let evicted = unsafe { entry.replace(self.cursor.ticket, lost, payload) };
            self.cursor.pushed.full += u32::from(evicted);
        } else {
            // SAFETY: as above.
            match unsafe { entry.vacant() } {
                // SAFETY: as above; a payload that panics comes before the slot is touched.
                Some(slot) => unsafe { Entry::fill(slot, self.cursor.stamp, payload()) },
                None => self.full += 1,
            }
        }
        self.visited += 1;
    }
}

impl<P, T, A> Drop for Walk<P, T, A>
where
    P: Deref<Target = Topic<T, A>>,
    A: Attached,
{
    #[inline(always)]
    fn drop(&mut self) {
        // Who was not reached has a loss to learn of.
        let unreached = self.cursor.chunk.is_some();
        let sleepers = (self.cursor.sleepers || unreached).then(|| {
            self.cursor
                .waking
                .unwrap_or_else(|| self.topic.all_chunks())
        });
        self.topic.leave_after(self.cursor.ticket, sleepers);
        // Nobody took it: its drop is the user's code.
        if std::mem::needs_drop::<T>()
            && let Some(payload) = self.payload.take()
        {
            contain(|| drop(payload));
        }
    }
}
