//! What each workload has to reach, and what it aims at, in the record's units.

/// Of a workload, its size, and one of our contenders: must, aim.
pub(super) const TARGETS: &[(&str, usize, &str, f64, f64)] = &[
    ("fanout", 1_000, "afterwrite", 4.0, 2.5),
    ("fanout", 100_000, "afterwrite", 10.0, 6.0),
    ("fanout_full", 100, "afterwrite", 3.0, 1.5),
    ("publish", 1, "afterwrite, by key", 40.0, 30.0),
    ("publish", 1, "afterwrite, resolved", 15.0, 12.0),
    ("churn_keys", 1_000, "afterwrite", 350.0, 200.0),
    ("churn_keys", 1_000_000, "afterwrite", 600.0, 300.0),
    ("churn_hot", 100_000, "afterwrite", 500.0, 300.0),
    ("many_keys", 1_000, "afterwrite", 200.0, 100.0),
    ("many_keys", 1_000_000, "afterwrite", 600.0, 300.0),
    ("miss", 1_000, "afterwrite", 12.0, 5.0),
    ("miss", 1_000_000, "afterwrite", 30.0, 25.0),
    ("advance", 10_000, "afterwrite", 8.0, 6.0),
    ("subject_parse", 1, "afterwrite", 20.0, 10.0),
    ("subject_format", 1, "afterwrite", 20.0, 10.0),
];

/// Must and aim, if the workload has them.
pub(super) fn of(workload: &str, size: usize, contender: &str) -> Option<(f64, f64)> {
    TARGETS
        .iter()
        .find(|target| (target.0, target.1, target.2) == (workload, size, contender))
        .map(|target| (target.3, target.4))
}
