//! The topic alone, one thread at a time; what threads do to it is in `loom-tests` and in the
//! stress tests.

use std::sync::Arc as StdArc;

use proptest::prelude::*;

use super::*;
use crate::arena::Shared;
use crate::topic::turn::MORE;

fn topic<T>() -> Shared<Topic<T>> {
    Shared::new(Topic::new(()))
}

fn position<T>(receiver: &Receiver<T>) -> u32 {
    let (chunk, bit) = chunk::home(receiver.mailbox());
    chunk.start + bit
}

fn changed<T>(value: T) -> Next<T> {
    Next::Changed(value)
}

fn missed<T>(n: u64, visible: bool) -> Next<T> {
    Next::Missed { n, visible }
}

#[test]
fn a_push_reaches_every_subscriber_in_order() {
    let topic = topic();
    let mut receivers: Vec<_> = (0..150)
        .map(|_| Topic::subscribe(&topic, Overflow::DropNewest, 4, 1000).unwrap())
        .collect();
    for value in 0..3u64 {
        assert_eq!(topic.try_push(value).unwrap().reached, 150);
    }
    for receiver in &mut receivers {
        assert_eq!(
            [receiver.next(), receiver.next(), receiver.next()],
            [0, 1, 2].map(changed)
        );
        assert_eq!(receiver.next(), Next::Empty);
    }
}

#[test]
fn a_walk_that_fetches_ahead_reaches_the_same_subscribers() {
    let topic = topic();
    let mut receivers: Vec<_> = (0..3000)
        .map(|_| Topic::subscribe(&topic, Overflow::DropNewest, 2, 5000).unwrap())
        .collect();
    drop(receivers.drain(1000..1100));
    for value in 0..3u64 {
        let pushed = topic.try_push(value).unwrap();
        let expected = if value < 2 { (2900, 0) } else { (0, 2900) };
        assert_eq!((pushed.reached, pushed.full), expected);
    }
    for receiver in &mut receivers {
        assert_eq!([receiver.next(), receiver.next()], [changed(0), changed(1)]);
        assert_eq!(receiver.next(), missed(1, true));
    }
}

#[test]
fn a_full_ring_drops_the_newest_and_says_so_before_the_next() {
    let topic = topic();
    let mut receiver = Topic::subscribe(&topic, Overflow::DropNewest, 2, 1000).unwrap();
    for value in 0..5u64 {
        topic.try_push(value).unwrap();
    }
    assert_eq!([receiver.next(), receiver.next()], [changed(0), changed(1)]);
    assert_eq!(receiver.next(), missed(3, true));
    assert_eq!(receiver.next(), Next::Empty);
    topic.try_push(5).unwrap();
    topic.lose(2);
    topic.try_push(6).unwrap();
    assert_eq!(
        [receiver.next(), receiver.next()],
        [changed(5), missed(2, false)]
    );
    assert_eq!(
        [receiver.next(), receiver.next()],
        [changed(6), Next::Empty]
    );
    assert_eq!((receiver.tally().received, receiver.tally().missed), (4, 5));
}

#[test]
fn drop_oldest_keeps_the_newest() {
    for capacity in 1..4 {
        let topic = topic();
        let mut receiver = Topic::subscribe(&topic, Overflow::DropOldest, capacity, 1000).unwrap();
        for value in 0..10u64 {
            topic.try_push(value).unwrap();
        }
        let kept = u64::from(capacity);
        assert_eq!(receiver.next(), missed(10 - kept, true));
        for value in 10 - kept..10 {
            assert_eq!(receiver.next(), changed(value));
        }
        assert_eq!(receiver.next(), Next::Empty);
    }
}

#[test]
fn conflate_keeps_the_latest_and_counts_the_rest_as_merged() {
    let topic = topic();
    let mut receiver = Topic::subscribe(&topic, Overflow::Conflate, 20, 1000).unwrap();
    for value in 0..10u64 {
        topic.try_push(value).unwrap();
    }
    assert_eq!(receiver.next(), changed(9));
    topic.try_push(10).unwrap();
    topic.lose(3);
    topic.try_push(11).unwrap();
    assert_eq!(
        [receiver.next(), receiver.next()],
        [missed(3, false), changed(11)]
    );
    topic.lose(1);
    assert_eq!(receiver.next(), missed(1, false));
    topic.try_push(12).unwrap();
    assert_eq!(
        [receiver.next(), receiver.next()],
        [changed(12), Next::Empty]
    );
    let Tally {
        received,
        missed,
        merged,
        ..
    } = receiver.tally();
    assert_eq!((received, missed, merged), (3, 4, 10));
}

#[test]
fn closing_drops_every_payload_once() {
    for overflow in [
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Conflate,
    ] {
        let payload = StdArc::new(());
        let topic = topic();
        let mut owner = Topic::subscribe(&topic, overflow, 3, 1000).unwrap();
        let mut other = Topic::subscribe(&topic, overflow, 3, 1000).unwrap();
        for _ in 0..5 {
            topic.try_push(payload.clone()).unwrap();
        }
        // Claimed, not yet taken: its gap comes first.
        if overflow == Overflow::DropOldest {
            assert_eq!(owner.next(), missed(2, true));
        }
        owner.close();
        assert_eq!(owner.next(), Next::Ended);
        let Tally {
            received,
            missed,
            merged,
            discarded,
        } = owner.tally();
        assert_eq!(received + missed + merged + discarded, 5, "{overflow:?}");
        assert!(topic.retire(other.mailbox()).is_some());
        assert!(topic.retire(other.mailbox()).is_none());
        assert_eq!(other.next(), Next::Ended);
        assert_eq!(topic.subscribers(), 0);
        drop((owner, other));
        assert_eq!(StdArc::strong_count(&payload), 1, "{overflow:?}");
        drop(topic);
    }
}

#[test]
fn a_close_under_a_walk_is_answered_by_the_walk() {
    let payload = StdArc::new(());
    let topic = topic();
    let receivers: Vec<_> = (0..3)
        .map(|_| Topic::subscribe(&topic, Overflow::DropNewest, 3, 1000).unwrap())
        .collect();
    topic.try_push(payload.clone()).unwrap();
    let Ok(mut walk) = Walk::begin(&*topic, payload.clone()) else {
        panic!("the turn is free")
    };
    assert!(!walk.step(1));
    drop(receivers);
    assert!(
        StdArc::strong_count(&payload) > 2,
        "the holder may still write"
    );
    assert!(matches!(
        topic.try_push(payload.clone()),
        Err(Busy::Held(_))
    ));
    while !walk.step(1) {}
    walk.finish();
    assert_eq!(StdArc::strong_count(&payload), 1);
    // Its entries are free again.
    let again = Topic::subscribe(&topic, Overflow::DropNewest, 3, 1000).unwrap();
    assert_eq!(position(&again), 0);
}

#[test]
fn entries_are_used_again_lowest_first_and_walks_shrink() {
    let topic = topic::<u8>();
    let mut receivers: Vec<_> = (0..200)
        .map(|_| Topic::subscribe(&topic, Overflow::DropNewest, 1, 1000).unwrap())
        .collect();
    let visited = topic.chunks_in_use.load(Relaxed);
    receivers.truncate(2);
    assert!(topic.chunks_in_use.load(Relaxed) < visited);
    for position in 2..30 {
        let fresh = Topic::subscribe(&topic, Overflow::DropNewest, 1, 1000).unwrap();
        assert_eq!(super::tests::position(&fresh), position);
        receivers.push(fresh);
    }
    assert_eq!(topic.try_push(1).unwrap().reached, 30);
}

#[test]
fn limits_and_shutdown_refuse() {
    let topic = topic::<u8>();
    let mut first = Topic::subscribe(&topic, Overflow::DropNewest, 1, 1).unwrap();
    assert_eq!(
        Topic::subscribe(&topic, Overflow::DropNewest, 1, 1).unwrap_err(),
        Refused::Full
    );
    topic.try_push(1).unwrap();
    topic.shut();
    assert!(matches!(topic.try_push(2), Err(Busy::Shut(2))));
    assert_eq!(
        Topic::subscribe(&topic, Overflow::DropNewest, 1, 9).unwrap_err(),
        Refused::Shut
    );
    assert_eq!(
        [first.next(), first.next(), first.next()],
        [changed(1), Next::Ended, Next::Ended]
    );
    assert_eq!(topic.subscribers(), 1);
}

#[test]
fn losses_under_a_walk_are_owed_and_counted_when_it_leaves() {
    let topic = topic();
    let mut receiver = Topic::subscribe(&topic, Overflow::DropNewest, 4, 9).unwrap();
    let Ok(mut walk) = Walk::begin(&*topic, 7u8) else {
        panic!("the turn is free")
    };
    topic.lose(2);
    assert!(topic.ring_when_free());
    assert!(topic.load(Relaxed).has(MORE));
    assert_eq!(receiver.next(), Next::Empty, "the push is not complete");
    while !walk.step(1) {}
    walk.finish();
    assert!(!topic.ring_when_free());
    assert_eq!(
        [receiver.next(), receiver.next()],
        [changed(7), missed(2, false)]
    );
}

#[test]
fn the_first_notice_stands_where_it_was_filled() {
    for early in [true, false] {
        let topic = topic();
        let mut receiver = Topic::subscribe(&topic, Overflow::DropNewest, 4, 9).unwrap();
        let first = receiver.await_first();
        topic.try_push(1u8).unwrap();
        if early {
            assert_eq!(receiver.next(), changed(1));
            assert_eq!(receiver.next(), Next::Empty);
        }
        topic
            .with_turn(|ticket| first.fill_once(ticket, Some(100)))
            .unwrap();
        topic.try_push(2).unwrap();
        if !early {
            assert_eq!(receiver.next(), changed(1));
        }
        assert_eq!(
            [receiver.next(), receiver.next()],
            [changed(100), changed(2)]
        );
        assert_eq!(receiver.next(), Next::Empty);
    }
}

#[test]
fn a_clone_that_panics_costs_its_subscriber_alone() {
    #[derive(Debug)]
    struct Fragile(u32, StdArc<AtomicU32>, u32);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert_ne!(self.1.fetch_add(1, Relaxed), self.2, "one clone fails");
            Self(self.0, self.1.clone(), self.2)
        }
    }
    // Among few; at the beginning, in the middle and at the end of a full chunk; where the next is fetched.
    for (subscribers, failing) in [(4, 1), (250, 21), (250, 50), (250, 84), (2_200, 1_000)] {
        for overflow in [
            Overflow::DropNewest,
            Overflow::DropOldest,
            Overflow::Conflate,
        ] {
            let topic = topic();
            let mut receivers: Vec<_> = (0..subscribers)
                .map(|_| Topic::subscribe(&topic, overflow, 4, 2_200).unwrap())
                .collect();
            let clones = StdArc::new(AtomicU32::new(0));
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| ()));
            let pushed = topic.try_push(Fragile(1, clones.clone(), failing)).unwrap();
            std::panic::set_hook(hook);
            assert_eq!((pushed.reached, pushed.panicked), (subscribers - 1, 1));
            topic.try_push(Fragile(2, clones.clone(), failing)).unwrap();
            for (index, receiver) in (0..).zip(&mut receivers) {
                let first = match receiver.next() {
                    Next::Changed(payload) => Some(payload.0),
                    Next::Missed {
                        n: 1,
                        visible: true,
                    } => None,
                    other => panic!("{other:?}"),
                };
                let expected = match overflow {
                    _ if index == failing => None,
                    Overflow::Conflate => Some(2),
                    _ => Some(1),
                };
                assert_eq!(first, expected, "{overflow:?} {index}");
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Lose(u64),
    Receive(usize),
    Subscribe { gated: bool },
    Fill(usize),
    Close(usize),
    Shut,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..3_usize;
    prop_oneof![
        8 => Just(Step::Push),
        3 => (1..4_u64).prop_map(Step::Lose),
        8 => which.clone().prop_map(Step::Receive),
        2 => any::<bool>().prop_map(|gated| Step::Subscribe { gated }),
        2 => which.clone().prop_map(Step::Fill),
        1 => which.prop_map(Step::Close),
        1 => Just(Step::Shut),
    ]
}

/// What every receiver was told at each step, and how its accounts end. `before` are tickets that
/// passed before.
fn told<T: Clone + Default + 'static>(before: u64, steps: &[Step]) -> Vec<(Next<()>, Tally)> {
    let topic = topic::<T>();
    topic.lose(before);
    let mut receivers = Vec::new();
    let mut told = Vec::new();
    for step in steps {
        match *step {
            Step::Push => drop(topic.try_push(T::default())),
            Step::Lose(n) => topic.lose(n),
            Step::Subscribe { gated } => {
                if let Ok(mut receiver) = Topic::subscribe(&topic, Overflow::Conflate, 1, 3) {
                    let first = gated.then(|| receiver.await_first());
                    receivers.push((receiver, first));
                }
            }
            Step::Fill(at) => {
                if let Some((_, Some(first))) = receivers.get(at) {
                    topic.with_turn(|ticket| first.fill_once(ticket, Some(T::default())));
                }
            }
            Step::Receive(at) => {
                // All there is: what records have claimed, behind a loss, a mark lets a later push
                // replace.
                while let Some((receiver, _)) = receivers.get_mut(at) {
                    let next = match receiver.next() {
                        Next::Changed(_) => Next::Changed(()),
                        Next::Missed { n, visible } => Next::Missed { n, visible },
                        Next::Empty => Next::Empty,
                        Next::Ended => Next::Ended,
                    };
                    told.push((next, receiver.tally()));
                    if matches!(next, Next::Empty | Next::Ended) {
                        break;
                    }
                }
            }
            Step::Close(at) => {
                if let Some((receiver, _)) = receivers.get_mut(at) {
                    receiver.close();
                    told.push((Next::Ended, receiver.tally()));
                }
            }
            Step::Shut => topic.shut(),
        }
    }
    told
}

proptest! {
    /// One word says all that records say: a conflated payload that is nothing, against one that is
    /// not.
    #[test]
    fn a_mark_tells_what_records_tell(
        before in prop_oneof![Just(0), Just((1 << 32) - 6), 0..1_u64 << 40],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        prop_assert_eq!(told::<()>(before, &steps), told::<u64>(before, &steps));
    }
}

#[test]
fn sizes_stay_small() {
    assert_eq!(size_of::<Header>(), 24);
    let topic = size_of::<Topic<u64>>();
    assert!(topic <= 144, "{topic}");
    let receiver = size_of::<Receiver<u64>>();
    assert_eq!(receiver, 8);
}
