//! The workloads under criterion.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};

use crate::workload::Workload;

/// Settings with which all benchmarks together take some minutes.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
        .configure_from_args()
}

/// Times all contenders of a workload; criterion's figures are per unit.
pub fn run(criterion: &mut Criterion, workload: Workload) {
    let mut group = criterion.benchmark_group(workload.name);
    for mut contender in workload.contenders {
        let id = BenchmarkId::new(contender.name, workload.size);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|units| {
                let timed = contender.run(units);
                timed.took.mul_f64(units as f64 / timed.units as f64)
            });
        });
    }
    group.finish();
}
