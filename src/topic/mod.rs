//! One key: its subscribers, and the turn that orders all that happens to it.
//!
//! # Who takes part
//! - *the holder*: the one thread that has taken the turn. It alone touches the entries of the
//!   chunks, and so the pusher's side of every mailbox; but a shard that fetches ahead reads the first entry of a
//!   topic, atomically, and follows it nowhere. A thread that finds the turn taken never
//!   waits for it: a publisher hands its payload to the shard, the shard asks to be rung (`MORE`),
//!   a loss is left as a debt (`OWED`).
//! - *receivers*: one for each mailbox.
//! - *writers*: threads that subscribe or close. They lock only each other.
//!
//! # The protocol
//! ```text
//!  holder      CAS free -> HELD, ticket + 1 | deliver to every live entry | answer flags | leave
//!  subscriber  the ticket it starts after   | entry, live bit | RMW turn: later pushes must come
//!  closer      clear live bit               | RMW turn: free? quiet now : SWEEP, the holder does it
//!  receiver    empty: waker, waiting bit    | RMW turn (ATTN if a delivery is under way) | look again
//!  loser       owed += n                    | RMW turn: OWED, or hold it and count
//! ```
//!
//! # Why a close can never race a send
//! Everyone comes by the turn with a read-modify-write, so for a closer C and a holder H there are
//! three cases:
//! 1. C's RMW comes before H's acquiring CAS. H reads from C's RMW or a later one, so it sees the
//!    live bit cleared and never touches the mailbox.
//! 2. C's RMW comes after H left. C finds the turn free, sees all of H's deliveries, and later
//!    holders fall under case 1: the mailbox is quiet.
//! 3. C's RMW comes between. It finds `HELD` and sets `SWEEP` in the same step, so H cannot leave
//!    without answering; it finds C's mailbox on the retired list, after its last delivery, and
//!    declares it quiet.
//!
//! # Why no wake-up is lost
//! For a receiver R that found nothing, and a holder H: R's RMW before H's CAS lets H see the
//! waiting bit when it looks for sleepers; after H's last answer, R's second look sees the delivery;
//! between, R sets `ATTN` unless the deliveries are complete (`DONE`), and H must look for sleepers
//! again. R's waiting bit is cleared by the holder that takes it, or with the entry, never by R: a
//! bit too many costs a look into an empty waker cell, a bit too few would cost a wake-up.
//!
//! # What a push does not do
//! It takes no lock, and neither allocates nor frees: swept mailboxes go to a list that writers
//! empty. [`Turn`] tells the flags, [`chunk`] the layout of the walk.

mod chunk;
pub(crate) mod faults;
mod first;
mod push;
mod receiver;
mod sleepers;
#[cfg(all(test, not(afterwrite_loom)))]
mod tests;
mod turn;
mod wakers;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ptr::NonNull;

use crate::arena::Shared;
use crate::mailbox::{Entry, Header, Mailbox, Overflow};
use crate::sync::{
    AtomicPtr, AtomicU32, AtomicU64, Mutex,
    Ordering::{self, Relaxed},
    order, panics,
    prefetch::{WORKS, prefetch},
};

use chunk::{Chunk, FirstChunk};
use faults::{bits_without, planted};
use turn::{ATTN, DONE, HELD, OWED, SHUT, SWEEP, Turn};

pub(crate) use first::FirstNotice;
pub(crate) use push::{Busy, Pushed, Walk};
pub use receiver::Tally;
pub(crate) use receiver::{Next, Receiver};

/// What a topic carries for the rooms above it.
pub(crate) trait Attached {
    /// The turn, which the shard asked for, is free.
    fn turn_is_free(&self) {}

    /// In a push that is over, so many payloads panicked.
    fn payloads_panicked(&self, n: u32) {
        let _ = n;
    }
}

impl Attached for () {}

/// One key's subscribers. `A` is what the rooms above keep with a key.
pub(crate) struct Topic<T, A = ()> {
    turn: AtomicU64,
    /// Losses of the whole key that the ticket counts, ever. Written by the holder.
    lost: AtomicU64,
    /// The last ticket that counts a loss of the whole key. Written by the holder.
    blind: AtomicU64,
    /// Losses that the ticket does not count yet.
    owed: AtomicU64,
    retired: AtomicPtr<Header>,
    swept: AtomicPtr<Header>,
    chunks_in_use: AtomicU32,
    subscribers: AtomicU32,
    first: FirstChunk,
    writers: Mutex<Writers>,
    pub(crate) attached: A,
    _payload: std::marker::PhantomData<fn(T) -> T>,
}

/// What writers know; behind their lock. Small, since most keys have few subscribers.
#[derive(Default)]
struct Writers {
    first_in_use: bool,
    more: Option<Box<MoreChunks>>,
}

#[derive(Default)]
struct MoreChunks {
    /// Chunks 1, 2, ..., with how many entries of each are in use.
    chunks: Vec<(NonNull<Chunk>, u32)>,
    free: BinaryHeap<Reverse<u32>>,
    /// Positions from here on have never been in use.
    fresh: u32,
    /// How many of `chunks` a walk has to visit: up to the last one with an entry in use.
    visited: usize,
}

// SAFETY: the chunk pointers are to memory that the topic owns, reached under the writers' lock.
unsafe impl Send for Writers {}

// SAFETY: payloads move between threads through mailboxes (`T: Send`); entries are touched by the
// holder of the turn alone, or by a writer before they are live or after they are quiet; who fetches ahead reads
// the first one as an atomic, which is how it is written.
unsafe impl<T: Send, A: Send + Sync> Send for Topic<T, A> {}
// SAFETY: as above; no `&T` is given out.
unsafe impl<T: Send, A: Send + Sync> Sync for Topic<T, A> {}

/// Why a topic took no subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    Full,
    /// The caller's own condition did not hold.
    Denied,
    Shut,
}

impl<T, A: Attached> Topic<T, A> {
    pub(crate) fn new(attached: A) -> Self {
        Self {
            turn: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            blind: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            retired: AtomicPtr::new(std::ptr::null_mut()),
            swept: AtomicPtr::new(std::ptr::null_mut()),
            chunks_in_use: AtomicU32::new(1),
            subscribers: AtomicU32::new(0),
            first: FirstChunk::new(),
            writers: Mutex::new(Writers::default()),
            attached,
            _payload: std::marker::PhantomData,
        }
    }

    fn first_chunk(&self) -> NonNull<Chunk> {
        NonNull::from(&self.first).cast()
    }

    /// The first chunk by the topic's own pointer, so that [`chunk::topic_of`] finds that again.
    fn first_chunk_of(topic: NonNull<Self>) -> NonNull<Chunk> {
        // SAFETY: within the topic.
        unsafe { topic.byte_add(std::mem::offset_of!(Self, first)).cast() }
    }

    fn load(&self, ordering: Ordering) -> Turn {
        Turn(self.turn.load(ordering))
    }

    fn exchange(&self, from: Turn, to: Turn, ordering: Ordering) -> Result<(), Turn> {
        match self
            .turn
            .compare_exchange_weak(from.0, to.0, ordering, Relaxed)
        {
            Ok(_) => Ok(()),
            Err(now) => Err(Turn(now)),
        }
    }

    /// Changes the turn by one read-modify-write; returns the word before and after.
    fn update(&self, ordering: Ordering, mut to: impl FnMut(Turn) -> Turn) -> (Turn, Turn) {
        let mut now = self.load(Relaxed);
        loop {
            let next = to(now);
            match self.exchange(now, next, ordering) {
                Ok(()) => return (now, next),
                Err(found) => now = found,
            }
        }
    }

    /// Brings what a push of a key with few subscribers touches towards this core.
    #[inline]
    pub(crate) fn prefetch(&self) {
        const LINE: usize = 64;
        let base = std::ptr::from_ref(self).cast::<u8>();
        for line in 0..size_of::<Self>().div_ceil(LINE) {
            prefetch(base.wrapping_add(line * LINE));
        }
    }

    /// Brings the first subscriber's mailbox towards this core, where the topic itself has arrived: for one that is the
    /// key's only one. Reads the entry as it may be written meanwhile, and nothing of the mailbox.
    #[inline]
    pub(crate) fn prefetch_first(&self) {
        if WORKS {
            self.first.peek().prefetch::<T>();
        }
    }

    /// How many subscribers there are. Wait-free.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.load(Relaxed) as usize
    }

    /// Whether nothing begins any more. Wait-free.
    pub(crate) fn is_shut(&self) -> bool {
        self.load(Relaxed).has(SHUT)
    }

    /// Adds a subscriber. Takes the writers' lock.
    #[cfg(any(test, afterwrite_loom))]
    pub(crate) fn subscribe(
        topic: &Shared<Self>,
        overflow: Overflow,
        capacity: u16,
        limit: usize,
    ) -> Result<Receiver<T, A>, Refused>
    where
        T: 'static,
    {
        Self::subscribe_if(topic, overflow, capacity, limit, || true)
    }

    /// Adds a subscriber if there is room, and then `allowed`, which is asked once, also says so; the
    /// caller takes back what it gave if the topic turns out shut. Takes the writers' lock.
    pub(crate) fn subscribe_if(
        topic: &Shared<Self>,
        overflow: Overflow,
        capacity: u16,
        limit: usize,
        allowed: impl FnOnce() -> bool,
    ) -> Result<Receiver<T, A>, Refused>
    where
        T: 'static,
    {
        let (mine, theirs) = Mailbox::<T>::new(overflow, capacity);
        let mut writers = topic.writers.lock();
        let swept = topic.take_swept(&mut writers);
        let refused = if topic.subscribers() >= limit {
            Some(Refused::Full)
        } else if allowed() {
            None
        } else {
            Some(Refused::Denied)
        };
        if let Some(refused) = refused {
            drop(writers);
            drop(swept);
            return Err(refused);
        }
        // The receiver's count.
        let counted = Shared::into_raw(topic.clone());
        let first = Self::first_chunk_of(counted);
        let position = writers.take_position(first, counted.cast());
        topic.chunks_in_use.store(writers.chunks_in_use(), Relaxed);
        let (number, bit) = chunk::locate(position);
        let chunk = writers.chunk(first, number);
        mine.set_home(chunk.cast(), bit);
        let registered = theirs.into_raw();
        // SAFETY: the position is free, so no walk reaches the entry before the bit is set.
        unsafe { Chunk::entry(chunk, bit) }.with_mut(|entry| {
            // SAFETY: as above; who fetches ahead peeks.
            unsafe { Entry::put(entry, registered) }
        });
        // Pushes complete by now leave the entry alone: their walks looked at `live` before they left,
        // and `live_set` puts this load before a look that finds the bit. Those between this and the
        // RMW below may come or not, later ones do.
        let before = topic.load(Relaxed);
        // Losses that show here have a ticket that the RMW below sees, so that they are passed over as
        // overlapping. One that has a ticket before it shows is reported once too often at most, and only
        // for a call that overlaps this one; the other way about one would be swallowed.
        let lost = topic.lost.load(order::lost_read());
        mine.begin_after(before.completed(), lost);
        // SAFETY: chunks live as long as the topic.
        unsafe { chunk.as_ref() }
            .live
            .fetch_or(1 << bit, order::live_set());
        let (_, joined) = topic.update(order::turn_join(), |turn| turn);
        topic.subscribers.fetch_add(1, Relaxed);
        drop(writers);
        drop(swept);
        let before = if planted(faults::BEGIN_AFTER_LIVE) {
            joined
        } else {
            before
        };
        // SAFETY: it was registered with the topic, of which this is a count.
        let receiver = unsafe { Receiver::new(mine, overflow, before, joined, lost) };
        if joined.has(SHUT) {
            // Dropping the receiver takes the registration back.
            return Err(Refused::Shut);
        }
        Ok(receiver)
    }

    /// Ends a subscription, once; later calls do nothing. Returns the ticket up to which pushes
    /// were ordered before the end, to the one caller that ended it. Takes the writers' lock, never
    /// waits for a push. When it returns no push that begins later touches the mailbox, whoever ended
    /// the subscription: the lock is taken first, so that a later caller finds an earlier one done.
    pub(crate) fn retire(&self, mailbox: &Mailbox<T>) -> Option<u64> {
        self.retire_and(mailbox, |until| mailbox.end_after(until))
    }

    /// As [`Topic::retire`], for the receiver, which needs not be told of the ticket elsewhere.
    fn retire_own(&self, mailbox: &Mailbox<T>) -> Option<u64> {
        self.retire_and(mailbox, |_| ())
    }

    /// `tell` is told the ticket, under the lock: who comes later finds it.
    #[inline]
    fn retire_and(&self, mailbox: &Mailbox<T>, tell: impl FnOnce(u64)) -> Option<u64> {
        if planted(faults::CLOSED_BEFORE_IT_IS) && mailbox.is_closed() {
            return None;
        }
        let mut writers = self.writers.lock();
        if !mailbox.close() {
            return None;
        }
        let waker = mailbox.take_waker();
        let (chunk, bit) = chunk::home(mailbox);
        let live = bits_without(faults::CLOSE_LEAVES_LIVE, 1 << bit);
        chunk.live.fetch_and(!live, Relaxed);
        chunk.waiting.fetch_and(!(1 << bit), Relaxed);
        self.subscribers.fetch_sub(1, Relaxed);
        let mut listed = false;
        let held = |turn: Turn| turn.has(HELD) && !planted(faults::CLOSE_IGNORES_HOLDER);
        let (_, turn) = self.update(order::turn_retire(), |turn| {
            if !held(turn) {
                return turn;
            }
            if !listed {
                listed = true;
                self.put(&self.retired, mailbox.as_ptr(), order::retired_put());
            }
            turn.with(bits_without(faults::CLOSE_ASKS_FOR_NO_SWEEP, SWEEP))
        });
        // Listed and then free after all: either the last holder found it on the list, or it is
        // the only one there, since every earlier closer's `SWEEP` was answered before the leave.
        let quiet = !held(turn)
            && (!listed
                || !self
                    .retired
                    .swap(std::ptr::null_mut(), order::retired_take())
                    .is_null());
        if quiet {
            writers.give_back(chunk.start + bit);
            self.chunks_in_use.store(writers.chunks_in_use(), Relaxed);
        }
        let until = turn.completed();
        tell(until);
        let swept = self.take_swept(&mut writers);
        drop(writers);
        drop(swept);
        if quiet {
            // SAFETY: the topic's reference, which the entry no longer stands for.
            let registered = unsafe { Mailbox::<T>::adopt(mailbox.as_ptr()) };
            // A payload's drop is the user's code.
            panics::contain(|| {
                // SAFETY: cases 1 and 2 of the module's argument; once, by the closed bit.
                unsafe { registered.set_quiet() }
            });
        }
        if let Some(waker) = waker {
            panics::wake(waker);
        }
        Some(until)
    }

    /// Adds a mailbox to one of the two lists.
    fn put(&self, list: &AtomicPtr<Header>, mailbox: NonNull<Header>, ordering: Ordering) {
        // SAFETY: the registration's reference keeps it alive while it is on a list.
        let tail = unsafe { Header::tail(mailbox) };
        let mut head = list.load(Relaxed);
        loop {
            tail.next.store(head, Relaxed);
            match list.compare_exchange_weak(head, mailbox.as_ptr(), ordering, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Frees the entries of swept mailboxes; their references go when the result is dropped, which
    /// must be after the lock.
    fn take_swept(&self, writers: &mut Writers) -> Option<Swept<T>> {
        if self.swept.load(Relaxed).is_null() {
            return None;
        }
        let first = self.swept.swap(std::ptr::null_mut(), order::swept_take());
        let mut next = NonNull::new(first);
        while let Some(mailbox) = next {
            // SAFETY: on the list, so the registration's reference is alive, and it was registered in a
            // chunk of this topic.
            let (tail, position) = unsafe { (Header::tail(mailbox), chunk::position(mailbox)) };
            writers.give_back(position);
            next = NonNull::new(tail.next.load(Relaxed));
        }
        self.chunks_in_use.store(writers.chunks_in_use(), Relaxed);
        Some(Swept {
            first: NonNull::new(first),
            _payload: std::marker::PhantomData,
        })
    }

    /// Counts `n` pushes that no subscriber gets. Lock-free, allocates nothing.
    pub(crate) fn lose(&self, n: u64) {
        self.owed.fetch_add(n, Relaxed);
        let (before, _) = self.update(order::turn_owe(), |turn| {
            if turn.has(HELD) {
                turn.with(bits_without(faults::LOSS_WITHOUT_FLAG, OWED))
            } else {
                turn.with(HELD | DONE | OWED)
            }
        });
        if !before.has(HELD) {
            self.leave(None);
        }
    }

    /// Lets nothing begin any more, and wakes every receiver. A push under way ends as it would.
    pub(crate) fn shut(&self) {
        let (before, _) = self.update(order::turn_owe(), |turn| {
            if turn.has(HELD) {
                turn.with(SHUT | ATTN)
            } else {
                turn.with(HELD | DONE | SHUT | ATTN)
            }
        });
        if !before.has(HELD) {
            self.leave(None);
        }
    }

    /// Holds every writer off; for tests that prove that nothing else needs the lock.
    #[cfg(test)]
    pub(crate) fn lock_writers(&self) -> impl Drop + '_ {
        struct Locked<'a>(#[allow(dead_code)] crate::sync::MutexGuard<'a, Writers>);
        impl Drop for Locked<'_> {
            fn drop(&mut self) {}
        }
        Locked(self.writers.lock())
    }
}

impl Writers {
    fn chunk(&self, first: NonNull<Chunk>, number: usize) -> NonNull<Chunk> {
        match (&self.more, number) {
            (Some(more), number @ 1..) => more.chunks[number - 1].0,
            _ => first,
        }
    }

    /// The lowest free position; links a chunk when all are in use.
    fn take_position(&mut self, first: NonNull<Chunk>, topic: NonNull<()>) -> u32 {
        if !self.first_in_use {
            self.first_in_use = true;
            return 0;
        }
        let more = self.more.get_or_insert_with(|| {
            Box::new(MoreChunks {
                fresh: chunk::start_of_chunk(1),
                ..MoreChunks::default()
            })
        });
        let position = match more.free.pop() {
            Some(Reverse(position)) => position,
            None => {
                more.fresh += 1;
                more.fresh - 1
            }
        };
        let (number, _) = chunk::locate(position);
        if number > more.chunks.len() {
            let fresh = Chunk::allocate(number, topic);
            let last = more.chunks.last().map_or(first, |&(chunk, _)| chunk);
            // SAFETY: chunks live as long as the topic.
            unsafe { last.as_ref() }.link(fresh);
            more.chunks.push((fresh, 0));
        }
        more.chunks[number - 1].1 += 1;
        more.visited = more.visited.max(number);
        position
    }

    fn give_back(&mut self, position: u32) {
        if position == 0 {
            self.first_in_use = false;
        } else if let Some(more) = &mut self.more {
            more.chunks[chunk::locate(position).0 - 1].1 -= 1;
            more.free.push(Reverse(position));
            while more.visited > 0 && more.chunks[more.visited - 1].1 == 0 {
                more.visited -= 1;
            }
        }
    }

    /// Up to which chunk a walk has to go.
    fn chunks_in_use(&self) -> u32 {
        self.more.as_deref().map_or(0, |more| more.visited) as u32 + 1
    }
}

/// Mailboxes that a holder declared quiet, taken off the topic's list.
struct Swept<T> {
    first: Option<NonNull<Header>>,
    _payload: std::marker::PhantomData<T>,
}

impl<T> Drop for Swept<T> {
    fn drop(&mut self) {
        while let Some(mailbox) = self.first {
            // SAFETY: the list held the registration's reference, which this takes over.
            let registered = unsafe { Mailbox::<T>::adopt(mailbox) };
            self.first = NonNull::new(registered.tail().next.load(Relaxed));
        }
    }
}

impl<T, A> Drop for Topic<T, A> {
    fn drop(&mut self) {
        // Receivers and closers hold the topic, so every mailbox was retired; those that a holder
        // swept after the last writer are still listed.
        let first = self.swept.load(Relaxed);
        drop(Swept::<T> {
            first: NonNull::new(first),
            _payload: std::marker::PhantomData,
        });
        // SAFETY: nobody else can reach the topic.
        let mut next = unsafe { NonNull::from(&self.first).cast::<Chunk>().as_ref() }.unlink();
        while let Some(chunk) = next {
            // SAFETY: linked by `take_position`, from `Chunk::allocate`.
            unsafe {
                next = chunk.as_ref().unlink();
                Chunk::free(chunk);
            }
        }
    }
}

impl<T, A> std::fmt::Debug for Topic<T, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let turn = Turn(self.turn.load(Relaxed));
        f.debug_struct("Topic")
            .field("ticket", &turn.ticket())
            .field("held", &turn.has(HELD))
            .field("subscribers", &self.subscribers.load(Relaxed))
            .finish_non_exhaustive()
    }
}
