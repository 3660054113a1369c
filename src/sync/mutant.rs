//! Faults that the models plant on purpose, to prove that they would notice.

use std::sync::OnceLock;

/// Whether this process runs with the named fault, which `AFTERWRITE_MUTANT` chooses.
pub fn mutant(name: &str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN
        .get_or_init(|| std::env::var("AFTERWRITE_MUTANT").ok())
        .as_deref()
        == Some(name)
}
