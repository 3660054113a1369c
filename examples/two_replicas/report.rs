//! What came out: two tables, and whether they show what was to be shown.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use afterwrite::invalidation::Farewell;

use crate::run::{Episode, LATE, Outcome};

/// With thousands set apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut set_apart = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            set_apart.push(',');
        }
        set_apart.push(digit);
    }
    set_apart
}

pub(crate) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

fn time(duration: Duration) -> String {
    let micros = duration.as_nanos() as f64 / 1e3;
    match micros {
        _ if micros < 1e3 => format!("{micros:.0} µs"),
        _ if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

fn maybe(duration: Option<Duration>) -> String {
    duration.map_or("never".to_owned(), time)
}

/// What the verdict on one node goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) hits: u64,
    pub(crate) drops: u64,
    pub(crate) past_bound: u64,
    pub(crate) farewell: Farewell,
}

/// A column for each node, then a row for each harm.
pub(crate) fn tables(outcome: &Outcome) -> String {
    let mut columns = vec![
        [
            "",
            "reads",
            "hit rate",
            "loads",
            "writes",
            "drops from the other node",
            "frames lost on the wire",
            "lag p50, at most",
            "lag p99, at most",
            "doubts",
            "flushes",
            "old values served as Coherent",
            "  of them past B",
            "  the oldest, superseded for",
            "old values served in doubt",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for node in &outcome.nodes {
        let (counts, lag) = (&node.counts, node.watch.lag());
        let (stats, fences) = (node.invalidator.stats(), node.cache.stats());
        let (reads, loads) = (counts.reads.load(Relaxed), counts.loads.load(Relaxed));
        let past = counts.past_bound.load(Relaxed);
        columns.push(vec![
            node.name.to_owned(),
            count(reads),
            percent(reads.saturating_sub(loads + fences.joined), reads),
            count(loads),
            count(counts.writes.load(Relaxed)),
            count(node.watch.stats().applied),
            count(node.harm.lost()),
            time(lag.p50),
            time(lag.p99),
            count(stats.doubts),
            count(stats.flushes),
            count(counts.stale.load(Relaxed) + past),
            count(past),
            time(Duration::from_nanos(counts.stalest.load(Relaxed))),
            count(counts.stale_in_doubt.load(Relaxed)),
        ]);
    }
    let rows = (0..columns[0].len()).map(|row| columns.iter().map(|c| c[row].clone()).collect());
    let mut text = laid_out(&rows.collect::<Vec<_>>());
    let head = [
        "harm",
        "node",
        "Suspect after",
        "bypassed",
        "flushes",
        "Coherent after",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(outcome.episodes.iter().map(|episode| {
        vec![
            episode.fault.name().to_owned(),
            episode.node.to_owned(),
            maybe(episode.noticed),
            count(episode.bypassed),
            count(episode.flushes),
            maybe(episode.recovered),
        ]
    }));
    text.push_str(&laid_out(&rows));
    text
}

/// The first column to the left, the others to the right, a rule under the head.
fn laid_out(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|c| widest(c).unwrap_or(0)).collect();
    let mut text = String::from("\n");
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if number == 0 {
            let rule = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
            text.push_str(&"─".repeat(rule));
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

/// What the run was to show and did not.
pub(crate) fn failures(outcome: &Outcome) -> Vec<String> {
    let figures = outcome.nodes.iter().zip(&outcome.farewells);
    let figures = figures.map(|(node, &farewell)| {
        let (counts, joined) = (&node.counts, node.cache.stats().joined);
        let missed = counts.loads.load(Relaxed) + joined;
        Figures {
            name: node.name,
            hits: counts.reads.load(Relaxed).saturating_sub(missed),
            drops: node.watch.stats().applied,
            past_bound: counts.past_bound.load(Relaxed),
            farewell,
        }
    });
    verdict(
        &figures.collect::<Vec<_>>(),
        &outcome.episodes,
        outcome.bound,
    )
}

/// The rules, apart from where their figures come from.
pub(crate) fn verdict(nodes: &[Figures], episodes: &[Episode], bound: Duration) -> Vec<String> {
    let mut failures = Vec::new();
    for node in nodes {
        let mut unless = |holds: bool, failure: String| {
            if !holds {
                failures.push(format!("{}: {failure}", node.name));
            }
        };
        unless(
            node.past_bound == 0,
            format!(
                "{} old values served as Coherent past {bound:?}",
                node.past_bound
            ),
        );
        unless(
            node.hits > 0,
            "no read was a hit: this proves nothing".to_owned(),
        );
        unless(
            node.drops > 0,
            "nothing was dropped: this proves nothing".to_owned(),
        );
        unless(
            node.farewell == Farewell::Said,
            format!("its goodbye: {}", node.farewell),
        );
    }
    for episode in episodes {
        let (fault, node) = (episode.fault.name(), episode.node);
        match episode.noticed {
            None => failures.push(format!("{node} did not notice that {fault}")),
            Some(after) if after > bound + LATE => failures.push(format!(
                "{node} noticed only after {} that {fault}",
                time(after)
            )),
            Some(_) if episode.recovered.is_none() => {
                failures.push(format!("{node} did not recover after {fault}"));
            }
            Some(_) if episode.flushes == 0 => {
                failures.push(format!("{node} is Coherent without a flush after {fault}"));
            }
            Some(_) => {}
        }
    }
    if episodes.is_empty() {
        failures.push("nothing was harmed: this proves nothing".to_owned());
    }
    failures
}

/// One sentence, for a run without a failure.
pub(crate) fn conclusion(outcome: &Outcome) -> String {
    let slowest = outcome.episodes.iter().filter_map(|e| e.noticed).max();
    format!(
        "No old value was served as Coherent past B = {}; every harm was noticed, within {}.",
        time(outcome.bound),
        maybe(slowest),
    )
}
