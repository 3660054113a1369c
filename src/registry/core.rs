//! What all handles of a registry share.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::builder::{Limits, SubscribeOptions};
use super::key::Key;
use crate::directory::{Directory, Hasher, KeyHash};
use crate::error::{BatchOutcome, KeyError, Published, Submitted, SubscribeError};
use crate::gate::{Gate, Source};
use crate::mailbox::Mailbox;
use crate::observer::DropReason;
use crate::shard::{
    self, Channel, Delivery, Inbox, Job, KeyState, NotTaken, Refusal, Settings, faults,
};
use crate::subscription::{Subscription, SubscriptionId};
use crate::sync::parker::Parker;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering::Relaxed, order, panics};
use crate::topic::{Busy, Pushed, Refused, Topic};

/// A batch is looked up in groups of this many, so that their cache misses overlap.
const GROUP: usize = 32;

/// Longer walks are not made inside the directory's protection.
const LONG_WALK: usize = 1024;

pub(crate) struct Core<T> {
    directory: Directory<Channel<T>>,
    hasher: Hasher,
    pub(crate) shards: Box<[Arc<Inbox<T>>]>,
    pub(crate) settings: Arc<Settings>,
    limits: Limits,
    subscribers: AtomicUsize,
    running: Mutex<Running>,
}

/// Shards whose thread has not ended, and who waits for that.
struct Running {
    shards: usize,
    /// One entry for each wait under way, taken out when it ends either way.
    waiting: Slab<Waker>,
}

/// What a subscription gives back when it ends.
pub(crate) struct Registration<T> {
    pub(crate) core: Arc<Core<T>>,
    pub(crate) id: SubscriptionId,
}

impl<T> Core<T> {
    pub(crate) fn new(
        hasher: Hasher,
        shards: Box<[Arc<Inbox<T>>]>,
        settings: Arc<Settings>,
        limits: Limits,
    ) -> Self {
        let running = Running {
            shards: 0,
            waiting: Slab::new(),
        };
        Self {
            directory: Directory::new(),
            hasher,
            shards,
            settings,
            limits,
            subscribers: AtomicUsize::new(0),
            running: Mutex::new(running),
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

    /// A shard's thread is about to start.
    pub(crate) fn shard_starts(&self) {
        self.running.lock().shards += 1;
    }

    /// A shard has given up all it had: its keys end, and with the last shard the registry.
    pub(crate) fn shard_ended(&self, index: usize) {
        self.directory.for_each(|channel| {
            if channel.attached.shard.index == index {
                match channel.attached.finish_refusals() {
                    0 => {}
                    lost => channel.lose(lost),
                }
                channel.shut();
            }
        });
        let mut running = self.running.lock();
        running.shards -= 1;
        let waiting = match running.shards {
            0 => std::mem::take(&mut running.waiting),
            _ => Slab::new(),
        };
        drop(running);
        waiting
            .into_iter()
            .for_each(|(_, waker)| panics::wake(waker));
    }

    /// Waits until every shard has ended; returns how many have not.
    pub(crate) fn wait_closed(&self, timeout: Option<Duration>) -> usize {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let parker = Parker::default();
        let waker = parker.waker();
        let mut place = None;
        loop {
            let running = self.poll_closed(&waker, &mut place);
            if running == 0 || !parker.wait(deadline) {
                self.forget_closed(&mut place);
                return running;
            }
        }
    }

    /// How many shards have not ended; if there are any, the waker is called at the end. None count
    /// for one of the shards themselves, which would wait for itself. `place` is the caller's among
    /// those who wait, to be given back by [`Core::forget_closed`].
    fn poll_closed(&self, waker: &Waker, place: &mut Option<usize>) -> usize {
        if shard::is_shard_of(&self.settings) {
            return 0;
        }
        // A waker's clone and drop are the user's code: neither runs under the lock.
        let waker = waker.clone();
        let mut running = self.running.lock();
        let shards = running.shards;
        let mut replaced = None;
        if shards > 0 {
            match *place {
                Some(at) => replaced = Some(std::mem::replace(&mut running.waiting[at], waker)),
                None => *place = Some(running.waiting.insert(waker)),
            }
        }
        drop(running);
        drop(replaced);
        shards
    }

    /// A wait for the end is given up, or over.
    fn forget_closed(&self, place: &mut Option<usize>) {
        if let Some(at) = place.take() {
            let waker = self.running.lock().waiting.try_remove(at);
            drop(waker);
        }
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
    fn pin(&self, hash: KeyHash, key: &str) -> Result<Arc<Channel<T>>, KeyError> {
        let found = self.directory.get(hash, key, |channel| {
            channel.attached.try_pin().then(|| channel.clone())
        });
        if let Some(Some(channel)) = found {
            return Ok(channel);
        }
        let make = || {
            // Whoever closes looks through the directory after it raised the flag.
            if self.is_closing() {
                return Err(KeyError::Closed);
            }
            let shard = self.shards[hash.shard(self.shards.len())].clone();
            Ok(Arc::new(Topic::new(KeyState::new(key, hash, shard))))
        };
        self.directory
            .get_or_insert_with(hash, key, make, |channel| {
                channel.attached.pin();
                channel.clone()
            })
    }

    #[cfg(afterwrite_loom)]
    pub(crate) fn pin_for_models(&self, key: &str) -> Arc<Channel<T>> {
        match self.pin(self.hasher.hash(key), key) {
            Ok(channel) => channel,
            Err(error) => unreachable!("{error}"),
        }
    }

    fn unpin(&self, channel: &Channel<T>) {
        let state = &channel.attached;
        if state.unpin() {
            self.directory
                .remove_if(state.hash(), state.key(), |now| !now.attached.is_pinned());
        }
    }

    pub(crate) fn resolve(core: &Arc<Self>, key: &str) -> Result<Key<T>, KeyError> {
        let hash = core.check(key)?;
        Ok(Key::new(core.clone(), core.pin(hash, key)?))
    }

    pub(crate) fn release(&self, channel: &Channel<T>) {
        self.unpin(channel);
    }

    pub(crate) fn subscribe(
        core: &Arc<Self>,
        key: &str,
        options: SubscribeOptions,
        gate: Option<Gate<T>>,
    ) -> Result<Subscription<T>, SubscribeError> {
        let limit = core.limits.subscribers;
        let hash = core.check(key)?;
        core.subscribers
            .fetch_update(Relaxed, Relaxed, |now| (now < limit).then(|| now + 1))
            .map_err(|_| SubscribeError::Full { limit })?;
        let registered = core
            .pin(hash, key)
            .map_err(SubscribeError::from)
            .and_then(|channel| {
                let overflow = options.overflow.unwrap_or(core.limits.overflow);
                let capacity = options
                    .capacity
                    .map_or(core.limits.buffer, super::builder::buffer);
                let limit = core.limits.subscribers_per_key;
                Topic::subscribe(&channel, overflow, capacity, limit).map_err(|refused| {
                    core.unpin(&channel);
                    match refused {
                        Refused::Full => SubscribeError::Full { limit },
                        Refused::Shut => SubscribeError::Closed,
                    }
                })
            });
        let mut receiver = match registered {
            Ok(receiver) => receiver,
            Err(error) => {
                core.subscribers.fetch_sub(1, Relaxed);
                return Err(error);
            }
        };
        let first = gate.map(|gate| (gate, receiver.await_first()));
        let id = SubscriptionId::next();
        core.settings
            .observer
            .tell(|o| o.subscribed(receiver.topic().attached.key(), id));
        let registration = Registration {
            core: core.clone(),
            id,
        };
        let subscription = Subscription::new(receiver, registration);
        if let Some((gate, first)) = first {
            let receiver = subscription.receiver();
            let delivery = Delivery::First(first, receiver.mailbox().clone());
            core.hand_over_first(receiver.topic(), gate.source, delivery)?;
        }
        Ok(subscription)
    }

    fn hand_over_first(
        &self,
        channel: &Arc<Channel<T>>,
        source: Source<T>,
        delivery: Delivery<T>,
    ) -> Result<(), SubscribeError> {
        if !channel.attached.admit(self.settings.pending_per_key) {
            return Err(SubscribeError::QueueFull);
        }
        match channel
            .attached
            .shard
            .hand_over(self.job(channel, source, delivery))
        {
            Ok(()) => Ok(()),
            Err(NotTaken::Full(_)) => {
                channel.attached.release();
                Err(SubscribeError::QueueFull)
            }
            Err(NotTaken::Closed) => Err(SubscribeError::Closed),
        }
    }

    /// A subscription of this channel has ended.
    pub(crate) fn unregister(&self, channel: &Channel<T>, id: SubscriptionId) {
        self.subscribers.fetch_sub(1, Relaxed);
        self.unpin(channel);
        self.settings
            .observer
            .tell(|o| o.unsubscribed(channel.attached.key(), id));
    }

    fn job(&self, channel: &Arc<Channel<T>>, source: Source<T>, delivery: Delivery<T>) -> Job<T> {
        let submitted = self.settings.observer.wants_timing().then(Instant::now);
        Job::new(channel.clone(), source, delivery, submitted)
    }

    #[inline]
    fn find(&self, hash: KeyHash, key: &str) -> Option<Arc<Channel<T>>> {
        self.directory
            .get(hash, key, |channel| {
                (channel.subscribers() > 0).then(|| channel.clone())
            })
            .flatten()
    }

    pub(crate) fn submit(&self, key: &str, gate: impl FnOnce() -> Gate<T>) -> Submitted {
        let hash = self.hasher.hash(key);
        match self.find(hash, key) {
            None if self.is_closing() => Submitted::Closed,
            None => Submitted::NoSubscribers,
            Some(channel) => self.submit_to(&channel, gate),
        }
    }

    /// Submits to a channel that was found.
    pub(crate) fn submit_to(
        &self,
        channel: &Arc<Channel<T>>,
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
    fn refuse(&self, channel: &Arc<Channel<T>>, source: Source<T>) -> Submitted {
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
        let hash = self.hasher.hash(key);
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
            (Some(Some(pushed)), _, _) => self.published(key, pushed),
            (_, Some(channel), Some(payload)) => self.publish_to(&channel, payload),
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

    #[inline]
    fn published(&self, key: &str, pushed: Pushed) -> Published {
        self.settings.observer.pushed(key, pushed, None);
        Published::Reached(pushed.reached as usize)
    }

    pub(crate) fn publish_to(&self, channel: &Arc<Channel<T>>, payload: T) -> Published {
        match Self::push_now(channel, payload) {
            Ok(pushed) => self.published(channel.attached.key(), pushed),
            Err(payload) => self.hand_over_published(channel, payload),
        }
    }

    #[cold]
    fn hand_over_published(&self, channel: &Arc<Channel<T>>, payload: T) -> Published {
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

/// Ends with the registry's last shard.
pub(crate) struct Closed<T> {
    core: Arc<Core<T>>,
    place: Option<usize>,
}

impl<T> Closed<T> {
    pub(crate) fn new(core: Arc<Core<T>>) -> Self {
        Self { core, place: None }
    }
}

impl<T> Future for Closed<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match this.core.poll_closed(cx.waker(), &mut this.place) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl<T> Drop for Closed<T> {
    fn drop(&mut self) {
        self.core.forget_closed(&mut self.place);
    }
}

impl<T: Clone + Send + 'static> Registration<T> {
    /// Ends a subscription, if it has not ended.
    pub(crate) fn end(&self, channel: &Channel<T>, mailbox: &Mailbox<T>) {
        if channel.retire(mailbox).is_some() {
            self.core.unregister(channel, self.id);
        }
    }
}
