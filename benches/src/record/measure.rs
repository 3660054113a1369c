//! Measures the record's sections.

use std::time::Duration;

use super::table::Table;
use crate::rounds::{bounds, interleave, median};
use crate::service::{self, Settings};
use crate::workload::{self, Workload};
use crate::{invalidation, memory, waits};

/// The sections.
pub const SECTIONS: &[&str] = &[
    "loops",
    "waits",
    #[cfg(feature = "wire")]
    "wire",
    "memory",
    "service",
];

type Build = (fn(usize) -> Workload, &'static [usize]);

const LOOPS: &[Build] = &[
    (
        workload::fanout,
        &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
    ),
    (workload::fanout_full, &[100, 10_000]),
    (|_| workload::publish(), &[1]),
    (
        workload::churn_keys,
        &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
    ),
    (workload::churn_joined, &[1_000, 1_000_000]),
    (
        workload::churn_hot,
        &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
    ),
    (workload::many_keys, &[1_000, 10_000, 100_000, 1_000_000]),
    (
        workload::miss,
        &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
    ),
    (workload::advance, &[0, 100, 10_000]),
    (|_| invalidation::subject_parse(), &[1]),
    (|_| invalidation::subject_format(), &[1]),
    (invalidation::cache_hit, &[1_000, 100_000]),
];

/// Measures a section and keeps it.
///
/// # Errors
/// A line for the user: there is no such section, or it cannot be written.
pub fn section(name: &str) -> Result<(), String> {
    let table = match name {
        "loops" => loops(),
        "waits" => waiting(),
        #[cfg(feature = "wire")]
        "wire" => wiring(),
        #[cfg(not(feature = "wire"))]
        "wire" => return Err("the section wire needs `--features wire`".to_owned()),
        "memory" => memory_table()?,
        "service" => serving(),
        _ => {
            return Err(format!(
                "there is no section {name:?}; the sections are {}",
                SECTIONS.join(", ")
            ));
        }
    };
    table.write(name)
}

fn loops() -> Table {
    let columns = ["workload", "size", "unit", "contender", "ns", "low", "high"];
    let mut table = Table::new(&columns);
    for (build, sizes) in LOOPS {
        for &size in *sizes {
            let mut work = build(size);
            // Large sizes run long by themselves: fewer rounds, of longer turns.
            let (rounds, turn) = match size {
                0..10_000 => (31, 3),
                10_000..1_000_000 => (15, 10),
                _ => (7, 20),
            };
            let samples = interleave(&mut work.contenders, rounds, Duration::from_millis(turn));
            for (contender, samples) in work.contenders.iter().zip(&samples) {
                let (low, high) = bounds(samples);
                let mut row = vec![
                    work.name.to_owned(),
                    size.to_string(),
                    work.unit.to_owned(),
                    contender.name.to_owned(),
                ];
                row.extend([median(samples), low, high].map(|ns| format!("{ns:.2}")));
                println!("{}", row.join("  "));
                table.rows.push(row);
            }
        }
    }
    table
}

fn waiting() -> Table {
    let mut table = Table::new(&["workload", "contender", "p50 µs", "p99 µs", "waits"]);
    let mut rows = waits::latency_spinning(5);
    rows.extend(waits::latency_parked(5));
    rows.extend(waits::visible_watermark(5));
    rows.extend(waits::visible_polling(40));
    rows.extend(waits::stuck_key(500));
    waits::print(&rows);
    table.rows.extend(rows.iter().map(|row| {
        vec![
            row.workload.to_owned(),
            row.contender.to_owned(),
            format!("{:.2}", row.p50 as f64 / 1e3),
            format!("{:.2}", row.p99 as f64 / 1e3),
            row.waits.to_string(),
        ]
    }));
    table
}

#[cfg(feature = "wire")]
fn wiring() -> Table {
    use crate::wire;

    /// Pairs of turns.
    const PAIRS: usize = 24;
    let columns = [
        "workload",
        "contender",
        "figure",
        "unit",
        "to bare",
        "low",
        "high",
        "least pair",
        "greatest pair",
        "to its like",
        "must",
        "",
    ];
    let mut table = Table::new(&columns);
    let rows = wire::rows(PAIRS);
    table.rows.extend(rows.iter().map(|row| {
        let mut cells = vec![
            row.workload.to_owned(),
            row.contender.to_owned(),
            format!("{:.1}", row.figure),
            row.unit.to_owned(),
        ];
        let ratios = row.ratio.iter().chain(&row.spread);
        cells.extend(ratios.map(|ratio| format!("{ratio:.3}")));
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        cells.push(or_dash(row.like.map(|like| format!("{like:.3}"))));
        let must = or_dash(row.must.map(|must| must.to_string()));
        let verdict = if row.misses() {
            "**must not reached**"
        } else {
            ""
        };
        cells.extend([must, verdict.to_owned()]);
        cells
    }));
    table
}

fn memory_table() -> Result<Table, String> {
    crate::alloc::switch(true);
    if !crate::alloc::counts() {
        return Err("this binary does not install the counting allocator".to_owned());
    }
    let mut table = Table::new(&["what", "contender", "bytes"]);
    let rows = memory::rows();
    crate::alloc::switch(false);
    memory::print(&rows);
    table.rows.extend(rows.iter().map(|row| {
        vec![
            row.what.to_owned(),
            row.contender.to_owned(),
            format!("{:.0}", row.bytes),
        ]
    }));
    Ok(table)
}

fn serving() -> Table {
    let settings = Settings::default();
    let steps = service::sweep(settings);
    service::print(&steps);
    let columns = [
        "system",
        "submits/s",
        "deliveries/s",
        "lost",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "holds",
    ];
    let mut table = Table::new(&columns);
    table.rows.extend(steps.iter().map(|step| {
        let mut row = vec![
            step.system.to_owned(),
            step.rate.to_string(),
            step.delivered.to_string(),
            step.lost.to_string(),
        ];
        row.extend(
            step.quantiles
                .map(|nanos| format!("{:.0}", nanos as f64 / 1e3)),
        );
        let holds = if step.breaks(settings.hold) {
            "no"
        } else {
            "yes"
        };
        row.push(holds.to_owned());
        row
    }));
    table
}
