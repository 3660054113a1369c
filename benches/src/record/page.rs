//! `docs/BENCHMARKS.md` and `docs/growth.svg`, from the sections that were measured.

use std::fmt::Write as _;

use super::table::{Table, docs};
use super::targets;
use crate::plot::{Line, Panel, svg};

/// A row of the loops.
struct Loop<'a> {
    workload: &'a str,
    size: usize,
    unit: &'a str,
    contender: &'a str,
    nanos: f64,
}

fn rows(table: &Table) -> Vec<Loop<'_>> {
    table
        .rows
        .iter()
        .filter_map(|row| {
            let [workload, size, unit, contender, nanos, ..] = row.as_slice() else {
                return None;
            };
            Some(Loop {
                workload,
                size: size.parse().ok()?,
                unit,
                contender,
                nanos: nanos.parse().ok()?,
            })
        })
        .collect()
}

fn is_ours(contender: &str) -> bool {
    contender.starts_with("afterwrite")
}

fn is_rival(contender: &str) -> bool {
    !is_ours(contender) && !contender.starts_with("floor")
}

/// Workload and size of each group of rows, in their order.
fn groups(rows: &[Loop<'_>]) -> Vec<(String, usize)> {
    let mut groups: Vec<(String, usize)> = Vec::new();
    for row in rows {
        let group = (row.workload.to_owned(), row.size);
        if groups.last() != Some(&group) {
            groups.push(group);
        }
    }
    groups
}

/// Ours beside the best rival of the same run, with what it has to reach.
fn summary(rows: &[Loop<'_>]) -> String {
    let mut text = String::from(
        "| workload | size | ours | ns | must | aim | best rival | ns | rival / ours | |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (workload, size) in groups(rows) {
        let group = || {
            rows.iter()
                .filter(|row| row.workload == workload && row.size == size)
        };
        let best = group()
            .filter(|row| is_rival(row.contender))
            .min_by(|a, b| a.nanos.total_cmp(&b.nanos));
        for ours in group().filter(|row| is_ours(row.contender)) {
            let target = targets::of(&workload, size, ours.contender);
            let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
            let (rival, nanos, ratio, verdict) = match best {
                Some(best) => {
                    let ratio = best.nanos / ours.nanos;
                    let verdict = if ratio < 1.0 { "**rival wins**" } else { "" };
                    (
                        best.contender,
                        format!("{:.2}", best.nanos),
                        format!("{ratio:.2}"),
                        verdict,
                    )
                }
                None => ("-", "-".to_owned(), "-".to_owned(), ""),
            };
            let missed = match target {
                Some((must, _)) if ours.nanos > must => " must not reached",
                _ => "",
            };
            let _ = writeln!(
                text,
                "| {workload} | {size} | {} | {:.2} | {} | {} | {rival} | {nanos} | {ratio} | {verdict}{missed} |",
                ours.contender,
                ours.nanos,
                cell(target.map(|t| t.0)),
                cell(target.map(|t| t.1)),
            );
        }
    }
    text
}

fn growth(rows: &[Loop<'_>]) -> String {
    let panels: Vec<Panel> = ["fanout", "churn_keys", "churn_hot", "miss", "many_keys"]
        .iter()
        .map(|&name| {
            let mut lines: Vec<Line> = Vec::new();
            let mut unit = "";
            for row in rows
                .iter()
                .filter(|row| row.workload == name && row.size > 0)
            {
                unit = row.unit;
                let point = (row.size as f64, row.nanos);
                match lines.iter_mut().find(|line| line.name == row.contender) {
                    Some(line) => line.points.push(point),
                    None => lines.push(Line {
                        name: row.contender.to_owned(),
                        points: vec![point],
                    }),
                }
            }
            Panel {
                title: format!("{name}: ns for each {unit}, by size"),
                lines,
            }
        })
        .filter(|panel| !panel.lines.is_empty())
        .collect();
    svg(&panels, "ns")
}

/// A line for each system: the highest rate that it holds, below the lowest that it does not.
fn capacities(table: &Table) -> String {
    let cell = |row: &[String], at: usize| row.get(at).cloned().unwrap_or_default();
    let rate = |row: &[String]| cell(row, 1).parse::<u64>().unwrap_or(0);
    let mut systems: Vec<String> = table.rows.iter().map(|row| cell(row, 0)).collect();
    systems.dedup();
    let mut text = String::new();
    for system in systems {
        let rows = || table.rows.iter().filter(|row| cell(row, 0) == system);
        let broke = rows()
            .filter(|row| cell(row, 7) == "no")
            .map(|row| rate(row))
            .min();
        let held = rows()
            .map(|row| rate(row))
            .filter(|&held| broke.is_none_or(|broke| held < broke))
            .max()
            .unwrap_or(0);
        let _ = writeln!(text, "- {system}: holds {held} submits a second");
    }
    text.push('\n');
    text
}

const HEAD: &str = "# Benchmarks

Made by `cargo run --release -p afterwrite-benches --bin record`, from the tables in `benchmarks/`. Figures
move from machine to machine and from hour to hour; what counts is the ratio within one run. Contenders
take turns in many short rounds, and each figure is a median. Work that one thread does is timed by
that thread's processor time, work between threads by the wall's clock.

\"The reference\" is the lock-based registry of the common design, in Rust: a read-write lock over a map of
maps of channels, workers that sleep between two reads of the view. It, the rivals and how each is asked to
show that it does the same work stand in `benches/src/rivals`. A *floor* is something simpler that does a
part of the work only: a yardstick, no alternative.
";

/// Writes the page and the plot.
///
/// # Errors
/// A line for the user.
pub fn write() -> Result<(), String> {
    let mut page = HEAD.to_owned();
    let section = |name: &str| Table::read(name);
    let heading = |page: &mut String, title: &str, about: &str, table: &Table| {
        let _ = write!(
            page,
            "\n## {title}\n\n{about}\n\nMeasured {}.\n\n",
            table.origin
        );
    };
    let put = |name: &str, text: &str| {
        let path = docs().join(name);
        std::fs::write(&path, text)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))
    };
    if let Some(table) = section("loops") {
        let rows = rows(&table);
        heading(
            &mut page,
            "Loops",
            "Nanoseconds for each unit, ours beside the best rival of the same run. Where a rival wins, the last \
             column says so. `DashMap of tokio broadcast` has neither gate, nor workers, nor an account of losses.\n\n\
             With a million keys much of the time goes into the translation of addresses, so a large directory asks the \
             kernel for pages of 2 MiB. Beside the same directory from the global allocator, in pairs within one \
             process, `many_keys` at 1,000,000 takes 0.82 of the time, `churn_keys` 0.83 and a `miss` 0.87 (2026-11-28; \
             `transparent_hugepage` was `madvise`). `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` puts all else on such pages \
             as well, for every contender; the tables are without it. `must` and `aim` are what this project asks of itself.",
            &table,
        );
        page.push_str(&summary(&rows));
        page.push_str("\n![Cost for each unit, by size](growth.svg)\n\n");
        page.push_str("<details><summary>All contenders, with the bootstrap's 95 % bounds of the median</summary>\n\n");
        page.push_str(&table.markdown());
        page.push_str("\n</details>\n");
        put("growth.svg", &growth(&rows))?;
    }
    if let Some(table) = section("waits") {
        heading(
            &mut page,
            "Waits",
            "Quantiles of single waits by the wall's clock. On a machine that others use, p99 is theirs as much \
             as ours. Where threads are not pinned, one that sleeps may be woken on the core of the thread that waits \
             for it, which is a matter of some 6 µs here; on another core it is one of 20 to 30.",
            &table,
        );
        page.push_str(&table.markdown());
    }
    if let Some(table) = section("wire") {
        heading(
            &mut page,
            "Over the wire",
            "Two nodes over one nats-server on the loopback, beside async-nats with nothing around it: no numbers, no \
             beats, no notice of losses. Each contender has its turn in every round; `to bare` is the median of the \
             rounds' ratios to the first, which is the bare client at its best, with the bootstrap's 95 % bounds and the \
             extremes. `to its like`: to the bare client that also gets back what it sends, unless ours is write-only, and \
             that also has its connection on another thread, where ours has. The one `with 19 bytes` sends as much as a \
             frame of ours is long, which shows what the length alone costs the server. In `emit_rate` the bare client's task gives way \
             as tokio's budget has it, after 128 messages; ours, on a runtime, after 256 emits, since an emit awaits \
             nothing. `must` is of `to bare`.",
            &table,
        );
        page.push_str(&table.markdown());
    }
    if let Some(table) = section("service") {
        heading(
            &mut page,
            "Service life",
            "10,000 subscribers in tokio tasks over 2,000 keys of Zipf popularity, 1,000 a second leave and as \
             many come, submits come in an open loop. From the time a submit was due to the task that has it; a \
             system holds a rate if it loses at most one delivery in a thousand.",
            &table,
        );
        page.push_str(&capacities(&table));
        page.push_str(&table.markdown());
    }
    if let Some(table) = section("memory") {
        heading(
            &mut page,
            "Memory",
            "Bytes by the layouts of what is allocated, handle included, buffers of 20.",
            &table,
        );
        page.push_str(&table.markdown());
    }
    put("BENCHMARKS.md", &page)
}

#[cfg(test)]
mod tests {
    use super::{Loop, capacities, summary};
    use crate::record::table::Table;

    #[test]
    fn a_rate_above_one_that_broke_is_not_held() {
        let row = |rate: &str, holds: &str| {
            ["s", rate, "0", "0", "1", "1", "1", holds]
                .map(str::to_owned)
                .to_vec()
        };
        let mut table = Table::new(&["", "", "", "", "", "", "", ""]);
        table.rows = vec![row("100", "yes"), row("200", "no"), row("400", "yes")];
        assert_eq!(capacities(&table), "- s: holds 100 submits a second\n\n");
    }

    #[test]
    fn the_summary_says_where_a_rival_wins() {
        let row = |contender, nanos| Loop {
            workload: "miss",
            size: 1_000,
            unit: "submit",
            contender,
            nanos,
        };
        let text = summary(&[
            row("afterwrite", 14.0),
            row("reference", 11.0),
            row("floor: nothing", 1.0),
        ]);
        assert!(text.contains("| reference | 11.00 | 0.79 | **rival wins** must not reached |"));
        let text = summary(&[row("afterwrite", 10.0), row("reference", 20.0)]);
        assert!(!text.contains("rival wins") && !text.contains("not reached"));
    }
}
