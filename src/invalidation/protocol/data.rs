//! Messages that say what to drop.

use super::node::{Effects, Node, Reason, RowId};
use super::own::Whose;
use super::peer::Hearing;
use super::peers::Slot;
use super::{Micros, Mutant};
use crate::invalidation::frame::{Body, Frame, Header};
use crate::invalidation::subject::{Address, EncodedId, EntityRef};

/// What a frame's number says.
enum Count {
    /// It is this node's own, under way until now.
    Own,
    /// From nobody known, or its number was expected.
    Fine,
    /// Numbers before it were skipped, or its publisher was thought to be gone.
    Gap,
}

impl Node {
    /// Takes one message into account.
    #[inline]
    pub(crate) fn message(
        &mut self,
        now: Micros,
        address: &Address<'_>,
        payload: &[u8],
        fx: &mut impl Effects,
    ) {
        match *address {
            Address::One { entity, id } => self.one(now, entity, id, payload, fx),
            Address::All { entity } => self.all(now, entity, payload, fx),
            Address::Batch { entity } => self.batch(now, entity, payload, fx),
            Address::Control { incarnation } => self.control(now, incarnation, payload, fx),
        }
    }

    /// The place of an entity, if it is tracked, or is to be tracked because all are.
    #[inline]
    pub(super) fn row_of(
        &mut self,
        now: Micros,
        entity: EntityRef<'_>,
        fx: &mut impl Effects,
    ) -> Option<RowId> {
        match self.by_entity.get(entity.as_str()) {
            Some(&row) => Some(row),
            None if self.watch_unknown => {
                let entity = entity.to_entity();
                let row = self.track_or_evict(&entity, now, fx);
                match row {
                    Some(row) => fx.tracked(row, &entity),
                    None => {
                        self.counts.strays += 1;
                        fx.stray(&entity);
                    }
                }
                row
            }
            None => None,
        }
    }

    fn one(
        &mut self,
        now: Micros,
        entity: EntityRef<'_>,
        id: EncodedId<'_>,
        payload: &[u8],
        fx: &mut impl Effects,
    ) {
        let row = self.row_of(now, entity, fx);
        let mut decoded = std::mem::take(&mut self.decoded);
        let id = id.decode_into(&mut decoded);
        match stamp(payload) {
            Stamp::Plain => {
                self.plain(row, now, fx);
                if let Some(row) = row {
                    fx.remove(row, id, None, None);
                }
            }
            Stamp::Frame(Frame {
                header,
                body: Body::One,
            }) => {
                let (count, slot) = self.count(now, entity, row, &header, fx);
                if let (Some(row), false) = (row, matches!(count, Count::Own)) {
                    let old = slot.is_some_and(|slot| self.is_old(row, slot, &header));
                    if !(old && self.rules.broken(Mutant::IgnoreOldSequences)) {
                        let age = slot.and_then(|slot| self.age(slot, now, header.sent));
                        fx.remove(row, id, header.own_position(), age);
                    }
                    if let Count::Gap = count {
                        self.gap(row, now, Reason::Gap, fx);
                    }
                }
            }
            // The subject is plain enough.
            Stamp::Frame(_) | Stamp::Unreadable => {
                self.counts.unreadable += 1;
                if let Some(row) = row {
                    fx.remove(row, id, None, None);
                }
            }
        }
        self.decoded = decoded;
    }

    fn all(&mut self, now: Micros, entity: EntityRef<'_>, payload: &[u8], fx: &mut impl Effects) {
        let row = self.row_of(now, entity, fx);
        let mut count = Count::Fine;
        match stamp(payload) {
            Stamp::Plain => self.plain(row, now, fx),
            Stamp::Frame(Frame {
                header,
                body: Body::All,
            }) => {
                count = self.count(now, entity, row, &header, fx).0;
                if let Some(row) = row.and_then(|row| self.rows.get_mut(row)?.as_mut()) {
                    row.raise_floor(header.highest_position());
                }
            }
            Stamp::Frame(_) | Stamp::Unreadable => self.counts.unreadable += 1,
        }
        if let (Some(row), false) = (row, matches!(count, Count::Own)) {
            match count {
                Count::Gap => self.gap(row, now, Reason::Gap, fx),
                _ => self.flush_asked(row, now, fx),
            }
        }
    }

    fn batch(&mut self, now: Micros, entity: EntityRef<'_>, payload: &[u8], fx: &mut impl Effects) {
        let row = self.row_of(now, entity, fx);
        let Stamp::Frame(Frame {
            header,
            body: Body::Batch(ids),
        }) = stamp(payload)
        else {
            // Nobody knows what it would have dropped.
            self.counts.unreadable += 1;
            if let Some(row) = row {
                self.gap(row, now, Reason::Gap, fx);
            }
            return;
        };
        let (count, slot) = self.count(now, entity, row, &header, fx);
        let Some(row) = row else { return };
        if let Count::Own = count {
            return;
        }
        let age = slot.and_then(|slot| self.age(slot, now, header.sent));
        for id in ids.iter() {
            fx.remove(row, id, header.own_position(), age);
        }
        if let Count::Gap = count {
            self.gap(row, now, Reason::Gap, fx);
        }
    }

    /// Notes a frame's number. The slot is its publisher's, unless it is this node.
    fn count(
        &mut self,
        now: Micros,
        entity: EntityRef<'_>,
        row: Option<RowId>,
        header: &Header,
        fx: &mut impl Effects,
    ) -> (Count, Option<Slot>) {
        if header.incarnation == self.incarnation {
            return (self.count_own(now, entity, header, fx), None);
        }
        // Who publishes only what nobody here watches is known by its beats soon enough.
        let Some(row) = row else {
            return (Count::Fine, None);
        };
        let known = self.peers.find(header.incarnation).is_some();
        let Some(slot) = self.peer_slot(header.incarnation, now, fx) else {
            return (Count::Gap, None);
        };
        let Some(state) = self.rows.get_mut(row).and_then(Option::as_mut) else {
            return (Count::Fine, Some(slot));
        };
        if !known && self.rules.broken(Mutant::BaselineIsFirstHeard) {
            state.mark(slot, header.sequence);
        }
        state.raise_floor(header.highest_position());
        let last = state.last(slot);
        let mut gap = state.number(slot, header.sequence);
        if let Some(peer) = self.peers.get_mut(slot)
            && peer.hearing.is_gone()
            // A late copy of what its goodbye counted says nothing new.
            && !(peer.hearing == Hearing::Left && header.sequence <= last)
        {
            peer.revive(now, &self.rules);
            gap = true;
        }
        (if gap { Count::Gap } else { Count::Fine }, Some(slot))
    }

    fn count_own(
        &mut self,
        now: Micros,
        entity: EntityRef<'_>,
        header: &Header,
        fx: &mut impl Effects,
    ) -> Count {
        let whose = self
            .own
            .whose(entity.as_str(), header.sequence, header.sent);
        if whose == Whose::Twins && !self.rules.broken(Mutant::NeverDoubtsItself) {
            self.forked(now, fx);
            return Count::Gap;
        }
        let returned = match self.returned.get_mut(entity.as_str()) {
            Some(returned) => returned,
            None => self.returned.entry(entity.to_entity()).or_insert(0),
        };
        if header.sequence <= *returned {
            // A copy, or it was overtaken: a drop more does no harm.
            return Count::Fine;
        }
        *returned = header.sequence;
        fx.returned(entity.as_str(), header.sequence);
        match whose {
            Whose::Ours => Count::Own,
            Whose::Twins | Whose::Unknown => Count::Fine,
        }
    }

    /// Whether this frame's number had been passed before it came. Only a mutant asks.
    fn is_old(&mut self, row: RowId, slot: Slot, header: &Header) -> bool {
        let row = self.rows.get_mut(row).and_then(Option::as_mut);
        row.is_some_and(|row| row.last(slot) > header.sequence)
    }

    fn age(&self, slot: Slot, now: Micros, sent: Micros) -> Option<Micros> {
        self.peers.get(slot)?.age(now, sent)
    }

    fn plain(&mut self, row: Option<RowId>, now: Micros, fx: &mut impl Effects) {
        self.counts.plain += 1;
        if let Some(id) = row
            && let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut)
        {
            row.heard = now;
            if !std::mem::replace(&mut row.plain, true) {
                fx.plain(id);
            }
        }
    }
}

/// A payload, as far as it can be read.
pub(super) enum Stamp<'a> {
    Plain,
    Frame(Frame<'a>),
    Unreadable,
}

#[inline]
pub(super) fn stamp(payload: &[u8]) -> Stamp<'_> {
    if !Frame::is_stamped(payload) {
        return Stamp::Plain;
    }
    match Frame::decode(payload) {
        Ok(frame) => Stamp::Frame(frame),
        Err(_) => Stamp::Unreadable,
    }
}
