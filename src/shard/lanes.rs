//! A key's lane: its gates in submit order, and the push of the one at the head.

use std::collections::VecDeque;
use std::time::Instant;

use super::channel::{Channel, KeyState};
use super::engine::{Engine, Meta, SLICE};
use super::gates::{Outcome, State, Waiting, discard};
use super::job::Delivery;
use crate::arena::Shared;
use crate::mailbox::Mailbox;
use crate::observer::Timing;
use crate::sync::{Ordering::Relaxed, order, panics};
use crate::topic::{Attached, Busy, Pushed, Walk};

/// Gates that one visit of a lane lets go, before other keys have their turn.
const VISIT: usize = 16;

/// A push of the shard, in slices.
type Push<T> = Walk<Shared<Channel<T>>, T, KeyState<T>>;

/// The gates of one key. What was published goes first, then gates in submit order; a push that
/// is under way stays at the head.
pub(super) struct Lane<T> {
    pub(super) channel: Shared<Channel<T>>,
    pub(super) gates: VecDeque<usize>,
    /// How many of them were published.
    published: usize,
    /// The head's push, if it is under way.
    walk: Option<(Push<T>, Option<Instant>)>,
    scheduled: bool,
    /// Whether one of the gates stands for refused producers.
    pub(super) refusing: bool,
}

impl<T> Lane<T> {
    pub(super) fn new(channel: Shared<Channel<T>>) -> Self {
        Self {
            channel,
            gates: VecDeque::new(),
            published: 0,
            walk: None,
            scheduled: false,
            refusing: false,
        }
    }

    /// How many gates there are that were submitted.
    pub(super) fn submitted(&self) -> usize {
        self.gates.len() - self.published
    }
}

/// How far a visit came.
enum Visit {
    /// The head is let go.
    Settled,
    /// The head's push goes on in a later slice.
    Goes,
    /// The head waits: for its gate, or for the key's turn.
    Waits,
}

impl<T: Clone + Send + 'static> Engine<T> {
    pub(super) fn schedule(&mut self, lane: usize) {
        // A lane that was blocked may have been let go since.
        if let Some(entry) = self.lanes.get_mut(lane)
            && !std::mem::replace(&mut entry.scheduled, true)
        {
            self.runnable.push_back(lane);
        }
    }

    /// Puts a gate in its place.
    pub(super) fn line_up(&mut self, id: usize, gate: usize) {
        let lane = &mut self.lanes[id];
        if !self.gates[gate].published {
            return lane.gates.push_back(gate);
        }
        let mut place = lane.published;
        if lane.walk.is_some()
            && let Some(&head) = lane.gates.front()
            && !self.gates[head].published
        {
            place += 1;
        }
        lane.published += 1;
        lane.gates.insert(place, gate);
    }

    /// Takes the head out of its lane.
    fn take_head(&mut self, id: usize) -> Option<Waiting<T>> {
        let head = self.lanes[id].gates.pop_front()?;
        self.stop_waiting(head);
        let gate = self.gates.remove(head);
        self.inbox.gate_waits(false);
        self.lanes[id].published -= usize::from(gate.published);
        Some(gate)
    }

    /// One visit: at most one slice of a walk, or some settled gates.
    ///
    /// The lane counts as scheduled until the visit is over: a refused producer that is let in by
    /// the end of another must not list a lane that may be gone by then.
    pub(super) fn run_lane(&mut self, id: usize) {
        for _ in 0..VISIT {
            match self.visit(id) {
                Visit::Settled => {}
                Visit::Goes => break,
                Visit::Waits => {
                    self.lanes[id].scheduled = false;
                    return;
                }
            }
            if self.lanes[id].gates.is_empty() {
                return self.remove_lane(id);
            }
        }
        self.runnable.push_back(id);
    }

    fn remove_lane(&mut self, id: usize) {
        let lane = self.lanes.remove(id);
        lane.channel.attached.lane.store(0, Relaxed);
    }

    fn visit(&mut self, id: usize) -> Visit {
        let lane = &mut self.lanes[id];
        if let Some((walk, _)) = &mut lane.walk {
            if !walk.step(SLICE) {
                return Visit::Goes;
            }
            return self.end_walk(id);
        }
        let Some(&head) = lane.gates.front() else {
            return Visit::Settled;
        };
        let gate = &mut self.gates[head];
        if !matches!(gate.state, State::Open(_)) {
            return Visit::Waits;
        }
        let State::Open(outcome) = std::mem::replace(&mut gate.state, State::Taken) else {
            return Visit::Waits;
        };
        match (outcome, &gate.delivery) {
            (Outcome::Push(payload), Delivery::All | Delivery::HandedOver) => {
                let began = gate.submitted.map(|_| Instant::now());
                match Walk::begin(lane.channel.clone(), payload) {
                    Ok(walk) => {
                        lane.walk = Some((walk, began));
                        return Visit::Goes;
                    }
                    Err(Busy::Held(payload)) => return self.wait_for_turn(id, head, payload),
                    // Only the shard itself shuts its keys, after its last visit.
                    Err(Busy::Shut(payload)) => discard(payload),
                }
            }
            (Outcome::Push(payload), Delivery::First(first, mailbox)) => {
                let mut payload = Some(payload);
                let filled = lane.channel.with_turn(|ticket| {
                    first.fill_once(ticket, payload.take());
                });
                if filled.is_none()
                    && let Some(payload) = payload
                {
                    return self.wait_for_turn(id, head, payload);
                }
                wake(mailbox);
            }
            (Outcome::Push(payload), &Delivery::Lost(lost)) => {
                lane.channel.lose(lost);
                discard(payload);
            }
            (Outcome::Lose, delivery) => settle_lost(&lane.channel, delivery),
            (Outcome::Skip, &Delivery::Lost(lost)) => lane.channel.lose(lost),
            // A first notice is no push of the key.
            (Outcome::Skip, Delivery::First(first, _)) => first.skip(),
            (Outcome::Skip, _) => {
                lane.channel.attached.skipped.fetch_add(1, Relaxed);
            }
            (Outcome::Nothing, _) => {}
        }
        self.settle_head(id);
        Visit::Settled
    }

    /// Another thread pushes to this key: it rings when it has left.
    fn wait_for_turn(&mut self, id: usize, head: usize, payload: T) -> Visit {
        self.gates[head].state = State::Open(Outcome::Push(payload));
        if self.lanes[id].channel.ring_when_free() {
            self.blocked.push(id);
            Visit::Waits
        } else {
            Visit::Goes
        }
    }

    fn end_walk(&mut self, id: usize) -> Visit {
        let lane = &mut self.lanes[id];
        if let Some((walk, began)) = lane.walk.take() {
            let pushed = walk.finish();
            let channel = lane.channel.clone();
            if let Some(&head) = lane.gates.front() {
                let gate = &self.gates[head];
                let meta = Meta {
                    submitted: gate.submitted,
                    attempts: gate.attempts,
                    published: gate.published,
                };
                self.account_push(&channel, pushed, &meta, began);
                if pushed.panicked > 0 {
                    channel.attached.payloads_panicked(pushed.panicked);
                }
            }
        }
        self.settle_head(id);
        Visit::Settled
    }

    pub(super) fn account_push(
        &self,
        channel: &Channel<T>,
        pushed: Pushed,
        meta: &Meta,
        began: Option<Instant>,
    ) {
        let counts = self.counts();
        counts.pushes.add(1);
        counts.reached.add(u64::from(pushed.reached));
        let timing = meta.submitted.zip(began).map(|(submitted, began)| {
            let waited = began.saturating_duration_since(submitted);
            Timing::new(waited, began.elapsed(), meta.attempts)
        });
        self.settings
            .observer
            .pushed(channel.attached.key(), pushed, timing);
    }

    /// The head is let go: the next one may be open already.
    fn settle_head(&mut self, id: usize) {
        let Some(gate) = self.take_head(id) else {
            return;
        };
        let channel = self.lanes[id].channel.clone();
        self.release(&channel, &gate.delivery);
        if matches!(gate.delivery, Delivery::Lost(_)) {
            self.lanes[id].refusing = false;
            // At the close it is left where it is, unread, and told as lost.
            if !self.settings.closing.load(Relaxed)
                && let Some(refusal) = channel.attached.take_refusal()
            {
                self.admit_refused(channel, *refusal);
            }
        }
    }

    /// Gives back what a job holds of its key.
    pub(super) fn release(&self, channel: &Channel<T>, delivery: &Delivery<T>) {
        if delivery.has_place() {
            channel.attached.release();
        } else if matches!(delivery, Delivery::HandedOver) {
            channel.attached.handed.fetch_sub(1, order::handed_down());
        }
    }

    /// The registry closes: pushes without waiting for the turn. What cannot be pushed now is lost, and
    /// told.
    pub(super) fn push_at_close(
        &self,
        channel: &Channel<T>,
        delivery: &Delivery<T>,
        payload: T,
        meta: &Meta,
    ) {
        match delivery {
            Delivery::All | Delivery::HandedOver => {
                let began = meta.submitted.map(|_| Instant::now());
                match channel.try_push(payload) {
                    Ok(pushed) => self.account_push(channel, pushed, meta, began),
                    Err(Busy::Held(payload) | Busy::Shut(payload)) => {
                        discard(payload);
                        self.give_up(channel, delivery);
                    }
                }
            }
            Delivery::First(first, mailbox) => {
                let mut payload = Some(payload);
                let filled = channel.with_turn(|ticket| first.fill_once(ticket, payload.take()));
                match filled {
                    Some(()) => wake(mailbox),
                    None => {
                        discard(payload);
                        self.give_up(channel, delivery);
                    }
                }
            }
            // Its gate is open: the loss that it stands for may be told.
            Delivery::Lost(lost) => {
                channel.lose(*lost);
                discard(payload);
            }
        }
    }

    /// The registry closes: what was queued or waited is lost, and told.
    pub(super) fn give_up(&self, channel: &Channel<T>, delivery: &Delivery<T>) {
        self.cancelled(channel, delivery);
        settle_lost(channel, delivery);
    }

    /// The registry closes: a push under way is finished, an open head pushed, the rest given up.
    pub(super) fn cancel_lane(&mut self, id: usize) {
        if let Some((walk, _)) = &mut self.lanes[id].walk {
            while !walk.step(SLICE) {}
            self.end_walk(id);
        }
        while let Some(gate) = self.take_head(id) {
            let channel = self.lanes[id].channel.clone();
            let Waiting {
                delivery, state, ..
            } = gate;
            let meta = Meta {
                submitted: gate.submitted,
                attempts: gate.attempts,
                published: gate.published,
            };
            match state {
                State::Open(Outcome::Push(payload)) => {
                    self.push_at_close(&channel, &delivery, payload, &meta);
                }
                State::Open(Outcome::Skip) => match &delivery {
                    Delivery::First(first, _) => first.skip(),
                    _ => {
                        channel.attached.skipped.fetch_add(1, Relaxed);
                    }
                },
                State::Open(Outcome::Nothing) => {}
                // It failed, and that was told then.
                State::Open(Outcome::Lose) => settle_lost(&channel, &delivery),
                closed => {
                    discard(closed);
                    self.give_up(&channel, &delivery);
                }
            }
            self.release(&channel, &delivery);
        }
        let channel = self.lanes[id].channel.clone();
        if let Some(refusal) = channel.attached.take_refusal() {
            channel.lose(refusal.lost);
            discard(refusal);
        }
        self.remove_lane(id);
    }
}

/// Tells those whom it concerns of a loss, without the key's turn.
fn settle_lost<T>(channel: &Channel<T>, delivery: &Delivery<T>) {
    match delivery {
        Delivery::All | Delivery::HandedOver => channel.lose(1),
        Delivery::First(first, mailbox) => {
            first.fill_once(0, None);
            wake(mailbox);
        }
        Delivery::Lost(lost) => channel.lose(*lost),
    }
}

/// Wakes the one subscriber whose first notice was filled.
fn wake<T>(mailbox: &Mailbox<T>) {
    if let Some(waker) = mailbox.take_waker() {
        panics::wake(waker);
    }
}
