//! A slowdown on purpose, to see the gate fail.
//!
//! `AFTERWRITE_PLANTED_SLOWDOWN=5` makes whatever the gate measures of ours 5 % slower: in instructions
//! where instructions are counted, in time where time is. Nothing outside the gate reads it.

use std::time::{Duration, Instant};

/// The variable that plants.
pub const VARIABLE: &str = "AFTERWRITE_PLANTED_SLOWDOWN";

/// How much slower, in per cent; 0 if nothing is planted.
///
/// # Errors
/// A line for the user, if the variable holds no number between 0 and 1,000.
pub fn percent() -> Result<f64, String> {
    let Ok(value) = std::env::var(VARIABLE) else {
        return Ok(0.0);
    };
    match value.parse::<f64>() {
        Ok(percent) if (0.0..=1_000.0).contains(&percent) => Ok(percent),
        _ => Err(format!(
            "{VARIABLE} is {value:?}, and should be a number of per cent from 0 to 1000"
        )),
    }
}

/// Executes about `n` instructions.
#[inline(always)]
pub fn instructions(n: u64) {
    // Four a turn: `black_box` writes the counter to memory; then the addition, comparison and branch.
    for turn in 0..n.div_ceil(4) {
        std::hint::black_box(turn);
    }
}

/// Passes the time that `percent` of `took` is, and returns the whole.
#[must_use]
pub fn stretch(took: Duration, percent: f64) -> Duration {
    if percent == 0.0 {
        return took;
    }
    let more = took.mul_f64(percent / 100.0);
    let begin = Instant::now();
    while begin.elapsed() < more {
        std::hint::spin_loop();
    }
    took + begin.elapsed()
}

#[cfg(test)]
mod tests {
    use super::stretch;
    use std::time::Duration;

    #[test]
    fn a_stretch_is_as_long_as_asked() {
        let whole = stretch(Duration::from_millis(10), 20.0);
        assert!(whole >= Duration::from_millis(12), "{whole:?}");
        assert_eq!(
            stretch(Duration::from_millis(10), 0.0),
            Duration::from_millis(10)
        );
    }
}
