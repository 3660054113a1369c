//! What a shard tells of itself.

use std::time::Duration;

use super::inbox::Inbox;
use crate::sync::Ordering::Relaxed;

/// How one shard is doing. Counts run from the start of the registry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ShardStats {
    /// Jobs in the queue now.
    pub queued: usize,
    /// Jobs that the shard has taken out of the queue, and that are neither done nor waiting yet. If
    /// this, `queued` and `waiting` are all 0, nothing was under way.
    pub in_hand: usize,
    /// Gates waiting now: for the view, or open and waiting for earlier ones of their key. Those kept
    /// of refused submits are among them.
    pub waiting: usize,
    /// Gates that the shard has taken up: all that came through the queue, and those kept of refused
    /// submits.
    pub jobs: u64,
    /// Reads of the read view.
    pub reads: u64,
    /// Pushes (those of publishers on their own threads are not among them).
    pub pushes: u64,
    /// Notices that those pushes delivered.
    pub reached: u64,
    /// Gates that expired.
    pub expired: u64,
    /// Producers that panicked.
    pub panicked: u64,
    /// Gates given up because all who had subscribed have left.
    pub abandoned: u64,
    /// Notices given up because the registry closed.
    pub cancelled: u64,
    /// Gates that a later one took the place of.
    pub coalesced: u64,
    /// Submits, and published payloads on their way to the shard, that found its queue full, or a cap
    /// on waiting gates reached: the shard's or their key's.
    pub refused: u64,
    /// Whether a synchronous producer is running. If it is, and `reads` is what it was a second
    /// ago, that producer blocks: it holds up every key of this shard.
    pub reading: bool,
    /// The longest read of a synchronous producer; measured if the observer wants timing.
    pub longest_read: Duration,
}

impl<T> Inbox<T> {
    /// A glance at the shard; counts may be a little apart. Wait-free.
    pub(crate) fn stats(&self) -> ShardStats {
        let counts = &self.counts;
        let [queued, in_hand, waiting] = self.queued_in_hand_waiting();
        ShardStats {
            queued,
            in_hand,
            waiting,
            jobs: counts.jobs.get(),
            reads: counts.reads.get(),
            pushes: counts.pushes.get(),
            reached: counts.reached.get(),
            expired: counts.expired.get(),
            panicked: counts.panicked.get(),
            abandoned: counts.abandoned.get(),
            cancelled: counts.cancelled.get(),
            coalesced: counts.coalesced.get(),
            refused: counts.refused.load(Relaxed),
            reading: counts.reading.load(Relaxed),
            longest_read: Duration::from_nanos(counts.longest_read_nanos.load(Relaxed)),
        }
    }
}
