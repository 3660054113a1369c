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
    /// When the lease that it asked for ends, at most our own L after that stamp; zero before it.
    ///
    /// Reckoned once, when the beat came: the clocks may drift apart until then, so that the true end
    /// comes up to 1 ‰ of the lease later. To move it as time passes would be to trust again what a
    /// look at the clock has just ended.
    lease_ends: Micros,
    /// Until when its clock is understood well enough, reckoned likewise; `None` if it is not.
    understood: Option<Micros>,
    /// Since when it is not, if so.
    unclear: Micros,
    /// When that beat came. Only a mutant looks at it.
    arrived: Micros,
    /// The highest sequence of its beats.
    pub(crate) beats: u64,
    /// When a beat came last of whose lease less than half was left: it was long under way, or the
    /// clock of its publisher stood still, which only an echo tells.
    late: Option<Micros>,
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
            lease_ends: 0,
            understood: None,
            unclear: now,
            arrived: now,
            beats: 0,
            late: None,
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
        self.lease_ends = 0;
        self.understood = None;
        self.unclear = now;
        self.late = None;
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
        let ends = if rules.broken(Mutant::LeaseFromArrival) {
            now as i64 + lease as i64
        } else {
            sent as i64 + offset.upper(now) + lease as i64
        };
        // The lease itself is measured by our clock, which may run slow meanwhile.
        let limit = rules.e_max.checked_sub(drift(rules.lease) as u64);
        let understood = self.understood;
        self.understood = if rules.broken(Mutant::NoCalibration) {
            Some(Micros::MAX)
        } else {
            limit.and_then(|limit| offset.good_until(now, limit))
        };
        if let (Some(until), None) = (understood, self.understood) {
            self.unclear = until.min(now);
        }
        let runs = ends > now as i64;
        let late = ends < now as i64 + lease as i64 / 2;
        self.late = late.then_some(now);
        if runs && sent >= self.sent {
            self.sent = sent;
            self.lease_ends = ends as u64;
            self.arrived = now;
        }
        if runs && self.understood.is_some() {
            self.provisional = None;
        }
        runs
    }

    /// When its lease ends, if nothing more is heard.
    pub(crate) fn lease_ends(&self) -> Micros {
        match self.lease_ends {
            0 => self.provisional.unwrap_or(0),
            ends => ends,
        }
    }

    /// Until when it allows `Coherent`, if nothing more is heard; `Micros::MAX` once gone.
    pub(crate) fn deadline(&self) -> Micros {
        match self.hearing {
            Hearing::Left | Hearing::Retired => Micros::MAX,
            Hearing::Silent => 0,
            Hearing::Live => {
                let understood = self.understood.or(self.provisional).unwrap_or(0);
                self.lease_ends().min(understood)
            }
        }
    }

    /// Until when it vouches for a name that is expected, also after its goodbye; 0 for no longer. What it
    /// emits counts before it is heard, so that nothing is given in advance to a clock that is not understood:
    /// its first beat may have been long under way.
    pub(crate) fn vouches_until(&self) -> Micros {
        match self.hearing {
            Hearing::Silent | Hearing::Retired => 0,
            Hearing::Live | Hearing::Left => self
                .understood
                .map_or(0, |until| until.min(self.lease_ends)),
        }
    }

    /// Why it does not allow `Coherent` now, given that its beats have to be sent after `since`.
    pub(crate) fn doubt(&self, now: Micros, since: Micros, rules: &Rules) -> Option<PeerWhy> {
        match self.hearing {
            Hearing::Left | Hearing::Retired => None,
            Hearing::Silent => Some(PeerWhy::Silent),
            Hearing::Live if self.lease_ends() <= now => Some(PeerWhy::Silent),
            Hearing::Live if self.understood.is_none_or(|until| until <= now) => {
                Some(PeerWhy::Uncalibrated)
            }
            Hearing::Live if self.sent_after(now, since, rules) => None,
            Hearing::Live => Some(PeerWhy::Awaited),
        }
    }

    /// Since when that doubt lasts; a beat is awaited that was sent after `since`.
    pub(crate) fn doubted_since(&self, why: PeerWhy, since: Micros) -> Micros {
        match why {
            // Over, though it has not been found yet.
            PeerWhy::Silent if self.hearing == Hearing::Live => self.lease_ends(),
            PeerWhy::Silent => self.since,
            PeerWhy::Uncalibrated => self.understood.unwrap_or(self.unclear),
            PeerWhy::Awaited => since.max(self.since),
        }
    }

    /// Whether its latest valid beat was certainly sent after `since` on our clock.
    fn sent_after(&self, now: Micros, since: Micros, rules: &Rules) -> bool {
        if rules.broken(Mutant::NoCalibration) {
            return self.arrived > since;
        }
        let lower = self.offset.as_ref().and_then(|offset| offset.lower(now));
        self.lease_ends > 0 && lower.is_some_and(|lower| self.sent as i64 + lower > since as i64)
    }

    /// Whether an echo is wanted from it: its clock is not understood, or soon will not be, or may have
    /// stood still. Nothing is wanted of one that is not heard at all.
    pub(crate) fn wants_echo(&self, now: Micros, rules: &Rules) -> bool {
        if self.late.is_some_and(|late| now < late + rules.lease) && !self.hearing.is_gone() {
            return true;
        }
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
