//! Allocations of the calling thread in 1,000 operations: exact, and none on a hot path.

use super::Finding;
use super::limits::Limits;
use super::paths::{HANDED_OVER, PATHS};
use crate::alloc;

/// Operations before counting begins: what is allocated once, is by then.
const WARM_UP: u64 = 1_024;
const OPERATIONS: u64 = 1_000;

const HEAD: &str =
    "Allocations of 1,000 operations. Record anew: cargo bench --bench gate -- --record";

/// Counts all paths and compares them with what is recorded, or records them. `planted` allocations
/// are added to each thousand.
///
/// # Errors
/// A line for the user: the process does not count, or the file cannot be read.
pub fn check(planted: u64, record: bool) -> Result<Vec<Finding>, String> {
    alloc::switch(true);
    let findings = if alloc::counts() {
        count(planted, record)
    } else {
        Err("this binary does not install the counting allocator".to_owned())
    };
    alloc::switch(false);
    findings
}

fn count(planted: u64, record: bool) -> Result<Vec<Finding>, String> {
    let mut limits = Limits::read("allocations.csv", HEAD)?;
    let mut findings = Vec::new();
    for path in PATHS.iter().chain(HANDED_OVER) {
        let mut operation = (path.prepare)();
        for _ in 0..WARM_UP {
            operation();
        }
        let before = alloc::mine();
        for _ in 0..OPERATIONS {
            operation();
        }
        for n in 0..planted {
            drop(std::hint::black_box(Box::new(n)));
        }
        let counted = alloc::mine() - before;
        let limit = limits.get(path.name);
        if record {
            limits.set(path.name, counted as f64);
        }
        findings.push(judge(path.name, counted, limit, record));
    }
    if record {
        limits.write()?;
    }
    Ok(findings)
}

fn judge(name: &str, counted: u64, limit: Option<f64>, record: bool) -> Finding {
    let (line, passes) = match limit {
        _ if record => (format!("{counted} allocations, recorded"), true),
        None => (
            format!("{counted} allocations, no limit recorded; record one with --record"),
            false,
        ),
        Some(limit) => {
            let exact = (counted as f64 - limit).abs() < 0.5;
            let hint = if (counted as f64) < limit {
                "; fewer: record anew"
            } else {
                ""
            };
            (
                format!("{counted} allocations in {OPERATIONS}, recorded {limit:.0}{hint}"),
                exact || (counted as f64) < limit,
            )
        }
    };
    Finding {
        workload: name.to_owned(),
        line,
        passes,
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn one_more_fails() {
        assert!(judge("w", 0, Some(0.0), false).passes);
        assert!(!judge("w", 1, Some(0.0), false).passes);
        assert!(judge("w", 2, Some(3.0), false).passes);
        assert!(!judge("w", 0, None, false).passes);
    }
}
