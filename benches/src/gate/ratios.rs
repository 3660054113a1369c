//! Ours to the lock-based reference, in one process, in turns.

use std::time::Duration;

use super::Finding;
use super::limits::Limits;
use crate::plant;
use crate::rounds::{bounds, interleave, median};
use crate::workload::{self, Contender, Workload};

/// Pairs of runs.
const PAIRS: usize = 40;
/// How long each run is.
const TURN: Duration = Duration::from_millis(4);
/// A limit is recorded so much above the bootstrap's upper bound: machines differ more than runs do.
const HEADROOM: f64 = 1.5;
/// The same for work between threads, which also depends on who else wants the cores.
const HEADROOM_BETWEEN_THREADS: f64 = 3.0;

const HEAD: &str = "Most that our time may be of the reference's. Record anew: cargo bench --bench gate -- --record";

/// What the pairs are of.
fn workloads() -> Vec<Workload> {
    vec![
        workload::fanout(100),
        workload::fanout(10_000),
        workload::fanout_full(100),
        workload::publish(),
        workload::churn_keys(1_000),
        workload::churn_hot(10_000),
        workload::miss(1_000),
        workload::many_keys(1_000),
    ]
}

/// Which slowdown to plant into ours.
#[derive(Clone, Copy, Debug)]
pub enum Plant {
    /// So many per cent.
    Percent(f64),
    /// As much as passes the recorded limit by half.
    PastLimit,
}

/// Times the pairs and compares the ratios with what is recorded, or records them.
///
/// # Errors
/// A line for the user, if the file cannot be read.
pub fn check(planted: Plant, record: bool) -> Result<Vec<Finding>, String> {
    let mut limits = Limits::read("ratios.csv", HEAD)?;
    let mut findings = Vec::new();
    for mut work in workloads() {
        let name = format!("{} n={}", work.name, work.size);
        let limit = limits.get(&name);
        let reference = work
            .contenders
            .iter()
            .position(|contender| contender.name == "reference")
            .ok_or_else(|| format!("{name} has no reference"))?;
        let reference = work.contenders.swap_remove(reference);
        let ours = work.contenders.swap_remove(0);
        let mut pair = [ours, reference];
        let percent = match (planted, limit) {
            (Plant::Percent(percent), _) => percent,
            (Plant::PastLimit, Some(limit)) => {
                let ratio = median(&ratios(&mut pair, PAIRS / 4));
                ((limit * 1.5 / ratio - 1.0) * 100.0).max(5.0)
            }
            (Plant::PastLimit, None) => 0.0,
        };
        let [ours, reference] = pair;
        let ratios = ratios(&mut [slowed(ours, percent), reference], PAIRS);
        if record {
            let headroom = match work.name {
                "many_keys" => HEADROOM_BETWEEN_THREADS,
                _ => HEADROOM,
            };
            let limit = (bounds(&ratios).1 * headroom * 1_000.0).ceil() / 1_000.0;
            limits.set(&name, limit);
        }
        findings.push(judge(&name, &ratios, limit, record));
    }
    if record {
        limits.write()?;
    }
    Ok(findings)
}

fn slowed(mut contender: Contender, percent: f64) -> Contender {
    if percent == 0.0 {
        return contender;
    }
    Contender::new(contender.name, move |units| {
        let mut timed = contender.run(units);
        timed.took = plant::stretch(timed.took, percent);
        timed
    })
}

fn ratios(pair: &mut [Contender; 2], pairs: usize) -> Vec<f64> {
    let samples = interleave(pair, pairs, TURN);
    samples[0]
        .iter()
        .zip(&samples[1])
        .map(|(ours, reference)| ours / reference)
        .collect()
}

fn judge(name: &str, ratios: &[f64], limit: Option<f64>, record: bool) -> Finding {
    let (low, high) = bounds(ratios);
    let figure = format!(
        "{:.3} of the reference's time (95 %: {low:.3} to {high:.3})",
        median(ratios)
    );
    let (line, passes) = match limit {
        _ if record => (format!("{figure}, recorded"), true),
        None => (
            format!("{figure}, no limit recorded; record one with --record"),
            false,
        ),
        Some(limit) => (format!("{figure}, limit {limit}"), low <= limit),
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
    use crate::input::Random;

    fn noisy(middle: f64) -> Vec<f64> {
        let mut random = Random::new(4);
        (0..40)
            .map(|_| middle * (0.7 + 0.6 * random.unit()))
            .collect()
    }

    #[test]
    fn noise_alone_does_not_fail_and_a_real_excess_does() {
        assert!(judge("w", &noisy(0.2), Some(0.22), false).passes);
        assert!(!judge("w", &noisy(0.3), Some(0.2), false).passes);
        assert!(!judge("w", &noisy(0.1), None, false).passes);
    }
}
