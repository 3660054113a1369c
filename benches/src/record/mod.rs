//! The record: figures with their date, machine, compiler and commit, wins and losses alike.
//!
//! Each section is measured by itself and kept as a table of comma-separated values in
//! `docs/benchmarks`; `docs/BENCHMARKS.md` and `docs/growth.svg` are made from those tables.

mod machine;
pub mod measure;
mod page;
pub mod table;
mod targets;

pub use page::write;
