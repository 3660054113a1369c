//! One publisher, as seen from here: its clock, its lease, whether it is heard.

use super::offset::{Offset, RoundTrip, drift};
use super::{Micros, Mutant, Rules};
use crate::invalidation::frame::Incarnation;

/// Whether a publisher is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// Its lease runs.
    Live,
    /// Its lease ended without a goodbye.
    Silent,
    /// It said goodbye, and its last marks were compared.
    Left,
    /// It was silent for so long that it is taken for dead.
    Retired,
}

impl Hearing {
    /// Whether it is no longer waited for.
    pub(crate) const fn is_gone(self) -> bool {
        matches!(self, Self::Left | Self::Retired)
    }
}

/// Why a publisher keeps entities in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerWhy {
    Silent,
    Uncalibrated,
    /// Nothing wrong: its next beat is waited for.
    Awaited,
}

/// What is known of one incarnation.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) incarnation: Incarnation,
    /// From its first beat; empty until then.
    pub(crate) name: Box<str>,
    pub(crate) hearing: Hearing,
    /// Since when.
    pub(crate) since: Micros,
    /// Until this time it is believed although its clock is not yet understood.
    provisional: Option<Micros>,
    /// Known from its first beat on.
    offset: Option<Offset>,
    /// The latest stamp of a beat that was valid when it came, on its clock.
    sent: Micros,
    /// What that beat asked for, at most our own L.
    lease: Micros,
    /// When that beat came. Only a mutant looks at it.
    arrived: Micros,
    /// The highest sequence of its beats.
    pub(crate) beats: u64,
}

impl Peer {
    pub(crate) fn new(incarnation: Incarnation, now: Micros, rules: &Rules) -> Self {
        Self {
            incarnation,
            name: Box::default(),
            hearing: Hearing::Live,
            since: now,
            provisional: Some(now + rules.lease),
            offset: None,
            sent: 0,
            lease: 0,
            arrived: now,
            beats: 0,
        }
    }

    /// Moves to `hearing`.
    pub(crate) fn turn(&mut self, hearing: Hearing, now: Micros) {
        self.hearing = hearing;
        self.since = now;
    }

    /// Heard again after it was gone: trusted for one lease, as a new one is.
    pub(crate) fn revive(&mut self, now: Micros, rules: &Rules) {
        self.turn(Hearing::Live, now);
        self.provisional = Some(now + rules.lease);
        self.offset = None;
        self.sent = 0;
        self.lease = 0;
    }

    /// Takes a beat's stamp, and perhaps an echo, into account. Says whether its lease still runs.
    pub(crate) fn beat(
        &mut self,
        now: Micros,
        sent: Micros,
        lease: Micros,
        echo: Option<RoundTrip>,
        rules: &Rules,
    ) -> bool {
        let offset = match &mut self.offset {
            Some(offset) => {
                offset.sample(now, sent, echo);
                offset
            }
            none => none.insert(Offset::new(now, sent, echo)),
        };
        let lease = lease.min(rules.lease);
        let ends = sent as i64 + offset.upper(now) + lease as i64;
        if ends <= now as i64 && !rules.broken(Mutant::LeaseFromArrival) {
            return false;
        }
        if sent >= self.sent {
            self.sent = sent;
            self.lease = lease;
            self.arrived = now;
        }
        if self.calibrated_until(now, rules).is_some() {
            self.provisional = None;
        }
        true
    }

    /// When its lease ends, if nothing more is heard.
    pub(crate) fn lease_ends(&self, now: Micros, rules: &Rules) -> Micros {
        if rules.broken(Mutant::LeaseFromArrival) && self.offset.is_some() {
            return self.arrived + self.lease;
        }
        match &self.offset {
            Some(offset) if self.lease > 0 => {
                let ends = self.sent as i64 + offset.upper(now) + self.lease as i64;
                u64::try_from(ends).unwrap_or(0)
            }
            _ => self.provisional.unwrap_or(0),
        }
    }

    /// Until when its clock is understood well enough.
    fn calibrated_until(&self, now: Micros, rules: &Rules) -> Option<Micros> {
        if rules.broken(Mutant::NoCalibration) {
            return Some(Micros::MAX);
        }
        // The lease itself is measured by our clock, which may run slow meanwhile.
        let limit = rules.e_max.checked_sub(drift(rules.lease) as u64)?;
        self.offset?.good_until(now, limit)
    }

    /// Until when it allows `Coherent`, if nothing more is heard; `Micros::MAX` once gone.
    pub(crate) fn deadline(&self, now: Micros, rules: &Rules) -> Micros {
        match self.hearing {
            Hearing::Left | Hearing::Retired => Micros::MAX,
            Hearing::Silent => 0,
            Hearing::Live => {
                let understood = self
                    .calibrated_until(now, rules)
                    .or(self.provisional)
                    .unwrap_or(0);
                self.lease_ends(now, rules).min(understood)
            }
        }
    }

    /// Why it does not allow `Coherent` now, given that its beats have to be sent after `since`.
    pub(crate) fn doubt(&self, now: Micros, since: Micros, rules: &Rules) -> Option<PeerWhy> {
        match self.hearing {
            Hearing::Left | Hearing::Retired => None,
            Hearing::Silent => Some(PeerWhy::Silent),
            Hearing::Live if self.lease_ends(now, rules) <= now => Some(PeerWhy::Silent),
            Hearing::Live if self.calibrated_until(now, rules).is_none() => {
                Some(PeerWhy::Uncalibrated)
            }
            Hearing::Live if self.sent_after(now, since, rules) => None,
            Hearing::Live => Some(PeerWhy::Awaited),
        }
    }

    /// Whether its latest valid beat was certainly sent after `since` on our clock.
    fn sent_after(&self, now: Micros, since: Micros, rules: &Rules) -> bool {
        if rules.broken(Mutant::NoCalibration) {
            return self.arrived > since;
        }
        let lower = self.offset.as_ref().and_then(|offset| offset.lower(now));
        self.lease > 0 && lower.is_some_and(|lower| self.sent as i64 + lower > since as i64)
    }

    /// Whether an echo is wanted from it: its clock is not understood, or soon will not be.
    pub(crate) fn wants_echo(&self, now: Micros, rules: &Rules) -> bool {
        let half = rules.e_max / 2;
        self.hearing == Hearing::Live
            && self
                .offset
                .and_then(|offset| offset.good_until(now, half))
                .is_none()
    }

    /// How long ago, at most, something was that it stamped `sent`.
    pub(crate) fn age(&self, now: Micros, sent: Micros) -> Option<Micros> {
        let lower = self.offset.as_ref()?.lower(now)?;
        u64::try_from(now as i64 - (sent as i64 + lower)).ok()
    }
}
