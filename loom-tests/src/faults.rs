//! Runs models in processes of their own, with a fault planted.

use std::process::Command;

use std::sync::atomic::Ordering;

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

/// The weakenings of these orderings, each by the name of its fault: both halves of one that acquires and releases.
pub fn weakenings<'a>(roles: impl IntoIterator<Item = &'a (&'a str, Ordering)>) -> Vec<String> {
    let of = |(role, ordering): &(&str, Ordering)| match ordering {
        Ordering::AcqRel => vec![format!("{role}:acquire"), format!("{role}:release")],
        _ => vec![(*role).to_owned()],
    };
    roles.into_iter().flat_map(of).collect()
}

/// Asserts that each model of the table passes as it is, and fails with its fault: pairs of a fault
/// and a model.
#[track_caller]
pub fn assert_killed(table: &[(&str, &str)]) {
    let mut models: Vec<_> = table.iter().map(|(_, model)| *model).collect();
    models.sort_unstable();
    models.dedup();
    for model in models {
        assert!(passes(model, None), "{model} fails without a fault");
    }
    let survivors: Vec<_> = table
        .iter()
        .filter(|(fault, model)| passes(model, Some(fault)))
        .collect();
    assert!(
        survivors.is_empty(),
        "models let faults pass: {survivors:#?}"
    );
}

/// Asserts that each of `faults` is in the table, and nothing else is.
#[track_caller]
pub fn assert_listed(table: &[(&str, &str)], faults: &[&str]) {
    let mut listed: Vec<_> = table.iter().map(|(fault, _)| *fault).collect();
    let mut faults = faults.to_vec();
    listed.sort_unstable();
    listed.dedup();
    faults.sort_unstable();
    assert_eq!(listed, faults, "each fault needs a model, and only those");
}
