//! What all handles of a registry share.

use std::time::{Duration, Instant};

use super::builder::{Limits, SubscribeOptions};
use super::closing::Running;
use super::key::Key;
use crate::arena::{Memory, Shared};
use crate::directory::{Directory, Hasher, KeyHash};
use crate::error::{BatchOutcome, Cap, KeyError, Published, Submitted, SubscribeError};
use crate::gate::{Gate, Source};
use crate::mailbox::Mailbox;
use crate::observer::{DropReason, Timing};
use crate::shard::{
    self, Channel, Delivery, Inbox, Job, KeyState, NotTaken, Refusal, Settings, faults,
};
use crate::subscription::{Subscription, SubscriptionId};
use crate::sync::counted::Home;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering::Relaxed, order, panics};
use crate::topic::{Busy, Pushed, Refused, Topic};

/// A batch is looked up in groups of this many, so that their cache misses overlap.
const GROUP: usize = 32;

/// Longer walks are not made inside the directory's protection.
const LONG_WALK: usize = 1024;

pub(crate) struct Core<T> {
    pub(super) directory: Directory<Channel<T>>,
    hasher: Hasher,
    pub(crate) shards: Box<[Arc<Inbox<T>>]>,
    pub(crate) settings: Arc<Settings>,
    limits: Limits,
    subscribers: AtomicUsize,
    pub(super) running: Mutex<Running>,
}

impl<T> Core<T> {
    pub(crate) fn new(
        hasher: Hasher,
        shards: Box<[Arc<Inbox<T>>]>,
        settings: Arc<Settings>,
        limits: Limits,
    ) -> Self {
        Self {
            directory: Directory::new(),
            hasher,
            shards,
            settings,
            limits,
            subscribers: AtomicUsize::new(0),
            running: Mutex::new(Running::default()),
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.settings.closing.load(Relaxed)
    }

    pub(crate) fn begin_closing(&self) {
        shard::begin_closing(&self.settings, &self.shards);
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.load(Relaxed)
    }

    pub(crate) fn keys(&self) -> usize {
        self.directory.len()
    }

    pub(crate) fn subscriber_count(&self, key: &str) -> usize {
        let hash = self.hasher.hash(key);
        self.directory
            .get(hash, key, |channel| channel.subscribers())
            .unwrap_or(0)
    }

    /// Gives up a pin of the key; the last one takes the key out of the directory.
    pub(super) fn unpin(&self, channel: &Channel<T>) {
        let state = &channel.attached;
        if state.unpin() {
            self.directory
                .remove_if(state.hash(), state.key(), |now| !now.attached.is_pinned());
        }
    }

    /// A subscription of this channel has ended, of which nobody was told.
    fn forget(&self, channel: &Channel<T>) {
        self.subscribers.fetch_sub(1, Relaxed);
        self.unpin(channel);
    }

    /// Ends a subscription of this channel, if it has not ended.
    pub(crate) fn end(&self, channel: &Channel<T>, mailbox: &Mailbox<T>, id: SubscriptionId) {
        if channel.retire(mailbox).is_some() {
            self.unregister(channel, id);
        }
    }

    /// A subscription of this channel has ended.
    pub(crate) fn unregister(&self, channel: &Channel<T>, id: SubscriptionId) {
        self.forget(channel);
        self.settings
            .observer
            .tell(|o| o.unsubscribed(channel.attached.key(), id));
    }

    #[cfg(test)]
    pub(crate) fn lock_all_writers(&self) -> impl Drop + '_ {
        struct All<'a, T> {
            _directory: crate::directory::WritersLocked<'a, Channel<T>>,
        }
        impl<T> Drop for All<'_, T> {
            fn drop(&mut self) {}
        }
        All {
            _directory: self.directory.lock_all_writers(),
        }
    }
}

impl<T: Clone + Send + 'static> Core<T> {
    fn check(&self, key: &str) -> Result<KeyHash, KeyError> {
        match key.len() {
            0 => Err(KeyError::Empty),
            length if length > self.limits.key => Err(KeyError::TooLong {
                max: self.limits.key,
            }),
            _ if self.is_closing() => Err(KeyError::Closed),
            _ => Ok(self.hasher.hash(key)),
        }
    }

    /// The key's channel, pinned; made if there is none.
    fn pin(core: &Arc<Self>, hash: KeyHash, key: &str) -> Result<Shared<Channel<T>>, KeyError> {
        let found = core.directory.get(hash, key, |channel| {
            channel.attached.try_pin().then(|| channel.clone())
        });
        if let Some(Some(channel)) = found {
            return Ok(channel);
        }
        let make = |memory: &mut Memory<'_>| {
            // Whoever closes looks through the directory after it raised the flag.
            if core.is_closing() {
                return Err(KeyError::Closed);
            }
            let shard = core.shards[hash.shard(core.shards.len())].clone();
            let home = Home::of(core);
            let topic = Topic::new(KeyState::new(home, key, hash, shard));
            Ok(Shared::new_in(memory, topic))
        };
        core.directory
            .get_or_insert_with(hash, key, make, |channel| {
                channel.attached.pin();
                channel.clone()
            })
    }

    #[cfg(afterwrite_loom)]
    pub(crate) fn pin_for_models(core: &Arc<Self>, key: &str) -> Shared<Channel<T>> {
        match Self::pin(core, core.hasher.hash(key), key) {
            Ok(channel) => channel,
            Err(error) => unreachable!("{error}"),
        }
    }

    pub(crate) fn resolve(core: &Arc<Self>, key: &str) -> Result<Key<T>, KeyError> {
        let hash = core.check(key)?;
        Ok(Key::new(core.clone(), Self::pin(core, hash, key)?))
    }

    pub(crate) fn subscribe(
        core: &Arc<Self>,
        key: &str,
        options: SubscribeOptions,
        gate: Option<Gate<T>>,
    ) -> Result<Subscription<T>, SubscribeError> {
        let hash = core.check(key)?;
        // Who finds the registry full leaves no trace, not even the key's.
        if core.subscribers() >= core.limits.subscribers {
            return Err(core.full());
        }
        let channel = Self::pin(core, hash, key)?;
        Self::subscribe_to(core, channel, options, gate)
    }

    /// Subscribes to a channel that was pinned for this, and is unpinned if it fails.
    pub(super) fn subscribe_to(
        core: &Arc<Self>,
        channel: Shared<Channel<T>>,
        options: SubscribeOptions,
        gate: Option<Gate<T>>,
    ) -> Result<Subscription<T>, SubscribeError> {
        let limits = &core.limits;
        let overflow = options.overflow.unwrap_or(limits.overflow);
        let capacity = options
            .capacity
            .map_or(limits.buffer, super::builder::buffer);
        let limit = limits.subscribers_per_key;
        let registered =
            Topic::subscribe_if(&channel, overflow, capacity, limit, || core.take_place());
        let mut receiver = match registered {
            Ok(receiver) => receiver,
            Err(refused) => {
                if refused == Refused::Shut {
                    core.subscribers.fetch_sub(1, Relaxed);
                }
                core.unpin(&channel);
                return Err(match refused {
                    Refused::Full => SubscribeError::Full {
                        cap: Cap::Key,
                        limit,
                    },
                    Refused::Denied => core.full(),
                    Refused::Shut => SubscribeError::Closed,
                });
            }
        };
        if let Some(gate) = gate {
            let first = Delivery::First(receiver.await_first(), receiver.mailbox().clone());
            if let Err(error) = core.hand_over_first(&channel, gate.source, first) {
                // Nobody was told of it yet, nor is of its end.
                receiver.close();
                core.forget(&channel);
                return Err(error);
            }
        }
        let id = SubscriptionId::next();
        let subscription = Subscription::new(receiver, core.clone(), id);
        core.settings
            .observer
            .tell(|o| o.subscribed(channel.attached.key(), id));
        Ok(subscription)
    }

    /// Takes one of the registry's places for subscribers, if there is one.
    fn take_place(&self) -> bool {
        let limit = self.limits.subscribers;
        self.subscribers
            .fetch_update(Relaxed, Relaxed, |now| (now < limit).then(|| now + 1))
            .is_ok()
    }

    fn full(&self) -> SubscribeError {
        SubscribeError::Full {
            cap: Cap::Registry,
            limit: self.limits.subscribers,
        }
    }

    fn hand_over_first(
        &self,
        channel: &Shared<Channel<T>>,
        source: Source<T>,
        delivery: Delivery<T>,
    ) -> Result<(), SubscribeError> {
        // What comes back is dropped here: a panic of that must not pass the registration by.
        if !channel.attached.admit(self.settings.pending_per_key) {
            panics::contain(|| drop(source));
            return Err(SubscribeError::QueueFull);
        }
        match channel
            .attached
            .shard
            .hand_over(self.job(channel, source, delivery))
        {
            Ok(()) => Ok(()),
            Err(NotTaken::Full(job)) => {
                channel.attached.release();
                panics::contain(|| drop(job));
                Err(SubscribeError::QueueFull)
            }
            Err(NotTaken::Closed) => Err(SubscribeError::Closed),
        }
    }

    fn job(
        &self,
        channel: &Shared<Channel<T>>,
        source: Source<T>,
        delivery: Delivery<T>,
    ) -> Job<T> {
        Job::new(
            channel.clone(),
            source,
            delivery,
            self.settings.observer.time(),
        )
    }

    #[inline]
    fn find(&self, hash: KeyHash, key: &str) -> Option<Shared<Channel<T>>> {
        self.directory
            .get(hash, key, |channel| {
                (channel.subscribers() > 0).then(|| channel.clone())
            })
            .flatten()
    }

    pub(crate) fn submit(&self, key: &str, gate: impl FnOnce() -> Gate<T>) -> Submitted {
        let hash = self.hasher.hash(key);
        if self.directory.may_contain(hash) {
            return self.submit_by_key(hash, key, gate);
        }
        self.nobody()
    }

    /// Apart, so that a submit that misses saves no registers for it.
    #[inline(never)]
    fn submit_by_key(&self, hash: KeyHash, key: &str, gate: impl FnOnce() -> Gate<T>) -> Submitted {
        match self.find(hash, key) {
            None => self.nobody(),
            Some(channel) => self.submit_to(&channel, gate),
        }
    }

    /// The answer where nobody subscribes.
    #[inline]
    fn nobody(&self) -> Submitted {
        if self.is_closing() {
            Submitted::Closed
        } else {
            Submitted::NoSubscribers
        }
    }

    /// Submits to a channel that was found.
    pub(crate) fn submit_to(
        &self,
        channel: &Shared<Channel<T>>,
        gate: impl FnOnce() -> Gate<T>,
    ) -> Submitted {
        if self.is_closing() {
            return Submitted::Closed;
        }
        if channel.subscribers() == 0 {
            return Submitted::NoSubscribers;
        }
        let source = gate().source;
        if !channel.attached.admit(self.settings.pending_per_key) {
            return self.refuse(channel, source);
        }
        match channel
            .attached
            .shard
            .hand_over(self.job(channel, source, Delivery::All))
        {
            Ok(()) => Submitted::Queued,
            Err(NotTaken::Closed) => Submitted::Closed,
            Err(NotTaken::Full(job)) => {
                channel.attached.release();
                self.refuse(channel, job.source)
            }
        }
    }

    #[cold]
    fn refuse(&self, channel: &Shared<Channel<T>>, source: Source<T>) -> Submitted {
        if channel
            .attached
            .shard
            .refuse(channel, Refusal { lost: 1, source })
        {
            return Submitted::Closed;
        }
        self.settings
            .observer
            .dropped(channel.attached.key(), DropReason::QueueFull);
        Submitted::QueueFull
    }

    pub(crate) fn submit_batch<K: AsRef<str>>(
        &self,
        batch: impl IntoIterator<Item = (K, Gate<T>)>,
    ) -> BatchOutcome {
        let mut outcome = BatchOutcome::default();
        let mut by_shard = Admitted(self.shards.iter().map(|_| Vec::new()).collect());
        let mut batch = batch.into_iter();
        let mut group: Vec<(K, Gate<T>)> = Vec::with_capacity(GROUP);
        let mut hashes: Vec<KeyHash> = Vec::with_capacity(GROUP);
        loop {
            group.extend(batch.by_ref().take(GROUP));
            if group.is_empty() {
                break;
            }
            hashes.clear();
            hashes.extend(group.iter().map(|(key, _)| self.hasher.hash(key.as_ref())));
            if self.directory.is_large() {
                self.directory.prefetch(&hashes);
            }
            for ((key, gate), &hash) in group.drain(..).zip(&hashes) {
                match self.find(hash, key.as_ref()) {
                    _ if self.is_closing() => outcome.closed += 1,
                    None => outcome.no_subscribers += 1,
                    Some(channel) if channel.attached.admit(self.settings.pending_per_key) => {
                        let shard = channel.attached.shard.index;
                        by_shard.0[shard].push(self.job(&channel, gate.source, Delivery::All));
                    }
                    Some(channel) => {
                        // What is refused must not go before what was queued earlier.
                        let shard = channel.attached.shard.index;
                        self.hand_over_batch(shard, &mut by_shard.0[shard], &mut outcome);
                        outcome.count(self.refuse(&channel, gate.source));
                    }
                }
            }
        }
        for (shard, jobs) in by_shard.0.iter_mut().enumerate() {
            self.hand_over_batch(shard, jobs, &mut outcome);
        }
        outcome
    }

    fn hand_over_batch(&self, shard: usize, jobs: &mut Vec<Job<T>>, outcome: &mut BatchOutcome) {
        if jobs.is_empty() {
            return;
        }
        let (queued, closed) = self.shards[shard].hand_over_many(jobs);
        outcome.queued += queued;
        outcome.closed += closed;
        for job in jobs.drain(..) {
            job.channel.attached.release();
            outcome.count(self.refuse(&job.channel, job.source));
        }
    }

    pub(crate) fn publish(&self, key: &str, payload: T) -> Published {
        if self.settings.observer.watches() {
            self.publish_by_key::<true>(key, payload)
        } else {
            self.publish_by_key::<false>(key, payload)
        }
    }

    /// `WATCHED`: there is an observer. Asked once, before the push, so that nothing is carried
    /// through it for an observer that is not there.
    #[inline(always)]
    fn publish_by_key<const WATCHED: bool>(&self, key: &str, payload: T) -> Published {
        let hash = self.hasher.hash(key);
        let began = self.time::<WATCHED>();
        let mut payload = Some(payload);
        let mut found = None;
        let pushed = self.directory.get(hash, key, |channel| {
            if channel.subscribers() <= LONG_WALK
                && let Some(now) = payload.take()
            {
                match Self::push_now(channel, now) {
                    Ok(pushed) => return Some(pushed),
                    Err(back) => payload = Some(back),
                }
            }
            found = Some(channel.clone());
            None
        });
        match (pushed, found, payload) {
            (Some(Some(pushed)), _, _) => self.published::<WATCHED>(key, pushed, began),
            (_, Some(channel), Some(payload)) => {
                self.publish_or_hand_over::<WATCHED>(&channel, payload)
            }
            _ if self.is_closing() => Published::Closed,
            _ => Published::Reached(0),
        }
    }

    /// Pushes if nothing of this key is ahead, or gives the payload back.
    #[inline]
    fn push_now(channel: &Channel<T>, payload: T) -> Result<Pushed, T> {
        let ahead = channel.attached.handed.load(order::handed_read());
        if ahead != 0 && !faults::planted(faults::OVERTAKE_HANDED) {
            return Err(payload);
        }
        match channel.try_push(payload) {
            Ok(pushed) => Ok(pushed),
            Err(Busy::Held(payload) | Busy::Shut(payload)) => Err(payload),
        }
    }

    /// The time, if there is an observer, and it wants it.
    #[inline(always)]
    fn time<const WATCHED: bool>(&self) -> Option<Instant> {
        if WATCHED {
            self.settings.observer.time()
        } else {
            None
        }
    }

    #[inline(always)]
    fn published<const WATCHED: bool>(
        &self,
        key: &str,
        pushed: Pushed,
        began: Option<Instant>,
    ) -> Published {
        if WATCHED {
            let timing = began.map(|began| Timing::new(Duration::ZERO, began.elapsed(), 0));
            self.settings.observer.pushed(key, pushed, timing);
        }
        Published::Reached(pushed.reached as usize)
    }

    #[inline]
    pub(crate) fn publish_to(&self, channel: &Shared<Channel<T>>, payload: T) -> Published {
        if self.settings.observer.watches() {
            self.publish_or_hand_over::<true>(channel, payload)
        } else {
            self.publish_or_hand_over::<false>(channel, payload)
        }
    }

    #[inline(always)]
    fn publish_or_hand_over<const WATCHED: bool>(
        &self,
        channel: &Shared<Channel<T>>,
        payload: T,
    ) -> Published {
        let began = self.time::<WATCHED>();
        match Self::push_now(channel, payload) {
            Ok(pushed) => self.published::<WATCHED>(channel.attached.key(), pushed, began),
            Err(payload) => self.hand_over_published(channel, payload),
        }
    }

    #[cold]
    fn hand_over_published(&self, channel: &Shared<Channel<T>>, payload: T) -> Published {
        if self.is_closing() {
            return Published::Closed;
        }
        channel.attached.handed.fetch_add(1, Relaxed);
        let job = self.job(channel, Source::Ready(payload), Delivery::HandedOver);
        match channel.attached.shard.hand_over(job) {
            Ok(()) => Published::HandedOver,
            Err(not_taken) => {
                channel.attached.handed.fetch_sub(1, order::handed_down());
                match not_taken {
                    NotTaken::Closed => Published::Closed,
                    // Told by the shard, so that it does not precede what was queued earlier.
                    NotTaken::Full(job) => match self.refuse(channel, job.source) {
                        Submitted::Closed => Published::Closed,
                        _ => Published::QueueFull,
                    },
                }
            }
        }
    }
}

/// Jobs of a batch that have a place with their key and are not handed over yet, by shard.
struct Admitted<T>(Vec<Vec<Job<T>>>);

impl<T> Drop for Admitted<T> {
    fn drop(&mut self) {
        // The batch's iterator panicked: the places are not lost with it.
        for job in self.0.iter().flatten() {
            job.channel.attached.release();
        }
    }
}
