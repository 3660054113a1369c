//! Who is to judge: when each version of each row was superseded.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For each row, the moments at which its versions' invalidations had been handed over.
#[derive(Debug)]
pub(crate) struct Ledger {
    rows: Vec<Mutex<Vec<Option<Instant>>>>,
}

impl Ledger {
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            rows: (0..keys).map(|_| Mutex::default()).collect(),
        }
    }

    fn row(&self, key: usize) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.rows[key]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody is told, since `at`, of this version of the row.
    pub(crate) fn told(&self, key: usize, version: usize, at: Instant) {
        let mut row = self.row(key);
        if row.len() <= version {
            row.resize(version + 1, None);
        }
        row[version] = Some(at);
    }

    /// For how long the version had been superseded when a read of it began; `None` if it was new.
    pub(crate) fn stale(&self, key: usize, version: usize, began: Instant) -> Option<Duration> {
        // Two writers may tell of their versions in the other order: the earliest newer one counts.
        let row = self.row(key);
        let newer = row.iter().skip(version + 1).flatten();
        let superseded = newer.min().copied()?;
        began.checked_duration_since(superseded)
    }
}
