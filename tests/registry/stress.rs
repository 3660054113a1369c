//! R4, R15, under many threads: the ledger comes from outcomes and receipts alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use afterwrite::{
    Notice, Published, Registry, Submitted, SubscribeOptions, TryRecvError, Watermark,
};

use crate::support::*;
use parking_lot::Mutex;

const KEYS: usize = 4;

/// Each sender's number and the number of its push, with a key.
#[derive(Debug)]
struct Sent {
    sender: usize,
    n: u64,
    alive: Arc<AtomicUsize>,
}

impl Sent {
    fn new(sender: usize, n: u64, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        let alive = alive.clone();
        Self { sender, n, alive }
    }
}

impl Clone for Sent {
    fn clone(&self) -> Self {
        Self::new(self.sender, self.n, &self.alive)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

#[test]
fn r15_no_push_is_lost_doubled_or_out_of_order() {
    const EACH: u64 = 3_000;
    const SENDERS: usize = 4;
    let registry: Registry<Sent> = Registry::builder()
        .workers(2)
        .queue_capacity(16)
        .buffer_capacity(4)
        .build()
        .unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let view = Watermark::new(0);
    let sent = Mutex::new(HashMap::<usize, u64>::new());
    let standing: Vec<_> = (0..KEYS)
        .flat_map(|key| POLICIES.map(|overflow| (key, overflow)))
        .map(|(key, overflow)| {
            let options = SubscribeOptions::new().overflow(overflow);
            (
                key,
                registry
                    .subscribe_with(&format!("k{key}"), options)
                    .unwrap(),
            )
        })
        .collect();
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let receivers: Vec<_> = standing
            .into_iter()
            .map(|(key, mut subscription)| {
                scope.spawn(move || {
                    let mut last = [None; SENDERS];
                    let mut counted = 0;
                    while let Some(notice) = subscription.recv_blocking() {
                        match notice {
                            Notice::Changed(sent) => {
                                assert!(last[sent.sender] < Some(sent.n), "order and no doubles");
                                last[sent.sender] = Some(sent.n);
                                counted += 1;
                            }
                            Notice::Missed { n, .. } => counted += n,
                        }
                    }
                    (key, counted + subscription.tally().merged)
                })
            })
            .collect();
        // Others come and go, by each way of going.
        let churn = scope.spawn(|| {
            let stopped = stopped;
            for n in 0usize.. {
                if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
                    break;
                }
                let options = SubscribeOptions::new()
                    .overflow(POLICIES[n % 3])
                    .buffer_capacity(1 + n % 2);
                let key = format!("k{}", n % (KEYS + 1));
                let mut subscription = registry.subscribe_with(&key, options).unwrap();
                match n % 4 {
                    0 => drop(subscription),
                    1 => subscription.close(),
                    2 => subscription.closer().close(),
                    _ => {
                        let _ = subscription.try_recv();
                    }
                }
            }
        });
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (registry, sent, alive, view) = (&registry, &sent, &alive, &view);
                scope.spawn(move || {
                    let mut own = HashMap::new();
                    for n in 0..EACH {
                        let key = (n as usize * 7 + sender) % KEYS;
                        let name = format!("k{key}");
                        let mut payload = Some(Sent::new(sender, n, alive));
                        let counted = match sender {
                            0 => !matches!(
                                registry.publish(&name, payload.take().unwrap()),
                                Published::Closed
                            ),
                            1 => matches!(
                                registry.submit(&name, move |_| payload.take()),
                                Submitted::Queued | Submitted::QueueFull
                            ),
                            2 => {
                                let at = view.reached(n + 1);
                                let submitted =
                                    registry.submit_at(&name, at, payload.take().unwrap());
                                view.advance(n + 1);
                                matches!(submitted, Submitted::Queued | Submitted::QueueFull)
                            }
                            _ => matches!(
                                registry.submit_async(&name, move |_| {
                                    let payload = payload.take();
                                    async move {
                                        tokio::task::yield_now().await;
                                        payload
                                    }
                                }),
                                Submitted::Queued | Submitted::QueueFull
                            ),
                        };
                        assert!(counted);
                        *own.entry(key).or_insert(0) += 1;
                    }
                    let mut sent = sent.lock();
                    for (key, n) in own {
                        *sent.entry(key).or_insert(0) += n;
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|s| s.join().unwrap());
        stop.send(()).unwrap();
        churn.join().unwrap();
        registry.close();
        let sent = sent.lock();
        for receiver in receivers {
            let (key, counted) = receiver.join().unwrap();
            assert_eq!(counted, sent[&key], "k{key}");
        }
    });
    assert_eq!(registry.stats().subscribers, 0);
    drop(registry);
    until("every payload is dropped", || alive.load(SeqCst) == 0);
}

#[test]
fn r15_tasks_that_sleep_are_all_woken() {
    const TASKS: usize = 64;
    const ROUNDS: u64 = 300;
    let registry: Registry<u64> = Registry::builder().workers(1).build().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let (done, rounds) = mpsc::channel();
    for _ in 0..TASKS {
        let mut subscription = registry.subscribe("a").unwrap();
        let done = done.clone();
        runtime.spawn(async move {
            while let Some(notice) = subscription.recv().await {
                assert!(matches!(notice, Notice::Changed(_)));
                done.send(()).unwrap();
            }
        });
    }
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            // The shard may still be leaving its last push.
            let published = registry.publish("a", round);
            assert!(matches!(
                published,
                Published::Reached(TASKS) | Published::HandedOver
            ));
        } else {
            queued(registry.submit("a", move |_| Some(round)));
        }
        for _ in 0..TASKS {
            rounds.recv_timeout(SOON).expect("a lost wake-up");
        }
    }
}

#[test]
fn r15_closing_from_elsewhere_under_load() {
    let registry: Registry<Arc<()>> = Registry::builder()
        .workers(1)
        .buffer_capacity(2)
        .build()
        .unwrap();
    let payload = Arc::new(());
    std::thread::scope(|scope| {
        let mut spawned = Vec::new();
        let (stop, stopped) = mpsc::channel::<()>();
        let (registry, payload) = (&registry, &payload);
        spawned.push(scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let _ = registry.publish("a", payload.clone());
            }
        }));
        for round in 0..2_000 {
            let options = SubscribeOptions::new().overflow(POLICIES[round % 3]);
            let mut subscription = registry.subscribe_with("a", options).unwrap();
            let closer = subscription.closer();
            std::thread::scope(|scope| {
                let closing = scope.spawn(move || closer.close());
                if round % 2 == 0 {
                    subscription.close();
                    assert_eq!(subscription.try_recv(), Err(TryRecvError::Ended));
                } else {
                    while subscription.recv_blocking().is_some() {}
                }
                closing.join().unwrap();
            });
        }
        stop.send(()).unwrap();

        for thread in spawned {
            thread.join().unwrap();
        }
    });
    registry.close();
    drop(registry);
    until("every payload is dropped", || {
        Arc::strong_count(&payload) == 1
    });
}

/// A receiver that never sleeps has nothing but the stamps between itself and the pusher.
#[test]
fn r15_a_receiver_that_only_looks_sees_whole_payloads() {
    const PUSHES: u64 = 20_000;
    for overflow in POLICIES {
        let registry: Registry<[u64; 4]> = one_shard();
        let options = SubscribeOptions::new()
            .overflow(overflow)
            .buffer_capacity(3);
        let mut subscription = registry.subscribe_with("a", options).unwrap();
        std::thread::scope(|scope| {
            let mut spawned = Vec::new();
            spawned.push(scope.spawn(|| {
                for value in 1..=PUSHES {
                    let _ = registry.publish("a", [value; 4]);
                }
            }));
            let mut counted = 0;
            while counted + subscription.tally().merged < PUSHES {
                match subscription.try_recv() {
                    Ok(Notice::Changed(payload)) => {
                        assert_eq!(payload, [payload[0]; 4]);
                        counted += 1;
                    }
                    Ok(Notice::Missed { n, visible: true }) => counted += n,
                    Ok(other) => panic!("{other:?}"),
                    Err(TryRecvError::Empty) => std::thread::yield_now(),
                    Err(TryRecvError::Ended) => panic!("nobody closes"),
                }
            }

            for thread in spawned {
                thread.join().unwrap();
            }
        });
    }
}
