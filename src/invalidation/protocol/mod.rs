//! How a node knows that it may have missed something: the receiving half, without input or output.
//!
//! # Role
//! A [`Node`] is told what arrived, when, and what the connection did; it answers through
//! [`Effects`]: drop this, doubt that, it is proved again. It reads no clock, takes no lock, and
//! sends nothing, so that a simulator can drive a whole fleet of them through years of faults. The
//! sending half is the [outbox](super::outbox).
//!
//! # Who takes part
//! - *Publishers*: every node that emits. Each numbers its frames per entity, and sends a *beat*
//!   every H: how far it has got with each entity ([`peer`]).
//! - *Entities*: what this node watches; the last number seen of each publisher ([`entity`]).
//! - *This node*: its own beats, which must come back through the watched subscription
//!   ([`control`]).
//!
//! # The claim
//! Let publisher P have been known for B (a beat of its was heard, or it is named in `expect`; for its
//! first lease its clock may not be understood) and not retired since, and e an emit handed over at time t. Whenever an entity reads `Coherent` at
//! T > t + B, e was applied or a flush completed after t. **B = L + e_max + tick.**
//!
//! # Why it holds
//! 1. Before T, and by at most L + e_max + tick, P *sent* a beat on whose lease `Coherent` stood at
//!    T: a lease runs from its sending, translated by an [`Offset`](offset::Offset) whose error is
//!    bounded by a round trip, and what the deadline thread adds is at most a tick.
//! 2. So that beat was stamped after t. A beat is stamped, then everything handed over before the
//!    stamp is numbered, then the beat is filled in: its mark for the entity counts e.
//! 3. The beat was applied here: either the last number seen was at least the mark, or that was
//!    a gap, which flushes.
//! 4. A last number of at least e's means that e arrived, or that a later frame arrived first and
//!    was a gap: a flush after t. No number is skipped without a flush.
//! 5. Numbers begin at 0 for a publisher that was never heard, so that what it sent before it was
//!    heard is a gap as well; and nothing but its goodbye, or a person, ends a publisher's claim
//!    to be heard.
//!
//! Delay is not assumed to be bounded: a beat that comes late is a lease that has run out. What is
//! assumed: clocks drift by at most [`offset::DRIFT_PPM`] against each other and neither stands still,
//! and nobody forges frames.
//!
//! # Publishers
//! | event | Live | Silent | Gone |
//! |---|---|---|---|
//! | frame n <= last + 1 | drop, last = max | same | drop, gap, Live |
//! | frame n > last + 1 | drop, gap, last = n | same | drop, gap, Live |
//! | valid beat, mark <= last | renew | Live | gap, Live |
//! | valid beat, mark > last | gap, last = mark, renew | same, Live | gap, Live |
//! | expired beat | mark rule only | same | - |
//! | lease ends | Silent, suspect | - | - |
//! | bye | Gone; gap if mark > last | same | - |
//! | retire | - | Gone, counted | forgotten |
//!
//! After a goodbye, a late copy of a frame or beat that the goodbye already counts changes nothing
//! but that its drop is applied.
//!
//! # Entities
//! | state | event | next |
//! |---|---|---|
//! | Joining, Suspect | own beat back at p; p + H passed; every publisher Live by a beat sent after p; errors at most e_max; `min_flush` passed | Coherent |
//! | Coherent, Suspect | gap, silence, overflow, unreadable, unsettled | Suspect; caches that cannot see the fence are told |
//! | any | new connection, own beat older than L | Suspect (Joining stays), p is void |
//! | Coherent | `all` | Coherent, or Suspect until `min_flush` has passed |

mod control;
mod data;
mod entity;
mod leave;
mod mutant;
mod node;
mod offset;
mod own;
mod peer;
mod peers;

#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;

pub(crate) use entity::Belief;
pub(crate) use mutant::Mutant;
#[cfg(test)]
pub(crate) use mutant::{plant, planted};
pub(crate) use node::{BeatPlan, Doubter, Effects, Node, RowId};
pub(crate) use own::{OwnMark, OwnMarks};
pub(crate) use peer::PeerWhy;

/// Microseconds, on one node's monotonic clock.
pub(crate) type Micros = u64;

/// The rules' numbers, all in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// H: the time between beats.
    pub(crate) beat: Micros,
    /// L: how long a beat vouches for its publisher, from its sending.
    pub(crate) lease: Micros,
    /// The calibration error up to which a publisher's clock is understood.
    pub(crate) e_max: Micros,
    /// The least time between two flushes of one entity.
    pub(crate) min_flush: Micros,
    /// How long a silent publisher keeps its entities in doubt.
    pub(crate) retire_after: Micros,
    /// How many publishers are kept track of.
    pub(crate) max_publishers: usize,
    /// How many entities are kept track of.
    pub(crate) max_entities: usize,
    /// A rule broken on purpose, to see that the simulator notices.
    #[cfg(test)]
    pub(crate) mutant: Option<Mutant>,
}

impl Rules {
    /// Whether the simulator broke this rule. Never outside of it.
    #[inline(always)]
    pub(crate) fn broken(&self, _mutant: Mutant) -> bool {
        #[cfg(test)]
        return self.mutant == Some(_mutant);
        #[cfg(not(test))]
        false
    }
}
