//! Does a client that refetches when it is told of a change read the new value?
//!
//! Writers append events to a log, a projection applies them to a read view some time later, and
//! clients select from the read view whenever a notice tells them of a change. The same work runs
//! three times: notices pushed right after the commit, notices held back by a gate that polls the
//! view, and notices held back by a watermark that the projection advances. Log and view are SQLite
//! databases in a temporary directory.
//!
//! ```text
//!   writers ──insert──▶ log.db ──projection, lags──▶ view.db ◀──select── gates (second run)
//!      │                                 │              ▲
//!      │ publish / submit / submit_at    │ advance      └────select── clients
//!      ▼                                 ▼                              ▲
//!   registry ◀─────────────────────── watermark (third run)             │
//!      └────────────────────── notices ─────────────────────────────────┘
//! ```
//!
//! `cargo run --release --example read_your_writes -- --help` lists the options.

mod client;
mod histogram;
mod options;
mod progress;
mod projection;
mod random;
mod report;
mod run;
mod scratch;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::process::ExitCode;

use options::{Asked, Options};
use run::{Mode, RunError};
use scratch::Scratch;

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
    match compare(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                eprintln!("  because: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Makes the three runs and prints what came out; whether all that was to be shown was shown.
fn compare(options: &Options) -> Result<bool, RunError> {
    println!("{}", report::setting(options));
    let scratch = Scratch::new()?;
    let mut outcomes = Vec::new();
    for mode in Mode::ALL {
        outcomes.push(run::run(mode, options, &scratch)?);
    }
    print!("{}", report::table(&outcomes));
    let failures = report::failures(&outcomes);
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        println!("{}", report::conclusion(&outcomes));
    }
    Ok(failures.is_empty())
}
