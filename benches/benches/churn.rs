//! `churn_keys`, `churn_joined` and `churn_hot`: subscribe and drop, with others standing.

use afterwrite_benches::{bench, workload};

fn main() {
    let mut criterion = bench::criterion();
    for n in [1_000, 1_000_000] {
        bench::run(&mut criterion, workload::churn_keys(n));
        bench::run(&mut criterion, workload::churn_joined(n));
    }
    for n in [1_000, 100_000] {
        bench::run(&mut criterion, workload::churn_hot(n));
    }
    criterion.final_summary();
}
