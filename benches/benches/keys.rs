//! `many_keys`, `submit_batch` and `miss`: gates on random keys, and submits that nobody hears.

use afterwrite_benches::{bench, workload};

fn main() {
    let mut criterion = bench::criterion();
    for n in [1_000, 1_000_000] {
        bench::run(&mut criterion, workload::many_keys(n));
        bench::run(&mut criterion, workload::miss(n));
    }
    criterion.final_summary();
}
