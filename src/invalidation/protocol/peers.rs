//! The table of publishers: found by incarnation, held in stable slots, never more than allowed.

use std::collections::HashMap;

use ahash::RandomState;

use super::peer::{Hearing, Peer};
use super::{Micros, Rules};
use crate::invalidation::frame::Incarnation;

/// A publisher's place in every per-publisher list.
pub(crate) type Slot = usize;

/// What is known of all publishers. Slots are walked in order, so that the same inputs always give
/// the same outputs.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    slots: Vec<Option<Peer>>,
    by_incarnation: HashMap<Incarnation, Slot, RandomState>,
    /// The one found last: frames of one publisher come in runs.
    recent: Option<(Incarnation, Slot)>,
}

impl Peers {
    #[inline]
    pub(crate) fn find(&mut self, incarnation: Incarnation) -> Option<Slot> {
        match self.recent {
            Some((recent, slot)) if recent == incarnation => Some(slot),
            _ => {
                let slot = *self.by_incarnation.get(&incarnation)?;
                self.recent = Some((incarnation, slot));
                Some(slot)
            }
        }
    }

    /// A slot for a publisher that was never heard, or `None` when there are too many.
    pub(crate) fn add(
        &mut self,
        incarnation: Incarnation,
        now: Micros,
        rules: &Rules,
    ) -> Option<Slot> {
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < rules.max_publishers => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[slot] = Some(Peer::new(incarnation, now, rules));
        self.by_incarnation.insert(incarnation, slot);
        Some(slot)
    }

    /// The publisher that has been gone for longest, if the table is full and there is one.
    pub(crate) fn expendable(&self, rules: &Rules) -> Option<Slot> {
        if self.by_incarnation.len() < rules.max_publishers {
            return None;
        }
        self.iter()
            .filter(|(_, peer)| peer.hearing.is_gone())
            .min_by_key(|(_, peer)| peer.since)
            .map(|(slot, _)| slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        if let Some(peer) = self.slots.get_mut(slot).and_then(Option::take) {
            self.by_incarnation.remove(&peer.incarnation);
        }
        self.recent = None;
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Peer> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Peer> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Peer)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, peer)| Some((slot, peer.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Peer)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(slot, peer)| Some((slot, peer.as_mut()?)))
    }

    /// How many are waited for.
    pub(crate) fn heard(&self) -> usize {
        self.iter()
            .filter(|(_, peer)| peer.hearing == Hearing::Live)
            .count()
    }
}
