//! R1 to R6, R10, R13, R17, R18: random calls against a naive model.
//!
//! The model keeps, for each subscriber, the list of all that happened to its key and is not read
//! yet, in the plainest way. There is one shard, and each call is settled before the next, so what
//! a registry does on its own thread has to be what the model does at once.

mod model;

use afterwrite::{
    Closer, Gate, Notice, Overflow, Published, Registry, Retry, Submitted, SubscribeError,
    SubscribeOptions, Subscription, TryRecvError, Watermark,
};
use model::{Expected, Model, What};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const KEYS: [&str; 3] = ["a", "b", "c"];
const CAP: usize = 4;
const SOON: Duration = Duration::from_secs(60);

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
    Submit(usize),
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
        40 => key.clone().prop_map(Call::Submit),
        20 => key.clone().prop_map(Call::SubmitPanicking),
        30 => (key.clone(), 0u64..3).prop_map(|(key, ahead)| Call::SubmitAt(key, ahead)),
        10 => key.prop_map(Call::Batch),
        20 => Just(Call::Advance),
        1 => Just(Call::CloseRegistry),
    ]
}

struct Real {
    registry: Registry<u64>,
    view: Watermark,
    subscriptions: Vec<(Subscription<u64>, Closer, bool)>,
    marker: Subscription<u64>,
    value: u64,
}

impl Real {
    fn new() -> Self {
        let registry: Registry<u64> = Registry::builder()
            .workers(1)
            .max_subscribers_per_key(CAP)
            .pending_per_key(1000)
            .queue_capacity(1000)
            .retry(Retry::backoff(Duration::MAX))
            .build()
            .expect("the settings are sound");
        Self {
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
        if !self.registry.is_closed() {
            assert_eq!(
                self.registry.submit("marker", |_| Some(0)),
                Submitted::Queued
            );
            assert_eq!(self.marker.recv_timeout(SOON), Ok(Notice::Changed(0)));
        }
        let began = Instant::now();
        while self.registry.stats().shards[0].waiting != waiting {
            assert!(began.elapsed() < SOON, "{waiting} should wait");
            std::thread::yield_now();
        }
    }
}

fn submitted(outcome: Submitted, model: &Model, key: usize) -> bool {
    let expected = if model.closed {
        Submitted::Closed
    } else if model.count(key) == 0 {
        Submitted::NoSubscribers
    } else {
        Submitted::Queued
    };
    assert_eq!(outcome, expected);
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
                let gate = Gate::read(move |_| Some(value));
                real.registry.subscribe_gate(KEYS[key], options, gate)
            } else {
                real.registry.subscribe_with(KEYS[key], options)
            };
            match outcome {
                Ok(subscription) => {
                    assert!(!model.closed && model.count(key) < CAP);
                    let closer = subscription.closer();
                    real.subscriptions.push((subscription, closer, true));
                    let index = model.subscribe(key, overflow, capacity);
                    if gated {
                        model.gate(key, 0, What::First(index, value));
                    }
                }
                Err(SubscribeError::Closed) => assert!(model.closed),
                Err(SubscribeError::Full { limit: CAP }) => assert_eq!(model.count(key), CAP),
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
                *exact &= closer.is_closed();
                closer.close();
                model.unsubscribe(index);
            }
        }
        Call::Receive(index) => {
            if let Some(index) = pick(index, real) {
                let got = real.subscriptions[index].0.try_recv();
                match (got, model.receive(index)) {
                    (Ok(Notice::Changed(value)), Expected::Payload(expected)) => {
                        assert_eq!(value, expected);
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
                    (got, expected) => panic!("{got:?}, and the model has {expected:?}"),
                }
            }
        }
        Call::Publish(key) => {
            let value = real.fresh();
            let outcome = real.registry.publish(KEYS[key], value);
            if model.closed {
                assert_eq!(outcome, Published::Closed);
            } else {
                assert_eq!(outcome, Published::Reached(model.push(key, value)));
            }
        }
        Call::Submit(key) => {
            let value = real.fresh();
            let outcome = real.registry.submit(KEYS[key], move |_| Some(value));
            if submitted(outcome, model, key) {
                model.gate(key, 0, What::Push(value));
            }
        }
        Call::SubmitPanicking(key) => {
            let outcome = real
                .registry
                .submit(KEYS[key], |_| std::panic::resume_unwind(Box::new(())));
            if submitted(outcome, model, key) {
                model.gate(key, 0, What::Lose);
            }
        }
        Call::SubmitAt(key, ahead) => {
            let value = real.fresh();
            let position = model.position + ahead;
            let reached = real.view.reached(position);
            let outcome = real.registry.submit_at(KEYS[key], reached, value);
            if submitted(outcome, model, key) {
                model.gate(key, position, What::Push(value));
            }
        }
        Call::Batch(first) => {
            let batch: Vec<_> = (0..4)
                .map(|n| ((first + n) % KEYS.len(), real.fresh()))
                .collect();
            let outcome = real.registry.submit_batch(
                batch
                    .iter()
                    .map(|&(key, value)| (KEYS[key], Gate::read(move |_| Some(value)))),
            );
            let mut queued = 0;
            for (key, value) in batch {
                if !model.closed && model.count(key) > 0 {
                    queued += 1;
                    model.gate(key, 0, What::Push(value));
                }
            }
            assert_eq!(outcome.queued, queued);
            assert_eq!(outcome.queue_full, 0);
            assert_eq!(outcome.closed + outcome.no_subscribers, 4 - queued);
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
    let marker = usize::from(!real.marker.closer().is_closed());
    assert_eq!(real.registry.stats().subscribers, standing + marker);
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
        calls in prop::collection::vec(call(), 1..150)
    ) {
        let mut real = Real::new();
        let mut model = Model::new(KEYS.len());
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
            if *exact {
                prop_assert_eq!(sum, model.sent(0));
            } else {
                prop_assert!(sum <= model.sent(0));
            }
            step(Call::Drop(0), &mut real, &mut model);
        }
    }
}
