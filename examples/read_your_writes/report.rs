//! What came out: the table, and whether it shows what was to be shown.

use std::fmt::Write;
use std::time::Duration;

use crate::options::Options;
use crate::run::{Mode, Outcome};
use crate::writer::RATE;

/// Ungated clients must read the old value in this share of their refetches, or the runs prove
/// nothing.
const LEAST_OLD: f64 = 0.20;

/// A run's ledgers, added up.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    sent: u64,
    received: u64,
    missed: u64,
    judged: u64,
    old: u64,
    out_of_order: u64,
    /// Notices by which the ledgers of single clients are off, either way.
    unaccounted: u64,
}

impl Total {
    fn of(outcome: &Outcome) -> Self {
        let mut total = Self::default();
        for (sent, receipt) in &outcome.ledgers {
            total.sent += sent;
            total.received += receipt.received;
            total.missed += receipt.missed;
            total.judged += receipt.judged;
            total.old += receipt.old;
            total.out_of_order += receipt.out_of_order;
            total.unaccounted += sent.abs_diff(receipt.received + receipt.missed);
        }
        total
    }

    fn share_old(&self) -> f64 {
        self.old as f64 / self.judged.max(1) as f64
    }
}

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
        // Few are not none.
        _ if part > 0 && part * 1000 < whole => "< 0.1 %".to_owned(),
        _ => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

pub(crate) fn time(duration: Option<Duration>) -> String {
    let Some(duration) = duration else {
        return "–".to_owned();
    };
    let micros = duration.as_nanos() as f64 / 1e3;
    match micros {
        _ if micros < 1e3 => format!("{micros:.0} µs"),
        _ if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// What the runs have in common.
pub(crate) fn setting(options: &Options) -> String {
    format!(
        "{} clients of {} entities, {} writes at {RATE} a second, a read view 3 to 190 ms behind, seed {}",
        count(options.subscribers as u64),
        count(options.keys as u64),
        count(options.writes as u64),
        options.seed,
    )
}

/// A row for each run.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![
        [
            "",
            "notices",
            "",
            "",
            "refetches that",
            "",
            "visible to received",
            "",
            "view reads",
            "",
        ]
        .map(str::to_owned),
        [
            "run",
            "sent",
            "received",
            "missed",
            "read the old",
            "share",
            "p50",
            "p99",
            "by gates",
            "took",
        ]
        .map(str::to_owned),
    ];
    for outcome in outcomes {
        let total = Total::of(outcome);
        rows.push([
            outcome.mode.name().to_owned(),
            count(total.sent),
            count(total.received),
            count(total.missed),
            format!("{} of {}", count(total.old), count(total.judged)),
            match total.old {
                0 => "none".to_owned(),
                old => percent(old, total.judged),
            },
            time(outcome.p50),
            time(outcome.p99),
            count(outcome.gate_reads),
            time(Some(outcome.took)),
        ]);
    }
    lay_out(&rows)
}

/// Columns as wide as their widest cell, the first to the left and the rest to the right.
fn lay_out(rows: &[[String; 10]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 10] = std::array::from_fn(width);
    let mut text = String::from("\n");
    for (number, row) in rows.iter().enumerate() {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if number == 1 {
            let rule = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
            text.push_str(&"─".repeat(rule));
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

/// What the runs were to show and did not.
pub(crate) fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let mut failures = Vec::new();
    for outcome in outcomes {
        let (total, run) = (Total::of(outcome), outcome.mode.name());
        let mut unless = |holds: bool, failure: String| {
            if !holds {
                failures.push(format!("{run}: {failure}"));
            }
        };
        unless(
            total.unaccounted == 0,
            format!(
                "{} notices are unaccounted for: {} sent, {} received, {} missed",
                total.unaccounted, total.sent, total.received, total.missed
            ),
        );
        unless(
            outcome.refused == 0,
            format!("{} notices were not taken", outcome.refused),
        );
        unless(
            total.out_of_order == 0,
            format!("{} notices came out of order", total.out_of_order),
        );
        unless(total.judged > 0, "no refetch could be judged".to_owned());
        if outcome.mode.is_gated() {
            unless(
                total.old == 0,
                format!("{} refetches read the old value", total.old),
            );
        } else {
            unless(
                total.share_old() >= LEAST_OLD,
                format!(
                    "only {} of the refetches read the old value: this proves nothing",
                    percent(total.old, total.judged)
                ),
            );
        }
    }
    failures
}

/// One sentence, for runs without a failure.
pub(crate) fn conclusion(outcomes: &[Outcome]) -> String {
    let ungated = outcomes.iter().find(|o| o.mode == Mode::NoGate);
    let total = ungated.map(Total::of).unwrap_or_default();
    format!(
        "Pushed without a gate, {} of the refetches read the old value; through afterwrite, none. \
         Every notice is accounted for.",
        percent(total.old, total.judged)
    )
}
