//! Pages about the crate as a whole.
//!
//! - [`architecture`]: the registry's parts, and the way of a notice through them;
//! - [`guarantees`]: what is promised, line by line, and where each line is checked;
//! - [`orderings`]: its memory orderings, and why they suffice;
//! - [`limitations`]: what is not promised, and what is not proved.

pub mod architecture;
pub mod guarantees;
pub mod limitations;
pub mod orderings;

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
