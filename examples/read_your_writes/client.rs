//! Clients: on every notice they select from the read view, and check what they find.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use afterwrite::{Notice, Subscription};

use crate::random::Random;
use crate::run::{Change, RunError, Shared};

/// What a client got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Receipt {
    pub(crate) received: u64,
    pub(crate) missed: u64,
    /// Refetches whose least version was known.
    pub(crate) judged: u64,
    /// Those that found less.
    pub(crate) old: u64,
    /// Notices of another version than the next one.
    pub(crate) out_of_order: u64,
}

/// The way of a notice to the client and of its query back: 1 to 20 ms, short ones as frequent as long
/// ones.
pub(crate) fn round_trip(random: &mut Random) -> Duration {
    Duration::from_millis(1).mul_f64(20_f64.powf(random.unit()))
}

/// Follows one entity until the subscription ends.
pub(crate) async fn follow(
    shared: Arc<Shared>,
    mut subscription: Subscription<Change>,
    entity: usize,
    round_trip: Duration,
) -> Result<Receipt, RunError> {
    let mut receipt = Receipt::default();
    // Clients subscribe before the first write, and a key's notices come in order: after n of them
    // the entity's version is n.
    let mut version = 0;
    while let Some(notice) = subscription.recv().await {
        let now = shared.began.elapsed();
        // The view is to show this version by now; none if the notice makes no promise.
        let least = match notice {
            Notice::Changed(change) => {
                receipt.received += 1;
                receipt.out_of_order += u64::from(change.version != version + 1);
                version = change.version;
                if shared.mode.is_gated() {
                    shared.delay.add(shared.shown_for(change.number, now));
                }
                Some(version)
            }
            Notice::Missed { n, visible } => {
                receipt.missed += n;
                version += n;
                visible.then_some(version)
            }
        };
        tokio::time::sleep(round_trip).await;
        // Some ten microseconds, so it need not leave the runtime's thread.
        let found = shared.view.version(entity).inspect_err(|_| {
            shared.stop.stop();
        })?;
        if let Some(least) = least {
            receipt.judged += 1;
            receipt.old += u64::from(found < least);
            shared
                .counts
                .old
                .fetch_add(u64::from(found < least), Relaxed);
        }
        let counts = &shared.counts;
        counts.refetches.fetch_add(1, Relaxed);
        let accounted = match notice {
            Notice::Changed(_) => 1,
            Notice::Missed { n, .. } => n,
        };
        counts.accounted.fetch_add(accounted, Relaxed);
    }
    Ok(receipt)
}
