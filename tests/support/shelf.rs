//! Rows in a file, for a writer and a reader that are processes of their own.
//!
//! One line is appended for each commit, and one when it was told: `commit <id> <version>` and
//! `told <id> <version> <when>`, by the clock that all processes share, in hundredths of a second.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use afterwrite::invalidation::Invalidator;
use afterwrite::invalidation::subject::Entity;

use super::stage::Source;

/// A shelf that was made, not opened, is taken down when dropped.
pub struct Shelf {
    log: PathBuf,
    made: bool,
}

impl Shelf {
    /// An empty one.
    pub fn make() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("shelf-{}-{number}", process::id()));
        File::create(&log).expect("a file for the rows");
        Self { log, made: true }
    }

    /// Another process's.
    pub fn open(log: impl Into<PathBuf>) -> Self {
        let log = log.into();
        Self { log, made: false }
    }

    pub fn path(&self) -> &Path {
        &self.log
    }

    /// Makes the next version of a row, for one writer.
    pub fn commit(&self, id: usize) -> u64 {
        let version = self.version(id) + 1;
        self.append(&format!("commit {id} {version}\n"));
        version
    }

    /// From now on, everybody has to hear of this version.
    pub fn tell(&self, id: usize, version: u64) {
        // Rounded up, so that nothing is due too early.
        self.append(&format!("told {id} {version} {}\n", uptime() + 1));
    }

    /// Writes as a service does: guard, commit, emit.
    pub fn write(&self, node: &Invalidator, entity: &Entity, id: usize) {
        let writing = node.writing(entity, &id.to_string()).unwrap();
        let version = self.commit(id);
        let _ = writing.committed().unwrap();
        self.tell(id, version);
    }

    fn append(&self, line: &str) {
        let mut log = OpenOptions::new().append(true).open(&self.log).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }

    /// What the complete lines of this kind say of a row, oldest first: version and time.
    fn lines(&self, kind: &str, id: usize) -> Vec<(u64, u64)> {
        let text = fs::read_to_string(&self.log).expect("the rows");
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let read = |line: &str| {
            let mut words = line.strip_prefix(kind)?.split_ascii_whitespace();
            let mut number = || words.next()?.parse().ok();
            let of: u64 = number()?;
            (of == id as u64).then_some((number()?, number().unwrap_or(0)))
        };
        complete.lines().filter_map(read).collect()
    }
}

impl Source for Shelf {
    fn version(&self, id: usize) -> u64 {
        let commits = self.lines("commit ", id);
        commits.last().map_or(0, |&(version, _)| version)
    }

    fn due(&self, id: usize, age: Duration, at: Instant) -> u64 {
        // Reckoned back from now by another clock, which has hundredths only: one more is excused.
        let age = (age + at.elapsed()).as_millis() as u64 / 10 + 2;
        let now = uptime();
        let told = self.lines("told ", id);
        let old = told.iter().rev().find(|&&(_, told)| told + age < now);
        old.map_or(0, |&(version, _)| version)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if self.made {
            fs::remove_file(&self.log).ok();
        }
    }
}

/// Hundredths of a second since the machine began.
fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").expect("a clock");
    let (seconds, _) = text.split_once(' ').expect("two figures");
    let digits = seconds.replace('.', "");
    digits.parse().expect("a figure with two decimals")
}
