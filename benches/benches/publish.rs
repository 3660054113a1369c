//! `publish`: to one receiver with room, and its receive.

use afterwrite_benches::{bench, workload};

fn main() {
    let mut criterion = bench::criterion();
    bench::run(&mut criterion, workload::publish());
    criterion.final_summary();
}
