//! What a subscriber gets.

/// What a subscriber gets.
///
/// After a [`Missed`](Self::Missed) the subscriber does not know what changed, only that something did:
/// it reads the view anew. If the view may not show the changes yet (`visible: false`) it reads again
/// when the next notice comes, or after a while.
///
/// ```
/// use afterwrite::{Notice, Overflow, Registry, SubscribeOptions};
///
/// let registry: Registry<u64> = Registry::new()?;
/// let small = SubscribeOptions::new().buffer_capacity(2);
/// let mut price = registry.subscribe_with("price/ACME", small)?;
/// for price in [100, 101, 102] {
///     let _ = registry.publish("price/ACME", price);
/// }
/// # let read_view = |_key: &str| 102;
///
/// let mut shown = 0;
/// for notice in price.try_iter() {
///     match notice {
///         Notice::Changed(price) => shown = price,
///         // Two fitted; the third is in the view.
///         Notice::Missed { n: 1, visible: true } => shown = read_view("price/ACME"),
///         Notice::Missed { .. } => unreachable!(),
///     }
/// }
/// assert_eq!(shown, 102);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Notice<T> {
    /// The key changed, and the read view shows it.
    Changed(T),
    /// Changes were lost. Refetch.
    Missed {
        /// How many.
        n: u64,
        /// Whether the read view shows them.
        ///
        /// `true`: they were pushed, but this subscriber's buffer was full, or the payload's clone for it
        /// panicked. `false`: they never got as far as a push, and a refetch may come too early: a
        /// queue was full, a gate expired, a producer panicked, or the registry closed.
        visible: bool,
    },
}

impl<T> Notice<T> {
    /// The payload of a change; `None` for what was missed.
    ///
    /// ```
    /// use afterwrite::Notice;
    ///
    /// assert_eq!(Notice::Changed(7).changed(), Some(7));
    /// assert_eq!(Notice::<u64>::Missed { n: 2, visible: true }.changed(), None);
    /// ```
    #[must_use]
    pub fn changed(self) -> Option<T> {
        match self {
            Self::Changed(payload) => Some(payload),
            Self::Missed { .. } => None,
        }
    }

    /// How many changes were missed; 0 for a change.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        match self {
            Self::Changed(_) => 0,
            Self::Missed { n, .. } => *n,
        }
    }

    /// The same notice with another payload.
    ///
    /// ```
    /// use afterwrite::Notice;
    ///
    /// assert_eq!(Notice::Changed(7).map(|n| n.to_string()), Notice::Changed("7".to_owned()));
    /// ```
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Notice<U> {
        match self {
            Self::Changed(payload) => Notice::Changed(f(payload)),
            Self::Missed { n, visible } => Notice::Missed { n, visible },
        }
    }

    /// The same notice with a reference to its payload.
    #[must_use]
    pub const fn as_ref(&self) -> Notice<&T> {
        match self {
            Self::Changed(payload) => Notice::Changed(payload),
            Self::Missed { n, visible } => Notice::Missed {
                n: *n,
                visible: *visible,
            },
        }
    }
}
