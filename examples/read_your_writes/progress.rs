//! Where a run stands: one line, rewritten on a terminal, repeated each second elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::report::{count, percent, time};
use crate::run::Shared;

const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// Shows a run's progress on the standard error stream.
pub(crate) struct Progress {
    shared: Arc<Shared>,
    writes: usize,
    rewrites: bool,
    shown: Instant,
}

impl Progress {
    pub(crate) fn new(shared: Arc<Shared>, options: &Options) -> Self {
        Self {
            shared,
            writes: options.writes,
            rewrites: std::io::stderr().is_terminal(),
            shown: Instant::now(),
        }
    }

    /// Shows the line, if it is time to.
    pub(crate) fn show(&mut self) {
        if self.rewrites {
            self.print("\r\x1b[2K", "");
        } else if self.shown.elapsed() >= PLAIN_EVERY {
            self.shown = Instant::now();
            self.print("", "\n");
        }
    }

    /// Shows the last line.
    pub(crate) fn end(&mut self) {
        self.print(if self.rewrites { "\r\x1b[2K" } else { "" }, "\n");
    }

    fn print(&self, before: &str, after: &str) {
        let counts = &self.shared.counts;
        let refetches = counts.refetches.load(Relaxed);
        let delay = match self.shared.delay.quantile(0.5) {
            Some(p50) => format!(", visible to received p50 {}", time(Some(p50))),
            None => String::new(),
        };
        // Progress that cannot be shown is no reason to stop.
        let _ = write!(
            std::io::stderr(),
            "{before}{:<12} {:>6} of {} writes, {:>7} refetches, {} read the old value{delay}{after}",
            self.shared.mode.name(),
            count(counts.writes.load(Relaxed)),
            count(self.writes as u64),
            count(refetches),
            percent(counts.old.load(Relaxed), refetches),
        );
    }
}
