//! Two nodes cache the rows of one database. Does either serve an old row without knowing it?
//!
//! Both nodes read through a [`Coherent`](afterwrite::invalidation::coherent::Coherent) cache and
//! write under guards. After a calm while the wire between them is harmed: a frame is lost, then a
//! node is cut off without any error (with `--nats` its connection is also made anew). Every read is
//! judged by a ledger that knows when each version was superseded.
//!
//! ```text
//!   node-a: writer, readers, cache ──┐  frames, beats  ┌── node-b: writer, readers, cache
//!                 │                  └──── the bus ────┘                  │
//!                 │                     (wire: harm)                      │
//!                 └───────────────────── rows.db ─────────────────────────┘
//!                        every read and write ──▶ ledger ──▶ verdict
//! ```
//!
//! `cargo run --release --example two_replicas -- --help` lists the options.

mod ledger;
#[cfg(feature = "nats")]
mod nats;
mod node;
mod options;
mod random;
mod report;
mod run;
mod store;
#[cfg(test)]
mod tests;
mod timeline;
mod wire;

use std::process::ExitCode;

use options::{Asked, Options};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    match run::run(&options) {
        Ok(outcome) => {
            print!("{}", report::tables(&outcome));
            let failures = report::failures(&outcome);
            for failure in &failures {
                println!("FAILED: {failure}");
            }
            if failures.is_empty() {
                println!("{}", report::conclusion(&outcome));
                return ExitCode::SUCCESS;
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
