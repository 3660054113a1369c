//! Gates that were woken from elsewhere: an intrusive list, one node a waiting gate.
//!
//! A node is a gate's waker. Waking it lists it, once, and rings the shard; the shard takes the
//! whole list, marks each node as listable again, and only then polls its gate, so that a wake
//! during the poll lists it anew.

use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};

use super::bell::{Bell, READY};
use crate::sync::queue::List;
use crate::sync::{Arc, AtomicBool, AtomicU32, Ordering::Relaxed, order};

/// The list of one shard. It never holds more nodes than gates wait.
#[derive(Debug)]
pub(crate) struct ReadyList {
    woken: List<StdArc<Node>>,
    bell: Arc<Bell>,
}

/// A waiting gate, as wakers know it.
#[derive(Debug)]
pub(crate) struct Node {
    list: Arc<ReadyList>,
    /// The gate's number; [`GONE`] once it has ended.
    gate: AtomicU32,
    listed: AtomicBool,
}

const GONE: u32 = u32::MAX;

impl ReadyList {
    pub(crate) fn new(bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self {
            woken: List::new(),
            bell,
        })
    }

    /// The next gate that was woken and has not ended.
    pub(crate) fn take(&self) -> Option<u32> {
        while let Some(node) = self.woken.pop() {
            node.listed.swap(false, order::ready_mark());
            let gate = node.gate.load(Relaxed);
            if gate != GONE {
                return Some(gate);
            }
        }
        None
    }

    /// Forgets what is listed: a listed node and its list hold each other.
    pub(crate) fn clear(&self) {
        while self.take().is_some() {}
    }

    /// How many nodes are listed now; later ones come behind them.
    pub(crate) fn len(&self) -> usize {
        self.woken.len()
    }
}

impl Node {
    pub(crate) fn new(list: Arc<ReadyList>, gate: u32) -> StdArc<Self> {
        StdArc::new(Self {
            list,
            gate: AtomicU32::new(gate),
            listed: AtomicBool::new(false),
        })
    }

    /// The gate has ended; called by the shard, as is everything that reads `gate`.
    pub(crate) fn retire(&self) {
        self.gate.store(GONE, Relaxed);
    }

    pub(crate) fn waker(self: &StdArc<Self>) -> Waker {
        Waker::from(self.clone())
    }
}

impl Wake for Node {
    fn wake(self: StdArc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &StdArc<Self>) {
        // A gate that has ended needs no look; its shard may have as well.
        if self.gate.load(Relaxed) != GONE && !self.listed.swap(true, order::ready_mark()) {
            self.list.woken.push(self.clone());
            self.list.bell.ring(READY);
        }
    }
}
