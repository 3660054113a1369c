//! Cache invalidation between processes.

mod frame;
