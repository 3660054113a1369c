//! Hosts that are unlike the others: one only reads, and one waits for another by its name.

use super::world::World;
use crate::invalidation::frame::Incarnation;

/// The host that is waited for.
pub(super) const EXPECTED: usize = 0;
/// The one that waits.
const WAITS: usize = 1;

impl World {
    pub(super) fn only_reads(&self, host: usize) -> bool {
        self.plan.roles && host + 1 == self.hosts.len()
    }

    /// The names that a host is told to wait for.
    pub(super) fn expects(&self, host: usize) -> Option<Box<str>> {
        let waits = self.plan.roles && host == WAITS;
        waits.then(|| format!("host-{EXPECTED}").into())
    }

    /// Whether no process speaks with this incarnation any more.
    pub(super) fn has_left(&self, who: Incarnation) -> bool {
        let mut processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        processes.all(|process| process.incarnation != who)
    }

    /// Whether what such a publisher emits counts, heard or not.
    pub(super) fn waits_for(&self, host: usize, who: Incarnation) -> bool {
        self.plan.roles && host == WAITS && self.expected.contains(&who)
    }
}
