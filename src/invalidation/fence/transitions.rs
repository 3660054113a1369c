//! How the word moves. Whoever drives a fence calls these; hits, loads and drops only read.
//!
//! | from | event | in this order | to |
//! |---|---|---|---|
//! | Standalone, Suspect | attach | epoch + 1 | Joining |
//! | Joining | doubt | epoch + 1 | Joining |
//! | Coherent, Suspect | doubt, detach | epoch + 1 | Suspect |
//! | Joining, Suspect | recover | epoch + 1, pass stripes, clear, compare-and-swap | Coherent |
//! | Coherent | flush | epoch + 1 as Suspect, pass stripes, clear, compare-and-swap | Coherent |
//! | any other | flush | epoch + 1, pass stripes, clear | the same |
//!
//! Doubt may be raised by any thread at any time, and takes no lock: a deadline must not wait for
//! a slow `clear`. Clearing is serialised. A doubt raised while somebody clears makes the final
//! compare-and-swap fail, so that the doubt stands. While a coherent fence is flushed it is
//! [trusted](Fence::is_trusted) all the same: whoever ends trust has to doubt it then, too, since nobody
//! looks at the time again before the flush gives it back.
//!
//! The epoch is raised when doubt begins, because older entries may have missed a drop, **and**
//! when it ends: what was loaded in doubt may have been read before a drop that never came.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use super::planted::{planted, unless};
use super::stripe::{self, Inside};
use super::word::{CAPPED, Coherence, Word};
use super::{Fence, nanos};
use crate::sync::MutexGuard;

impl Fence {
    /// A new epoch, in the state that `state` makes of the present word. Returns the new word.
    pub(super) fn raise_epoch(&self, state: impl Fn(Word) -> Coherence) -> Word {
        self.raise(|word| word.next(state(word)))
    }

    fn raise(&self, next: impl Fn(Word) -> Word) -> Word {
        // Release: whoever reads the new epoch (Acquire, in `word`) sees the commit that it tells of,
        // and the floor and settling time set before.
        let publish = unless("fence_raise_release", Release);
        // Acquire, as in `word`: a recovery that comes after a doubt sees what the doubter had seen,
        // and clears after it.
        let reread = unless("fence_raise_reread", Acquire);
        let mut word = self.word();
        loop {
            let raised = next(word);
            match self
                .word
                .compare_exchange_weak(word.0, raised.0, publish, reread)
            {
                Ok(_) => return raised,
                Err(seen) => word = Word(seen),
            }
        }
    }

    /// Takes the fence for one driver: `false` if it has one.
    pub(crate) fn attach(&self, lease: Duration) -> bool {
        // Acquire: its partner is the Release store of the last driver's `detach`, so that this lease
        // comes after that one's.
        if self
            .driven
            .swap(true, unless("fence_attach_acquire", Acquire))
        {
            return false;
        }
        self.lease.store(nanos(lease), Relaxed);
        self.raise_epoch(|_| Coherence::Joining);
        true
    }

    /// As [`attach`](Self::attach), for a driver that hears nobody else.
    pub(crate) fn attach_alone(&self) -> bool {
        if self
            .driven
            .swap(true, unless("fence_attach_acquire", Acquire))
        {
            return false;
        }
        self.raise_epoch(|_| Coherence::Standalone);
        true
    }

    /// The driver is gone: nothing arrives any more, so nothing lasts longer than a lease.
    pub(crate) fn detach(&self) {
        self.raise_epoch(|_| Coherence::Suspect);
        self.driven
            .store(false, unless("fence_detach_release", Release));
    }

    /// Something may have been missed.
    pub(crate) fn doubt(&self) {
        self.raise(|word| {
            let state = match word.state() {
                Coherence::Joining => Coherence::Joining,
                _ => Coherence::Suspect,
            };
            match planted("fence_no_epoch_on_doubt") {
                true => word.with(state),
                false => word.next(state),
            }
        });
    }

    /// Whether it reads `Coherent`, or will when a flush that is under way has cleared.
    pub(crate) fn is_trusted(&self) -> bool {
        self.word().trusted()
    }

    /// All that was missed is behind us: `false` if `clear` failed or a doubt came meanwhile.
    pub(crate) fn recover(&self, floor: Option<u64>, clear: impl FnOnce() -> bool) -> bool {
        let _serial = self.serialise();
        self.raise_marks(floor);
        let during = if planted("fence_no_epoch_on_leaving") {
            self.word()
        } else {
            self.raise_epoch(Word::state)
        };
        self.pass_stripes();
        let cleared = run(clear);
        cleared && self.restore(during)
    }

    /// Drops everything. `clear` answers its result and whether it succeeded; the second part of
    /// the answer is whether it did and the state is what it was.
    pub(crate) fn flush_with<R>(
        &self,
        floor: Option<u64>,
        clear: impl FnOnce() -> (R, bool),
    ) -> (R, bool) {
        let _serial = self.serialise();
        self.raise_marks(floor);
        let was_coherent = Cell::new(false);
        let during = self.raise(|word| match word.state() {
            Coherence::Coherent => {
                was_coherent.set(true);
                word.clearing()
            }
            other => {
                was_coherent.set(false);
                word.next(other)
            }
        });
        self.pass_stripes();
        let (result, cleared) = run(clear);
        let restored = cleared && (!was_coherent.get() || self.restore(during));
        (result, restored)
    }

    /// Caps the age of all entries, the old ones too, or lifts the cap.
    pub(crate) fn cap_age(&self, max_age: Option<Duration>) {
        let age = max_age.map_or(u64::MAX, nanos);
        self.driven_max_age.store(age, Relaxed);
        if age.min(self.own_max_age) < u64::MAX {
            // Relaxed: a hit that sees the bit first and the age a moment later serves as before.
            self.word.fetch_or(CAPPED, Relaxed);
        } else {
            self.word.fetch_and(!CAPPED, Relaxed);
        }
    }

    /// One clears at a time. Inside a callback nobody may wait; who clears besides has raised the
    /// epoch as well, and at worst the state stays `Suspect` until the driver's next look.
    fn serialise(&self) -> Option<MutexGuard<'_, ()>> {
        if stripe::inside() {
            self.clearing.try_lock()
        } else {
            Some(self.clearing.lock())
        }
    }

    /// Done before the epoch is raised, so that whoever reads the new epoch sees these too.
    fn raise_marks(&self, floor: Option<u64>) {
        self.raise_floor(floor.unwrap_or(0));
        self.settles.fetch_max(self.settles_from_now(), Relaxed);
    }

    /// Waits for the stores that checked the old epoch. Inside a callback this thread may hold one
    /// of the locks itself; what is inserted late then has an old stamp and is never served.
    fn pass_stripes(&self) {
        if stripe::inside() || planted("fence_no_stripes") {
            return;
        }
        for stripe in &self.stripes {
            stripe.pass();
        }
    }

    /// `Coherent`, in the epoch of `during`, unless anyone has raised the epoch since.
    fn restore(&self, during: Word) -> bool {
        let mut word = during;
        loop {
            let coherent = word.with(Coherence::Coherent);
            // Release: whoever reads `Coherent` (Acquire, in `word`) finds the cache cleared.
            let publish = unless("fence_restore_release", Release);
            match self
                .word
                .compare_exchange(word.0, coherent.0, publish, Relaxed)
            {
                Ok(_) => return true,
                // Only the age limit has changed.
                Err(seen) if Word(seen).same_but_cap(during) => word = Word(seen),
                Err(_) => return false,
            }
        }
    }
}

/// Runs a cache's `clear` as the callback that it is.
fn run<R>(clear: impl FnOnce() -> R) -> R {
    let _inside = Inside::enter();
    clear()
}
