//! What only the inside can show: that pushes need no writer's lock.

use std::sync::mpsc;
use std::time::Duration;

use crate::{Notice, Overflow, Published, Registry, Submitted, SubscribeOptions};

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
        let topic = subscriptions[0].receiver().topic().clone();
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
