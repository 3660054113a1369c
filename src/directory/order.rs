//! The orderings of the directory's handshakes, by role.
//!
//! Each name is also the name of a planted fault that makes it `Relaxed`; a model fails for each.

use std::sync::atomic::Ordering;

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident = $order:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name() -> Ordering {
            #[cfg(afterwrite_loom)]
            if crate::sync::mutant(concat!("directory.", stringify!($name))) {
                return Ordering::Relaxed;
            }
            Ordering::$order
        }
    )*};
}

roles! {
    /// Publishes a new bucket by counting it. Partner: [`buckets_load`].
    buckets_publish = Release;
    /// Makes every bucket that is counted safe to read. Partner: [`buckets_publish`].
    buckets_load = Acquire;
    /// Publishes a tag word after what made it so. Partner: [`word_load`].
    word_publish = Release;
    /// Orders the second look at the number of buckets after the tags. Partner: [`word_publish`].
    word_load = Acquire;
}

#[cfg(afterwrite_loom)]
roles! {
    /// Publishes a snapshot and what came before it. Partner: [`cell_load`].
    cell_swap = AcqRel;
    /// Makes the snapshot readable, and orders the second look at the number of buckets after it.
    /// Partner: [`cell_swap`].
    cell_load = Acquire;
}
