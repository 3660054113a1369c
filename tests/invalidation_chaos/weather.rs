//! What goes wrong, and when.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, ChaosBus, Faults, Flow, Link};

use super::support::stage::nap;
use super::{Member, World};

pub(super) const STORM: Duration = Duration::from_millis(1_500);
pub(super) const CALM: Duration = Duration::from_millis(800);
/// What a round ends with begins so long before the last write: no more than a beat or two.
pub(super) const LAST: Duration = Duration::from_millis(100);
pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Chance from a seed: SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    pub(super) fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    pub(super) fn part(&mut self, most: f64) -> f64 {
        self.below(1_000) as f64 / 1_000.0 * most
    }
}

/// What goes wrong while the last of a round is written, among nodes that are coherent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// What one node says last is lost, and nobody sees a connection go.
    Cut,
    /// Nobody hears one node.
    Mute,
    /// One node hears nobody.
    Deaf,
    /// What is said at the first server does not get to the second.
    Parted,
}

pub(super) const LASTS: [Last; 4] = [Last::Cut, Last::Mute, Last::Deaf, Last::Parted];

impl World {
    /// Takes all faults from a node.
    pub(super) fn mend(&self, bus: &ChaosBus) {
        let calm = Faults {
            delay: Duration::from_micros(50)..ms(2),
            ..Faults::NONE
        };
        let node = bus.node();
        self.net.set_faults(node, calm);
        self.net.set_up_flow(node, Flow::Open);
        self.net.set_down_flow(node, Flow::Open);
        self.net.resume(node);
        if bus.status().link == Link::Down {
            self.net.connect(node);
        }
    }

    pub(super) fn mend_all(&self, members: &[Member]) {
        members.iter().for_each(|member| self.mend(&member.bus));
        self.mend_routes();
    }

    pub(super) fn mend_routes(&self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (self.net.server(from), self.net.server(to));
            self.net.set_route_faults(from, to, Faults::NONE);
            self.net.set_route_flow(from, to, Flow::Open);
        }
    }

    pub(super) fn storm(&self, members: &[Member], dice: &mut Dice) {
        let end = Instant::now() + STORM;
        while Instant::now() < end && !self.failed() {
            self.strike(members, dice);
            nap(ms(20 + dice.below(150)));
        }
        self.mend_all(members);
    }

    /// One more thing goes wrong, or what went wrong comes right.
    pub(super) fn strike(&self, members: &[Member], dice: &mut Dice) {
        let bus = &members[dice.index(members.len())].bus;
        let (net, node) = (&self.net, bus.node());
        let from = dice.index(2);
        let (from, to) = (net.server(from), net.server(1 - from));
        let faults = Faults {
            loss: dice.part(0.2),
            duplication: dice.part(0.2),
            reordering: dice.part(0.2),
            delay: Duration::ZERO..ms(1 + dice.below(40)),
        };
        let flow = match dice.below(2) {
            0 => Flow::Drop,
            _ => Flow::Hold,
        };
        match dice.below(14) {
            0..2 => net.set_faults(node, faults),
            2..4 => net.set_route_faults(from, to, faults),
            4 => net.set_route_flow(from, to, flow),
            5 => net.set_up_flow(node, flow),
            6 => net.set_down_flow(node, flow),
            7 => net.disconnect(node),
            8 => net.connect_to(node, from),
            9 => net.pause(node),
            10..12 => self.mend_routes(),
            _ => self.mend(bus),
        }
    }

    /// Calm weather for so long, in which looks are counted.
    pub(super) fn calm(&self, span: Duration) {
        self.calm.store(true, SeqCst);
        let end = Instant::now() + span;
        while Instant::now() < end && !self.failed() {
            nap(ms(10));
        }
        self.calm.store(false, SeqCst);
    }

    /// What nothing follows that would flush what it has left behind.
    pub(super) fn strike_last(&self, members: &[Member], last: Last, dice: &mut Dice) {
        let node = members[dice.index(members.len())].bus.node();
        let flow = match dice.below(2) {
            0 => Flow::Drop,
            _ => Flow::Hold,
        };
        match last {
            Last::Cut => self.net.set_up_flow(node, Flow::Drop),
            Last::Mute => self.net.set_up_flow(node, flow),
            Last::Deaf => self.net.set_down_flow(node, flow),
            Last::Parted => {
                let (from, to) = (self.net.server(0), self.net.server(1));
                self.net.set_route_flow(from, to, flow);
            }
        }
    }
}
