//! The outside of a shard: what other threads see of it.
//!
//! # Handing over
//! A submitter counts its job in (`load`), puts it into the queue, rings the bell, and only then
//! looks whether the shard has emptied its queue for the last time (`finished`).
//!
//! # Closing strands nobody
//! The shard sets `finished` and empties the queue under the `stranded` lock. For a submitter S:
//! 1. S sent before that emptying ended: the shard has the job, and accounts for it.
//! 2. S sent after it. flume's lock orders S's send after the shard's look, which is after
//!    `finished`, so S sees `finished` and takes the `stranded` lock. Whatever it finds in the queue
//!    came the same way: it puts the jobs on the stranded list, from which each such submitter
//!    takes its own, and answers `Closed`.
//!
//! So `finished` needs no ordering of its own. A submitter of case 1 may see `finished` as well; it then finds its job neither in the queue nor
//! stranded, and answers `Queued`. Jobs are told apart by an address on their caller's stack, which no
//! other call has while this one lasts.

use std::sync::atomic::{AtomicBool as StdAtomicBool, AtomicU64 as StdAtomicU64};

use crossbeam_utils::CachePadded;

use super::bell::{Bell, MAIL};
use super::channel::Channel;
use super::faults::{NO_LOOK_AFTER_HAND_OVER, planted};
use super::job::{Job, Message, Refusal};
use super::ready::ReadyList;
use super::settings::Settings;
use crate::arena::Shared;
use crate::sync::queue::{List, Queue};
use crate::sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering::Relaxed, order, panics,
};

const WAITING: u64 = 1 << 32;

/// How many jobs are queued and how many gates wait, in one word.
#[derive(Clone, Copy)]
struct Load(u64);

impl Load {
    fn queued(self) -> usize {
        (self.0 & (WAITING - 1)) as usize
    }

    fn waiting(self) -> usize {
        (self.0 >> 32) as usize
    }
}

/// One shard, as other threads see it.
pub(crate) struct Inbox<T> {
    pub(crate) index: usize,
    queue: Queue<Message<T>>,
    queue_capacity: usize,
    pending_capacity: usize,
    load: CachePadded<AtomicU64>,
    /// Jobs that have left the queue and are neither done nor waiting yet. Written by the shard alone.
    hand: CachePadded<AtomicUsize>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) ready: Arc<ReadyList>,
    /// Keys with a refused producer.
    refused: List<Shared<Channel<T>>>,
    finished: AtomicBool,
    stranded: Mutex<Vec<Job<T>>>,
    pub(crate) counts: Counts,
    pub(super) settings: Arc<Settings>,
}

/// What a shard has done; written by its thread alone, but for `refused`.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) jobs: Count,
    pub(crate) reads: Count,
    pub(crate) pushes: Count,
    pub(crate) reached: Count,
    pub(crate) expired: Count,
    pub(crate) panicked: Count,
    pub(crate) abandoned: Count,
    pub(crate) cancelled: Count,
    pub(crate) coalesced: Count,
    pub(crate) refused: StdAtomicU64,
    /// A synchronous producer is running now.
    pub(crate) reading: StdAtomicBool,
    pub(crate) longest_read_nanos: StdAtomicU64,
}

/// A count with one writer: no read-modify-write.
#[derive(Debug, Default)]
pub(crate) struct Count(StdAtomicU64);

impl Count {
    #[inline]
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Keys with what was refused of them.
pub(super) type Refusals<T> = Vec<(Shared<Channel<T>>, Box<Refusal<T>>)>;

/// A job that was not taken over.
pub(crate) enum NotTaken<T> {
    Full(Job<T>),
    Closed,
}

impl<T> Inbox<T> {
    pub(crate) fn new(
        index: usize,
        queue_capacity: usize,
        pending_capacity: usize,
        settings: Arc<Settings>,
    ) -> Self {
        let bell = Arc::new(Bell::new());
        Self {
            index,
            queue: Queue::bounded(queue_capacity),
            queue_capacity,
            pending_capacity,
            load: CachePadded::new(AtomicU64::new(0)),
            hand: CachePadded::new(AtomicUsize::new(0)),
            ready: ReadyList::new(bell.clone()),
            bell,
            refused: List::new(),
            finished: AtomicBool::new(false),
            stranded: Mutex::new(Vec::new()),
            counts: Counts::default(),
            settings,
        }
    }

    /// How many jobs are queued, how many are in the shard's hand, and how many gates wait. None is
    /// between two of these: if they are all 0 there is nothing.
    pub(crate) fn queued_in_hand_waiting(&self) -> [usize; 3] {
        let mut before = self.load.load(order::load_read());
        // What is in hand counts if nothing came or went meanwhile. A few looks, not until then: this
        // is a figure.
        for _ in 0..8 {
            let hand = self.hand.load(order::load_read());
            let now = self.load.load(order::load_read());
            if now == before {
                return [Load(now).queued(), hand, Load(now).waiting()];
            }
            before = now;
        }
        let hand = self.hand.load(Relaxed);
        [Load(before).queued(), hand, Load(before).waiting()]
    }

    /// How many hand-overs are in the queue.
    #[cfg(all(test, not(afterwrite_loom)))]
    pub(crate) fn messages(&self) -> usize {
        self.queue.len()
    }

    /// Counts up to `wanted` jobs in; returns for how many there is room. What there is no room for is
    /// never counted, so that it takes no place from others.
    fn reserve(&self, wanted: usize) -> usize {
        let room = |load: Load| {
            if load.waiting() >= self.pending_capacity {
                0
            } else {
                self.queue_capacity
                    .saturating_sub(load.queued())
                    .min(wanted)
            }
        };
        self.load
            .fetch_update(Relaxed, Relaxed, |load| match room(Load(load)) {
                0 => None,
                room => Some(load + room as u64),
            })
            .map_or(0, |before| room(Load(before)))
    }

    /// Hands a job over. Takes flume's short lock, waits for nothing else.
    pub(crate) fn hand_over(&self, mut job: Job<T>) -> Result<(), NotTaken<T>> {
        if self.reserve(1) == 0 {
            return Err(NotTaken::Full(job));
        }
        let anchor = 0u8;
        job.caller = &raw const anchor as usize;
        let caller = job.caller;
        // As many messages fit as jobs may be counted in.
        if let Err(Message::One(job)) = self.queue.try_send(Message::One(job)) {
            self.load.fetch_sub(1, Relaxed);
            return Err(NotTaken::Full(job));
        }
        self.bell.ring(MAIL);
        if self.finished.load(Relaxed)
            && !planted(NO_LOOK_AFTER_HAND_OVER)
            && self.reclaim(caller) > 0
        {
            return Err(NotTaken::Closed);
        }
        Ok(())
    }

    /// Hands as many of `jobs` over as there is room for, in one message, from the front; they are
    /// taken out. Returns how many were taken over, and how many met a closed registry.
    pub(crate) fn hand_over_many(&self, jobs: &mut Vec<Job<T>>) -> (usize, usize) {
        let room = self.reserve(jobs.len());
        if room == 0 {
            return (0, 0);
        }
        let rest = jobs.split_off(room);
        let mut batch = std::mem::replace(jobs, rest);
        let anchor = 0u8;
        let caller = &raw const anchor as usize;
        for job in &mut batch {
            job.caller = caller;
        }
        if let Err(Message::Many(mut batch)) = self.queue.try_send(Message::Many(batch)) {
            self.load.fetch_sub(room as u64, Relaxed);
            batch.append(jobs);
            *jobs = batch;
            return (0, 0);
        }
        self.bell.ring(MAIL);
        if self.finished.load(Relaxed) {
            let closed = self.reclaim(caller);
            return (room - closed, closed);
        }
        (room, 0)
    }

    /// Takes back what nobody will empty the queue for any more; returns how many jobs were ours.
    #[cold]
    fn reclaim(&self, caller: usize) -> usize {
        let mut stranded = self.stranded.lock();
        let mut messages = Vec::new();
        self.queue.drain(&mut messages);
        stranded.extend(messages.into_iter().flat_map(Message::into_jobs));
        let (ours, others): (Vec<_>, Vec<_>) =
            stranded.drain(..).partition(|job| job.caller == caller);
        *stranded = others;
        drop(stranded);
        for job in &ours {
            if job.delivery.has_place() {
                job.channel.attached.release();
            }
        }
        let count = ours.len();
        // A producer is the user's: so is its drop.
        panics::contain(|| drop(ours));
        count
    }

    /// Leaves a producer that found no room, for its loss to be told through its gate; true if the
    /// registry is closed instead, and nothing was counted. Lock-free.
    pub(crate) fn refuse(&self, channel: &Shared<Channel<T>>, refusal: Refusal<T>) -> bool {
        match channel.attached.refuse(Box::new(refusal)) {
            None => return true,
            Some(false) => {}
            Some(true) => {
                self.refused.push(channel.clone());
                self.bell.ring(MAIL);
                if self.finished.load(Relaxed) {
                    // Nobody looks any more, and a listed key and this list hold each other.
                    while self.refused.pop().is_some() {}
                }
            }
        }
        self.counts.refused.fetch_add(1, Relaxed);
        false
    }

    /// Keys that have had a producer refused by now.
    pub(super) fn refused_by_now(&self, into: &mut Vec<Shared<Channel<T>>>) {
        for _ in 0..self.refused.len() {
            let Some(channel) = self.refused.pop() else {
                break;
            };
            channel.attached.unlist();
            into.push(channel);
        }
    }

    /// Empties the queue.
    pub(super) fn drain(&self, into: &mut Vec<Message<T>>) {
        self.queue.drain(into);
    }

    /// The shard takes so many jobs of the queue into its empty hand.
    pub(super) fn take_in_hand(&self, jobs: usize) {
        self.hand.store(jobs, Relaxed);
        self.load.fetch_sub(jobs as u64, order::load_written());
    }

    /// So many of those in hand are done, or wait.
    pub(super) fn put_down(&self, jobs: usize) {
        let left = self.hand.load(Relaxed).saturating_sub(jobs);
        self.hand.store(left, order::load_written());
    }

    /// A gate begins or ends to wait.
    pub(super) fn gate_waits(&self, waits: bool) {
        if waits {
            self.load.fetch_add(WAITING, Relaxed);
        } else {
            self.load.fetch_sub(WAITING, Relaxed);
        }
    }

    /// Empties the queue, and the refused list, for the last time.
    pub(super) fn finish(&self, messages: &mut Vec<Message<T>>, refusals: &mut Refusals<T>) {
        let stranded = self.stranded.lock();
        self.finished.store(true, Relaxed);
        self.bell.pass();
        self.queue.drain(messages);
        let mut channels = Vec::new();
        self.refused_by_now(&mut channels);
        for channel in channels {
            if let Some(refusal) = channel.attached.take_refusal() {
                refusals.push((channel, refusal));
            }
        }
        drop(stranded);
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.ready.clear();
    }
}

impl<T> std::fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("index", &self.index)
            .field("queued_in_hand_waiting", &self.queued_in_hand_waiting())
            .finish_non_exhaustive()
    }
}
