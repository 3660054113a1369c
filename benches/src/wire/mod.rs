//! The workloads over a real nats-server: ours beside async-nats with nothing around it, in turns.
//!
//! Each of ours has its like among the bare ones:
//! - *on a runtime*: emits are made in a task that shares a thread with the sender's connection, so that
//!   nothing between them wakes a thread: there the bare client is at its best;
//! - *on a thread*: emits are made on a thread, and the connection has another, as it has by default;
//! - *write-only*, or *not subscribed*: the sender does not get back what it sends. A service that caches
//!   as well does.
//!
//! The bare client's subjects are made in advance, its payloads are empty. Of the rate there is one more
//! that sends as many bytes as a frame of ours has: what they cost the server is no library's.

mod arrivals;
mod bare;
mod ours;
mod server;

use std::time::Duration;

use crate::rounds::{bounds, interleave, median};
use crate::workload::{Contender, Timed, Workload};
use bare::Bare;
use ours::Ours;

pub use server::Server;

const ENTITY: &str = "user";
/// So many ids, in turns.
const SUBJECTS: usize = 4_096;
/// Ids of one batch.
const BATCH: usize = 1_000;
/// What each contender has to get across before it is timed.
const CHECKED: u64 = 20_000;

fn id(n: usize) -> String {
    format!("0192f3a4-{n:04x}")
}

/// The bare client's subjects, as long as ours.
fn subject(prefix: &str, n: usize) -> String {
    format!("{prefix}.{ENTITY}.{}", id(n))
}

/// How long each of some messages took, in nanoseconds.
#[derive(Debug, Default)]
struct Pings(Vec<f64>);

impl Pings {
    fn note(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e9);
    }

    /// As if each had taken as long as the one in the middle.
    fn timed(&self) -> Timed {
        let units = self.0.len() as u64;
        Timed {
            took: Duration::from_secs_f64(median(&self.0) * units as f64 / 1e9),
            units,
        }
    }
}

fn timed(units: u64, took: Duration) -> Timed {
    Timed { took, units }
}

/// Where the sender's connection runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the runtime, and the thread, of the task that sends.
    Runtime,
    /// On another thread than the one that sends.
    Thread,
}

/// Who takes part, and how: each of ours stands [`OURS`] after its like.
const BARE: [(&str, Place, bool); OURS] = [
    ("bare async-nats, on a runtime", Place::Runtime, false),
    (
        "bare async-nats, subscribed, on a runtime",
        Place::Runtime,
        true,
    ),
    (
        "bare async-nats, subscribed, on a thread",
        Place::Thread,
        true,
    ),
];
const AFTERWRITE: [(&str, Place, bool); OURS] = [
    (
        "afterwrite, write-only, on a runtime",
        Place::Runtime,
        false,
    ),
    ("afterwrite, on a runtime", Place::Runtime, true),
    ("afterwrite, on a thread", Place::Thread, true),
];
const OURS: usize = 3;

/// As long as a frame of one id, with the numbers and times of a node that has been up for minutes.
const FRAME: [u8; 19] = [b'.'; 19];

fn bare(url: &str, at: usize) -> Bare {
    let (_, place, subscribed) = BARE[at];
    let prefix = format!("bare{at}.invalidate");
    let mut bare = Bare::new(url, &prefix, place, subscribed, &[]);
    bare.burst(CHECKED);
    bare
}

fn ours(url: &str, at: usize) -> Ours {
    let (_, place, subscribed) = AFTERWRITE[at];
    let prefix = format!("ours{at}.invalidate");
    let mut ours = Ours::new(url, &prefix, place, !subscribed, true);
    ours.burst(CHECKED);
    ours
}

/// All who take part, doing one thing or the like.
fn everybody(
    url: &str,
    theirs: fn(&mut Bare, u64) -> Timed,
    own: fn(&mut Ours, u64) -> Timed,
) -> Vec<Contender> {
    let bare = (0..OURS).map(|at| {
        let mut bare = bare(url, at);
        Contender::new(BARE[at].0, move |n| theirs(&mut bare, n))
    });
    let ours = (0..OURS).map(|at| {
        let mut ours = ours(url, at);
        Contender::new(AFTERWRITE[at].0, move |n| own(&mut ours, n))
    });
    bare.chain(ours).collect()
}

/// `emit_to_drop`: from an emit on one node to the drop on another, one at a time; the median of a
/// run.
///
/// # Panics
/// If anything is lost.
#[must_use]
pub fn emit_to_drop(url: &str) -> Workload {
    Workload {
        name: "emit_to_drop",
        size: 1,
        unit: "emit",
        contenders: everybody(
            url,
            |it, n| it.pings(n).timed(),
            |it, n| it.pings(n).timed(),
        ),
    }
}

/// `emit_rate`: emits of single ids as fast as they go, until the last was dropped on the other node.
///
/// # Panics
/// If anything is lost.
#[must_use]
pub fn emit_rate(url: &str) -> Workload {
    let mut contenders = everybody(
        url,
        |it, n| timed(n, it.burst(n)),
        |it, n| timed(n, it.burst(n)),
    );
    let mut framed = Bare::new(url, "framed.invalidate", Place::Runtime, false, &FRAME);
    framed.burst(CHECKED);
    let name = "bare async-nats, with 19 bytes, on a runtime";
    contenders.push(Contender::new(name, move |n| timed(n, framed.burst(n))));
    Workload {
        name: "emit_rate",
        size: 1,
        unit: "emit",
        contenders,
    }
}

/// `emit_batch_rate`: the same by batches of 1,000 ids, among peers that all understand them.
///
/// # Panics
/// If anything is lost.
#[must_use]
pub fn emit_batch_rate(url: &str) -> Workload {
    let mut bare = bare(url, 0);
    let mut ours = Ours::new(url, "many.invalidate", Place::Thread, false, false);
    ours.batches(CHECKED / BATCH as u64, BATCH);
    Workload {
        name: "emit_batch_rate",
        size: BATCH,
        unit: "id",
        contenders: vec![
            Contender::new(BARE[0].0, move |n| timed(n, bare.burst(n))),
            Contender::new("afterwrite, on a thread", move |n| {
                let batches = n.div_ceil(BATCH as u64);
                timed(batches * BATCH as u64, ours.batches(batches, BATCH))
            }),
        ],
    }
}

/// What a workload has to reach, as the ratio of our figure to the bare client's.
#[derive(Clone, Copy, Debug)]
pub enum Must {
    /// Waits may be so many times as long.
    AtMost(f64),
    /// Rates have to be so many times as high.
    AtLeast(f64),
}

impl std::fmt::Display for Must {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(ratio) => write!(f, "at most {ratio}"),
            Self::AtLeast(ratio) => write!(f, "at least {ratio}"),
        }
    }
}

/// A contender beside the bare client.
#[derive(Clone, Debug)]
pub struct Row {
    /// The workload.
    pub workload: &'static str,
    /// The contender.
    pub contender: &'static str,
    /// Its figure: microseconds, or thousands a second.
    pub figure: f64,
    /// What that is.
    pub unit: &'static str,
    /// The median of the pairs' ratios to the bare client, and the bootstrap's bounds of it.
    pub ratio: [f64; 3],
    /// The least and the greatest of those ratios.
    pub spread: [f64; 2],
    /// For ours: the median of the pairs' ratios to its like among the bare ones.
    pub like: Option<f64>,
    /// What ours has to reach.
    pub must: Option<Must>,
}

impl Row {
    /// Whether the median ratio misses what it has to reach.
    #[must_use]
    pub fn misses(&self) -> bool {
        match self.must {
            Some(Must::AtMost(most)) => self.ratio[0] > most,
            Some(Must::AtLeast(least)) => self.ratio[0] < least,
            None => false,
        }
    }
}

/// Builds a workload over the server at an address.
pub type Build = fn(&str) -> Workload;

/// The workloads, and what each has to reach.
pub const WORKLOADS: [(Build, Must); 3] = [
    (emit_to_drop, Must::AtMost(1.10)),
    (emit_rate, Must::AtLeast(0.95)),
    (emit_batch_rate, Must::AtLeast(10.0)),
];

/// Times all workloads, so many pairs of each, and prints each once it is done.
#[must_use]
pub fn rows(pairs: usize) -> Vec<Row> {
    let server = Server::start();
    let mut rows = Vec::new();
    for (build, must) in WORKLOADS {
        let mut work = build(server.url());
        let done = rows.len();
        let samples = interleave(&mut work.contenders, pairs, Duration::from_millis(250));
        let per_second = matches!(must, Must::AtLeast(_));
        let figure = |nanos: f64| if per_second { 1e6 / nanos } else { nanos / 1e3 };
        let beside = |it: usize, other: usize| -> Vec<f64> {
            let pairs = samples[it].iter().zip(&samples[other]);
            pairs
                .map(|(it, other)| figure(*it) / figure(*other))
                .collect()
        };
        for (at, contender) in work.contenders.iter().enumerate() {
            let is_ours = contender.name.starts_with("afterwrite");
            let ratios = beside(at, 0);
            let (low, high) = bounds(&ratios);
            let [least, most] = ratios
                .iter()
                .fold([f64::MAX, f64::MIN], |[least, most], &ratio| {
                    [least.min(ratio), most.max(ratio)]
                });
            rows.push(Row {
                workload: work.name,
                contender: contender.name,
                figure: figure(median(&samples[at])),
                unit: if per_second {
                    "thousand/s"
                } else {
                    "µs (p50)"
                },
                ratio: [median(&ratios), low, high],
                spread: [least, most],
                like: is_ours.then(|| median(&beside(at, at.saturating_sub(OURS)))),
                must: is_ours.then_some(must),
            });
        }
        print(&rows[done..]);
    }
    rows
}

fn print(rows: &[Row]) {
    for row in rows {
        let [ratio, low, high] = row.ratio;
        let [least, most] = row.spread;
        let verdict = match row.must {
            Some(must) if row.misses() => format!("MISSES {must}"),
            Some(must) => format!("reaches {must}"),
            None => String::new(),
        };
        let like = row
            .like
            .map_or_else(String::new, |like| format!("{like:.3} x its like, "));
        println!(
            "{:<16} {:<42} {:>9.1} {:<10}  {ratio:.3} x bare ({low:.3}..{high:.3}, pairs {least:.2}..{most:.2})  {like}{verdict}",
            row.workload, row.contender, row.figure, row.unit
        );
    }
}
