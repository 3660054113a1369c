//! What an invalidator answers.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::bus::SubscribeError;
use crate::error::ThreadError;
use crate::invalidation::frame::Incarnation;
use crate::invalidation::settings::SettingsError;
use crate::invalidation::subject::SubjectError;
use crate::invalidation::target::AlreadyDriven;

/// What became of something that was handed over. This node's own caches have dropped it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Emitted {
    /// The bus has it. It may still be lost, or refused by the server, which the others then notice.
    Sent,
    /// The bus has no room now: it is sent as soon as there is.
    Queued,
    /// The queue is full: it was merged into one drop of everything of this entity. Peers without
    /// frames learn nothing of that: see [`Settings::plain_peers`](super::super::Settings::plain_peers).
    Collapsed,
    /// There is nobody else: [`Invalidator::local`](super::Invalidator::local).
    Standalone,
}

impl fmt::Display for Emitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "sent",
            Self::Queued => "queued",
            Self::Collapsed => "collapsed",
            Self::Standalone => "standalone",
        })
    }
}

/// Why something was not handed over. This node's own caches have dropped it nevertheless, unless it
/// is no valid id. The other nodes find by the next beat that they have missed something, and drop
/// everything of the entity; but not from a node that has ended, nor of an entity too many.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The id is empty or too long.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The invalidator or its bus is closed.
    #[error("the invalidator is closed")]
    Closed,
    /// It is longer than the bus takes.
    #[error("a frame of {len} bytes is over the bus's limit of {max}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// [`Bus::max_payload`](crate::bus::Bus::max_payload).
        max: usize,
    },
    /// The server has refused what this node published for this entity, less than a lease ago.
    #[error("the server denies publishing for this entity")]
    Denied,
    /// More entities than [`Settings::max_entities`](super::super::Settings::max_entities).
    #[error("more than {max} entities")]
    TooManyEntities {
        /// The limit.
        max: usize,
    },
    /// The node said that it would not: [`Settings::read_only`](super::super::Settings::read_only).
    #[error("this node is read-only")]
    ReadOnly,
}

/// Why an emit was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// It was not handed over.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// This node does not hear its own messages: it may not subscribe, said that it would not, or is
    /// alone.
    #[error("this node cannot hear its own messages")]
    Unconfirmable,
    /// It may or may not have been sent: the connection was lost, a later message came back first (as it
    /// does when the server has just refused this one), or the bus had no room for two leases.
    #[error("it is not known whether the message was sent")]
    Unknown,
}

/// Why an invalidator did not start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The bus refuses to subscribe.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// Why a cache is not watched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// It is watched already.
    #[error(transparent)]
    AlreadyDriven(#[from] AlreadyDriven),
    /// The invalidator is closed.
    #[error("the invalidator is closed")]
    Closed,
    /// The node said that it would not: [`Settings::write_only`](super::super::Settings::write_only).
    #[error("this node is write-only")]
    WriteOnly,
    /// More entities than [`Settings::max_entities`](super::super::Settings::max_entities).
    #[error("more than {max} entities")]
    TooManyEntities {
        /// The limit.
        max: usize,
    },
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// How an invalidator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Farewell {
    /// Everything was handed to the bus, and the others were told that nothing follows.
    Said,
    /// No goodbye was said: a guard was still open, an emit had been refused (then it would not have
    /// been true), or the bus had ended. The others will find this node silent, and doubt.
    Unsaid,
    /// The bus took too long, or ended before all was written out: the goodbye may or may not have
    /// left.
    TimedOut,
}

impl fmt::Display for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Said => "said",
            Self::Unsaid => "unsaid",
            Self::TimedOut => "timed out",
        })
    }
}

/// Who keeps an entity in doubt. Shown as one line: `orders-1: silent, for 4.2s`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suspect {
    /// A publisher's name, or this node's own. Empty if its name was never heard.
    pub name: String,
    /// Which life of it, if one was ever heard.
    pub incarnation: Option<Incarnation>,
    /// What is wrong.
    pub why: Why,
    /// For how long that has been so, as this node found it: whose lease has ended is silent from
    /// then on, and a write is unsettled from the beat on that said so.
    pub for_how_long: Duration,
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.name.as_str() {
            "" => "unnamed",
            name => name,
        };
        write!(f, "{name}: {}, for {:.1?}", self.why, self.for_how_long)
    }
}

/// What is wrong with a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// This node's own beats do not come back: no connection, no right, or too slow a way.
    OwnPath,
    /// This node's own beats do not leave: with a mark for every entity that it writes to they are longer
    /// than [`Bus::max_payload`](crate::bus::Bus::max_payload). Fewer entities or a larger limit help.
    BeatTooLarge,
    /// The bus has ended.
    Ended,
    /// A publisher's lease has ended without a goodbye.
    Silent,
    /// A publisher's clock is not understood within `e_max`: it does not hear us, or takes too long.
    Uncalibrated,
    /// A publisher's next beat is waited for; nothing is wrong yet.
    Awaited,
    /// Nobody is heard of a name that is [expected](super::super::Settings::expect).
    Expected,
    /// It holds a write that has been under way for longer than `write_limit`.
    Unsettled,
    /// There are more publishers than are kept track of.
    TooManyPublishers,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnPath => "its own beats do not come back",
            Self::BeatTooLarge => "its own beats are longer than the bus takes",
            Self::Ended => "the bus has ended",
            Self::Silent => "silent",
            Self::Uncalibrated => "its clock is not understood",
            Self::Awaited => "its next beat is awaited",
            Self::Expected => "expected, not heard",
            Self::Unsettled => "a write takes too long",
            Self::TooManyPublishers => "too many publishers",
        })
    }
}

/// Counts since an invalidator began, and what it knows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InvalidatorStats {
    /// Frames given to the bus, beats aside.
    pub sent: u64,
    /// Ids that waited for the bus.
    pub queued: u64,
    /// Ids merged into a drop of everything.
    pub collapsed: u64,
    /// Emits refused.
    pub refused: u64,
    /// Numbered frames that the bus did not take: the others notice.
    pub failed: u64,
    /// Beats that the bus did not take.
    pub beats_failed: u64,
    /// Those among them that were longer than [`Bus::max_payload`](crate::bus::Bus::max_payload). While
    /// that lasts the others find this node silent, and it does not hear itself:
    /// [`Why::BeatTooLarge`].
    pub beats_too_large: u64,
    /// Publishers that are heard.
    pub publishers: usize,
    /// Times that something was missed.
    pub gaps: u64,
    /// Times that an entity was found trustworthy again, or dropped because somebody asked.
    pub flushes: u64,
    /// Times that an entity fell into doubt.
    pub doubts: u64,
    /// Publishers taken for dead.
    pub retired: u64,
    /// Messages whose subject makes no sense.
    pub malformed: u64,
    /// Messages whose payload makes no sense.
    pub unreadable: u64,
    /// Messages of plain publishers.
    pub plain: u64,
    /// Times that somebody spoke of an entity that a watch of everything cannot follow, since there
    /// are [too many](super::super::Settings::max_entities).
    pub strays: u64,
    /// Times that somebody else spoke with our incarnation.
    pub forks: u64,
    /// Beats that came after their lease had ended.
    pub expired_beats: u64,
    /// Times that the thread which ends leases was late by more than [`TICK`](super::super::TICK): then
    /// an old value may have been served as coherent for longer than B, by what was above it.
    pub late_deadlines: u64,
    /// The longest that this thread was late, be it within [`TICK`](super::super::TICK). If it is late
    /// at this moment, that counts as well.
    pub worst_lateness: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_one_line() {
        let suspect = |name: &str, why, micros| Suspect {
            name: name.to_owned(),
            incarnation: None,
            why,
            for_how_long: Duration::from_micros(micros),
        };
        let silent = suspect("a", Why::Silent, 4_234_567);
        assert_eq!(silent.to_string(), "a: silent, for 4.2s");
        let expected = suspect("b", Why::Expected, 1_500_000);
        assert_eq!(expected.to_string(), "b: expected, not heard, for 1.5s");
        let crowd = suspect("", Why::TooManyPublishers, 0);
        assert_eq!(crowd.to_string(), "unnamed: too many publishers, for 0.0ns");
    }

    #[test]
    fn what_becomes_of_an_emit_and_of_an_end_has_a_word() {
        assert_eq!(Emitted::Collapsed.to_string(), "collapsed");
        assert_eq!(Farewell::TimedOut.to_string(), "timed out");
    }
}
