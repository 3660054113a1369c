//! `advance`: raise a watermark while others wait for a position further on.

use afterwrite_benches::{bench, workload};

fn main() {
    let mut criterion = bench::criterion();
    for n in [0, 100, 10_000] {
        bench::run(&mut criterion, workload::advance(n));
    }
    criterion.final_summary();
}
