//! Settings of a registry, and of one subscription.

use std::fmt;
use std::marker::PhantomData;

use super::{Core, Registry};
use crate::directory::Hasher;
use crate::error::{BuildError, ThreadError};
use crate::gate::Retry;
use crate::mailbox::{MAX_CAPACITY, Overflow};
use crate::observer::{Expiry, Observer};
use crate::shard::{self, Inbox, Settings, WaitStrategy, Watched};
use crate::sync::{Arc, AtomicBool};

/// Most shards of a registry.
const MAX_WORKERS: usize = 1024;
/// Most jobs in a shard's queue, and most gates that wait on a shard.
const MAX_QUEUE: usize = 1 << 20;
/// Most gates that wait for one key.
const MAX_PER_KEY: usize = 1 << 15;
/// Most subscribers of a key: positions are 32 bits wide.
const MAX_SUBSCRIBERS: usize = 1 << 31;
const KEY_BYTES: usize = 1024;

/// Where shard threads run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Pinning {
    /// Each shard on a core of its own, if there are more cores than shards; otherwise nowhere in
    /// particular.
    #[default]
    Auto,
    /// Shard `n` on the `n`-th of these cores, from the front again when there are fewer. None at all is
    /// [`Pinning::Off`].
    Cores(Vec<usize>),
    /// Wherever the operating system puts them.
    Off,
}

/// What the front door checks and defaults to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) key: usize,
    pub(crate) subscribers: usize,
    pub(crate) subscribers_per_key: usize,
    pub(crate) buffer: u16,
    pub(crate) overflow: Overflow,
}

/// A buffer's size, as a subscription may ask for it.
pub(super) fn buffer(capacity: usize) -> u16 {
    capacity.clamp(1, MAX_CAPACITY) as u16
}

/// A buffer and an overflow policy for one subscription; the registry's where nothing is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SubscribeOptions {
    pub(crate) overflow: Option<Overflow>,
    pub(crate) capacity: Option<usize>,
}

impl SubscribeOptions {
    /// The registry's buffer and policy.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            overflow: None,
            capacity: None,
        }
    }

    /// What happens when the buffer is full.
    #[must_use]
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// How many notices the buffer holds; clamped to 1..=16,384. [`Overflow::Conflate`] holds one.
    #[must_use]
    pub const fn buffer_capacity(mut self, capacity: usize) -> Self {
        self.capacity = Some(capacity);
        self
    }
}

/// Settings for a [`Registry`]; made by [`Registry::builder`].
///
/// ```
/// use std::time::Duration;
/// use afterwrite::{Overflow, Registry, Retry};
///
/// let registry = Registry::<u64>::builder()
///     .workers(2)
///     .buffer_capacity(64)
///     .overflow(Overflow::DropOldest)
///     .retry(Retry::fixed(25, Duration::from_millis(200)))
///     .build()?;
/// # registry.close();
/// # Ok::<(), afterwrite::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct Builder<T> {
    workers: usize,
    queue_capacity: usize,
    pending_capacity: usize,
    pending_per_key: usize,
    buffer_capacity: usize,
    max_subscribers: usize,
    max_subscribers_per_key: usize,
    max_key_bytes: usize,
    retry: Retry,
    overflow: Overflow,
    expiry: Expiry,
    coalesce: bool,
    observer: Option<std::sync::Arc<dyn Observer>>,
    pinning: Pinning,
    wait_strategy: WaitStrategy,
    hash_seed: Option<u64>,
    #[cfg(feature = "tokio")]
    runtime: Option<tokio::runtime::Handle>,
    _payload: PhantomData<fn() -> T>,
}

impl<T> Clone for Builder<T> {
    fn clone(&self) -> Self {
        Self {
            observer: self.observer.clone(),
            pinning: self.pinning.clone(),
            #[cfg(feature = "tokio")]
            runtime: self.runtime.clone(),
            ..*self
        }
    }
}

impl<T> Default for Builder<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Builder<T> {
    /// The defaults: 4 workers, queues of 64, 16,384 gates waiting on a shard and 16 on a key, buffers
    /// of 20, keys of at most 1,024 bytes, no caps on subscribers.
    pub fn new() -> Self {
        Self {
            workers: 4,
            queue_capacity: 64,
            pending_capacity: 16_384,
            pending_per_key: 16,
            buffer_capacity: 20,
            max_subscribers: MAX_SUBSCRIBERS,
            max_subscribers_per_key: MAX_SUBSCRIBERS,
            max_key_bytes: KEY_BYTES,
            retry: Retry::default(),
            overflow: Overflow::default(),
            expiry: Expiry::default(),
            coalesce: false,
            observer: None,
            pinning: Pinning::default(),
            wait_strategy: WaitStrategy::default(),
            hash_seed: None,
            #[cfg(feature = "tokio")]
            runtime: None,
            _payload: PhantomData,
        }
    }

    /// How many shards, each with a thread. 1 to 1,024; 4 by default.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many jobs a shard's queue holds. 1 to 1,048,576; 64 by default. Up to as many more have left
    /// it and are in the shard's hand.
    pub fn queue_capacity(mut self, jobs: usize) -> Self {
        self.queue_capacity = jobs;
        self
    }

    /// How many gates may wait on one shard; beyond, submits answer `QueueFull`. 1 to 1,048,576; 16,384
    /// by default.
    ///
    /// What is in the queue or in the shard's hand by then still gets in, and each key keeps one refused
    /// gate, which waits as well. So no more wait than this many, twice
    /// [`queue_capacity`](Self::queue_capacity), and one for each key with subscribers.
    pub fn pending_capacity(mut self, gates: usize) -> Self {
        self.pending_capacity = gates;
        self
    }

    /// How many gates of one key may be queued or waiting. 1 to 32,768; 16 by default.
    pub fn pending_per_key(mut self, gates: usize) -> Self {
        self.pending_per_key = gates;
        self
    }

    /// How many notices a subscriber's buffer holds. 1 to 16,384; 20 by default.
    pub fn buffer_capacity(mut self, notices: usize) -> Self {
        self.buffer_capacity = notices;
        self
    }

    /// The most subscribers of all keys together. 1 to 2,147,483,648, which is the default.
    pub fn max_subscribers(mut self, subscribers: usize) -> Self {
        self.max_subscribers = subscribers;
        self
    }

    /// The most subscribers of one key. 1 to 2,147,483,648, which is the default.
    pub fn max_subscribers_per_key(mut self, subscribers: usize) -> Self {
        self.max_subscribers_per_key = subscribers;
        self
    }

    /// The most bytes of a key that can be subscribed to. 1 to 1,048,576; 1,024 by default.
    pub fn max_key_bytes(mut self, bytes: usize) -> Self {
        self.max_key_bytes = bytes;
        self
    }

    /// How often a gate asks, and for how long. [`Retry::backoff`] over 5.2 s by default.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What happens when a subscriber's buffer is full. [`Overflow::DropNewest`] by default.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// What subscribers get when a gate expires. [`Expiry::Missed`] by default.
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Whether a key keeps at most two waiting gates: the head, and a successor that takes in every
    /// later one, with the newest producer, the highest position and the oldest deadline. Off by default.
    ///
    /// Positions are compared within one [`Watermark`](crate::Watermark) only: of two, the newer gate's
    /// stands.
    pub fn coalesce(mut self, coalesce: bool) -> Self {
        self.coalesce = coalesce;
        self
    }

    /// Who is told what happens. Nobody by default.
    ///
    /// An [`Arc`](std::sync::Arc) of an observer is one as well. The registry owns its observer: one that
    /// holds a [`Registry`] keeps that open for ever, until it lets go of it.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(std::sync::Arc::new(observer));
        self
    }

    /// Where shard threads run. [`Pinning::Auto`] by default.
    pub fn pinning(mut self, pinning: Pinning) -> Self {
        self.pinning = pinning;
        self
    }

    /// What an idle shard does. [`WaitStrategy::SpinThenPark`] by default.
    pub fn wait_strategy(mut self, wait: WaitStrategy) -> Self {
        self.wait_strategy = wait;
        self
    }

    /// A fixed seed for the hash of keys, so that a benchmark or a test repeats itself. With a seed
    /// that is known, keys can be chosen that all land in one place: leave it random elsewhere.
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.hash_seed = Some(seed);
        self
    }

    /// The runtime in whose context asynchronous producers run, so that tokio's I/O and timers work
    /// in them. It needs the drivers enabled, and must outlive the registry.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    fn check(&self) -> Result<(), BuildError> {
        let sizes = [
            ("workers", self.workers, MAX_WORKERS),
            ("queue_capacity", self.queue_capacity, MAX_QUEUE),
            ("pending_capacity", self.pending_capacity, MAX_QUEUE),
            ("pending_per_key", self.pending_per_key, MAX_PER_KEY),
            ("buffer_capacity", self.buffer_capacity, MAX_CAPACITY),
            ("max_subscribers", self.max_subscribers, MAX_SUBSCRIBERS),
            (
                "max_subscribers_per_key",
                self.max_subscribers_per_key,
                MAX_SUBSCRIBERS,
            ),
            ("max_key_bytes", self.max_key_bytes, 1 << 20),
        ];
        for (setting, value, max) in sizes {
            if value == 0 {
                return Err(BuildError::Zero { setting });
            }
            if value > max {
                return Err(BuildError::TooLarge {
                    setting,
                    value,
                    max,
                });
            }
        }
        Ok(())
    }

    /// The core of each shard, if it has one.
    fn cores(&self) -> Result<Vec<Option<usize>>, BuildError> {
        let nowhere = vec![None; self.workers];
        let usable = || -> Vec<usize> {
            core_affinity::get_core_ids()
                .unwrap_or_default()
                .iter()
                .map(|core| core.id)
                .collect()
        };
        let chosen = match &self.pinning {
            Pinning::Off => return Ok(nowhere),
            Pinning::Auto => {
                let usable = usable();
                if usable.len() <= self.workers {
                    return Ok(nowhere);
                }
                // The first core is where interrupts tend to land.
                usable[1..].to_vec()
            }
            Pinning::Cores(cores) if cores.is_empty() => return Ok(nowhere),
            Pinning::Cores(cores) => {
                let usable = usable();
                if let Some(&core) = cores.iter().find(|core| !usable.contains(core)) {
                    return Err(BuildError::NoSuchCore { core, usable });
                }
                cores.clone()
            }
        };
        Ok((0..self.workers)
            .map(|shard| Some(chosen[shard % chosen.len()]))
            .collect())
    }

    /// Starts the shards.
    ///
    /// # Errors
    /// [`BuildError`] for a setting out of its range, a core that is not there, or a thread that could
    /// not be started; then nothing is left running.
    pub fn build(self) -> Result<Registry<T>, BuildError>
    where
        T: Clone + Send + 'static,
    {
        self.check()?;
        let cores = self.cores()?;
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Arc::new(Settings {
            retry: self.retry,
            expiry: self.expiry,
            coalesce: self.coalesce,
            wait: self.wait_strategy,
            may_spin: available > self.workers,
            pending_per_key: self.pending_per_key as u16,
            observer: Watched::new(self.observer),
            closing: Arc::new(AtomicBool::new(false)),
            #[cfg(feature = "tokio")]
            runtime: self.runtime,
        });
        let hasher = self
            .hash_seed
            .map_or_else(Hasher::random, Hasher::with_seed);
        let shards: Box<[_]> = (0..self.workers)
            .map(|index| {
                Arc::new(Inbox::new(
                    index,
                    self.queue_capacity,
                    self.pending_capacity,
                    settings.clone(),
                ))
            })
            .collect();
        let limits = Limits {
            key: self.max_key_bytes,
            subscribers: self.max_subscribers,
            subscribers_per_key: self.max_subscribers_per_key,
            buffer: buffer(self.buffer_capacity),
            overflow: self.overflow,
        };
        let core = Arc::new(Core::new(hasher, shards, settings.clone(), limits));
        for (inbox, pinned) in core.shards.iter().zip(cores) {
            core.shard_starts();
            let ended = {
                let core = core.clone();
                move |index| core.shard_ended(index)
            };
            if let Err(error) = shard::spawn(inbox.clone(), settings.clone(), pinned, ended) {
                core.shard_ended(inbox.index);
                core.begin_closing();
                core.wait_closed(None);
                return Err(BuildError::Thread(ThreadError::new(error)));
            }
        }
        Ok(Registry::from_core(core))
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("workers", &self.workers)
            .field("queue_capacity", &self.queue_capacity)
            .field("pending_capacity", &self.pending_capacity)
            .field("pending_per_key", &self.pending_per_key)
            .field("buffer_capacity", &self.buffer_capacity)
            .field("retry", &self.retry)
            .field("overflow", &self.overflow)
            .field("expiry", &self.expiry)
            .field("coalesce", &self.coalesce)
            .field("pinning", &self.pinning)
            .field("wait_strategy", &self.wait_strategy)
            .finish_non_exhaustive()
    }
}
