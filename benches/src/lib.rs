//! What the benchmarks share: the rivals, the workloads, the statistics, the record.
//!
//! A *workload* has a name, a size and some *contenders*: ours, the lock-based reference, what else a
//! user would pick, and the floor that the hardware gives. Each contender shows first that it does the
//! work ([`rivals`]), is built the same way for every purpose, and is then timed by one of three:
//! - `cargo bench`: criterion, one contender after the other;
//! - the binary `record`: all contenders in turns, many short rounds ([`rounds`]), so that a noisy
//!   machine is noisy for all of them alike;
//! - `cargo bench --bench gate`: instruction counts, paired ratios and allocation counts ([`gate`]).
//!
//! Nothing is subtracted from what is measured.

#![deny(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]

#[allow(unsafe_code)]
pub mod alloc;
pub mod bench;
pub mod gate;
pub mod histogram;
pub mod input;
pub mod invalidation;
pub mod memory;
pub mod plant;
pub mod plot;
pub mod record;
pub mod rivals;
pub mod rounds;
pub mod service;
pub mod waits;
#[cfg(feature = "wire")]
pub mod wire;
pub mod workload;
