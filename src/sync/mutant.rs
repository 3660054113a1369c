//! Planted faults, so that a model can be seen to fail.

use std::sync::OnceLock;

/// Whether the fault `name` is switched on, by the environment variable `AFTERWRITE_MUTANT`.
pub(crate) fn mutant(name: &str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN
        .get_or_init(|| std::env::var("AFTERWRITE_MUTANT").ok())
        .as_deref()
        == Some(name)
}
