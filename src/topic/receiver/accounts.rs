//! What became of each ticket, for one receiver.

use super::super::Attached;
use super::{Next, Peeked, Receiver};
use crate::mailbox::Flags;
use crate::sync::Ordering::Relaxed;

/// What became of the pushes of a key, for one of its subscribers.
///
/// For a subscription that has been read to its end, or closed, `received + missed + merged +
/// discarded` is the number of pushes and losses that were ordered after its registration, as long
/// as no push overlapped its beginning or its end. One that a [`Closer`](crate::Closer) ended counts what
/// it discarded when it is next asked for a notice, or closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Payloads that were received.
    pub received: u64,
    /// Pushes that were reported as missed.
    pub missed: u64,
    /// Pushes that a later one replaced ([`Overflow::Conflate`](crate::Overflow::Conflate)).
    pub merged: u64,
    /// Pushes that the subscription's close discarded.
    pub discarded: u64,
}

impl<T, A: Attached> Receiver<T, A> {
    pub(crate) fn tally(&self) -> Tally {
        // SAFETY: this is the receiver, borrowed; the results are copied from.
        let (place, ledger) = unsafe {
            (
                self.mailbox.header().peek_place(),
                self.mailbox.peek_ledger(),
            )
        };
        let (missed, merged) = (ledger.missed, self.merged());
        let (received, discarded) = match place.flags.has(Flags::SETTLED) {
            true => (ledger.start, place.last),
            false => (place.last - ledger.start - missed - merged, 0),
        };
        Tally {
            received,
            missed,
            merged,
            discarded,
        }
    }

    pub(super) fn merged(&self) -> u64 {
        let flags = self.flags();
        if flags.has(Flags::EVICTING) {
            // SAFETY: this is the receiver, borrowed, and the mailbox evicts; the result is copied.
            unsafe { self.mailbox.peek_evict_own() }.merged
        } else if flags.has(Flags::LATEST) {
            // SAFETY: this is the receiver, borrowed, and the mailbox has a mark alone.
            unsafe { self.mailbox.peek_merged() }
        } else {
            0
        }
    }

    pub(super) fn add_merged(&mut self, n: u64) {
        if let Some(own) = self.evict_own() {
            own.merged += n;
        } else if self.flags().has(Flags::LATEST) {
            // SAFETY: this is the receiver, borrowed exclusively, and the mailbox has a mark alone.
            unsafe { *self.mailbox.merged() += n };
        }
    }

    /// Losses of the key that are accounted for, by a subscription that conflates: all that it missed are
    /// such.
    pub(super) fn known_lost(&self) -> u64 {
        // SAFETY: this is the receiver, borrowed; the result is copied.
        let missed = unsafe { self.mailbox.peek_ledger() }.missed;
        self.extra()
            .map_or(0, |extra| extra.lost)
            .wrapping_add(missed)
    }

    /// Pushes up to this ticket overlapped the registration.
    pub(super) fn overlapped(&self) -> u64 {
        match self.has_ended() {
            true => 0,
            false => self.extra().map_or(0, |extra| extra.overlapped),
        }
    }

    /// Accounts for the tickets up to `to`, of which `missed` were lost.
    pub(super) fn account(&mut self, to: u64, missed: u64) -> Option<Next<T>> {
        let last = self.place().last;
        let visible = self.topic().blind.load(Relaxed) <= last;
        self.add_merged(to - last - missed);
        self.ledger().missed += missed;
        self.place().last = to;
        (missed > 0).then_some(Next::Missed { n: missed, visible })
    }

    /// Accounts for the tickets up to `to`, all of which were lost.
    pub(super) fn account_lost(&mut self, to: u64) -> Option<Next<T>> {
        self.pass_overlapped(to);
        let missed = to.saturating_sub(self.place().last);
        if missed == 0 {
            return None;
        }
        self.account(to, missed)
    }

    /// The tickets before the payload that was found.
    pub(super) fn gap_before(&mut self, found: Peeked) -> Option<Next<T>> {
        self.pass_overlapped(found.ticket - 1);
        let gap = found.ticket - 1 - self.place().last;
        let mut missed = gap;
        if self.flags().has(Flags::CONFLATE) {
            let known = self.known_lost();
            missed = found.lost.saturating_sub(known).min(gap);
            if known + missed != found.lost {
                // What overlapped the registration is settled with this.
                let counted = self.ledger().missed + missed;
                self.extra_mut().lost = found.lost.wrapping_sub(counted);
            }
        }
        self.account(found.ticket - 1, missed)
    }

    /// Of the tickets up to `to`, none of which is here, those that overlapped the registration do
    /// not count.
    pub(super) fn pass_overlapped(&mut self, to: u64) {
        let last = self.place().last;
        let passed = to.min(self.overlapped());
        if passed > last {
            self.ledger().start += passed - last;
            self.place().last = passed;
        }
    }

    /// Closes the accounts, once: so many of the tickets accounted for were discarded, and so were those
    /// that follow, up to `until`.
    pub(super) fn settle(&mut self, discarded: u64, until: u64) {
        let received = self.tally().received - discarded;
        let last = self.place().last;
        self.ledger().start = received;
        self.place().last = discarded + until.saturating_sub(last);
        self.place().flags.set(Flags::SETTLED);
    }
}
