//! What an invalidator is told about its fleet, checked before anything starts.

use std::time::Duration;

use thiserror::Error;

use super::frame::MAX_NAME;
use super::outbox::OutboxRules;
use super::protocol::{Micros, Rules};
use super::subject::Prefix;

/// The deadline thread's allowance: it wakes when a deadline is due, and the operating system may
/// take its time to let it run.
pub const TICK: Duration = Duration::from_millis(50);

/// Settings of an [`Invalidator`](super::Invalidator). All nodes of a fleet should have the same
/// times and prefix.
///
/// # The bound
/// An invalidation that is missed here, of a publisher that this node has known for B, is noticed
/// within **B = lease + e_max + [`TICK`]** of being handed over; [`Settings::bound`] computes it: 3.55 s
/// with the defaults. Counted from the commit under a `writing` guard it is B + `write_limit`.
///
/// ```
/// use std::time::Duration;
/// use afterwrite::invalidation::Settings;
///
/// let settings = Settings::new("orders-7").beat(Duration::from_millis(500));
/// assert_eq!(settings.bound(), Duration::from_millis(1_500 + 500 + 50));
/// ```
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) prefix: Prefix,
    pub(crate) name: String,
    pub(crate) beat: Duration,
    pub(crate) lease: Option<Duration>,
    pub(crate) e_max: Duration,
    pub(crate) min_flush: Duration,
    pub(crate) write_limit: Duration,
    pub(crate) retire_after: Duration,
    pub(crate) max_age: Option<Duration>,
    pub(crate) plain_peers: bool,
    pub(crate) read_only: bool,
    pub(crate) write_only: bool,
    pub(crate) expect: Vec<String>,
    pub(crate) outbox: usize,
    pub(crate) watch_queue: usize,
    pub(crate) max_publishers: usize,
    pub(crate) max_entities: usize,
}

impl Settings {
    /// The defaults, for a node of this name. Names should be unique in the fleet, as a pod's is:
    /// they say who is missing, and [`expect`](Self::expect) goes by them.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            prefix: Prefix::default(),
            name: name.into(),
            beat: Duration::from_secs(1),
            lease: None,
            e_max: Duration::from_millis(500),
            min_flush: Duration::from_millis(100),
            write_limit: Duration::from_secs(10),
            retire_after: Duration::from_secs(300),
            max_age: None,
            plain_peers: true,
            read_only: false,
            write_only: false,
            expect: Vec::new(),
            outbox: 65_536,
            watch_queue: 65_536,
            max_publishers: 4_096,
            max_entities: 1_024,
        }
    }

    /// B: within this time of an emit it is applied, or the cache is in doubt, or was flushed since; if
    /// the emitting node has been known for as long, by a beat or by [`expect`](Self::expect).
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.lease_or_default()
            .saturating_add(self.e_max)
            .saturating_add(TICK)
    }

    /// What all subjects begin with; `cache.invalidate` by default.
    #[must_use]
    pub fn prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// H: the time between this node's beats; 1 s by default. n nodes cost n x n / H deliveries, so
    /// take `max(1 s, 10 ms x n)`.
    #[must_use]
    pub fn beat(mut self, beat: Duration) -> Self {
        self.beat = beat;
        self
    }

    /// L: how long a beat vouches for its publisher; three beats by default, so that two may be
    /// lost. What is loaded in doubt is served for as long.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The largest error up to which a publisher's clock counts as understood; 500 ms by default.
    /// It is about the round trip to the publisher; above it, nothing is ever coherent.
    #[must_use]
    pub fn e_max(mut self, e_max: Duration) -> Self {
        self.e_max = e_max;
        self
    }

    /// The least time between two flushes of one entity; 100 ms by default. In between it is in
    /// doubt.
    #[must_use]
    pub fn min_flush(mut self, min_flush: Duration) -> Self {
        self.min_flush = min_flush;
        self
    }

    /// How long a write may be under way before its entity counts as unsettled on all nodes; 10 s by
    /// default.
    #[must_use]
    pub fn write_limit(mut self, write_limit: Duration) -> Self {
        self.write_limit = write_limit;
        self
    }

    /// How long a publisher that fell silent keeps everybody in doubt before it is taken for dead;
    /// 5 min by default. What a dead publisher had not said is lost: each such end is counted.
    #[must_use]
    pub fn retire_after(mut self, retire_after: Duration) -> Self {
        self.retire_after = retire_after;
        self
    }

    /// How long an entry is served at most if plain publishers write to its entity, since their losses
    /// may go unnoticed. Counts from the beginning of its load; no limit by default.
    ///
    /// An entity is known as theirs by the first message that can be read. What is published to a
    /// [malformed](super::InvalidatorStats::malformed) subject sets no limit.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Whether peers without frames listen: then a batch goes out as single messages, which they
    /// understand. `true` by default; without such peers, `false` makes batches many times faster.
    ///
    /// Single ids are all that they understand. Of [`emit_all`](super::Invalidator::emit_all), and of what
    /// a full outbox [merges](super::Emitted::Collapsed), they learn nothing, whatever is set here: it is
    /// one message to `<prefix>.<entity>.%-all`, and looks like an id. If such a peer caches, teach it
    /// that subject, let its entries age, or emit ids one by one and give them
    /// [room](Self::outbox_capacity).
    #[must_use]
    pub const fn plain_peers(mut self, plain_peers: bool) -> Self {
        self.plain_peers = plain_peers;
        self
    }

    /// This node never emits: its end worries nobody. `false` by default.
    #[must_use]
    pub const fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// This node never watches: it asks the bus for beats alone (`<prefix>.%-c.*`), not for all that the
    /// others write, nor for its own frames, with which it could do nothing. For services that write and
    /// cache nothing: each of their frames then has one delivery less, and none comes back while the
    /// next is sent. Its emits cannot be [confirmed](super::Invalidator::emit_confirmed). `false` by default.
    #[must_use]
    pub const fn write_only(mut self, write_only: bool) -> Self {
        self.write_only = write_only;
        self
    }

    /// Names of publishers without which nothing is coherent, so that what they emit counts even
    /// before they were first heard. None by default.
    ///
    /// While nobody of such a name is heard nothing is coherent, for however long: neither
    /// [`retire_after`](Self::retire_after) nor [`forget`](super::Invalidator::forget) ends that, and
    /// a goodbye puts it off by one lease only. [Suspects](super::Invalidator::suspects) then have
    /// [`Why::Expected`](super::Why::Expected). So name only what always runs and keeps its name over
    /// a restart: the pods of a StatefulSet, not those of a Deployment.
    #[must_use]
    pub fn expect<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.expect.extend(names.into_iter().map(Into::into));
        self
    }

    /// How many ids wait at most while the bus has no room; 65,536 by default. Beyond, an entity's
    /// are merged into one "all", which [plain peers](Self::plain_peers) do not understand.
    #[must_use]
    pub const fn outbox_capacity(mut self, ids: usize) -> Self {
        self.outbox = ids;
        self
    }

    /// How many drops wait at most for a watch of its own thread, all its entities together; 65,536 by
    /// default. Beyond, that watch drops everything of the entity that found no room.
    #[must_use]
    pub const fn watch_queue(mut self, drops: usize) -> Self {
        self.watch_queue = drops;
        self
    }

    /// How many publishers are kept track of; 4,096 by default. More of them make everything
    /// suspect.
    #[must_use]
    pub const fn max_publishers(mut self, max_publishers: usize) -> Self {
        self.max_publishers = max_publishers;
        self
    }

    /// How many entities are watched, and how many are emitted for; 1,024 by default. A beat names
    /// each of the latter.
    #[must_use]
    pub const fn max_entities(mut self, max_entities: usize) -> Self {
        self.max_entities = max_entities;
        self
    }

    pub(crate) fn lease_or_default(&self) -> Duration {
        self.lease.unwrap_or(self.beat.saturating_mul(3))
    }

    /// Checks that the numbers make sense together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), SettingsError> {
        const HOUR: Duration = Duration::from_secs(3_600);
        const DAY: Duration = Duration::from_secs(86_400);
        let lease = self.lease_or_default();
        let ms = Duration::from_millis;
        span("beat", self.beat, ms(10), HOUR)?;
        span("lease", lease, self.beat * 2, DAY)?;
        // A lease's own drift counts against the error.
        span("e_max", self.e_max, lease / 500 + ms(1), HOUR)?;
        span("min_flush", self.min_flush, Duration::ZERO, HOUR)?;
        span("write_limit", self.write_limit, ms(1), DAY)?;
        span("retire_after", self.retire_after, lease, 365 * DAY)?;
        if let Some(max_age) = self.max_age {
            span("max_age", max_age, ms(1), 365 * DAY)?;
        }
        count("outbox_capacity", self.outbox, 1 << 24)?;
        count("watch_queue", self.watch_queue, 1 << 24)?;
        count("max_publishers", self.max_publishers, 1 << 16)?;
        count("max_entities", self.max_entities, 1 << 13)?;
        if self.read_only && self.write_only {
            return Err(SettingsError::Idle);
        }
        for name in std::iter::once(&self.name).chain(&self.expect) {
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(SettingsError::Name {
                    len: name.len(),
                    max: MAX_NAME,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            beat: micros(self.beat),
            lease: micros(self.lease_or_default()),
            e_max: micros(self.e_max),
            min_flush: micros(self.min_flush),
            retire_after: micros(self.retire_after),
            max_publishers: self.max_publishers,
            max_entities: self.max_entities,
            #[cfg(test)]
            mutant: None,
        }
    }

    pub(crate) fn outbox_rules(&self) -> OutboxRules {
        OutboxRules {
            prefix: self.prefix.clone(),
            name: self.name.as_str().into(),
            reader: self.read_only,
            plain_peers: self.plain_peers,
            lease: micros(self.lease_or_default()),
            write_limit: micros(self.write_limit),
            capacity: self.outbox,
            max_entities: self.max_entities,
            #[cfg(test)]
            mutant: None,
        }
    }
}

impl Default for Settings {
    /// [`Settings::new`] with the name in `$HOSTNAME`, or `node-` and the process's number.
    fn default() -> Self {
        let host = std::env::var("HOSTNAME").ok();
        let usable = host.filter(|name| (1..=MAX_NAME).contains(&name.len()));
        Self::new(usable.unwrap_or_else(|| format!("node-{}", std::process::id())))
    }
}

fn span(
    what: &'static str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), SettingsError> {
    if value < least {
        return Err(SettingsError::TooShort { what, value, least });
    }
    if value > most {
        return Err(SettingsError::TooLong { what, value, most });
    }
    Ok(())
}

const fn count(what: &'static str, value: usize, most: usize) -> Result<(), SettingsError> {
    if value == 0 || value > most {
        return Err(SettingsError::Count { what, value, most });
    }
    Ok(())
}

/// A checked duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Settings that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A time is too short.
    #[error("{what} is {value:?}; it has to be at least {least:?}")]
    TooShort {
        /// Which setting.
        what: &'static str,
        /// What it is.
        value: Duration,
        /// What it has to be at least, given the others.
        least: Duration,
    },
    /// A time is too long.
    #[error("{what} is {value:?}; it may be at most {most:?}")]
    TooLong {
        /// Which setting.
        what: &'static str,
        /// What it is.
        value: Duration,
        /// What it may be at most.
        most: Duration,
    },
    /// A number is 0, or too large.
    #[error("{what} is {value}; it has to be between 1 and {most}")]
    Count {
        /// Which setting.
        what: &'static str,
        /// What it is.
        value: usize,
        /// What it may be at most.
        most: usize,
    },
    /// A node that neither emits nor watches has nothing to do.
    #[error("a node cannot be read-only and write-only")]
    Idle,
    /// A name, this node's or an expected one, is empty or too long.
    #[error("a name of {len} bytes; it has to have between 1 and {max}")]
    Name {
        /// Its length.
        len: usize,
        /// The longest.
        max: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_b_is_their_sum() {
        let settings = Settings::default();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(settings.bound(), Duration::from_millis(3_550));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let zero = Duration::ZERO;
        let base = || Settings::new("n");
        let what = |settings: Settings| match settings.check().unwrap_err() {
            SettingsError::TooShort { what, .. }
            | SettingsError::TooLong { what, .. }
            | SettingsError::Count { what, .. } => what,
            SettingsError::Name { .. } => "name",
            SettingsError::Idle => "idle",
        };
        assert_eq!(what(base().beat(zero)), "beat");
        assert_eq!(what(base().beat(Duration::MAX)), "beat");
        assert_eq!(what(base().lease(Duration::from_secs(1))), "lease");
        assert_eq!(what(base().e_max(zero)), "e_max");
        assert_eq!(what(base().min_flush(Duration::MAX)), "min_flush");
        assert_eq!(what(base().write_limit(zero)), "write_limit");
        assert_eq!(what(base().retire_after(zero)), "retire_after");
        assert_eq!(what(base().max_age(zero)), "max_age");
        assert_eq!(what(base().outbox_capacity(0)), "outbox_capacity");
        assert_eq!(what(base().watch_queue(usize::MAX)), "watch_queue");
        assert_eq!(what(base().max_publishers(0)), "max_publishers");
        assert_eq!(what(base().max_entities(1 << 20)), "max_entities");
        assert_eq!(what(Settings::new("")), "name");
        assert_eq!(what(base().read_only(true).write_only(true)), "idle");
        assert_eq!(what(base().expect(["x".repeat(129)])), "name");
    }
}
