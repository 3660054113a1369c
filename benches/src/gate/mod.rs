//! The regression gate: three ways to see that a hot path got slower, each with its recorded limits, and
//! one to see that its cost grows with those who stand by.
//!
//! | part | measures | limit | file |
//! |---|---|---|---|
//! | [`instructions`] | instructions of one operation, by callgrind | recorded, 0.5 % more fails | `gate/instructions.csv` |
//! | [`ratios`] | time of ours to time of the reference, in turns | the bootstrap's lower 95 % bound passes the recorded limit | `gate/ratios.csv` |
//! | [`allocations`] | allocations of 1,000 operations | exact | `gate/allocations.csv` |
//! | [`growth`] | instructions among a million, to those among a thousand | twice as many, by contract | |
//!
//! The first sees a slowdown of 1 %, but only in instructions; the second sees what instructions do not
//! show (a cache miss, a lock), but on a noisy machine only when it is large; the third is there
//! because an allocation on a hot path is a promise broken, however fast it is.

pub mod allocations;
pub mod growth;
pub mod instructions;
pub mod limits;
pub mod paths;
pub mod ratios;

/// What the gate found in one workload.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The part and the workload.
    pub workload: String,
    /// The figure, its limit and the unit, as a sentence.
    pub line: String,
    /// Whether it is within its limit.
    pub passes: bool,
}

impl Finding {
    /// Prints it as one line.
    pub fn print(&self) {
        let verdict = if self.passes { "ok  " } else { "FAIL" };
        println!("{verdict} {:<34} {}", self.workload, self.line);
    }
}
