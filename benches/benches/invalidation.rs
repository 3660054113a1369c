//! `subject_parse`, `subject_format` and `cache_hit`: what one thread does for invalidations.

use afterwrite_benches::{bench, invalidation};

fn main() {
    let mut criterion = bench::criterion();
    bench::run(&mut criterion, invalidation::subject_parse());
    bench::run(&mut criterion, invalidation::subject_format());
    for n in [1_000, 100_000] {
        bench::run(&mut criterion, invalidation::cache_hit(n));
    }
    criterion.final_summary();
}
