//! One direction of one connection: order, delay, and what goes wrong on the way.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::ChaosCounts;
use super::rng::Rng;

/// How a stretch of the network treats messages. Probabilities are clamped to 0..=1.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// The probability that a message vanishes.
    pub loss: f64,
    /// The probability that a message arrives twice.
    pub duplication: f64,
    /// The probability that a message may be overtaken by later ones.
    pub reordering: f64,
    /// How long a message takes. Order is kept all the same, as over TCP, save by `reordering`.
    pub delay: Range<Duration>,
}

impl Faults {
    /// No fault, and no time spent.
    pub const NONE: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
        delay: Duration::ZERO..Duration::ZERO,
    };
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// Whether a stretch of the network carries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// It carries, with its [`Faults`].
    #[default]
    Open,
    /// It swallows whatever is sent: a partition that nobody notices.
    Drop,
    /// It keeps whatever is sent, and delivers it late, in order, once opened: a black hole, or a
    /// server that was stopped and goes on.
    Hold,
}

/// One direction of one connection.
#[derive(Debug)]
pub(super) struct Leg<T> {
    pub(super) faults: Faults,
    flow: Flow,
    /// Each with whether it is certain.
    held: VecDeque<(T, bool)>,
    /// When the last message that keeps order arrives.
    last: Duration,
}

impl<T: Clone> Leg<T> {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            faults,
            flow: Flow::Open,
            held: VecDeque::new(),
            last: Duration::ZERO,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Changes the flow; gives back what was held if it now flows.
    pub(super) fn set_flow(&mut self, flow: Flow, counts: &mut ChaosCounts) -> Vec<T> {
        self.flow = flow;
        match flow {
            Flow::Open => self.held.drain(..).map(|(message, _)| message).collect(),
            Flow::Drop => {
                let held = self.held.len();
                self.held.retain(|(_, certain)| *certain);
                counts.partitioned += (held - self.held.len()) as u64;
                Vec::new()
            }
            Flow::Hold => Vec::new(),
        }
    }

    /// A broken connection loses what it held.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.last = Duration::ZERO;
    }

    /// Sends one message: `arrive` is told when it gets there, never, once or twice. `certain`
    /// messages (subscriptions and refusals, which TCP carries or the connection breaks) suffer no loss,
    /// duplication or reordering, and wait where others are dropped.
    pub(super) fn send(
        &mut self,
        now: Duration,
        message: T,
        certain: bool,
        rng: &mut Rng,
        counts: &mut ChaosCounts,
        mut arrive: impl FnMut(Duration, T),
    ) {
        match self.flow {
            Flow::Drop if !certain => {
                counts.partitioned += 1;
                return;
            }
            Flow::Drop | Flow::Hold => {
                counts.held += 1;
                self.held.push_back((message, certain));
                return;
            }
            Flow::Open => {}
        }
        if !certain && rng.happens(self.faults.loss) {
            counts.lost += 1;
            return;
        }
        let at = now + rng.within(&self.faults.delay);
        if !certain && rng.happens(self.faults.duplication) {
            counts.duplicated += 1;
            let first = now + rng.within(&self.faults.delay);
            self.last = self.last.max(first.min(at));
            arrive(self.last, message.clone());
        }
        if !certain && rng.happens(self.faults.reordering) {
            counts.reordered += 1;
            // Late, and without making later ones wait.
            let behind = self.faults.delay.end.max(Duration::from_micros(1));
            arrive(at.max(self.last) + behind, message);
        } else {
            self.last = self.last.max(at);
            arrive(self.last, message);
        }
    }
}
