//! Pages about the crate as a whole.
//!
//! - [`architecture`]: the parts of registry and invalidation, and the ways of a notice and of an
//!   invalidation through them;
//! - [`coherence`]: how a node knows that it may have missed an invalidation, and within what time;
//! - [`guarantees`]: what is promised, line by line, by the names that the tests bear;
//! - [`orderings`]: its memory orderings, and why they suffice;
//! - [`limitations`]: what is not promised, and what is not proved.

pub mod architecture;
pub mod coherence;
pub mod guarantees;
pub mod limitations;
pub mod orderings;

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
