//! A registry of one shard as the models see it: the shard's thread is the model's, step by step.
//!
//! It exists under `--cfg afterwrite_loom` only, and adds no logic.

use super::channel::Channel;
use super::engine::{Engine, Step};
use super::inbox::Inbox;
use super::settings::{Settings, WaitStrategy, Watched};
use crate::directory::Hasher;
use crate::gate::{Gate, Retry};
use crate::mailbox::Overflow;
use crate::observer::Expiry;
use crate::registry::{Core, Limits, SubscribeOptions};
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicBool};
use crate::{Published, Submitted, SubscribeError};

/// The one key of the models.
const KEY: &str = "key";

/// The front door, and one key that is resolved.
pub struct Door<T> {
    core: Arc<Core<T>>,
    channel: Arc<Channel<T>>,
}

/// The shard's own side.
pub struct Shard<T> {
    core: Arc<Core<T>>,
    engine: Engine<T>,
}

impl<T> std::fmt::Debug for Door<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Door").field(&self.channel).finish()
    }
}

impl<T> std::fmt::Debug for Shard<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").finish_non_exhaustive()
    }
}

/// A registry with one shard, whose queue holds so many jobs.
pub fn registry<T: Clone + Send + 'static>(queue_capacity: usize) -> (Door<T>, Shard<T>) {
    let settings = Arc::new(Settings {
        retry: Retry::default(),
        expiry: Expiry::default(),
        coalesce: false,
        wait: WaitStrategy::Park,
        may_spin: false,
        pending_per_key: 8,
        observer: Watched::default(),
        closing: Arc::new(AtomicBool::new(false)),
        #[cfg(feature = "tokio")]
        runtime: None,
    });
    let limits = Limits {
        key: 64,
        subscribers: 8,
        subscribers_per_key: 8,
        buffer: 4,
        overflow: Overflow::DropNewest,
    };
    let inbox = Arc::new(Inbox::new(0, queue_capacity, 64));
    let shards: Box<[_]> = Box::new([inbox.clone()]);
    let hasher = Hasher::with_seed(1);
    let core = Arc::new(Core::new(hasher, shards, settings.clone(), limits));
    core.shard_starts();
    let channel = core.pin_for_models(KEY);
    let door = Door {
        core: core.clone(),
        channel,
    };
    (
        door,
        Shard {
            core,
            engine: Engine::new(inbox, settings),
        },
    )
}

impl<T: Clone + Send + 'static> Door<T> {
    /// Subscribes to the key.
    pub fn subscribe(&self) -> Result<Subscription<T>, SubscribeError> {
        Core::subscribe(&self.core, KEY, SubscribeOptions::new(), None)
    }

    /// Submits to the key.
    pub fn submit(&self, gate: Gate<T>) -> Submitted {
        self.core.submit_to(&self.channel, || gate)
    }

    /// Publishes to the key.
    pub fn publish(&self, payload: T) -> Published {
        self.core.publish_to(&self.channel, payload)
    }

    /// Begins to close, as any thread may.
    pub fn begin_closing(&self) {
        self.core.begin_closing();
    }
}

impl<T> Clone for Door<T> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            channel: self.channel.clone(),
        }
    }
}

impl<T: Clone + Send + 'static> Shard<T> {
    /// One step of the loop; false once the registry closes.
    pub fn step(&mut self) -> bool {
        self.engine.step() != Step::Close
    }

    /// What the shard's thread does at its end.
    pub fn close(mut self) {
        self.engine.close();
        drop(self.engine);
        self.core.shard_ended(0);
    }
}
