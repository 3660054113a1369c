//! A nats-server of the benchmarks' own, on the loopback alone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

#[path = "../../../tests/support/binary.rs"]
#[allow(unreachable_pub)] // The tests use it as well.
mod binary;

/// A running server with its defaults. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts it, and returns when it listens.
    ///
    /// # Panics
    /// If there is no nats-server, or it does not start; says what to install.
    #[must_use]
    pub fn start() -> Self {
        // Port -1: one that is free.
        let mut child = Command::new(binary::find())
            .args(["--addr", "127.0.0.1", "--port", "-1"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server starts");
        let log = child.stderr.take().expect("its log is piped");
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let listens = "Listening for client connections on ";
        let address = lines.find_map(|line| Some(line.split_once(listens)?.1.trim().to_owned()));
        let url = format!("nats://{}", address.expect("nats-server listens"));
        // What else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
