//! Watches how far each node's cache may be trusted, and tells of every change as it happens.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use afterwrite::invalidation::Suspect;
use afterwrite::invalidation::fence::Coherence;

use crate::node::Node;
use crate::report::{count, percent};
use crate::run::Stop;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(1);
const LINE_EVERY: Duration = Duration::from_secs(1);

/// One node's cache is trusted, or no longer.
#[derive(Debug)]
struct Change {
    node: usize,
    at: Instant,
    to: Coherence,
}

/// What was seen of a node when somebody last looked.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    state: Option<Coherence>,
    doubts: u64,
    flushes: u64,
}

/// All changes so far.
#[derive(Debug)]
pub(crate) struct Timeline {
    began: Instant,
    changes: Mutex<Vec<Change>>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            changes: Mutex::default(),
        }
    }

    /// The first time, from `since` on, that the node went to `state`.
    pub(crate) fn first(&self, node: usize, state: Coherence, since: Instant) -> Option<Instant> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut later = changes.iter().filter(|change| change.at >= since);
        later
            .find(|change| change.node == node && change.to == state)
            .map(|change| change.at)
    }

    /// The last time, from `since` on, that the node went to `state`.
    pub(crate) fn last(&self, node: usize, state: Coherence, since: Instant) -> Option<Instant> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut later = changes.iter().rev().filter(|change| change.at >= since);
        later
            .find(|change| change.node == node && change.to == state)
            .map(|change| change.at)
    }

    pub(crate) fn say(&self, what: &str) {
        println!("{:>7.3} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Looks until told to stop.
    pub(crate) fn watch(&self, nodes: &[Arc<Node>], stop: &Stop) {
        let mut seen = vec![Seen::default(); nodes.len()];
        let mut line = Instant::now();
        loop {
            for (number, (node, seen)) in nodes.iter().zip(&mut seen).enumerate() {
                let stats = node.invalidator.stats();
                let now = Seen {
                    state: Some(node.watch.coherence()),
                    doubts: stats.doubts,
                    flushes: stats.flushes,
                };
                if now.state != seen.state {
                    self.changed(number, node, seen.state, now.state);
                    *seen = now;
                } else if now.doubts > seen.doubts && now.flushes > seen.flushes {
                    self.blinked(number, node);
                    *seen = now;
                }
            }
            if line.elapsed() >= LINE_EVERY {
                line = Instant::now();
                self.say(&progress(nodes));
            }
            if stop.wait(LOOK) {
                return;
            }
        }
    }

    fn changed(&self, number: usize, node: &Node, from: Option<Coherence>, to: Option<Coherence>) {
        let (at, Some(to)) = (Instant::now(), to) else {
            return;
        };
        let blamed = match to {
            Coherence::Suspect => blame(&node.invalidator.suspects(&node.entity)),
            _ => String::new(),
        };
        let from = from.map(|from| format!("{from} → ")).unwrap_or_default();
        let because = match blamed.as_str() {
            "" => String::new(),
            blamed => format!(": {blamed}"),
        };
        self.say(&format!("{}  {from}{to}{because}", node.name));
        self.note(number, at, &[to]);
    }

    /// A gap whose publisher is heard needs no new proof: the cache is cleared at once, and the
    /// doubt is over before anybody looks. The counters tell of it.
    fn blinked(&self, number: usize, node: &Node) {
        let at = Instant::now();
        self.say(&format!(
            "{}  coherent → suspect → coherent: a gap, flushed at once",
            node.name
        ));
        self.note(number, at, &[Coherence::Suspect, Coherence::Coherent]);
    }

    fn note(&self, node: usize, at: Instant, states: &[Coherence]) {
        let changes = states.iter().map(|&to| Change { node, at, to });
        let mut known = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(changes);
    }
}

fn progress(nodes: &[Arc<Node>]) -> String {
    let figures = nodes.iter().map(|node| {
        let counts = &node.counts;
        let reads = counts.reads.load(Relaxed);
        let hits = reads.saturating_sub(counts.loads.load(Relaxed));
        format!(
            "{}  {} reads, {} hits, {} writes, {} drops",
            node.name,
            count(reads),
            percent(hits, reads),
            count(counts.writes.load(Relaxed)),
            count(node.watch.stats().applied),
        )
    });
    figures.collect::<Vec<_>>().join("   ")
}

fn blame(suspects: &[Suspect]) -> String {
    let each: Vec<_> = suspects.iter().map(Suspect::to_string).collect();
    each.join("; ")
}
