//! Signals to processes that a test has started.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::Instant;

use super::PATIENCE;

/// Sends the signal of this name.
pub fn send(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status()
        .expect("kill");
    assert!(status.success(), "kill -{name}");
}

/// SIGSTOP, and returns once every thread stands: the signal is on its way when `kill` returns.
pub fn stop(child: &Child) {
    send(child, "STOP");
    let deadline = Instant::now() + PATIENCE;
    while !stands(child) {
        assert!(Instant::now() < deadline, "{} does not stop", child.id());
        thread::yield_now();
    }
}

fn stands(child: &Child) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id()));
    tasks.expect("its threads").flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The state follows the name, which stands in brackets.
        stat.rsplit_once(") ")
            .is_some_and(|(_, state)| state.starts_with('T'))
    })
}
