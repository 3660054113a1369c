//! `fanout` and `fanout_full`: one key, many receivers; per delivery and per drop.

use afterwrite_benches::{bench, workload};

fn main() {
    let mut criterion = bench::criterion();
    for n in [1, 100, 1_000, 100_000] {
        bench::run(&mut criterion, workload::fanout(n));
    }
    for n in [100, 10_000] {
        bench::run(&mut criterion, workload::fanout_full(n));
    }
    criterion.final_summary();
}
