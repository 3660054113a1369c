//! How a shard is told that there is something to do, and how it sleeps until then.
//!
//! One word: bits say where to look, `ASLEEP` says that the shard's thread is parked or about to be.
//! Whoever leaves work for the shard first leaves it, then rings (one read-modify-write); the
//! shard takes the bits (another one), then looks. So work that the shard does not see comes with a
//! bit that it will see. Before it parks the shard turns an empty word into `ASLEEP` by a
//! compare-and-swap, which fails if a bit came; who rings and finds `ASLEEP` unparks it.

use std::time::{Duration, Instant};

use super::faults::{RING_WAKES_NOBODY, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{AtomicU32, Ordering::Relaxed, order};

/// The queue, or the refused list, has something.
pub(crate) const MAIL: u32 = 1;
/// A gate's future, timer or watermark has woken.
pub(crate) const READY: u32 = 1 << 1;
/// A key's turn, which the shard asked for, is free.
pub(crate) const TURN: u32 = 1 << 2;
/// The registry closes.
pub(crate) const CLOSE: u32 = 1 << 3;
const ASLEEP: u32 = 1 << 4;

/// A shard's bell.
#[derive(Debug)]
pub(crate) struct Bell {
    bits: AtomicU32,
    sleeper: std::sync::OnceLock<Thread>,
    /// What the `OnceLock` orders, which the models do not see.
    #[cfg(afterwrite_loom)]
    named: crate::sync::AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self {
            bits: AtomicU32::new(0),
            sleeper: std::sync::OnceLock::new(),
            #[cfg(afterwrite_loom)]
            named: crate::sync::AtomicBool::new(false),
        }
    }

    /// Names the thread that sleeps by this bell: the caller's. Before that, nobody sleeps.
    pub(crate) fn attach(&self) {
        self.sleeper.get_or_init(thread::current);
        #[cfg(afterwrite_loom)]
        self.named.store(true, crate::sync::Ordering::Release);
    }

    /// Who sleeps, if it has been named as far as the caller sees.
    fn sleeper(&self) -> Option<&Thread> {
        #[cfg(afterwrite_loom)]
        if !self.named.load(crate::sync::Ordering::Acquire) {
            return None;
        }
        self.sleeper.get()
    }

    /// Passes by the bell without ringing it. Of two that pass (or ring), the later sees what the
    /// earlier did before.
    pub(crate) fn pass(&self) {
        self.bits.fetch_or(0, order::bell_pass());
    }

    /// Tells the shard to look. Lock-free; wakes its thread if that sleeps.
    pub(crate) fn ring(&self, bit: u32) {
        let before = self.bits.fetch_or(bit, order::bell_ring());
        if before & ASLEEP != 0
            && !planted(RING_WAKES_NOBODY)
            && let Some(sleeper) = self.sleeper()
        {
            sleeper.unpark();
        }
    }

    /// Takes the bits.
    pub(crate) fn take(&self) -> u32 {
        if self.bits.load(Relaxed) == 0 {
            return 0;
        }
        self.bits.swap(0, order::bell_take()) & !ASLEEP
    }

    /// Whether somebody has rung.
    #[inline]
    pub(crate) fn has_rung(&self) -> bool {
        self.bits.load(Relaxed) != 0
    }

    /// Parks the calling thread, which must be the attached one, until somebody rings or `until`.
    pub(crate) fn sleep(&self, until: Option<Instant>) {
        if self
            .bits
            .compare_exchange(0, ASLEEP, order::bell_sleep(), Relaxed)
            .is_err()
        {
            return;
        }
        while self.bits.load(Relaxed) == ASLEEP {
            match until {
                None => thread::park(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        break;
                    }
                    thread::park_timeout(left);
                }
            }
        }
        self.bits.fetch_and(!ASLEEP, Relaxed);
    }
}
