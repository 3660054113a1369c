//! When an entity may be trusted, and when no longer.

use super::entity::Belief;
use super::node::{Doubter, Effects, Expected, Node, Reason, RowId};
use super::peer::{Hearing, PeerWhy};
use super::{Micros, Mutant};

impl Node {
    /// Lets time pass: leases end, doubts begin and end.
    pub(crate) fn tick(&mut self, now: Micros, fx: &mut impl Effects) {
        self.age_peers(now, fx);
        self.miss_expected(now);
        if let Some(proof) = self.proof
            && proof.sent + self.rules.lease <= now
        {
            self.void_proof(now, Reason::Reconnected, fx);
        }
        let until = self.horizon(now);
        if until <= now {
            let reason = self.blocking_reason(now);
            self.doubt_all(reason, fx);
        } else {
            fx.trust_until(until);
        }
        for id in 0..self.rows.len() {
            self.try_leave(id, now, fx);
        }
    }

    /// When `tick` is worth calling next, if nothing happens before. Beats are not counted.
    pub(crate) fn next_tick(&self, now: Micros) -> Micros {
        // What has run out already is waited for below.
        let horizon = self.horizon(now);
        let mut next = if horizon > now { horizon } else { Micros::MAX };
        for (_, peer) in self.peers.iter() {
            next = next.min(match peer.hearing {
                Hearing::Live => peer.lease_ends(),
                _ => peer.since + self.rules.retire_after,
            });
        }
        let in_doubt = self
            .rows
            .iter()
            .flatten()
            .any(|row| row.belief != Belief::Coherent);
        if in_doubt {
            next = next.min(now + self.rules.min_flush.max(1_000));
        }
        next.max(now + 1_000)
    }

    fn age_peers(&mut self, now: Micros, fx: &mut impl Effects) {
        let (mut retired, mut forgotten) = (Vec::new(), Vec::new());
        let mut silenced = false;
        for (slot, peer) in self.peers.iter_mut() {
            let rested = peer.since + self.rules.retire_after <= now;
            match peer.hearing {
                Hearing::Live if peer.lease_ends() <= now => {
                    peer.turn(Hearing::Silent, now);
                    silenced = true;
                }
                Hearing::Silent if rested => {
                    peer.turn(Hearing::Retired, now);
                    self.counts.retired += 1;
                    retired.push(slot);
                }
                Hearing::Left | Hearing::Retired if rested => forgotten.push(slot),
                _ => {}
            }
        }
        for slot in forgotten {
            self.drop_peer(slot);
        }
        for slot in retired {
            for row in self.rows.iter_mut().flatten() {
                row.settle(slot);
            }
        }
        if silenced {
            self.doubt_all(Reason::PublisherSilent, fx);
        }
    }

    fn miss_expected(&mut self, now: Micros) {
        for place in 0..self.expected.len() {
            let vouched = self.expected_until(&self.expected[place].name) > now;
            let missed = &mut self.expected[place].missed;
            match vouched {
                true => *missed = None,
                false => *missed = missed.or(Some(now)),
            }
        }
    }

    /// Until when `Coherent` may stand, if nothing more is heard.
    pub(crate) fn horizon(&self, now: Micros) -> Micros {
        let Some(proof) = self.proof else { return 0 };
        if self.rules.broken(Mutant::AlwaysSuspect) {
            return 0;
        }
        let mut until = proof.sent + self.rules.lease;
        for (_, peer) in self.peers.iter() {
            until = until.min(peer.deadline());
        }
        for expected in &self.expected {
            if !self.rules.broken(Mutant::ExpectsNobody) {
                until = until.min(self.expected_until(&expected.name));
            }
        }
        if self.crowded_until > now {
            return 0;
        }
        until
    }

    /// Until when what was heard under a name vouches for it. A goodbye does so for one lease, in
    /// which the next incarnation should be heard.
    fn expected_until(&self, name: &str) -> Micros {
        self.peers
            .iter()
            .filter(|(_, peer)| *peer.name == *name)
            .map(|(_, peer)| peer.vouches_until())
            .max()
            .unwrap_or(0)
    }

    fn blocking_reason(&self, now: Micros) -> Reason {
        if self.proof.is_none() {
            return self.unproved;
        }
        if self.crowded_until > now {
            return Reason::Overflow;
        }
        Reason::PublisherSilent
    }

    /// Whether everything was heard by beats sent after `since`.
    fn heard_since(&self, since: Micros, now: Micros) -> bool {
        self.peers
            .iter()
            .all(|(_, peer)| peer.doubt(now, since, &self.rules).is_none())
    }

    /// Trusts an entity if all that it takes is there.
    pub(super) fn try_leave(&mut self, id: RowId, now: Micros, fx: &mut impl Effects) {
        let Some(row) = self.row(id) else { return };
        let Some(proof) = self.proof else { return };
        if row.belief == Belief::Coherent
            || row.is_unsettled()
            || now < row.may_flush_at(&self.rules)
            || now < proof.since + self.rules.beat
            || self.horizon(now) <= now
            || !self.heard_since(proof.since.max(row.since), now)
        {
            return;
        }
        let floor = self.floor(id);
        let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        row.belief = Belief::Coherent;
        row.flushed = Some(now);
        self.counts.flushes += 1;
        let reason = row.reason;
        fx.recover(id, reason, floor);
    }

    /// Something of this entity was missed.
    pub(super) fn gap(&mut self, id: RowId, now: Micros, reason: Reason, fx: &mut impl Effects) {
        self.counts.gaps += 1;
        self.doubt_row(id, reason, fx);
        self.try_leave(id, now, fx);
    }

    pub(super) fn gap_all(&mut self, now: Micros, reason: Reason, fx: &mut impl Effects) {
        for id in 0..self.rows.len() {
            if self.rows[id].is_some() {
                self.gap(id, now, reason, fx);
            }
        }
    }

    /// Somebody asked to drop everything of this entity.
    pub(super) fn flush_asked(&mut self, id: RowId, now: Micros, fx: &mut impl Effects) {
        let rules = self.rules;
        let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        match row.belief {
            Belief::Coherent if now >= row.may_flush_at(&rules) => {
                row.flushed = Some(now);
                self.counts.flushes += 1;
                let floor = self.floor(id);
                fx.flush(id, Reason::Requested, floor);
            }
            // Too soon after the last one: in doubt until it is time. In doubt already: what was
            // asked for happens when the doubt ends, and loads until then are short-lived.
            Belief::Coherent | Belief::Suspect | Belief::Joining => {
                self.doubt_anew(id, Reason::Requested, fx);
            }
        }
    }

    pub(super) fn doubt_row(&mut self, id: RowId, reason: Reason, fx: &mut impl Effects) {
        let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        if row.belief == Belief::Coherent {
            row.belief = Belief::Suspect;
            row.reason = reason;
            self.counts.doubts += 1;
            fx.doubt(id, reason);
        }
    }

    /// Doubts, and makes what was loaded in an earlier doubt old as well.
    fn doubt_anew(&mut self, id: RowId, reason: Reason, fx: &mut impl Effects) {
        match self.belief(id) {
            Belief::Coherent => self.doubt_row(id, reason, fx),
            Belief::Suspect | Belief::Joining => fx.doubt(id, reason),
        }
    }

    pub(super) fn doubt_all(&mut self, reason: Reason, fx: &mut impl Effects) {
        for id in 0..self.rows.len() {
            self.doubt_row(id, reason, fx);
        }
    }

    /// This node itself holds a write whose outcome is not known, or no longer does.
    pub(crate) fn own_unsettled(
        &mut self,
        id: RowId,
        unsettled: bool,
        now: Micros,
        fx: &mut impl Effects,
    ) {
        let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        let since = row.own_unsettled.unwrap_or(now);
        row.own_unsettled = unsettled.then_some(since);
        if unsettled {
            self.doubt_row(id, Reason::Unsettled, fx);
        } else {
            self.try_leave(id, now, fx);
        }
    }

    /// Ends the claim of publishers of this name, or with this incarnation in hexadecimal, that are
    /// not heard. Says how many.
    pub(crate) fn forget(&mut self, who: &str) -> usize {
        let slots: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.hearing != Hearing::Live)
            .filter(|(_, peer)| *peer.name == *who || peer.incarnation.to_string() == who)
            .map(|(slot, _)| slot)
            .collect();
        for &slot in &slots {
            self.drop_peer(slot);
        }
        slots.len()
    }

    /// Who keeps an entity from being coherent.
    pub(crate) fn doubters(&self, id: RowId, now: Micros) -> Vec<Doubter> {
        let mut doubters = Vec::new();
        if let Some(since) = self.ended {
            doubters.push(Doubter::Ended { since });
        }
        let Some(row) = self.row(id) else {
            return doubters;
        };
        // A proof that is over counts for none, also before time has been let pass.
        let over = self.proof.map(|proof| proof.sent + self.rules.lease);
        let lost = over.map_or(Some(self.unproved_since), |over| {
            (over <= now).then_some(over)
        });
        doubters.extend(lost.map(|since| Doubter::OwnPath { since }));
        let proof = self.proof.filter(|_| lost.is_none());
        let since = proof.map_or(row.since, |proof| proof.since.max(row.since));
        if self.crowded_until > now {
            let since = self.crowded_since;
            doubters.push(Doubter::Crowded { since });
        }
        for Expected { name, missed } in &self.expected {
            if self.expected_until(name) <= now {
                doubters.push(Doubter::Expected {
                    name: name.clone(),
                    since: missed.unwrap_or(now),
                });
            }
        }
        if let Some(since) = row.own_unsettled {
            doubters.push(Doubter::Unsettled {
                name: None,
                incarnation: self.incarnation,
                since,
            });
        }
        for (slot, peer) in self.peers.iter() {
            if let Some(since) = row.held_since(slot) {
                doubters.push(Doubter::Unsettled {
                    name: Some(peer.name.clone()),
                    incarnation: peer.incarnation,
                    since,
                });
            }
            let why = peer.doubt(now, since, &self.rules);
            // A beat that is merely awaited is no cause while the entity is trusted.
            let idle = row.belief == Belief::Coherent && why == Some(PeerWhy::Awaited);
            if let (Some(why), false) = (why, idle) {
                doubters.push(Doubter::Peer {
                    name: peer.name.clone(),
                    incarnation: peer.incarnation,
                    why,
                    since: peer.doubted_since(why, since),
                });
            }
        }
        doubters
    }
}
