//! The event loop of a shard, one step at a time and without a thread of its own.
//!
//! A step looks at, in this order: what came through the queue (first reads, in order of arrival),
//! gates that were woken, gates whose time has come, and keys that can push. After each repeated
//! read it goes back to the queue if somebody rang, so that a first read never waits for more than
//! one repeated one; a walk over many subscribers goes on one slice a step.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use slab::Slab;

use super::bell::{CLOSE, TURN};
use super::channel::Channel;
use super::faults;
use super::gates::{Answer, Arrived, Outcome, Producer, State, Waiting, discard};
use super::inbox::{Counts, Inbox};
use super::job::{Delivery, Job, Message, Refusal};
use super::lanes::Lane;
use super::ready::Node;
use super::settings::Settings;
use crate::arena::Shared;
use crate::gate::{Attempt, Source};
use crate::observer::{DropReason, Expiry, SkipReason};
use crate::sync::{Arc, Ordering::Relaxed};
use crate::topic::Busy;

/// Subscribers that one slice of a walk goes over.
pub(super) const SLICE: u32 = if cfg!(afterwrite_loom) { 1 } else { 1024 };

/// Repeated reads of one step.
const REPEATS: usize = 32;

/// What a step found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// There may be more to do at once.
    Busy,
    /// Nothing to do before somebody rings, or this time.
    Idle(Option<Instant>),
    /// The registry closes.
    Close,
}

/// A shard's own state: nobody else sees it.
pub(crate) struct Engine<T> {
    pub(super) inbox: Arc<Inbox<T>>,
    pub(super) settings: Arc<Settings>,
    pub(super) lanes: Slab<Lane<T>>,
    pub(super) gates: Slab<Waiting<T>>,
    timers: BTreeSet<(Instant, usize)>,
    /// Lanes that can go on.
    pub(super) runnable: VecDeque<usize>,
    /// Lanes whose key's turn another thread has.
    pub(super) blocked: Vec<usize>,
    attempt: Attempt,
    pub(super) messages: Vec<Message<T>>,
    pub(super) refused: Vec<Shared<Channel<T>>>,
}

/// What goes with a gate through its life.
pub(super) struct Meta {
    pub(super) submitted: Option<Instant>,
    pub(super) attempts: u32,
    /// Published, not submitted.
    pub(super) published: bool,
}

impl<T: Clone + Send + 'static> Engine<T> {
    pub(crate) fn new(inbox: Arc<Inbox<T>>, settings: Arc<Settings>) -> Self {
        let attempt = Attempt::new(settings.closing.clone());
        Self {
            inbox,
            settings,
            lanes: Slab::new(),
            gates: Slab::new(),
            timers: BTreeSet::new(),
            runnable: VecDeque::new(),
            blocked: Vec::new(),
            attempt,
            messages: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.inbox.counts
    }

    /// Does what there is to do, boundedly much of it.
    pub(crate) fn step(&mut self) -> Step {
        let bits = self.inbox.bell.take();
        if bits & CLOSE != 0 {
            return Step::Close;
        }
        if bits != 0 {
            self.take_mail();
        }
        if bits & TURN != 0 {
            for lane in std::mem::take(&mut self.blocked) {
                self.schedule(lane);
            }
        }
        let mut busy = self.run_woken();
        busy |= self.run_timers();
        for _ in 0..self.runnable.len() {
            let Some(lane) = self.runnable.pop_front() else {
                break;
            };
            self.run_lane(lane);
        }
        if busy || !self.runnable.is_empty() || self.inbox.bell.has_rung() {
            Step::Busy
        } else {
            Step::Idle(self.timers.first().map(|&(at, _)| at))
        }
    }

    /// First read of a gate; most are open at once and never wait.
    pub(super) fn admit(&mut self, job: Job<T>) {
        let counts = &self.inbox.counts;
        counts.jobs.add(1);
        let Job {
            channel,
            source,
            delivery,
            submitted,
            ..
        } = job;
        let mut meta = Meta {
            submitted,
            attempts: 0,
            published: matches!(source, Source::Ready(_)),
        };
        let has_lane = channel.attached.lane.load(Relaxed) != 0;
        let producer = match Arrived::of(source) {
            Arrived::Open(payload) => {
                return self.admit_open(channel, delivery, meta, payload, has_lane);
            }
            Arrived::Failed(reason) => {
                return self.admit_failed(channel, delivery, meta, reason);
            }
            Arrived::Closed(producer) => producer,
        };
        if producer.needs_waker() {
            return self.admit_waking(channel, delivery, meta, producer);
        }
        meta.attempts = 1;
        counts.reads.add(1);
        self.attempt.set(1, self.settings.retry.budget(), None);
        let timed = self.settings.observer.wants_timing();
        match producer.read(&self.attempt, None, counts, timed) {
            Answer::Open(payload) => {
                self.admit_open(channel, delivery, meta, payload, has_lane);
            }
            Answer::Failed(reason) => self.admit_failed(channel, delivery, meta, reason),
            Answer::NotYet(producer) | Answer::Waits(producer) => {
                let asked_for = self.attempt.known_deadline();
                if let Some(gate) = self.enqueue(channel, delivery, meta, State::Closed(producer)) {
                    self.retry_later(gate, asked_for);
                }
            }
        }
    }

    fn admit_open(
        &mut self,
        channel: Shared<Channel<T>>,
        delivery: Delivery<T>,
        meta: Meta,
        payload: T,
        has_lane: bool,
    ) {
        let mut payload = payload;
        let overtakes = faults::planted(faults::OVERTAKE_THE_LANE);
        if (!has_lane || overtakes) && channel.subscribers() <= SLICE as usize {
            match &delivery {
                Delivery::All | Delivery::HandedOver => {
                    let began = meta.submitted.map(|_| Instant::now());
                    match channel.try_push(payload) {
                        Ok(pushed) => {
                            self.account_push(&channel, pushed, &meta, began);
                            return self.release(&channel, &delivery);
                        }
                        Err(Busy::Held(back) | Busy::Shut(back)) => payload = back,
                    }
                }
                Delivery::Lost(lost) => {
                    channel.lose(*lost);
                    return discard(payload);
                }
                Delivery::First(..) => {}
            }
        }
        self.enqueue(channel, delivery, meta, State::Open(Outcome::Push(payload)));
    }

    fn admit_failed(
        &mut self,
        channel: Shared<Channel<T>>,
        delivery: Delivery<T>,
        meta: Meta,
        reason: SkipReason,
    ) {
        self.note_failure(&channel, &delivery, reason);
        self.enqueue(channel, delivery, meta, State::Open(Outcome::Lose));
    }

    /// A gate ends without a push: counted, and told, unless the observer has heard already that it
    /// was refused.
    fn note_failure(&self, channel: &Channel<T>, delivery: &Delivery<T>, reason: SkipReason) {
        match reason {
            SkipReason::Expired => self.counts().expired.add(1),
            SkipReason::Panicked => self.counts().panicked.add(1),
            SkipReason::Abandoned => self.counts().abandoned.add(1),
        };
        let observer = &self.settings.observer;
        observer.skipped(channel.attached.key(), reason, !delivery.was_refused());
    }

    /// A gate that will be woken gets its number, and so its waker, before its first read.
    fn admit_waking(
        &mut self,
        channel: Shared<Channel<T>>,
        delivery: Delivery<T>,
        meta: Meta,
        producer: Producer<T>,
    ) {
        if let Some(gate) = self.enqueue(channel, delivery, meta, State::Closed(producer)) {
            self.read(gate);
        }
    }

    pub(super) fn admit_refusal(&mut self, channel: &Shared<Channel<T>>) {
        let lane = channel.attached.lane.load(Relaxed) as usize;
        if lane != 0 && self.lanes[lane - 1].refusing {
            // One at a time; it is taken when that one has ended.
            return;
        }
        if let Some(refusal) = channel.attached.take_refusal() {
            self.admit_refused(channel.clone(), *refusal);
        }
    }

    pub(super) fn admit_refused(&mut self, channel: Shared<Channel<T>>, refusal: Refusal<T>) {
        let Refusal { lost, source } = refusal;
        self.admit(Job {
            channel,
            source,
            delivery: Delivery::Lost(lost),
            submitted: None,
            caller: 0,
        });
    }

    /// Puts a gate at the end of its key's lane; `None` if it took the place of the one before it,
    /// which keeps its number, or if it is open.
    fn enqueue(
        &mut self,
        channel: Shared<Channel<T>>,
        delivery: Delivery<T>,
        meta: Meta,
        state: State<T>,
    ) -> Option<usize> {
        let lane = self.lane_of(&channel);
        if self.settings.coalesce
            && matches!(delivery, Delivery::All)
            && let Some(successor) = self.successor(lane)
        {
            return self.replace(successor, state);
        }
        if matches!(delivery, Delivery::Lost(_)) {
            self.lanes[lane].refusing = true;
        }
        let closed = matches!(state, State::Closed(_));
        let gate = self.gates.insert(Waiting {
            lane,
            delivery,
            published: meta.published,
            state,
            submitted: meta.submitted,
            first_read: None,
            attempts: meta.attempts,
            timer: None,
            node: None,
        });
        self.inbox.gate_waits(true);
        self.line_up(lane, gate);
        if closed {
            return Some(gate);
        }
        self.head_may_go(lane, gate);
        None
    }

    /// The gate that a coalescing key lets later ones take the place of.
    fn successor(&self, lane: usize) -> Option<usize> {
        let lane = &self.lanes[lane];
        let last = *lane.gates.back()?;
        let behind_head = lane.submitted() > 1;
        (behind_head && matches!(self.gates[last].delivery, Delivery::All)).then_some(last)
    }

    /// The successor takes the newer producer in; its deadline and the higher position stay.
    fn replace(&mut self, gate: usize, state: State<T>) -> Option<usize> {
        self.stop_waiting(gate);
        let waiting = &mut self.gates[gate];
        let older = std::mem::replace(&mut waiting.state, state);
        if let (State::Closed(older), State::Closed(newer)) = (&older, &mut waiting.state) {
            newer.not_before(older);
        }
        discard(older);
        let channel = self.lanes[self.gates[gate].lane].channel.clone();
        channel.attached.coalesced.fetch_add(1, Relaxed);
        channel.attached.release();
        self.counts().coalesced.add(1);
        match self.gates[gate].state {
            State::Closed(_) => Some(gate),
            _ => None,
        }
    }

    fn lane_of(&mut self, channel: &Shared<Channel<T>>) -> usize {
        match channel.attached.lane.load(Relaxed) {
            0 => {
                let lane = self.lanes.insert(Lane::new(channel.clone()));
                channel.attached.lane.store(lane as u32 + 1, Relaxed);
                lane
            }
            number => number as usize - 1,
        }
    }

    /// Goes on with a read that waited for its waker. A gate that is to be asked again keeps its
    /// pace: a late wake by an earlier read of it says nothing of the view.
    fn read_woken(&mut self, id: usize) {
        if matches!(&self.gates[id].state, State::Closed(p) if p.is_reading() || p.is_reached()) {
            self.read(id);
        }
    }

    /// Asks a waiting gate once.
    fn read(&mut self, id: usize) {
        let gate = &mut self.gates[id];
        if !matches!(gate.state, State::Closed(_)) {
            return;
        }
        let State::Closed(producer) = std::mem::replace(&mut gate.state, State::Taken) else {
            return;
        };
        if gate.node.is_none() && producer.needs_waker() {
            gate.node = Some(Node::new(self.inbox.ready.clone(), id as u32));
        }
        if !producer.is_reading() {
            gate.attempts = gate.attempts.saturating_add(1);
            self.inbox.counts.reads.add(1);
        }
        if gate.first_read.is_none() && producer.needs_waker() {
            gate.first_read = Some(Instant::now());
        }
        let retry = self.settings.retry;
        let deadline = gate.first_read.map(|first| retry.deadline(first));
        self.attempt.set(gate.attempts, retry.budget(), deadline);
        let timed = self.settings.observer.wants_timing();
        let node = gate.node.clone();
        match producer.read(&self.attempt, node.as_ref(), &self.inbox.counts, timed) {
            Answer::Open(payload) => self.open(id, Outcome::Push(payload)),
            Answer::Failed(reason) => self.fail(id, reason, Outcome::Lose),
            Answer::NotYet(producer) => {
                self.gates[id].state = State::Closed(producer);
                let asked_for = self.attempt.known_deadline();
                self.retry_later(id, asked_for);
            }
            Answer::Waits(producer) => {
                self.gates[id].state = State::Closed(producer);
                // Nothing polls: the timer is there for the deadline alone.
                if let Some(deadline) = deadline {
                    self.set_timer(id, Some(deadline));
                }
            }
        }
    }

    /// Sets the time of the next read, or of the expiry.
    fn retry_later(&mut self, id: usize, asked_for: Option<Instant>) {
        let retry = self.settings.retry;
        let now = Instant::now();
        let gate = &mut self.gates[id];
        let first = *gate.first_read.get_or_insert_with(|| {
            // The producer may have fixed the deadline before its read ended.
            asked_for
                .and_then(|at| at.checked_sub(retry.budget()))
                .unwrap_or(now)
        });
        let at = match retry.next(first, now, gate.attempts) {
            Some(next) => next,
            None if now >= retry.deadline(first) => return self.expire(id),
            None => retry.deadline(first),
        };
        self.set_timer(id, Some(at));
    }

    fn set_timer(&mut self, id: usize, at: Option<Instant>) {
        let gate = &mut self.gates[id];
        if gate.timer == at {
            return;
        }
        if let Some(before) = gate.timer {
            self.timers.remove(&(before, id));
        }
        gate.timer = at;
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    /// Neither timer nor waker concern the gate any more.
    pub(super) fn stop_waiting(&mut self, id: usize) {
        self.set_timer(id, None);
        if let Some(node) = self.gates[id].node.take() {
            node.retire();
        }
    }

    fn expire(&mut self, id: usize) {
        let outcome = match self.settings.expiry {
            // What was refused is missed, however its gate ends.
            Expiry::Skip if !self.gates[id].delivery.was_refused() => Outcome::Skip,
            _ => Outcome::Lose,
        };
        self.fail(id, SkipReason::Expired, outcome);
    }

    /// Ends a gate that nobody is there for any more, so that it asks the view no further.
    fn abandon(&mut self, id: usize) {
        self.fail(id, SkipReason::Abandoned, Outcome::Nothing);
    }

    fn fail(&mut self, id: usize, reason: SkipReason, outcome: Outcome<T>) {
        let gate = &self.gates[id];
        self.note_failure(&self.lanes[gate.lane].channel, &gate.delivery, reason);
        self.open(id, outcome);
    }

    /// Whether all who would get what comes out of a gate have left. Who subscribes from now on does
    /// so later than the submit.
    fn is_abandoned(&self, id: usize) -> bool {
        let gate = &self.gates[id];
        match &gate.delivery {
            Delivery::First(_, mailbox) => mailbox.is_closed(),
            _ => self.lanes[gate.lane].channel.subscribers() == 0,
        }
    }

    /// The gate's outcome is known.
    fn open(&mut self, id: usize, outcome: Outcome<T>) {
        self.stop_waiting(id);
        let before = std::mem::replace(&mut self.gates[id].state, State::Open(outcome));
        discard(before);
        self.head_may_go(self.gates[id].lane, id);
    }

    fn head_may_go(&mut self, lane: usize, gate: usize) {
        if self.lanes[lane].gates.front() == Some(&gate) {
            self.schedule(lane);
        }
    }

    fn run_woken(&mut self) -> bool {
        let woken = self.inbox.ready.len();
        for done in 0..woken {
            if done >= REPEATS || (done > 0 && self.inbox.bell.has_rung()) {
                return true;
            }
            match self.inbox.ready.take() {
                Some(gate) => self.read_woken(gate as usize),
                None => return false,
            }
        }
        false
    }

    fn run_timers(&mut self) -> bool {
        if self.timers.is_empty() {
            return false;
        }
        let now = Instant::now();
        for done in 0.. {
            let Some(&(at, id)) = self.timers.first() else {
                return false;
            };
            if at > now {
                return false;
            }
            if done >= REPEATS || (done > 0 && self.inbox.bell.has_rung()) {
                return true;
            }
            self.timers.pop_first();
            let gate = &mut self.gates[id];
            gate.timer = None;
            let due = gate
                .first_read
                .map(|first| self.settings.retry.deadline(first));
            let (reading, reached) = match &gate.state {
                State::Closed(p) => (p.is_reading() || p.is_reached(), p.has_reached()),
                _ => (false, false),
            };
            // A shard that is late makes a read that was due before the deadline, and pushes what is
            // visible by a watermark's word: its wake waits behind others.
            if reached {
                self.read(id);
            } else if due.is_some_and(|due| at >= due || (reading && now >= due)) {
                self.expire(id);
            } else if self.is_abandoned(id) {
                self.abandon(id);
            } else {
                self.read(id);
            }
        }
        false
    }

    /// Gives up everything that waits or is queued; nothing comes after it.
    pub(crate) fn close(&mut self) {
        let mut messages = std::mem::take(&mut self.messages);
        let mut refusals = Vec::new();
        self.inbox.finish(&mut messages, &mut refusals);
        let lanes: Vec<usize> = self.lanes.iter().map(|(lane, _)| lane).collect();
        for lane in lanes {
            self.cancel_lane(lane);
        }
        for message in messages.drain(..) {
            let jobs = message.into_jobs();
            self.inbox.take_in_hand(jobs.len());
            for job in jobs {
                self.counts().jobs.add(1);
                let Job {
                    channel,
                    source,
                    delivery,
                    submitted,
                    ..
                } = job;
                match source {
                    // Published already, and only handed over: it is told as it is.
                    Source::Ready(payload) => {
                        let meta = Meta {
                            submitted,
                            attempts: 0,
                            published: true,
                        };
                        self.push_at_close(&channel, &delivery, payload, &meta);
                    }
                    other => {
                        discard(other);
                        self.give_up(&channel, &delivery);
                    }
                }
                self.release(&channel, &delivery);
                self.inbox.put_down(1);
            }
        }
        for (channel, refusal) in refusals {
            channel.lose(refusal.lost);
            discard(refusal);
        }
        self.inbox.ready.clear();
    }

    /// The registry closes before a notice was pushed.
    pub(super) fn cancelled(&self, channel: &Channel<T>, delivery: &Delivery<T>) {
        self.counts().cancelled.add(1);
        if !delivery.was_refused() {
            self.settings
                .observer
                .dropped(channel.attached.key(), DropReason::Closed);
        }
    }
}
