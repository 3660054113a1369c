//! One watched entity: how far each publisher has got with it, and what may be believed.

use super::peers::Slot;
use super::{Micros, Rules};
use crate::invalidation::protocol::node::Reason;
use crate::invalidation::subject::Entity;

/// What hits may believe; the states of the table in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Belief {
    Joining,
    Coherent,
    Suspect,
}

/// What one publisher has sent for one entity.
#[derive(Debug, Clone, Copy, Default)]
struct Column {
    /// The highest number seen, or counted as lost by a gap.
    last: u64,
    /// Since when it holds a write whose outcome is not known, if it does.
    unsettled: Option<Micros>,
}

/// The state of one watched entity.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) entity: Entity,
    pub(crate) belief: Belief,
    /// Publishers have to be heard by beats sent after this.
    pub(crate) since: Micros,
    /// The first reason of the doubt that lasts.
    pub(crate) reason: Reason,
    pub(crate) flushed: Option<Micros>,
    /// The highest position that another node has spoken of.
    pub(crate) floor: u64,
    /// Whether a publisher without frames was heard.
    pub(crate) plain: bool,
    /// Since when this node holds a write whose outcome is not known, if it does.
    pub(crate) own_unsettled: Option<Micros>,
    /// How many watch this very entity. Without any it is tracked because all are, and makes room.
    pub(crate) pins: usize,
    /// When it was tracked, or a publisher without frames was heard last.
    pub(crate) heard: Micros,
    columns: Vec<Column>,
    unsettled: usize,
}

impl Row {
    pub(crate) fn new(entity: Entity, now: Micros) -> Self {
        Self {
            entity,
            belief: Belief::Joining,
            since: now,
            reason: Reason::Joined,
            flushed: None,
            floor: 0,
            plain: false,
            own_unsettled: None,
            pins: 0,
            heard: now,
            columns: Vec::new(),
            unsettled: 0,
        }
    }

    /// Whether it may make room: nobody asked for it by name, and nobody's numbers would be lost.
    pub(crate) fn is_expendable(&self, now: Micros, rules: &Rules) -> bool {
        let numbered = self.columns.iter().any(|column| column.last > 0);
        self.pins == 0
            && !numbered
            && self.own_unsettled.is_none()
            && self.heard + rules.lease <= now
    }

    fn column(&mut self, slot: Slot) -> &mut Column {
        if self.columns.len() <= slot {
            self.columns.resize(slot + 1, Column::default());
        }
        &mut self.columns[slot]
    }

    pub(crate) fn last(&mut self, slot: Slot) -> u64 {
        self.column(slot).last
    }

    /// Notes a number; says whether numbers before it were skipped.
    #[inline]
    pub(crate) fn number(&mut self, slot: Slot, sequence: u64) -> bool {
        let column = self.column(slot);
        let gap = sequence > column.last.saturating_add(1);
        column.last = column.last.max(sequence);
        gap
    }

    /// Notes a mark; says whether anything up to it was not seen.
    pub(crate) fn mark(&mut self, slot: Slot, mark: u64) -> bool {
        let column = self.column(slot);
        let gap = mark > column.last;
        column.last = column.last.max(mark);
        gap
    }

    /// This publisher holds an unsettled write, from now on or longer.
    pub(crate) fn hold(&mut self, slot: Slot, now: Micros) {
        let unsettled = &mut self.column(slot).unsettled;
        if unsettled.is_none() {
            *unsettled = Some(now);
            self.unsettled += 1;
        }
    }

    /// This publisher holds none.
    pub(crate) fn settle(&mut self, slot: Slot) {
        if let Some(column) = self.columns.get_mut(slot)
            && column.unsettled.take().is_some()
        {
            self.unsettled -= 1;
        }
    }

    /// Since when this publisher holds an unsettled write, if it does.
    pub(crate) fn held_since(&self, slot: Slot) -> Option<Micros> {
        self.columns.get(slot)?.unsettled
    }

    pub(crate) const fn is_unsettled(&self) -> bool {
        self.unsettled > 0 || self.own_unsettled.is_some()
    }

    /// The slot will be another's, who begins at 0.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.settle(slot);
        self.column(slot).last = 0;
    }

    pub(crate) fn raise_floor(&mut self, position: Option<u64>) {
        self.floor = self.floor.max(position.unwrap_or(0));
    }

    /// The highest position that another node has spoken of.
    pub(crate) fn floor(&self) -> Option<u64> {
        (self.floor > 0).then_some(self.floor)
    }

    /// From when it may be flushed.
    pub(crate) fn may_flush_at(&self, rules: &Rules) -> Micros {
        match self.flushed {
            Some(flushed) => flushed + rules.min_flush,
            None => 0,
        }
    }
}
