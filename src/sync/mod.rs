//! `std` or `loom`: the one place that chooses.
//!
//! Everything in this crate that another thread can see goes through the types named here. With
//! `--cfg afterwrite_loom` they are loom's, so that the models in `loom-tests` explore the code
//! that ships. The cfg is our own: a bare `cfg(loom)` would reach every dependency as well.

pub(crate) mod counted;
#[cfg(afterwrite_loom)]
mod mutant;
pub(crate) mod order;
pub(crate) mod panics;
pub(crate) mod parker;
pub(crate) mod prefetch;
pub(crate) mod queue;
pub(crate) mod witness;

#[cfg(afterwrite_loom)]
pub use mutant::mutant;
pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(afterwrite_loom))]
mod imp {
    pub(crate) use std::alloc;
    pub(crate) use std::cell::UnsafeCell as StdUnsafeCell;
    pub(crate) use std::hint;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    };

    pub(crate) use std::{thread, thread_local};

    pub(crate) use parking_lot::{Mutex, MutexGuard};

    /// A cell whose contents are reached through closures, as loom's are.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(StdUnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        #[inline(always)]
        pub(crate) const fn new(value: T) -> Self {
            Self(StdUnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(afterwrite_loom)]
mod imp {
    pub(crate) use loom::alloc;
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::hint;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    };
    pub(crate) use loom::sync::{Arc, MutexGuard};
    pub(crate) use loom::thread_local;

    /// loom's threads; time does not pass in a model.
    pub(crate) mod thread {
        pub(crate) use loom::thread::{Thread, current, park};

        pub(crate) fn park_timeout(_: std::time::Duration) {
            park();
        }
    }

    /// loom's mutex without poisoning, as parking_lot's is.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

pub(crate) use imp::*;
