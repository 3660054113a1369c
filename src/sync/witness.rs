//! Stands for plain memory that is published through an atomic.

#![allow(unsafe_code)]

use crate::sync::UnsafeCell;

/// Nothing at all, except in a model: there it fails a reader who comes upon the memory beside it
/// without being ordered after its making, or before its end.
#[derive(Debug)]
pub(crate) struct Witness(UnsafeCell<()>);

// SAFETY: there is nothing in the cell, and it is written only before it is shared, and after.
unsafe impl Send for Witness {}
// SAFETY: as above.
unsafe impl Sync for Witness {}

impl Witness {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        let witness = Self(UnsafeCell::new(()));
        // A model takes note of writes, not of what a cell begins with.
        witness.0.with_mut(|_| ());
        witness
    }

    /// Reads the memory that it stands for.
    #[inline(always)]
    pub(crate) fn check(&self) {
        self.0.with(|_| ());
    }

    /// Takes the memory that it stands for, which nobody else may use from now on.
    #[inline(always)]
    pub(crate) fn take(&self) {
        self.0.with_mut(|_| ());
    }
}
