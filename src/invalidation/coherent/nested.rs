//! Loads that begin inside something of this library: those must not wait for who may wait for them.
//!
//! | a load that begins | shares a load | asks for a permit | why |
//! |---|---|---|---|
//! | anywhere else | yes | yes | |
//! | in a loader | of one that reads already | no | its own loader's permit may be the last; a load that queues may wait for it |
//! | in a callback of a fence | no | no | its thread holds a stripe, which the leader of the other load may want |
//!
//! That a loader runs is noted on the thread while the loader is called and polled. What a loader
//! hands to another task or thread is not inside it.

use std::cell::Cell;

use crate::invalidation::fence::inside;
use crate::sync::thread_local;

thread_local! {
    // loom's macro knows no `const` initialiser.
    #[allow(clippy::missing_const_for_thread_local)]
    static LOADERS: Cell<u32> = Cell::new(0);
}

/// Where a load begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Outside,
    Loader,
    Callback,
}

impl Place {
    pub(super) fn here() -> Self {
        if inside() {
            Self::Callback
        } else if LOADERS.with(Cell::get) > 0 {
            Self::Loader
        } else {
            Self::Outside
        }
    }
}

/// Marks this thread as inside a loader until dropped, also by a panic.
#[derive(Debug)]
pub(super) struct InLoader(());

impl InLoader {
    pub(super) fn enter() -> Self {
        LOADERS.with(|loaders| loaders.set(loaders.get() + 1));
        Self(())
    }
}

impl Drop for InLoader {
    fn drop(&mut self) {
        LOADERS.with(|loaders| loaders.set(loaders.get() - 1));
    }
}
