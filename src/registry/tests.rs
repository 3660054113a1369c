//! What only the inside can show: that pushes need no writer's lock, that a batch is one message, that a
//! planted race is seen.

use std::sync::mpsc;
use std::time::Duration;

use crate::{
    Gate, Notice, Overflow, Published, Registry, Submitted, SubscribeOptions, TryRecvError,
};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn r14_pushes_finish_while_every_writers_lock_is_held() {
    let registry: Registry<u64> = Registry::builder().workers(1).build().unwrap();
    for overflow in [
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Conflate,
    ] {
        let options = SubscribeOptions::new()
            .overflow(overflow)
            .buffer_capacity(4);
        let mut subscriptions = [(); 3].map(|()| registry.subscribe_with("a", options).unwrap());
        let key = registry.key("a").unwrap();
        let topic = subscriptions[0].receiver().clone_topic();
        let directory = registry.lock_all_writers();
        let writers = topic.lock_writers();

        // Writers wait, on a key that is there and on one that is not.
        let (tell, told) = mpsc::channel();
        let waiting: Vec<_> = ["a", "b"]
            .map(|name| {
                let (registry, tell) = (registry.clone(), tell.clone());
                std::thread::spawn(move || {
                    let subscribed = registry.subscribe(name).map(drop);
                    tell.send(()).unwrap();
                    subscribed
                })
            })
            .into();
        // Pushes do not: by the key, by its handle, into full buffers, through the shard; nor do a
        // miss, a receive, a wait, a loss.
        let (done, finished) = mpsc::channel();
        let pushing = {
            let registry = registry.clone();
            std::thread::spawn(move || {
                for value in 0..10 {
                    assert!(matches!(
                        registry.publish("a", value),
                        Published::Reached(_)
                    ));
                    assert!(matches!(key.publish(value), Published::Reached(_)));
                }
                assert_eq!(registry.publish("nobody", 0), Published::Reached(0));
                assert_eq!(registry.subscriber_count("a"), 3);
                for subscription in &mut subscriptions {
                    while subscription.try_recv().is_ok() {}
                }
                assert_eq!(registry.submit("a", |_| Some(77)), Submitted::Queued);
                for subscription in &mut subscriptions {
                    let got = subscription.recv_timeout(SOON);
                    assert_eq!(got, Ok(Notice::Changed(77)));
                }
                subscriptions[0].receiver().topic().lose(2);
                let lost = Notice::Missed {
                    n: 2,
                    visible: false,
                };
                for subscription in &mut subscriptions {
                    assert_eq!(subscription.recv_timeout(SOON), Ok(lost));
                }
                done.send(()).unwrap();
                (subscriptions, key)
            })
        };
        assert_eq!(finished.recv_timeout(SOON), Ok(()), "{overflow:?}");
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(writers);
        drop(directory);
        for writer in waiting {
            writer.join().unwrap().unwrap();
        }
        drop(pushing.join().unwrap());
    }
    registry.close();
}

#[test]
fn r24_a_batch_is_grouped_first_and_then_one_hand_over_for_each_shard() {
    let registry = Registry::<u64>::builder()
        .workers(2)
        .queue_capacity(1_000)
        .build()
        .unwrap();
    let mut subscriptions: Vec<_> = (0..100)
        .map(|n| registry.subscribe(&format!("k{n}")).unwrap())
        .collect();
    // A producer that blocks, on each shard.
    let (enter, entered) = mpsc::channel();
    let mut blocked = Vec::new();
    for shard in 0..2 {
        let on_shard = subscriptions
            .iter()
            .find(|of| of.receiver().topic().attached.shard.index == shard)
            .expect("a hundred keys reach both shards");
        let (release, released) = mpsc::channel::<()>();
        let enter = enter.clone();
        let submitted = registry.submit(on_shard.key(), move |_| {
            enter.send(()).unwrap();
            let _ = released.recv_timeout(SOON);
            Some(0)
        });
        assert_eq!(submitted, Submitted::Queued);
        entered.recv_timeout(SOON).unwrap();
        blocked.push(release);
    }
    let messages = || registry.core().shards.iter().map(|shard| shard.messages());
    let batch = (0..100).map(|n| {
        assert_eq!(messages().sum::<usize>(), 0, "nothing goes before the last");
        (format!("k{n}"), Gate::read(move |_| Some(n)))
    });
    let outcome = registry.submit_batch(batch);
    assert_eq!(outcome.queued, 100);
    assert!(messages().eq([1, 1]));
    let queued: usize = registry.stats().shards.iter().map(|s| s.queued).sum();
    assert_eq!(100usize, queued);
    drop(blocked);
    for (n, subscription) in subscriptions.iter_mut().enumerate() {
        let got = subscription.recv_timeout(SOON);
        assert!(got.is_ok(), "{n}: {got:?}");
    }
}

/// With room for all, nothing but the stamps orders a push before its receive: each payload that is
/// not published is a race for the sanitizer to report, however the two threads are scheduled. The
/// pusher stays until the end, since the sanitizer forgets what a thread that has ended did.
#[test]
fn r15_a_receiver_that_misses_nothing_sees_whole_payloads() {
    const PUSHES: u64 = 4_096;
    let registry: Registry<[u64; 4]> = Registry::builder().workers(1).build().unwrap();
    let options = SubscribeOptions::new().buffer_capacity(PUSHES as usize);
    let mut subscription = registry.subscribe_with("a", options).unwrap();
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ended = ended;
            for value in 1..=PUSHES {
                let _ = registry.publish("a", [value; 4]);
            }
            let _ = ended.recv();
        });
        for value in 1..=PUSHES {
            let payload = loop {
                match subscription.try_recv() {
                    Ok(Notice::Changed(payload)) => break payload,
                    Err(TryRecvError::Empty) => std::thread::yield_now(),
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(payload, [value; 4]);
        }
        drop(end);
    });
}
