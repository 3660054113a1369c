//! A registry of one shard as the models see it: the shard's thread is the model's, step by step.
//!
//! A [`Door`] keeps its one key pinned, as a resolved key does. With [`Keys`] none is, so that each
//! comes and goes with its subscribers.
//!
//! It exists under `--cfg afterwrite_loom` only, and adds no logic.

use std::task::Waker;

use super::channel::Channel;
use super::engine::{Engine, Step};
use super::inbox::Inbox;
use super::ready::{Node, ReadyList};
use super::settings::{Settings, WaitStrategy, Watched};
use crate::arena::Shared;
use crate::directory::{Hasher, models::moves_at_first_split};
use crate::gate::{Gate, Retry};
use crate::mailbox::Overflow;
use crate::observer::Expiry;
use crate::registry::{Core, Limits, SubscribeOptions};
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicBool};
use crate::{Published, Submitted, SubscribeError};

pub use crate::sync::order::SHARD_ROLES;

/// Every fault that can be planted here, beside the orderings.
pub const STEPS: &[&str] = super::faults::ALL;

/// A shard's bell by itself.
#[derive(Debug)]
pub struct Bell(Arc<super::bell::Bell>);

impl Bell {
    /// A bell that nobody has rung; the calling thread is its sleeper.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let bell = Arc::new(super::bell::Bell::new());
        bell.attach();
        Self(bell)
    }

    /// A bell whose sleeper is not named yet: see [`attach`](Self::attach).
    pub fn unattached() -> Self {
        Self(Arc::new(super::bell::Bell::new()))
    }

    /// Names the calling thread as its sleeper.
    pub fn attach(&self) {
        self.0.attach();
    }

    /// Tells the sleeper to look.
    pub fn ring(&self) {
        self.0.ring(super::bell::MAIL);
    }

    /// Whether somebody has rung; it counts as heard.
    pub fn take(&self) -> bool {
        self.0.take() != 0
    }

    /// Sleeps until somebody rings.
    pub fn wait(&self) {
        self.0.sleep(None);
    }
}

impl Clone for Bell {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// One waiting gate, and the list of those that were woken.
#[derive(Debug)]
pub struct Woken {
    list: Arc<ReadyList>,
    node: std::sync::Arc<Node>,
}

impl Woken {
    /// A gate that waits, and was not woken.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let list = ReadyList::new(Arc::new(super::bell::Bell::new()));
        let node = Node::new(list.clone(), 0);
        Self { list, node }
    }

    /// What wakes it.
    pub fn waker(&self) -> Waker {
        self.node.waker()
    }

    /// Whether it is on the list; it is taken off.
    pub fn take(&self) -> bool {
        self.list.take().is_some()
    }
}

/// The one key of a door.
const KEY: &str = "key";

/// The front door, and one key that is resolved.
pub struct Door<T> {
    core: Arc<Core<T>>,
    channel: Shared<Channel<T>>,
}

/// The front door, with no key resolved.
pub struct Keys<T> {
    core: Arc<Core<T>>,
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

impl<T> std::fmt::Debug for Keys<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Shard<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").finish_non_exhaustive()
    }
}

/// A registry with one shard, whose queue holds so many jobs; its key is resolved.
pub fn registry<T: Clone + Send + 'static>(queue_capacity: usize) -> (Door<T>, Shard<T>) {
    let (core, shard) = core(queue_capacity);
    let channel = Core::pin_for_models(&core, KEY);
    (Door { core, channel }, shard)
}

/// The same with no key resolved.
pub fn registry_by_key<T: Clone + Send + 'static>(queue_capacity: usize) -> (Keys<T>, Shard<T>) {
    let (core, shard) = core(queue_capacity);
    (Keys { core }, shard)
}

fn core<T: Clone + Send + 'static>(queue_capacity: usize) -> (Arc<Core<T>>, Shard<T>) {
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
    let inbox = Arc::new(Inbox::new(0, queue_capacity, 64, settings.clone()));
    let shards: Box<[_]> = Box::new([inbox.clone()]);
    let core = Arc::new(Core::new(hasher(), shards, settings.clone(), limits));
    core.shard_starts();
    let shard = Shard {
        core: core.clone(),
        engine: Engine::new(inbox, settings),
    };
    (core, shard)
}

fn hasher() -> Hasher {
    Hasher::with_seed(1)
}

/// `N` keys of which the last, and no other, is moved when the directory's first bucket is split.
pub fn keys_of_which_the_last_moves<const N: usize>() -> [String; N] {
    let moves = |key: &String| moves_at_first_split(hasher().hash(key));
    let mut stay = (0..)
        .map(|n| format!("stays {n}"))
        .filter(|key| !moves(key));
    let mut go = (0..).map(|n| format!("moves {n}")).filter(moves);
    std::array::from_fn(|at| {
        let keys: &mut dyn Iterator<Item = String> = if at + 1 == N { &mut go } else { &mut stay };
        keys.next().unwrap_or_default()
    })
}

impl<T: Clone + Send + 'static> Keys<T> {
    /// Subscribes to a key.
    pub fn subscribe(&self, key: &str) -> Result<Subscription<T>, SubscribeError> {
        Core::subscribe(&self.core, key, SubscribeOptions::new(), None)
    }

    /// Submits to a key.
    pub fn submit(&self, key: &str, gate: Gate<T>) -> Submitted {
        self.core.submit(key, || gate)
    }

    /// Publishes to a key.
    pub fn publish(&self, key: &str, payload: T) -> Published {
        self.core.publish(key, payload)
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.core.keys()
    }

    /// Begins to close, as any thread may.
    pub fn begin_closing(&self) {
        self.core.begin_closing();
    }
}

impl<T> Clone for Keys<T> {
    fn clone(&self) -> Self {
        let core = self.core.clone();
        Self { core }
    }
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

    /// One step of the loop; whether there may be more to do at once.
    pub fn works(&mut self) -> bool {
        self.engine.step() == Step::Busy
    }

    /// What the shard's thread does at its end.
    pub fn close(mut self) {
        self.engine.close();
        drop(self.engine);
        self.core.shard_ended(0);
    }
}
