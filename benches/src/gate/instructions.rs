//! Instructions of one operation, counted by callgrind: the same in every run.

use std::path::Path as FilePath;
use std::process::Command;

use super::Finding;
use super::limits::Limits;
use super::paths::{self, PATHS, Path};

/// A figure may exceed its limit by this share.
const TOLERANCE: f64 = 0.005;
/// The compiler whose figures these are.
pub const TOOLCHAIN: &str = env!("AFTERWRITE_BENCH_RUSTC");

const HEAD: &str =
    "Instructions of one operation, by compiler. Record anew: cargo bench --bench gate -- --record";

/// Counts all paths and compares them with what is recorded, or records them.
///
/// `helper` is the binary `paths`; `percent` more instructions are planted.
///
/// # Errors
/// A line for the user: there is no valgrind, it failed, or a file cannot be read.
pub fn check(helper: &str, percent: f64, record: bool) -> Result<Vec<Finding>, String> {
    let mut limits = Limits::read("instructions.csv", HEAD)?;
    let mut findings = Vec::new();
    for path in PATHS {
        let row = format!("{TOOLCHAIN},{}", path.name);
        let limit = limits.get(&row);
        // A plant is a share of what the path takes by the record; without one it is measured first.
        let planted = match (percent, limit) {
            (0.0, _) => 0.0,
            (percent, Some(limit)) => limit * percent / 100.0,
            (percent, None) => count(helper, path, 0.0)? * percent / 100.0,
        };
        let counted = count(helper, path, planted)?;
        if record {
            limits.set(&row, (counted * 10.0).round() / 10.0);
        }
        findings.push(judge(path.name, counted, limit, record));
    }
    if record {
        limits.write()?;
    }
    Ok(findings)
}

fn judge(name: &str, counted: f64, limit: Option<f64>, record: bool) -> Finding {
    let (line, passes) = match limit {
        _ if record => (format!("{counted:.1} instructions, recorded"), true),
        None => (
            format!(
                "{counted:.1} instructions, no limit recorded for {TOOLCHAIN}; record one with \
                 `cargo bench --bench gate -- --record` and commit gate/instructions.csv"
            ),
            false,
        ),
        Some(limit) => {
            let change = (counted / limit - 1.0) * 100.0;
            let hint = if change < -TOLERANCE * 100.0 {
                "; better: record anew"
            } else {
                ""
            };
            (
                format!(
                    "{counted:.1} instructions, limit {limit:.1} + {:.1} % ({change:+.2} %){hint}",
                    TOLERANCE * 100.0
                ),
                // A tenth of an instruction is how exactly a limit is written.
                counted <= limit * (1.0 + TOLERANCE) + 0.05,
            )
        }
    };
    Finding {
        workload: name.to_owned(),
        line,
        passes,
    }
}

/// Instructions of one operation: what twice as many operations take more.
fn count(helper: &str, path: &Path, planted: f64) -> Result<f64, String> {
    let once = run(helper, path, path.operations, planted)?;
    let twice = run(helper, path, 2 * path.operations, planted)?;
    Ok((twice as f64 - once as f64) / path.operations as f64)
}

/// Instructions of so many operations.
pub(super) fn run(helper: &str, path: &Path, operations: u64, planted: f64) -> Result<u64, String> {
    let index = paths::all()
        .position(|other| other.name == path.name)
        .unwrap_or_default();
    let out = std::env::temp_dir().join(format!(
        "afterwrite-gate-{}-{index}-{operations}",
        std::process::id()
    ));
    let planted = (planted * operations as f64).round();
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--toggle-collect=*measured_path*",
            "--read-inline-info=no",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(helper)
        .args([
            index.to_string(),
            operations.to_string(),
            planted.to_string(),
        ])
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                "valgrind is not installed: apt-get install valgrind".to_owned()
            }
            _ => format!("valgrind could not be started: {error}"),
        })?;
    if !output.status.success() {
        return Err(format!(
            "valgrind failed on {:?}: {}",
            path.name,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let counted = total(&out).ok_or_else(|| format!("{} names no total", out.display()))?;
    // What is left behind in the folder for temporary files harms nobody.
    let _ = std::fs::remove_file(&out);
    if counted < operations {
        return Err(format!(
            "callgrind saw {counted} instructions in {operations} operations of {:?}: it does not find \
             the function that it should look at",
            path.name
        ));
    }
    Ok(counted)
}

/// The total of a callgrind file: of the line `totals:`, or `summary:` in older ones.
fn total(file: &FilePath) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = |name: &str| {
        text.lines()
            .rev()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    value("totals:").or_else(|| value("summary:"))
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn half_a_per_cent_passes_and_one_does_not() {
        assert!(judge("w", 1_004.0, Some(1_000.0), false).passes);
        assert!(!judge("w", 1_010.0, Some(1_000.0), false).passes);
        assert!(
            judge("w", 900.0, Some(1_000.0), false)
                .line
                .contains("record anew")
        );
    }

    #[test]
    fn no_record_for_this_compiler_is_a_failure_that_says_what_to_do() {
        let finding = judge("w", 1_000.0, None, false);
        assert!(!finding.passes);
        assert!(finding.line.contains("--record"));
        assert!(judge("w", 1_000.0, None, true).passes);
    }
}
