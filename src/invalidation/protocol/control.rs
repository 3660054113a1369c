//! Beats and goodbyes, ours and others', and what the connection did.
//!
//! # This node's proof
//! That a server answers, or that a subscription was asked for, proves nothing about what reaches
//! it. So this node believes its own beat alone: sent after the connection's generation was read,
//! come back through the watched subscription while the generation was the same. The first such
//! beat comes back at p. From then on it has to hear every publisher anew, by a beat sent after p.
//! A beat of our own that is older than L when it comes, or a new generation, voids p.
//!
//! A server that has taken the subscription away says so in an event at best, and never gives it back by
//! itself. So a node that has not heard itself for [`DEAF`] leases, though there is a connection,
//! asks for it again. That costs nothing that was believed: the proof is void long since.

use super::data::{Stamp, stamp};
use super::node::{BeatPlan, Effects, Heard, Node, OwnBeat, Proof, Reason};
use super::offset::RoundTrip;
use super::peer::Hearing;
use super::{Micros, Mutant};
use crate::invalidation::frame::{Beat, Body, Echo, Frame, Header, Incarnation};

/// How many of our own beats are remembered, to tell a copy of one from a twin's: those of more than an
/// hour by default, in 128 KiB at most. An older one says nothing, since a copy may be late.
pub(super) const REMEMBERED: usize = 4_096;
/// After so many leases without a beat of its own, a node asks for its subscription again.
const DEAF: u64 = 2;
/// A beat that was asked for follows the last one after this part of H at the soonest.
const HURRY: u64 = 4;

impl Node {
    /// The connection's generation, as read now. A change voids the proof.
    pub(crate) fn generation(&mut self, now: Micros, generation: u64, fx: &mut impl Effects) {
        if self.generation != generation {
            self.generation = generation;
            // Whoever makes a connection asks for what was subscribed to.
            self.heard_itself = now;
            self.void_proof(now, Reason::Reconnected, fx);
        }
    }

    /// Messages were dropped on this node's own connection.
    pub(crate) fn lost(&mut self, now: Micros, fx: &mut impl Effects) {
        self.gap_all(now, Reason::Overflow, fx);
    }

    /// The bus has ended: nothing will be coherent again.
    pub(crate) fn ended(&mut self, now: Micros, fx: &mut impl Effects) {
        self.ended.get_or_insert(now);
        self.void_proof(now, Reason::Reconnected, fx);
    }

    /// The server has refused or removed the subscription.
    pub(crate) fn unsubscribed(&mut self, now: Micros, fx: &mut impl Effects) {
        self.void_proof(now, Reason::Reconnected, fx);
    }

    /// Whether the subscription should be asked for again, while there is a connection. It then
    /// counts as asked for.
    pub(crate) fn asks_again(&mut self, now: Micros) -> bool {
        let deaf = self.heard_itself + DEAF * self.rules.lease <= now;
        if !deaf || self.ended.is_some() || self.rules.broken(Mutant::NeverAsksAgain) {
            return false;
        }
        self.heard_itself = now;
        true
    }

    pub(super) fn void_proof(&mut self, now: Micros, reason: Reason, fx: &mut impl Effects) {
        if let Some(proof) = self.proof.take() {
            self.unproved_since = now.min(proof.sent + self.rules.lease);
        }
        self.unproved = reason;
        self.hurry(now);
        self.doubt_all(reason, fx);
    }

    /// Somebody else speaks with our incarnation.
    pub(super) fn forked(&mut self, now: Micros, fx: &mut impl Effects) {
        self.counts.forks += 1;
        fx.forked();
        self.gap_all(now, Reason::Gap, fx);
    }

    /// When the next beat is due.
    pub(crate) const fn beat_due(&self) -> Micros {
        self.beat_due
    }

    fn hurry(&mut self, now: Micros) {
        let soonest = self
            .last_beat
            .map_or(now, |last| last + self.rules.beat / HURRY);
        self.beat_due = self.beat_due.min(soonest.max(now));
    }

    /// A beat that was planned could not be sent: another is due.
    pub(crate) fn retry_beat(&mut self, now: Micros) {
        self.beat_due = now;
    }

    /// Begins a beat, stamped `now`. `generation` was read before this call. What was handed over
    /// before has to be numbered between this call and the reading of the marks.
    pub(crate) fn plan_beat(&mut self, now: Micros, generation: u64) -> BeatPlan {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.last_beat = Some(now);
        self.beat_due = now + self.rules.beat;
        if self.own_beats.len() == REMEMBERED {
            self.own_beats.pop_front();
        }
        self.own_beats.push_back(OwnBeat {
            sequence,
            sent: now,
            generation,
            returned: false,
        });
        // An echo that seems to be held for less than nothing would claim too much.
        let echoes = self.to_echo.drain(..).filter_map(|heard| {
            Some(Echo {
                incarnation: heard.incarnation,
                sent: heard.sent,
                held: now.checked_sub(heard.at)?,
            })
        });
        BeatPlan {
            incarnation: self.incarnation,
            sequence,
            sent: now.saturating_sub(self.born),
            echoes: echoes.collect(),
            solicit: self.proof.is_none() || self.wants_echo(now),
        }
    }

    fn wants_echo(&self, now: Micros) -> bool {
        self.peers
            .iter()
            .any(|(_, peer)| peer.wants_echo(now, &self.rules))
    }

    pub(super) fn control(
        &mut self,
        now: Micros,
        incarnation: u64,
        payload: &[u8],
        fx: &mut impl Effects,
    ) {
        // What has run out has run out, whatever comes now.
        self.tick(now, fx);
        match stamp(payload) {
            Stamp::Frame(Frame { header, body })
                if header.incarnation == Incarnation(incarnation) =>
            {
                match body {
                    Body::Beat(_) if header.incarnation == self.incarnation => {
                        self.own_beat(now, &header, fx);
                    }
                    Body::Bye(_) if header.incarnation == self.incarnation => {}
                    Body::Beat(beat) => self.beat(now, &header, &beat, fx),
                    Body::Bye(beat) => self.bye(now, &header, &beat, fx),
                    Body::One | Body::All | Body::Batch(_) => self.unreadable_control(now, fx),
                }
            }
            Stamp::Frame(_) | Stamp::Plain | Stamp::Unreadable => self.unreadable_control(now, fx),
        }
        self.tick(now, fx);
    }

    fn unreadable_control(&mut self, now: Micros, fx: &mut impl Effects) {
        self.counts.unreadable += 1;
        self.gap_all(now, Reason::Gap, fx);
    }

    fn own_beat(&mut self, now: Micros, header: &Header, fx: &mut impl Effects) {
        let sent = self.born + header.sent;
        let oldest = self.own_beats.front().map_or(1, |own| own.sequence);
        let Some(place) = header.sequence.checked_sub(oldest) else {
            return;
        };
        // Their numbers follow on each other.
        let known = usize::try_from(place).ok();
        let known = known.and_then(|place| self.own_beats.get_mut(place));
        let Some(own) = known.filter(|own| own.sent == sent) else {
            if !self.rules.broken(Mutant::NeverDoubtsItself) {
                self.forked(now, fx);
            }
            return;
        };
        if std::mem::replace(&mut own.returned, true) {
            return;
        }
        let (sent, generation) = (own.sent, own.generation);
        self.heard_itself = now;
        fx.proved(sent);
        if self.ended.is_some() || generation != self.generation || sent + self.rules.lease <= now {
            return;
        }
        match &mut self.proof {
            Some(proof) => proof.sent = proof.sent.max(sent),
            none => *none = Some(Proof { since: now, sent }),
        }
    }

    /// Another node's beat.
    fn beat(&mut self, now: Micros, header: &Header, beat: &Beat<'_>, fx: &mut impl Effects) {
        let known = self.peers.find(header.incarnation).is_some();
        // A reader has nothing to tell; but who is waited for by name is heard, whatever it does.
        let idle = beat.reader && !self.expected.iter().any(|one| *one.name == *beat.name);
        if beat.solicit || (!known && !idle) {
            self.note_for_echo(now, header);
            // Who asks, or is new, waits for the answer.
            self.hurry(now);
        }
        if idle && !known {
            return;
        }
        let Some(slot) = self.peer_slot(header.incarnation, now, fx) else {
            return;
        };
        let echo = self.echo_of(now, beat);
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if peer.hearing == Hearing::Left && header.sequence <= peer.beats {
            return;
        }
        let gone = peer.hearing.is_gone();
        if peer.name.is_empty() {
            peer.name = beat.name.into();
            if self.rules.broken(Mutant::RestartExcusesSilence) {
                self.excuse(slot, now);
            }
        }
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if gone {
            peer.revive(now, &self.rules);
        }
        let valid = peer.beat(now, header.sent, beat.lease, echo, &self.rules);
        let newest = header.sequence > peer.beats;
        peer.beats = peer.beats.max(header.sequence);
        if valid && peer.hearing == Hearing::Silent {
            peer.turn(Hearing::Live, now);
        }
        if !valid {
            self.counts.expired_beats += 1;
        }
        self.marks(now, slot, beat, known, newest && valid, fx);
        if gone {
            self.gap_all(now, Reason::Gap, fx);
        }
    }

    /// A goodbye: what it counts is the last that there is.
    fn bye(&mut self, now: Micros, header: &Header, beat: &Beat<'_>, fx: &mut impl Effects) {
        if beat.reader && self.peers.find(header.incarnation).is_none() {
            return;
        }
        let Some(slot) = self.peer_slot(header.incarnation, now, fx) else {
            return;
        };
        let echo = self.echo_of(now, beat);
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if peer.hearing == Hearing::Left {
            return;
        }
        if peer.name.is_empty() {
            peer.name = beat.name.into();
        }
        peer.beat(now, header.sent, beat.lease, echo, &self.rules);
        peer.beats = peer.beats.max(header.sequence);
        peer.turn(Hearing::Left, now);
        if !self.rules.broken(Mutant::GoodbyeWithoutMarks) {
            self.marks(now, slot, beat, true, true, fx);
        }
        self.to_echo
            .retain(|heard| heard.incarnation != header.incarnation);
    }

    /// Compares a beat's marks with what was seen.
    fn marks(
        &mut self,
        now: Micros,
        slot: usize,
        beat: &Beat<'_>,
        known: bool,
        newest: bool,
        fx: &mut impl Effects,
    ) {
        let mut held = Vec::new();
        for mark in beat.marks() {
            let Some(id) = self.row_of(now, mark.entity, fx) else {
                continue;
            };
            let Some(row) = self.rows.get_mut(id).and_then(Option::as_mut) else {
                continue;
            };
            let first_heard = !known && self.rules.broken(Mutant::BaselineIsFirstHeard);
            let gap = row.mark(slot, mark.mark) && !first_heard;
            if !self.rules.broken(Mutant::NoFloorFromBeats) {
                row.raise_floor(Some(mark.position));
            }
            if newest && mark.unsettled > 0 {
                row.hold(slot, now);
                held.push(id);
                self.doubt_row(id, Reason::Unsettled, fx);
            } else if newest && !held.contains(&id) {
                row.settle(slot);
            }
            if gap {
                self.gap(id, now, Reason::Gap, fx);
            }
        }
        // What it does not speak of, it holds no more.
        if newest {
            let rows = self.rows.iter_mut().enumerate();
            for (_, row) in rows.filter(|(id, _)| !held.contains(id)) {
                row.iter_mut().for_each(|row| row.settle(slot));
            }
        }
    }

    fn note_for_echo(&mut self, now: Micros, header: &Header) {
        let heard = Heard {
            incarnation: header.incarnation,
            sent: header.sent,
            at: now,
        };
        let same = |known: &Heard| known.incarnation == heard.incarnation;
        if let Some(known) = self.to_echo.iter().position(same) {
            self.to_echo[known] = heard;
        } else if self.to_echo.len() < self.rules.max_publishers {
            self.to_echo.push(heard);
        }
        // Who finds no room is not answered, and asks again.
    }

    /// What a beat says about the way from us to its sender and back.
    fn echo_of(&self, now: Micros, beat: &Beat<'_>) -> Option<RoundTrip> {
        let echo = beat
            .echoes()
            .find(|echo| echo.incarnation == self.incarnation)?;
        let left = self.born.checked_add(echo.sent)?;
        (left <= now).then_some(RoundTrip {
            left,
            held: echo.held,
        })
    }

    /// Takes silent publishers of the same name for dead. Only a mutant does.
    fn excuse(&mut self, slot: usize, now: Micros) {
        let name = self
            .peers
            .get(slot)
            .map(|peer| peer.name.clone())
            .unwrap_or_default();
        for (other, peer) in self.peers.iter_mut() {
            if other != slot && peer.name == name {
                peer.turn(Hearing::Left, now);
            }
        }
    }
}
