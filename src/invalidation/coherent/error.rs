//! Why a load gave no answer.

use std::error::Error;
use std::sync::Arc;

/// Why [`Coherent::get_or_load`](super::Coherent::get_or_load) has no answer.
///
/// It is shared by all who waited for the same load, hence the `Arc`. Nothing of it is cached: the
/// next caller loads again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The loader failed.
    #[error("the load failed: {0}")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// As many loads as may be are under way, and as many as may wait are waiting.
    #[error("{waiting} loads wait already")]
    Overloaded {
        /// How many loads may wait; see [`Builder::waiting`](super::Builder::waiting).
        waiting: usize,
    },
}

impl LoadError {
    /// The loader's own error, if it is an `E`.
    ///
    /// ```
    /// use afterwrite::invalidation::coherent::LoadError;
    /// use std::{error::Error, fmt::Error as FmtError, sync::Arc};
    ///
    /// let shared: Arc<dyn Error + Send + Sync> = Arc::new(FmtError);
    /// assert!(LoadError::Failed(shared).downcast_ref::<FmtError>().is_some());
    /// ```
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => error.downcast_ref(),
            Self::Overloaded { .. } => None,
        }
    }
}
