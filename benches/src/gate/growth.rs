//! R14: coming and going among a million costs at most twice what it costs among a thousand.
//!
//! Counted in instructions, so that cache misses, which the promise leaves aside, do not show. Instead of a
//! recorded limit there is the contract's.

use super::Finding;
use super::instructions;
use super::paths::{GROWTH, Path};

/// Most that the cost among many may be of that among few.
const MOST: f64 = 2.0;

/// Counts each pair; a plant makes the dearer of each cost so many times what the other does.
///
/// # Errors
/// A line for the user: there is no valgrind, or it failed.
pub fn check(helper: &str, planted: Option<f64>) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for [few, many] in GROWTH {
        let low = count(helper, few, 0.0)?;
        let high = match planted {
            // The plant is seen among few as well, which takes less time to set up.
            Some(times) => count(helper, few, low * (times - 1.0))?,
            None => count(helper, many, 0.0)?,
        };
        findings.push(judge(few, many, low, high));
    }
    Ok(findings)
}

/// Instructions of one operation. What goes before and after is counted along: it is next to nothing.
fn count(helper: &str, path: &Path, planted: f64) -> Result<f64, String> {
    let counted = instructions::run(helper, path, path.operations, planted)?;
    Ok(counted as f64 / path.operations as f64)
}

fn judge(few: &Path, many: &Path, low: f64, high: f64) -> Finding {
    let times = high / low;
    Finding {
        workload: many.name.to_owned(),
        line: format!(
            "{high:.1} instructions, {times:.2} times the {low:.1} of {}; {MOST} at most",
            few.name
        ),
        passes: times <= MOST,
    }
}

#[cfg(test)]
mod tests {
    use super::{GROWTH, judge};

    #[test]
    fn twice_passes_and_more_does_not() {
        let [few, many] = &GROWTH[0];
        assert!(judge(few, many, 1_000.0, 2_000.0).passes);
        assert!(!judge(few, many, 1_000.0, 2_010.0).passes);
    }
}
