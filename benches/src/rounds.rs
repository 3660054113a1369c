//! Contenders in turns: what one noisy minute does to one, it does to all.

use std::time::Duration;

use crate::workload::Contender;

/// Median of some samples; NaN of none.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The bootstrap's 95 % bounds of the median (Efron 1979): a lower one and an upper one, each of
/// which the true median passes in 5 % of cases. The draws are the same in every run.
#[must_use]
pub fn bounds(samples: &[f64]) -> (f64, f64) {
    const DRAWS: usize = 2_000;
    let mut random = crate::input::Random::new(95);
    let mut medians: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<f64> = (0..samples.len())
                .map(|_| samples[random.below(samples.len())])
                .collect();
            median(&drawn)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    (medians[DRAWS / 20], medians[DRAWS - 1 - DRAWS / 20])
}

/// How many units take at least `target`, at least one.
fn calibrate(contender: &mut Contender, target: Duration) -> u64 {
    let mut units = 1;
    loop {
        let timed = contender.run(units);
        if timed.took >= target || units >= 1 << 40 {
            return timed.units;
        }
        let rate = target.as_secs_f64() / timed.took.as_secs_f64().max(1e-9);
        units = (timed.units as f64 * rate.clamp(1.5, 100.0)).ceil() as u64;
    }
}

/// Times all contenders `rounds` times, in turns of about `target` each, beginning with another one
/// each round. For each contender: nanoseconds per unit, by round.
///
/// A turn begins with a quarter of its work untimed, so that nobody pays for the caches that the one
/// before has filled.
#[must_use]
pub fn interleave(contenders: &mut [Contender], rounds: usize, target: Duration) -> Vec<Vec<f64>> {
    let units: Vec<u64> = contenders
        .iter_mut()
        .map(|contender| calibrate(contender, target))
        .collect();
    let mut samples = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            contenders[index].run(units[index].div_ceil(4));
            samples[index].push(contenders[index].run(units[index]).nanos_per_unit());
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::{bounds, median};

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_bounds_enclose_the_median_and_narrow_with_more_samples() {
        let noisy = |n: usize| -> Vec<f64> {
            let mut random = crate::input::Random::new(3);
            (0..n).map(|_| 1.0 + random.unit()).collect()
        };
        let (low, high) = bounds(&noisy(30));
        assert!(low <= median(&noisy(30)) && median(&noisy(30)) <= high);
        let (closer_low, closer_high) = bounds(&noisy(3_000));
        assert!(closer_high - closer_low < high - low);
        assert!(closer_low < 1.5 && 1.5 < closer_high);
    }
}
