//! Runs models in processes of their own, with a fault planted.

use std::process::Command;

const FAULT: &str = "AFTERWRITE_MUTANT";

/// Whether this process runs with a fault; then what spawns processes does nothing.
pub fn faulted() -> bool {
    std::env::var_os(FAULT).is_some()
}

/// Runs the named model of this binary in a process of its own, with a fault or with none; whether it
/// passed. Panics unless exactly that one test ran, and failed by a panic if it failed.
pub fn passes(model: &str, fault: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["--exact", "--nocapture", model])
        .env("RUST_BACKTRACE", "0")
        .env_remove(FAULT);
    if let Some(fault) = fault {
        command.env(FAULT, fault);
    }
    let output = command.output().expect("this binary starts again");
    let said = String::from_utf8_lossy(&output.stdout);
    let cried = String::from_utf8_lossy(&output.stderr);
    let ran = said.contains("running 1 test\n");
    let passed = output.status.success() && said.contains("test result: ok. 1 passed; 0 failed");
    // The checker may panic again while it unwinds, which aborts the process.
    let failed = !output.status.success() && cried.contains("panicked at");
    assert!(
        ran && passed != failed,
        "{model} with {fault:?} came to no verdict:\n{said}\n{cried}",
    );
    passed
}
