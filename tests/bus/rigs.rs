//! The networks on which the behaviours run.

use std::cell::OnceCell;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use afterwrite::bus::{Bus, ChaosBus, ChaosNet, Faults, LocalBus};

use super::support::PATIENCE;
use super::support::record::{Recorder, Seen};

/// A network of one kind, for one test.
pub(super) trait Rig {
    /// A new node.
    fn bus(&self) -> Arc<dyn Bus>;

    /// A new node, connected to the others, whose subscriptions hold so many messages.
    fn slow(&self, capacity: usize) -> Slow;

    /// Waits until this holds of what was recorded.
    fn wait(&self, recorder: &Recorder, holds: &dyn Fn(&[Seen]) -> bool) -> bool {
        recorder.wait(PATIENCE, holds)
    }
}

/// A node that can be kept from taking what comes.
pub(super) struct Slow {
    pub(super) bus: Arc<dyn Bus>,
    /// What its inbox has to pass.
    pub(super) gate: Arc<Gate>,
    /// Closes and opens the way to its inbox.
    pub(super) stick: Box<dyn Fn(bool)>,
}

impl Slow {
    /// A node that is slow because its inbox is.
    pub(super) fn by_gate(bus: Arc<dyn Bus>) -> Self {
        let gate = Arc::new(Gate::default());
        let own = Arc::clone(&gate);
        Self {
            bus,
            gate,
            stick: Box::new(move |shut| own.set(shut)),
        }
    }
}

#[derive(Default)]
pub(super) struct Gate {
    shut: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.moved.notify_all();
    }

    pub(super) fn pass(&self) {
        let shut = self.shut.lock().unwrap();
        drop(
            self.moved
                .wait_timeout_while(shut, PATIENCE, |shut| *shut)
                .unwrap(),
        );
    }
}

/// Everything inside one process.
pub(super) struct Local {
    bus: OnceCell<LocalBus>,
}

impl Local {
    pub(super) fn new() -> Self {
        Self {
            bus: OnceCell::new(),
        }
    }
}

impl Rig for Local {
    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.bus.get_or_init(LocalBus::new).clone())
    }

    fn slow(&self, capacity: usize) -> Slow {
        // The capacity is the bus's, so that the slow node must be the first.
        self.bus
            .set(LocalBus::with_capacity(capacity))
            .expect("the first node");
        Slow::by_gate(self.bus())
    }
}

/// A network in its own time, which passes while the test waits.
pub(super) struct Chaos {
    net: ChaosNet,
}

impl Chaos {
    pub(super) fn new() -> Self {
        Self {
            net: ChaosNet::new(11),
        }
    }

    fn node(&self) -> ChaosBus {
        let bus = self.net.bus();
        let delay = Duration::from_micros(50)..Duration::from_millis(2);
        let faults = Faults {
            delay,
            ..Faults::NONE
        };
        self.net.set_faults(bus.node(), faults);
        bus
    }
}

impl Rig for Chaos {
    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.node())
    }

    fn slow(&self, capacity: usize) -> Slow {
        let bus = self.node();
        let (net, node) = (self.net.clone(), bus.node());
        net.set_capacity(node, capacity, 2_048);
        Slow {
            bus: Arc::new(bus),
            gate: Arc::default(),
            stick: Box::new(move |shut| match shut {
                true => net.pause(node),
                false => net.resume(node),
            }),
        }
    }

    fn wait(&self, recorder: &Recorder, holds: &dyn Fn(&[Seen]) -> bool) -> bool {
        let until = self.net.now() + PATIENCE;
        while !recorder.wait(Duration::ZERO, holds) {
            if !self.net.step(until) {
                return false;
            }
        }
        true
    }
}
