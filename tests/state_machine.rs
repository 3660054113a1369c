//! R1 to R6, R9, R10, R12, R13, R17, R18, R23: random calls against a naive model.
//!
//! The model keeps, for each subscriber, the list of all that happened to its key and is not read
//! yet, in the plainest way. There is one shard, and each call is settled before the next, so what
//! a registry does on its own thread has to be what the model does at once.
//!
//! A key has few places for gates, so that submits are refused. Three kinds of registry are tried: a
//! plain one, one that coalesces, and one whose gates expire at once, in silence or not (there, a call
//! whose gate would wait is left out).

mod model;

use afterwrite::{
    Closer, Expiry, Gate, Notice, Overflow, Published, Registry, Retry, Submitted, SubscribeError,
    SubscribeOptions, Subscription, TryRecvError, Watermark,
};
use model::{Expected, Model, What};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEYS: [&str; 3] = ["a", "b", "c"];
const CAP: usize = 4;
const PLACES: usize = 3;
const SOON: Duration = Duration::from_secs(60);

/// A value whose first clone may publish, in the midst of its own push.
struct Payload {
    value: u64,
    on_clone: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Clone for Payload {
    fn clone(&self) -> Self {
        if let Some(call) = &self.on_clone {
            call();
        }
        plain(self.value)
    }
}

fn plain(value: u64) -> Payload {
    Payload {
        value,
        on_clone: None,
    }
}

/// What kind of registry.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Coalescing,
    Expiring(Expiry),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Plain),
        Just(Kind::Coalescing),
        Just(Kind::Expiring(Expiry::Missed)),
        Just(Kind::Expiring(Expiry::Skip)),
    ]
}

#[derive(Clone, Debug)]
enum Call {
    Subscribe {
        key: usize,
        overflow: Overflow,
        capacity: usize,
        gated: bool,
    },
    Drop(usize),
    Close(usize),
    CloserClose(usize),
    Receive(usize),
    Publish(usize),
    PublishTwice(usize),
    Submit(usize),
    SubmitExpiring(usize),
    SubmitPanicking(usize),
    SubmitAt(usize, u64),
    Batch(usize),
    Advance,
    CloseRegistry,
}

fn call() -> impl Strategy<Value = Call> {
    let key = 0..KEYS.len();
    let overflow = prop_oneof![
        Just(Overflow::DropNewest),
        Just(Overflow::DropOldest),
        Just(Overflow::Conflate),
    ];
    prop_oneof![
        40 => (key.clone(), overflow, 1usize..4, prop::bool::weighted(0.3)).prop_map(
            |(key, overflow, capacity, gated)| Call::Subscribe { key, overflow, capacity, gated }
        ),
        8 => any::<usize>().prop_map(Call::Drop),
        8 => any::<usize>().prop_map(Call::Close),
        8 => any::<usize>().prop_map(Call::CloserClose),
        120 => any::<usize>().prop_map(Call::Receive),
        80 => key.clone().prop_map(Call::Publish),
        20 => key.clone().prop_map(Call::PublishTwice),
        40 => key.clone().prop_map(Call::Submit),
        10 => key.clone().prop_map(Call::SubmitExpiring),
        20 => key.clone().prop_map(Call::SubmitPanicking),
        60 => (key.clone(), 0u64..4).prop_map(|(key, ahead)| Call::SubmitAt(key, ahead)),
        10 => key.prop_map(Call::Batch),
        20 => Just(Call::Advance),
        1 => Just(Call::CloseRegistry),
    ]
}

struct Real {
    kind: Kind,
    registry: Registry<Payload>,
    view: Watermark,
    subscriptions: Vec<(Subscription<Payload>, Closer, bool)>,
    marker: Subscription<Payload>,
    value: u64,
}

impl Real {
    fn new(kind: Kind) -> Self {
        let builder = Registry::builder()
            .workers(1)
            .max_subscribers_per_key(CAP)
            .pending_per_key(PLACES)
            .queue_capacity(1000);
        let builder = match kind {
            Kind::Plain => builder.retry(Retry::backoff(Duration::MAX)),
            Kind::Coalescing => builder.retry(Retry::backoff(Duration::MAX)).coalesce(true),
            Kind::Expiring(expiry) => builder
                .retry(Retry::fixed(0, Duration::from_millis(1)))
                .expiry(expiry),
        };
        let registry = builder.build().expect("the settings are sound");
        Self {
            kind,
            view: Watermark::new(0),
            subscriptions: Vec::new(),
            marker: registry.subscribe("marker").expect("there is room"),
            value: 0,
            registry,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.value += 1;
        self.value
    }

    /// Until the shard has done all that was asked of it, and as many gates wait as should.
    fn settle(&mut self, waiting: usize) {
        self.mark();
        let began = Instant::now();
        while self.registry.stats().shards[0].waiting != waiting {
            assert!(began.elapsed() < SOON, "{waiting} should wait");
            std::thread::yield_now();
        }
        // A gate gives its place back just after it has ceased to wait.
        self.mark();
    }

    /// A round through the shard.
    fn mark(&mut self) {
        if self.registry.is_closed() {
            return;
        }
        let submitted = self.registry.submit("marker", |_| Some(plain(0)));
        assert_eq!(submitted, Submitted::Queued);
        let marked = self.marker.recv_timeout(SOON);
        let marked = marked.map(|notice| notice.map(|payload| payload.value));
        assert_eq!(marked, Ok(Notice::Changed(0)));
    }
}

/// Whether a gate was taken over; refused ones are told to the model.
fn submitted(outcome: Submitted, model: &mut Model, key: usize, position: u64) -> bool {
    let expected = if model.closed {
        Submitted::Closed
    } else if model.count(key) == 0 {
        Submitted::NoSubscribers
    } else if model.pending(key) == PLACES {
        Submitted::QueueFull
    } else {
        Submitted::Queued
    };
    assert_eq!(outcome, expected);
    if outcome == Submitted::QueueFull {
        model.refuse(key, position);
    }
    outcome == Submitted::Queued
}

fn step(call: Call, real: &mut Real, model: &mut Model) {
    let pick = |index: usize, real: &Real| match real.subscriptions.len() {
        0 => None,
        len => Some(index % len),
    };
    match call {
        Call::Subscribe {
            key,
            overflow,
            capacity,
            gated,
        } => {
            let options = SubscribeOptions::new()
                .overflow(overflow)
                .buffer_capacity(capacity);
            let value = real.fresh();
            let outcome = if gated {
                let gate = Gate::read(move |_| Some(plain(value)));
                real.registry.subscribe_gated_with(KEYS[key], options, gate)
            } else {
                real.registry.subscribe_with(KEYS[key], options)
            };
            match outcome {
                Ok(subscription) => {
                    assert!(!model.closed && model.count(key) < CAP);
                    assert!(!gated || model.pending(key) < PLACES);
                    let closer = subscription.closer();
                    real.subscriptions.push((subscription, closer, true));
                    let index = model.subscribe(key, overflow, capacity);
                    if gated {
                        model.gate(key, 0, What::First(index, Some(value)));
                    }
                }
                Err(SubscribeError::Closed) => assert!(model.closed),
                Err(SubscribeError::Full { limit: CAP, .. }) => assert_eq!(model.count(key), CAP),
                Err(SubscribeError::QueueFull) => {
                    assert!(gated && model.pending(key) == PLACES);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        Call::Drop(index) => {
            if let Some(index) = pick(index, real) {
                drop(real.subscriptions.swap_remove(index));
                model.unsubscribe(index);
                model.forget(index);
            }
        }
        Call::Close(index) => {
            if let Some(index) = pick(index, real) {
                real.subscriptions[index].0.close();
                model.unsubscribe(index);
            }
        }
        Call::CloserClose(index) => {
            if let Some(index) = pick(index, real) {
                let (_, closer, exact) = &mut real.subscriptions[index];
                // What a full buffer had lost, and was not told before, goes untold.
                *exact &= model.aside(index).is_none();
                closer.close();
                model.unsubscribe(index);
            }
        }
        Call::Receive(index) => {
            if let Some(index) = pick(index, real) {
                let got = real.subscriptions[index].0.try_recv();
                match (got, model.receive(index)) {
                    (Ok(Notice::Changed(payload)), Expected::Payload(expected)) => {
                        assert_eq!(payload.value, expected);
                    }
                    (Ok(Notice::Missed { n, visible }), Expected::Missed { lost, seen, later }) => {
                        assert_eq!(n, lost);
                        // Cautious is allowed, careless is not.
                        assert!(
                            if visible { seen } else { !seen || later },
                            "{index}: {n} visible {visible}, model: seen {seen} later {later}"
                        );
                    }
                    (Err(TryRecvError::Empty), Expected::Empty) => {}
                    (Err(TryRecvError::Ended), Expected::Ended) => {}
                    (got, expected) => {
                        let got = got.map(|notice| notice.map(|payload| payload.value));
                        panic!("{got:?}, and the model has {expected:?}");
                    }
                }
            }
        }
        Call::Publish(key) => {
            let value = real.fresh();
            let outcome = real.registry.publish(KEYS[key], plain(value));
            if model.closed {
                assert_eq!(outcome, Published::Closed);
            } else {
                assert_eq!(outcome, Published::Reached(model.push(key, value)));
            }
        }
        Call::PublishTwice(key) if !model.closed => {
            let (value, second) = (real.fresh(), real.fresh());
            // Once, in the midst of the first one's push: it is handed over.
            let handed = Arc::new(Mutex::new(None));
            let (registry, noted) = (real.registry.clone(), handed.clone());
            let publish = move || {
                let mut noted = noted.lock().unwrap();
                if noted.is_none() {
                    *noted = Some(registry.publish(KEYS[key], plain(second)));
                }
            };
            let payload = Payload {
                value,
                on_clone: Some(Arc::new(publish)),
            };
            let outcome = real.registry.publish(KEYS[key], payload);
            assert_eq!(outcome, Published::Reached(model.push(key, value)));
            // Nothing is cloned for one subscriber, or for full buffers.
            if let Some(handed) = *handed.lock().unwrap() {
                assert_eq!(handed, Published::HandedOver);
                model.push(key, second);
            }
        }
        Call::PublishTwice(_) => {}
        Call::Submit(key) => {
            let value = real.fresh();
            let outcome = real.registry.submit(KEYS[key], move |_| Some(plain(value)));
            if submitted(outcome, model, key, 0) {
                model.gate(key, 0, What::Push(value));
            }
        }
        Call::SubmitExpiring(key) => {
            let Kind::Expiring(expiry) = real.kind else {
                return;
            };
            let outcome = real.registry.submit(KEYS[key], |_| None);
            if submitted(outcome, model, key, 0) {
                let what = match expiry {
                    Expiry::Skip => What::Skip,
                    _ => What::Lose,
                };
                model.gate(key, 0, what);
            }
        }
        Call::SubmitPanicking(key) => {
            let outcome = real
                .registry
                .submit(KEYS[key], |_| std::panic::resume_unwind(Box::new(())));
            if submitted(outcome, model, key, 0) {
                model.gate(key, 0, What::Lose);
            }
        }
        Call::SubmitAt(key, ahead) => {
            if ahead > 0 && matches!(real.kind, Kind::Expiring(_)) {
                return;
            }
            let value = real.fresh();
            let position = model.position + ahead;
            let reached = real.view.reached(position);
            let outcome = real.registry.submit_at(KEYS[key], reached, plain(value));
            if submitted(outcome, model, key, position) {
                model.gate(key, position, What::Push(value));
            }
        }
        Call::Batch(first) => {
            // One gate a key: what is refused hangs on what the shard has done by then.
            let batch: Vec<_> = (0..KEYS.len())
                .map(|n| ((first + n) % KEYS.len(), real.fresh()))
                .collect();
            let outcome = real.registry.submit_batch(
                batch
                    .iter()
                    .map(|&(key, value)| (KEYS[key], Gate::read(move |_| Some(plain(value))))),
            );
            let mut expected = [0; 4];
            for (key, value) in batch {
                if model.closed {
                    expected[3] += 1;
                } else if model.count(key) == 0 {
                    expected[1] += 1;
                } else if model.pending(key) == PLACES {
                    expected[2] += 1;
                    model.refuse(key, 0);
                } else {
                    expected[0] += 1;
                    model.gate(key, 0, What::Push(value));
                }
            }
            let got = [
                outcome.queued,
                outcome.no_subscribers,
                outcome.queue_full,
                outcome.closed,
            ];
            assert_eq!(got, expected);
        }
        Call::Advance => {
            real.view.advance(model.position + 1);
            model.advance();
        }
        Call::CloseRegistry => {
            real.registry.close();
            model.close();
        }
    }
    real.settle(model.waiting());
    let standing: usize = (0..KEYS.len()).map(|key| model.count(key)).sum();
    assert_eq!(real.registry.stats().subscribers, standing + 1);
    for (key, name) in KEYS.iter().enumerate() {
        assert_eq!(real.registry.subscriber_count(name), model.count(key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_registry_does_what_the_naive_model_does(
        kind in kind(),
        calls in prop::collection::vec(call(), 1..150)
    ) {
        let mut real = Real::new(kind);
        let mut model = Model::new(KEYS.len(), matches!(kind, Kind::Coalescing));
        for call in calls {
            step(call, &mut real, &mut model);
        }
        step(Call::CloseRegistry, &mut real, &mut model);
        // To the end, whatever is there; then the ledger of each.
        while !real.subscriptions.is_empty() {
            loop {
                let ended = matches!(model.peek(0), Expected::Ended);
                step(Call::Receive(0), &mut real, &mut model);
                if ended {
                    break;
                }
            }
            let (subscription, _, exact) = &real.subscriptions[0];
            let tally = subscription.tally();
            let sum = tally.received + tally.missed + tally.merged + tally.discarded;
            if let Some(aside) = model.aside(0) {
                prop_assert_eq!(subscription.coalesced() + subscription.skipped(), aside);
            }
            if *exact {
                prop_assert_eq!(sum, model.sent(0));
            } else {
                prop_assert!(sum <= model.sent(0));
            }
            step(Call::Drop(0), &mut real, &mut model);
        }
    }
}
