//! A cache with its fence, and the one who drives them.
//!
//! A [`Target`] is what a watch is given: where invalidations go. [`Target::attach`] turns it into
//! a [`Driver`], of which there is one at a time. The driver is the protocol's end of the seam: it
//! alone says that a node may have missed something, and that it has not.
//!
//! ```text
//!   protocol ──► Driver ──► Fence ◄── loads, hits
//!                   │          (one lock per stripe)
//!                   └────► Cache: remove(id), clear(reason)
//! ```
//!
//! The driver may be called from several threads. Doubts take no lock, so a thread that
//! enforces deadlines is never held up by a slow cache.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;
use std::time::Duration;

use thiserror::Error;

use super::cache::{Cache, Reason, Unfinished};
use super::fence::{Coherence, Fence};
use super::subject::Entity;
use crate::limit::Limit;

/// A cache and the fence that stands beside it. Cloning gives another handle to the same two.
#[derive(Clone)]
pub struct Target {
    fence: Arc<Fence>,
    cache: Arc<dyn Cache>,
    /// The cache cannot see the fence: doubt bypasses nothing.
    blind: bool,
}

impl Target {
    /// A target with a fence of its own: for caches that are only dropped from, never loaded into
    /// through this library.
    ///
    /// Nobody asks that fence, so a doubt bypasses nothing: the cache is told to
    /// [clear](Cache::clear) when a doubt begins, and again when it ends. What it is given in between
    /// may be old already; whoever fills it should look at
    /// [`Watch::coherence`](super::Watch::coherence).
    pub fn new(cache: impl Cache) -> Self {
        Self {
            blind: true,
            ..Self::with_fence(Arc::new(Fence::new()), cache)
        }
    }

    /// A target whose fence also guards loads that the caller stores by hand. A doubt bypasses what
    /// it holds, so it is told to [clear](Cache::clear) only when the doubt ends.
    pub fn with_fence(fence: Arc<Fence>, cache: impl Cache) -> Self {
        Self {
            fence,
            cache: Arc::new(cache),
            blind: false,
        }
    }

    pub(crate) const fn is_blind(&self) -> bool {
        self.blind
    }

    /// The fence.
    #[must_use]
    pub const fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }

    /// Becomes this target's driver. The fence goes to `Joining`; until [`Driver::recover`], what is
    /// loaded is served for `lease` after its load began.
    ///
    /// # Errors
    ///
    /// [`AlreadyDriven`] while another driver lives: two protocols can't vouch for one cache.
    pub fn attach(&self, lease: Duration) -> Result<Driver, AlreadyDriven> {
        if self.fence.attach(lease) {
            Ok(Driver::new(self))
        } else {
            Err(AlreadyDriven)
        }
    }
}

impl Target {
    /// Becomes the driver of a cache whose process is alone: `Standalone`.
    pub(crate) fn attach_alone(&self) -> Result<Driver, AlreadyDriven> {
        if self.fence.attach_alone() {
            Ok(Driver::new(self))
        } else {
            Err(AlreadyDriven)
        }
    }
}

impl<C: Cache> From<C> for Target {
    fn from(cache: C) -> Self {
        Self::new(cache)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

/// The target has a driver already: it is watched elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this cache is driven already; a cache can be watched once")]
pub struct AlreadyDriven;

/// The protocol's hand on one cache. Dropping it leaves the cache `Suspect`: nobody listens for it
/// any more, so nothing lasts longer than a lease.
///
/// No call panics or lets a cache's panic through: a cache that panics, or answers
/// [`Unfinished`], makes the call answer [`Unfinished`] and the cache `Suspect`.
#[derive(Debug)]
pub struct Driver {
    target: Target,
    /// What the cache holds, where that is known.
    entity: Option<Entity>,
    detached: AtomicBool,
    panics: Limit,
}

impl Driver {
    fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            entity: None,
            detached: AtomicBool::new(false),
            panics: Limit::new(),
        }
    }

    /// The driver of a cache of this entity.
    pub(crate) fn of(mut self, entity: &Entity) -> Self {
        self.entity = Some(entity.clone());
        self
    }

    /// Speaks of the cache's panic, if there was one; not under a fence's lock.
    fn tell(&self, panicked: &Cell<bool>) {
        if panicked.get() {
            let entity = self.entity.as_ref().map_or("", Entity::as_str);
            self.panics
                .say(|| tracing::error!(entity, "a watcher panicked; its cache is in doubt"));
        }
    }

    /// Lets go of the fence, so that the target can be attached again. What this driver is still
    /// told to drop is dropped all the same.
    pub(crate) fn end(&self) {
        // AcqRel: once, and never again when another drives.
        if !self.detached.swap(true, AcqRel) {
            self.target.fence.detach();
        }
    }

    /// Drops one id; with a position, loads for it have to have seen that position from now on.
    ///
    /// May block while a store on the same lock is under way.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when the cache failed. The state then is `Suspect` (or still `Joining`), all
    /// that the cache holds is bypassed, and [`recover`](Self::recover) is due.
    pub fn invalidate(&self, id: &str, position: Option<u64>) -> Result<(), Unfinished> {
        let panicked = Cell::new(false);
        let remove = || caught_as(&panicked, || self.target.cache.remove(id));
        let removed = match position {
            Some(position) => self.target.fence.invalidate_at(id, position, remove),
            None => self.target.fence.invalidate(id, remove),
        };
        if removed.is_err() {
            self.doubt();
            self.tell(&panicked);
        }
        removed
    }

    /// Drops everything and keeps the state, which a coherent cache leaves while it clears. `floor`
    /// is the highest position that publishers speak of.
    ///
    /// May block for as long as the slowest store under way, and the cache's `clear`.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when the cache failed or a doubt came meanwhile: the state is `Suspect` (or
    /// what it was before, if that was not `Coherent`), and [`recover`](Self::recover) is due.
    pub fn flush(&self, reason: Reason, floor: Option<u64>) -> Result<(), Unfinished> {
        let panicked = Cell::new(false);
        let clear = || caught_as(&panicked, || self.target.cache.clear(reason)).is_ok();
        let ((), flushed) = self.target.fence.flush_with(floor, || ((), clear()));
        self.tell(&panicked);
        if flushed { Ok(()) } else { Err(Unfinished) }
    }

    /// Something may have been missed: `Suspect`, or still `Joining`. All older entries are bypassed
    /// from here on; what is loaded from now on is served for one lease at most. Lock-free.
    pub fn doubt(&self) {
        self.target.fence.doubt();
    }

    /// It is proved that all invalidations arrive, from before this call on: drops everything and
    /// becomes `Coherent`.
    ///
    /// May block for as long as the slowest store under way, and the cache's `clear`.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when the cache failed, or a doubt came after the call began, which stands.
    pub fn recover(&self, reason: Reason, floor: Option<u64>) -> Result<(), Unfinished> {
        self.recover_if(reason, floor, || true)
    }

    /// As [`recover`](Self::recover), unless `still` answers `false`. It is asked when a doubt that
    /// it does not know of yet would make the recovery fail, so that none is overlooked.
    pub(crate) fn recover_if(
        &self,
        reason: Reason,
        floor: Option<u64>,
        still: impl FnOnce() -> bool,
    ) -> Result<(), Unfinished> {
        let panicked = Cell::new(false);
        let clear = || caught_as(&panicked, || self.target.cache.clear(reason)).is_ok();
        let recovered = self.target.fence.recover(floor, || clear() && still());
        self.tell(&panicked);
        if recovered { Ok(()) } else { Err(Unfinished) }
    }

    /// Asks, of every id, for loads that have seen `position`. Never lowers it. Wait-free.
    pub fn raise_floor(&self, position: u64) {
        self.target.fence.raise_floor(position);
    }

    /// Serves no entry for longer than `max_age` after its load began, or lifts that cap: for
    /// entities that publishers without sequence numbers write to. Wait-free.
    pub fn cap_age(&self, max_age: Option<Duration>) {
        self.target.fence.cap_age(max_age);
    }

    /// The state as hits see it. It may be `Suspect` where the driver expects `Coherent`, after
    /// somebody else's failed flush: then [`recover`](Self::recover) is due. Wait-free.
    #[must_use]
    pub fn coherence(&self) -> Coherence {
        self.target.fence.coherence()
    }

    /// Whether it reads `Coherent`, or will when a flush that is under way has cleared. Wait-free.
    pub(crate) fn is_trusted(&self) -> bool {
        self.target.fence.is_trusted()
    }

    /// What is driven.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end();
    }
}

/// A cache's panic is its own failure, not that of whoever calls it.
pub(crate) fn caught(call: impl FnOnce() -> Result<(), Unfinished>) -> Result<(), Unfinished> {
    caught_as(&Cell::new(false), call)
}

/// The same, and notes whether it panicked.
fn caught_as(
    panicked: &Cell<bool>,
    call: impl FnOnce() -> Result<(), Unfinished>,
) -> Result<(), Unfinished> {
    // What a panicking cache leaves behind is bypassed by its caller.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        panicked.set(true);
        Err(Unfinished)
    })
}
