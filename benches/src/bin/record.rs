//! `cargo run --release -p afterwrite-benches --bin record [section ...]`: measures the sections (all,
//! if none is named; `page` alone measures nothing) and writes `docs/BENCHMARKS.md` and
//! `docs/growth.svg`. The section `wire` needs `--features wire` and a nats-server.

use std::process::ExitCode;

use afterwrite_benches::alloc::Counting;
use afterwrite_benches::record::{self, measure};

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        wanted = measure::SECTIONS
            .iter()
            .map(|&name| name.to_owned())
            .collect();
    }
    let made = wanted
        .iter()
        .filter(|name| *name != "page")
        .try_for_each(|name| measure::section(name))
        .and_then(|()| record::write());
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("record: {error}");
            ExitCode::FAILURE
        }
    }
}
