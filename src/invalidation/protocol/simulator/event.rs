//! What can happen, what a run is made of, what it counts.

use std::rc::Rc;

use super::faults::Fault;
use super::net::{Packet, Time, Way};
use crate::bus::ChaosCounts;
use crate::invalidation::protocol::Mutant;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// By which it is found again.
    pub(super) name: &'static str,
    pub(super) seed: u64,
    pub(super) hosts: usize,
    /// The run ends after so many writes.
    pub(super) writes: u64,
    /// The mean time between faults; 0 for none.
    pub(super) fault_every: Time,
    /// The mean time between writes of one host.
    pub(super) write_every: Time,
    /// Writers are quick, nobody asks for flushes, and who goes down waits for its guards.
    pub(super) orderly: bool,
    /// How long a guard may be open. Beyond the usual, guards are slow.
    pub(super) write_limit: Time,
    /// The time between orderly restarts of one host after the other; 0 for none.
    pub(super) rolling_every: Time,
    /// The last host only reads, and the second waits for the first by its name.
    pub(super) roles: bool,
    /// No other fault happens.
    pub(super) only: Option<Fault>,
    pub(super) mutant: Option<Mutant>,
}

/// Something that happens. `pid` names the process it happens to: if that is gone, nothing does.
#[derive(Debug, Hash)]
pub(super) enum Event {
    AtHost {
        host: usize,
        connection: u64,
        packet: Rc<Packet>,
    },
    Poll {
        host: usize,
        pid: u64,
    },
    /// A process that stood still goes on: its deadline thread is the first to run.
    Resume {
        host: usize,
        pid: u64,
    },
    Write {
        host: usize,
        pid: u64,
    },
    Commit {
        host: usize,
        pid: u64,
        write: u64,
    },
    CloseGuard {
        host: usize,
        pid: u64,
        write: u64,
    },
    Look {
        host: usize,
        pid: u64,
    },
    LoadReads {
        host: usize,
        pid: u64,
        load: u64,
    },
    LoadEnds {
        host: usize,
        pid: u64,
        load: u64,
    },
    Connect {
        host: usize,
        connection: u64,
    },
    /// Something that was wrong with a way is over.
    Heal {
        way: Way,
    },
    /// A server gives rights back, if their time has come.
    Allow {
        host: usize,
    },
    /// A client that took nothing goes on, if its time has come.
    ResumeClient {
        host: usize,
    },
    /// A cache whose watch has ended is watched again.
    Watch {
        host: usize,
        pid: u64,
        watch: usize,
    },
    /// The client hears that the server denied it to publish.
    Denied {
        host: usize,
        pid: u64,
        entity: usize,
    },
    /// The client hears that the server has no subscription of it.
    Unsubscribed {
        host: usize,
        pid: u64,
    },
    Boot {
        host: usize,
    },
    Fault,
    /// The next host is restarted in order.
    Roll {
        host: usize,
    },
    Restart {
        host: usize,
        pid: u64,
    },
}

/// What a run counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) writes: u64,
    pub(super) looks: u64,
    /// Looks at a coherent watch, and those that found a value.
    pub(super) coherent: u64,
    pub(super) hits: u64,
    pub(super) flushes: u64,
    pub(super) doubts: u64,
    pub(super) confirmed: u64,
    pub(super) collapsed: u64,
    pub(super) overflows: u64,
    pub(super) retired: u64,
    pub(super) goodbyes: u64,
    pub(super) forks: u64,
    pub(super) faults: std::collections::BTreeMap<Fault, u64>,
    /// What each network has counted.
    pub(super) net: Vec<ChaosCounts>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.looks += other.looks;
        self.coherent += other.coherent;
        self.hits += other.hits;
        self.flushes += other.flushes;
        self.doubts += other.doubts;
        self.confirmed += other.confirmed;
        self.collapsed += other.collapsed;
        self.overflows += other.overflows;
        self.retired += other.retired;
        self.goodbyes += other.goodbyes;
        self.forks += other.forks;
        self.net.extend_from_slice(&other.net);
        for (fault, n) in &other.faults {
            *self.faults.entry(*fault).or_default() += n;
        }
    }
}

/// An event in its order.
pub(super) struct Entry {
    pub(super) at: Time,
    pub(super) order: u64,
    pub(super) event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Event {
    /// Whose event it is, and the process that it needs if not any.
    pub(super) const fn process(&self) -> Option<(usize, Option<u64>)> {
        match *self {
            Self::AtHost { host, .. } => Some((host, None)),
            Self::Poll { host, pid }
            | Self::Resume { host, pid }
            | Self::Write { host, pid }
            | Self::Commit { host, pid, .. }
            | Self::CloseGuard { host, pid, .. }
            | Self::Look { host, pid }
            | Self::LoadReads { host, pid, .. }
            | Self::LoadEnds { host, pid, .. }
            | Self::Watch { host, pid, .. }
            | Self::Denied { host, pid, .. }
            | Self::Unsubscribed { host, pid }
            | Self::Restart { host, pid } => Some((host, Some(pid))),
            Self::Connect { .. }
            | Self::Heal { .. }
            | Self::Allow { .. }
            | Self::ResumeClient { .. }
            | Self::Boot { .. }
            | Self::Roll { .. }
            | Self::Fault => None,
        }
    }
}
