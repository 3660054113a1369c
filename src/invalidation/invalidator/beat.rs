//! The thread that beats: it lets time pass, sends what waits, and speaks the last word.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::inner::{Inner, Out, Remote};
use crate::bus::{Link, PublishError};
use crate::invalidation::outbox::{Drained, NoBeat};
use crate::invalidation::protocol::Micros;

/// Frames sent before those who emit may take their turn.
const SLICE: usize = 128;

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs until the end.
pub(super) fn run(inner: &Arc<Inner>) {
    let Some(remote) = &inner.remote else { return };
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        let next = turn(inner, remote, &waker);
        let farewell = inner.step_closing(remote, &waker);
        remote.wake_resolved();
        if let Some(farewell) = farewell {
            end(inner, remote, farewell);
            return;
        }
        let closing = remote.closing.lock().is_some();
        let wait = Duration::from_micros(next.saturating_sub(inner.clock.now()));
        // An end that waits for a guard looks again soon; guards wake this thread as well.
        let longest = Duration::from_millis(if closing { 10 } else { 1_000 });
        thread::park_timeout(wait.min(longest));
    }
}

/// One look at everything; says when the next is due.
fn turn(inner: &Arc<Inner>, remote: &Remote, waker: &Waker) -> Micros {
    let blocked = drain(remote, inner.clock.now(), waker);
    let status = remote.bus.status();
    let generation = remote.bus.generation();
    let mut core = remote.core.lock();
    // Read under the lock; and whatever is handed over later than this waits for the next beat.
    let now = inner.clock.now();
    let lost = std::mem::replace(&mut core.lost, status.lost) != status.lost;
    let (unsettled, ended): (Vec<_>, bool) = {
        let out = remote.out.lock();
        let entities = out.outbox.unsettled_entities(now);
        let unsettled = entities
            .filter_map(|(entity, unsettled)| Some((core.node.find(entity)?, unsettled)))
            .collect();
        (unsettled, out.outbox.has_ended())
    };
    // A beat after the goodbye would take it back.
    let mute = blocked || ended || status.link == Link::Closed;
    let reconnected = core.node.seen_generation() != generation;
    let (deaf, plan) = inner.with_node(remote, &mut core, now, |node, hands| {
        node.generation(now, generation, hands);
        if lost {
            node.lost(now, hands);
        }
        for (row, unsettled) in unsettled {
            node.own_unsettled(row, unsettled, now, hands);
        }
        node.tick(now, hands);
        let deaf = status.link == Link::Up && node.asks_again(now);
        let due = node.beat_due() <= now && !mute;
        (deaf, due.then(|| node.plan_beat(now, generation)))
    });
    for listener in core.board.all() {
        listener.wake(listener.feed.tell_deferred(now));
    }
    let mut next = core.node.next_tick(now);
    if !mute {
        next = next.min(core.node.beat_due());
    }
    drop(core);
    if deaf {
        // Before the beat that was planned: it has to come back by it.
        let limit = &remote.complaints.deaf;
        limit.say(|| tracing::warn!("hears nothing of its own; subscribes again"));
        if let Err(error) = inner.subscribe(remote.bus.as_ref()) {
            let limit = &remote.complaints.not_subscribed;
            limit.say(|| tracing::error!(%error, "the bus refuses to subscribe"));
        }
    }
    let mut out = remote.out.lock();
    let Out { outbox, wire } = &mut *out;
    outbox.set_max_payload(remote.bus.max_payload());
    if reconnected {
        outbox.allow();
        outbox.expire(Micros::MAX);
    }
    // Whoever waits for a frame that no beat followed back, or that has not left, has waited long
    // enough.
    let lease = crate::invalidation::settings::micros(inner.settings.lease_or_default());
    outbox.expire_waiting(now.saturating_sub(2 * lease));
    if let Some(unsettled) = outbox.next_unsettled(now) {
        next = next.min(unsettled);
    }
    let Some(plan) = plan else { return next };
    match outbox.beat(&plan, false, now, wire.as_mut()) {
        Ok(()) => {
            remote.too_large_since.store(0, Relaxed);
            next
        }
        Err(NoBeat::Bus(PublishError::Full) | NoBeat::Stale) => {
            drop(out);
            remote.core.lock().node.retry_beat(now);
            drain(remote, now, waker);
            next
        }
        Err(error) => {
            remote.beats_failed.fetch_add(1, Relaxed);
            if let NoBeat::Bus(PublishError::TooLarge { .. }) = error {
                remote.beats_too_large.fetch_add(1, Relaxed);
                // Only this thread writes it.
                if remote.too_large_since.load(Relaxed) == 0 {
                    remote.too_large_since.store(now, Relaxed);
                }
            }
            let limit = &remote.complaints.beat_unsent;
            limit.say(|| tracing::error!(?error, "a beat could not be sent"));
            next
        }
    }
}

/// Sends what waits, in slices. Says whether the bus has no room; then the waker is called once it
/// has.
fn drain(remote: &Remote, now: Micros, waker: &Waker) -> bool {
    loop {
        let mut out = remote.out.lock();
        let Out { outbox, wire } = &mut *out;
        match outbox.drain(SLICE, now, wire.as_mut()) {
            Drained::More => {}
            Drained::Empty | Drained::Closed => return false,
            Drained::Blocked => {
                let ready = wire.poll_ready(&mut Context::from_waker(waker));
                if ready.is_pending() {
                    return true;
                }
            }
        }
    }
}

fn end(inner: &Inner, remote: &Remote, farewell: super::types::Farewell) {
    let mut core = remote.core.lock();
    let now = inner.clock.now();
    core.closed = true;
    inner.with_node(remote, &mut core, now, |node, hands| node.ended(now, hands));
    drop(core);
    remote.farewell.lock().get_or_insert(farewell);
    remote.done.set();
    // Also if nobody waits for the end.
    remote.stop_listening();
}
