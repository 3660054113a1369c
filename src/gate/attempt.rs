//! What a producer is told about the read it is asked for.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use crate::sync::{Arc, AtomicBool, Ordering::Relaxed};

/// One read of the read view, as the producer sees it.
#[derive(Clone, Debug)]
pub struct Attempt {
    number: u32,
    budget: Duration,
    deadline: OnceCell<Instant>,
    cancelled: Arc<AtomicBool>,
}

impl Attempt {
    pub(crate) fn new(cancelled: Arc<AtomicBool>) -> Self {
        Self {
            number: 0,
            budget: Duration::ZERO,
            deadline: OnceCell::new(),
            cancelled,
        }
    }

    /// An attempt that belongs to no registry, to test a producer with.
    ///
    /// ```
    /// use afterwrite::Attempt;
    /// use std::time::{Duration, Instant};
    ///
    /// let producer = |attempt: &Attempt| (attempt.number() > 1).then_some("shown");
    /// let deadline = Instant::now() + Duration::from_secs(5);
    /// assert_eq!(producer(&Attempt::detached(1, deadline)), None);
    /// assert_eq!(producer(&Attempt::detached(2, deadline)), Some("shown"));
    /// ```
    #[must_use]
    pub fn detached(number: u32, deadline: Instant) -> Self {
        Self {
            number,
            budget: Duration::ZERO,
            deadline: OnceCell::from(deadline),
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }

    /// This attempt as a closing registry shows it, to test a producer with.
    #[must_use]
    pub fn cancelled(mut self) -> Self {
        self.cancelled = Arc::new(AtomicBool::new(true));
        self
    }

    /// Makes this the attempt of another gate or number.
    #[inline]
    pub(crate) fn set(&mut self, number: u32, budget: Duration, deadline: Option<Instant>) {
        self.number = number;
        self.budget = budget;
        self.deadline = deadline.map_or_else(OnceCell::new, OnceCell::from);
    }

    /// The deadline, if the producer asked for it.
    pub(crate) fn known_deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    /// 1 for the first read of a gate.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// When the gate's budget ends. On the first attempt of a synchronous producer the budget starts with
    /// this call, or else when the read ends (see [`Retry`](crate::Retry)).
    #[must_use]
    pub fn deadline(&self) -> Instant {
        *self.deadline.get_or_init(|| {
            let now = Instant::now();
            now.checked_add(self.budget).unwrap_or(now)
        })
    }

    /// Whether nobody waits for this read any more: the registry is closing.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }
}
