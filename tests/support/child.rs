//! A test of this very binary, run as a process of its own that can be stopped and killed.
//!
//! The two talk in lines: the child listens on its standard input, and ends with it.

use std::env;
use std::io::{BufRead, BufReader, Write as _, stdin};
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use super::{PATIENCE, signal};

/// Tells a child that it is one.
const CHILD: &str = "AFTERWRITE_TEST_CHILD";
/// What a child says begins with it; the test harness says other things.
const MARK: &str = "> ";

/// Killed when dropped.
pub struct Child {
    process: process::Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    /// Runs the test of this name, which finds these in its environment.
    pub fn run(test: &str, variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env::current_exe().expect("this binary"))
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let input = process.stdin.take().expect("its input");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            let said = output.lines().map_while(Result::ok);
            // The harness ends no line before a test has ended.
            let said = said.filter_map(|text| Some(text.split_once(MARK)?.1.to_owned()));
            said.for_each(|text| drop(line.send(text)));
        });
        Self {
            process,
            input,
            lines,
        }
    }

    pub fn say(&mut self, text: &str) {
        writeln!(self.input, "{text}").expect("it listens");
    }

    /// Waits until it says something that begins like this, and gives the rest.
    pub fn hear(&self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(text) => match text.strip_prefix(beginning) {
                    Some(rest) => return rest.trim().to_owned(),
                    None => heard.push(text),
                },
                Err(RecvTimeoutError::Timeout) => panic!("no {beginning:?}, only {heard:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without {beginning:?}; it said {heard:?}")
                }
            }
        }
    }

    pub fn kill(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// SIGSTOP, and returns once it stands.
    pub fn stop(&self) {
        signal::stop(&self.process);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        signal::send(&self.process, "CONT");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Whether this process was run by [`Child::run`].
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// What the parent put into the environment.
pub fn variable(name: &str) -> String {
    env::var(name).expect(name)
}

/// Says a line to the parent.
pub fn tell(text: impl std::fmt::Display) {
    println!("{MARK}{text}");
}

/// What the parent says, on a thread of its own. The process ends when the parent falls silent.
pub fn listen() -> Receiver<String> {
    let (line, lines) = mpsc::channel();
    thread::spawn(move || {
        for text in stdin().lines().map_while(Result::ok) {
            if line.send(text).is_err() {
                return;
            }
        }
        process::exit(0);
    });
    lines
}
