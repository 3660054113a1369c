//! `cargo bench --bench gate`: fails when a hot path got slower; see `afterwrite_benches::gate`.
//!
//! - `-- --record` writes the figures of this machine and compiler as the new limits.
//! - `-- --prove` plants slowdowns, and fails unless each part of the gate sees them.
//! - `-- --only instructions` (or `growth`, `ratios`, `allocations`) runs one part.
//! - `AFTERWRITE_PLANTED_SLOWDOWN=5` plants 5 % into what is measured: the gate must fail.

use std::process::ExitCode;

use afterwrite_benches::alloc::Counting;
use afterwrite_benches::gate::ratios::Plant;
use afterwrite_benches::gate::{Finding, allocations, growth, instructions, ratios};
use afterwrite_benches::plant;

#[global_allocator]
static COUNTING: Counting = Counting;

const HELPER: &str = env!("CARGO_BIN_EXE_paths");

struct Options {
    record: bool,
    prove: bool,
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if !has("--bench") {
        println!("the gate runs under `cargo bench` alone");
        return ExitCode::SUCCESS;
    }
    let options = Options {
        record: has("--record"),
        prove: has("--prove"),
        only: arguments
            .iter()
            .position(|argument| argument == "--only")
            .and_then(|at| arguments.get(at + 1).cloned()),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let percent = plant::percent()?;
    let (counted, timed, allocated) = if options.prove {
        (5.0, Plant::PastLimit, 1)
    } else {
        (percent, Plant::Percent(percent), 0)
    };
    if options.record && (options.prove || percent > 0.0) {
        return Err("a planted slowdown is no record".to_owned());
    }
    let wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    let mut good = true;
    if wanted("allocations") {
        let findings = allocations::check(allocated, options.record)?;
        good &= report("allocations", &findings, options.prove);
    }
    if wanted("instructions") {
        match instructions::check(HELPER, counted, options.record) {
            Ok(findings) => good &= report("instructions", &findings, options.prove),
            Err(error) if error.contains("not installed") => {
                println!("\ninstructions: not counted, {error}. The other two parts still gate.");
            }
            Err(error) => return Err(error),
        }
    }
    if wanted("growth") && !options.record {
        match growth::check(HELPER, options.prove.then_some(2.5)) {
            Ok(findings) => good &= report("growth", &findings, options.prove),
            Err(error) if error.contains("not installed") => {
                println!("\ngrowth: not counted, {error}.");
            }
            Err(error) => return Err(error),
        }
    }
    if wanted("ratios") {
        let findings = ratios::check(timed, options.record)?;
        good &= report("ratios", &findings, options.prove);
    }
    Ok(good)
}

/// Prints a part; whether it is as it should be: within its limits, or, when slowdowns are planted to
/// prove the gate, beyond every one of them.
fn report(part: &str, findings: &[Finding], prove: bool) -> bool {
    println!("\n{part}");
    for finding in findings {
        finding.print();
    }
    let failed = findings.iter().filter(|finding| !finding.passes).count();
    if prove {
        let seen = failed == findings.len();
        let verdict = if seen { "as it should" } else { "TOO FEW" };
        println!(
            "{part}: {failed} of {} plants seen, {verdict}",
            findings.len()
        );
        return seen;
    }
    if failed > 0 {
        println!("{part}: {failed} of {} beyond their limit", findings.len());
    }
    failed == 0
}
