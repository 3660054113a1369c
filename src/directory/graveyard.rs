//! Where replaced snapshots and removed values wait until nobody reads them.
//!
//! # Who takes part
//!
//! One graveyard a stripe, touched under that stripe's writers' lock alone. Readers take no part:
//! they neither free nor signal anything. Their only trace is the count of the snapshot they hold.
//!
//! # The rule
//!
//! A snapshot points to its values without counting them, so a removed value must outlive every
//! reader of **any** snapshot that still contains it. A snapshot may be freed when it is unread. A
//! value may be given back when no snapshot that is still read contains it.
//!
//! # Why that is sound
//!
//! Let v be removed by the replacement of snapshot S.
//!
//! 1. Every snapshot that contains v was made between v's insert and its removal, in this stripe;
//!    each but S had been replaced before, under the same lock, so it was freed, or is held
//!    here. S is either unread, or held from now on.
//! 2. A snapshot here gains no reader: it left its cell, and arc-swap turned the debts of those
//!    that still read it into counts before its `swap` returned. So a count of one, ours, stays one, and
//!    reading it with Acquire orders all that its readers did before what follows.
//! 3. So when [`Graveyard::settle`] finds v in no held snapshot, by the address that v's own count keeps
//!    from being used again, nobody can reach v through the directory any more. If it finds one, v
//!    waits with it, and is looked up again among the rest when that one is freed.
//! 4. A reader that cloned v's handle has its own count.
//!
//! # Bounds
//!
//! A writer retires two snapshots a call at the most, and looks at [`SWEEP`] held ones. So what is
//! held shrinks to what is being read, at the most one snapshot a reader, and a value waits only if a
//! snapshot that is being read contains it: a reader that stalls holds back its own bucket's worth
//! and no more. What the last readers leave stays until the next writer of that stripe, or
//! [`Graveyard::sweep_all`].

use std::collections::VecDeque;

use super::snapshot::Snapshot;
use crate::arena::{Memory, Shared};

/// Held snapshots that a writer looks at in each call: more than it retires.
pub(super) const SWEEP: usize = 4;

/// A replaced snapshot that was being read when last looked at.
struct Held<V> {
    snapshot: Snapshot<V>,
    /// Removed values that it contains.
    waiting: Vec<Shared<V>>,
}

/// Replaced snapshots and removed values of one stripe.
pub(crate) struct Graveyard<V> {
    held: VecDeque<Held<V>>,
}

/// Values that nobody reaches through the directory any more: to be dropped where no lock is held.
pub(super) struct Freed<V> {
    /// Nearly always the only one, and needs no allocation.
    first: Option<Shared<V>>,
    more: Vec<Shared<V>>,
}

impl<V> Freed<V> {
    pub(super) fn new() -> Self {
        Self {
            first: None,
            more: Vec::new(),
        }
    }

    fn push(&mut self, value: Shared<V>) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.more.push(value);
        }
    }
}

impl<V> Graveyard<V> {
    pub(super) fn new() -> Self {
        Self {
            held: VecDeque::new(),
        }
    }

    /// Takes a snapshot that was replaced, and the value that its successor lacks, if it was removed.
    pub(super) fn retire(
        &mut self,
        snapshot: Snapshot<V>,
        removed: Option<Shared<V>>,
        memory: &mut Memory<'_>,
        freed: &mut Freed<V>,
    ) {
        let waiting = removed.into_iter();
        match snapshot.free_if_unread(memory) {
            Ok(()) => waiting.for_each(|value| self.settle(value, freed)),
            Err(snapshot) => self.held.push_back(Held {
                snapshot,
                waiting: waiting.collect(),
            }),
        }
    }

    /// Looks again at a few of the held snapshots.
    pub(super) fn sweep(&mut self, memory: &mut Memory<'_>, freed: &mut Freed<V>) {
        for _ in 0..self.held.len().min(SWEEP) {
            self.look(memory, freed);
        }
    }

    /// Looks again at all of the held snapshots.
    #[cfg(test)]
    pub(super) fn sweep_all(&mut self, memory: &mut Memory<'_>, freed: &mut Freed<V>) {
        for _ in 0..self.held.len() {
            self.look(memory, freed);
        }
    }

    /// How many snapshots are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Frees the held snapshot that was looked at longest ago, if it is unread.
    fn look(&mut self, memory: &mut Memory<'_>, freed: &mut Freed<V>) {
        let Some(Held { snapshot, waiting }) = self.held.pop_front() else {
            return;
        };
        match snapshot.free_if_unread(memory) {
            Ok(()) => (waiting.into_iter()).for_each(|value| self.settle(value, freed)),
            Err(snapshot) => self.held.push_back(Held { snapshot, waiting }),
        }
    }

    /// Lets a removed value wait with a held snapshot that contains it, or gives it back.
    fn settle(&mut self, value: Shared<V>, freed: &mut Freed<V>) {
        let address = Shared::as_ptr(&value);
        let container = self.held.iter_mut().find(|held| {
            let mut entries = held.snapshot.entries();
            entries.any(|(_, entry)| entry == address)
        });
        match container {
            Some(held) => held.waiting.push(value),
            None => freed.push(value),
        }
    }
}
