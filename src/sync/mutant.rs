//! Weakened variants of the code, which a named model has to catch.

use std::sync::OnceLock;

/// Whether this process runs with the mutant `name`, chosen by `AFTERWRITE_MUTANT`, read once.
pub(crate) fn mutant(name: &str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN
        .get_or_init(|| std::env::var("AFTERWRITE_MUTANT").ok())
        .as_deref()
        == Some(name)
}
