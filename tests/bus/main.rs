//! I10: one suite of behaviours, run on every bus.

#[cfg(feature = "nats")]
mod nats_rig;
mod rigs;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use afterwrite::bus::{Bus, Delivery, Event, Link, PublishError, Publisher, SubscribeError};
use afterwrite::invalidation::subject::{Pattern, Subject};
use rigs::Rig;
use support::PATIENCE;
use support::record::{Recorder, Seen};

/// Behaviours, each run on each kind of bus.
macro_rules! behaviours {
    ($($name:ident)*) => {
        mod i10_local {
            $(#[test] fn $name() { super::$name(&super::rigs::Local::new()); })*
        }
        mod i10_chaos {
            $(#[test] fn $name() { super::$name(&super::rigs::Chaos::new()); })*
        }
        #[cfg(feature = "nats")]
        mod i10_nats {
            $(#[test] fn $name() { super::$name(&super::nats_rig::Nats::new()); })*
        }
    };
}

behaviours! {
    own_messages_come_back_unaltered
    a_subscription_is_asked_for_before_what_follows
    other_nodes_messages_come_in_the_order_of_sending
    only_what_matches_is_delivered
    each_subscription_gets_its_own_copy
    a_dropped_subscription_gets_nothing_more
    a_subscription_may_be_dropped_by_its_own_inbox
    an_inbox_may_publish_and_subscribe
    a_panicking_inbox_harms_nobody
    an_oversize_payload_is_refused_with_its_numbers
    a_slow_inbox_loses_the_newest_and_is_told_how_many
    closing_ends_publishers_and_inboxes
    a_quiet_bus_has_one_generation_and_no_losses
    many_publishers_reach_many_subscribers_once_each
    a_publisher_with_room_is_ready_and_flushes
}

fn subject(text: &str) -> Subject<'_> {
    Subject::new(text).expect("a valid subject")
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a valid pattern")
}

fn publish(publisher: &mut Box<dyn Publisher>, to: &str, payload: &[u8]) {
    // A real server's client may have a full queue for a moment.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match publisher.publish(subject(to), payload) {
            Err(PublishError::Full) if std::time::Instant::now() < deadline => {
                std::thread::yield_now();
            }
            outcome => return outcome.expect("published"),
        }
    }
}

fn count_messages(seen: &[Seen]) -> usize {
    let messages = seen.iter().filter(|it| matches!(it, Seen::Message(..)));
    messages.count()
}

/// Waits until the node's subscriptions are known where it is connected.
fn settle(rig: &dyn Rig, bus: &Arc<dyn Bus>, recorder: &Recorder, to: &str) {
    publish(&mut bus.publisher(), to, b"settle");
    let came = |seen: &[Seen]| seen.contains(&Seen::Message(to.into(), b"settle".to_vec()));
    assert!(rig.wait(recorder, &came), "own message: {recorder:?}");
}

fn own_messages_come_back_unaltered(rig: &dyn Rig) {
    let bus = rig.bus();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let long = format!("p.e.{}", "%C3%A9".repeat(512));
    let sent: [(&str, &[u8]); 5] = [
        ("p.e.1", b""),
        ("p.e.2", b"text"),
        ("p.e.3", &all_bytes),
        ("p.e.4", b"PUB p.e.5 0\r\n\r\n"),
        (&long, b"long"),
    ];
    let mut publisher = bus.publisher();
    for (to, payload) in sent {
        publish(&mut publisher, to, payload);
    }
    assert!(rig.wait(&recorder, &|seen| count_messages(seen) == sent.len()));
    let wanted: Vec<_> = sent.map(|(to, it)| (to.to_owned(), it.to_owned())).into();
    assert_eq!(recorder.messages(), wanted);
}

fn a_subscription_is_asked_for_before_what_follows(rig: &dyn Rig) {
    let bus = rig.bus();
    let mut publisher = bus.publisher();
    for round in 0..50 {
        let recorder = Recorder::new();
        let to = format!("p.e.{round}");
        let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
        publish(&mut publisher, &to, b"");
        let came = |seen: &[Seen]| seen.contains(&Seen::Message(to.clone(), Vec::new()));
        assert!(rig.wait(&recorder, &came), "round {round}: {recorder:?}");
    }
}

fn other_nodes_messages_come_in_the_order_of_sending(rig: &dyn Rig) {
    let (sender, receiver) = (rig.bus(), rig.bus());
    let recorder = Recorder::new();
    let _subscription = receiver
        .subscribe(&pattern("p.>"), recorder.inbox())
        .unwrap();
    settle(rig, &receiver, &recorder, "p.settle");
    let mut publisher = sender.publisher();
    for number in 0..5_000u32 {
        publish(&mut publisher, "p.e.1", &number.to_le_bytes());
    }
    assert!(rig.wait(&recorder, &|seen| count_messages(seen) == 5_001));
    let numbers = recorder.messages().into_iter().skip(1);
    let numbers = numbers.map(|(_, it)| u32::from_le_bytes(it.try_into().unwrap()));
    assert!(numbers.eq(0..5_000), "in order, each once");
    assert_eq!(
        (receiver.status().lost, recorder.events()),
        (0, Vec::new()),
        "none told as lost"
    );
}

fn only_what_matches_is_delivered(rig: &dyn Rig) {
    let subjects = [
        "p", "p.a", "p.b", "p.a.c", "p.b.c", "p.a.c.d", "q.a", "pp.a", "p.%-all",
    ];
    let patterns = [
        "p", "p.>", "p.*", "p.*.c", "p.a.*", "*.a", ">", "p.a.>", "*.*.*", "p.%-all",
    ];
    let bus = rig.bus();
    let mut publisher = bus.publisher();
    for pattern in patterns.map(pattern) {
        let (recorder, fence) = (Recorder::new(), Recorder::new());
        let _subscription = bus.subscribe(&pattern, recorder.inbox()).unwrap();
        let _fence = bus
            .subscribe(&self::pattern("end.of.round"), fence.inbox())
            .unwrap();
        for to in subjects {
            publish(&mut publisher, to, b"");
        }
        publish(&mut publisher, "end.of.round", b"");
        assert!(rig.wait(&fence, &|seen| count_messages(seen) == 1));
        let wanted: Vec<_> = subjects
            .into_iter()
            .filter(|to| pattern.matches(to))
            .collect();
        let enough = |seen: &[Seen]| count_messages(seen) >= wanted.len();
        assert!(rig.wait(&recorder, &enough), "{pattern}: {recorder:?}");
        let mut got: Vec<_> = recorder.messages().into_iter().map(|(to, _)| to).collect();
        got.retain(|to| to != "end.of.round");
        assert_eq!(got, wanted, "{pattern}");
    }
}

fn each_subscription_gets_its_own_copy(rig: &dyn Rig) {
    let bus = rig.bus();
    let (one, two) = (Recorder::new(), Recorder::new());
    let _one = bus.subscribe(&pattern("p.>"), one.inbox()).unwrap();
    let _two = bus.subscribe(&pattern("p.e.*"), two.inbox()).unwrap();
    publish(&mut bus.publisher(), "p.e.1", b"x");
    for recorder in [&one, &two] {
        assert!(rig.wait(recorder, &|seen| count_messages(seen) == 1));
    }
}

fn a_dropped_subscription_gets_nothing_more(rig: &dyn Rig) {
    let bus = rig.bus();
    let (gone, stays) = (Recorder::new(), Recorder::new());
    let subscription = bus.subscribe(&pattern("p.>"), gone.inbox()).unwrap();
    let _stays = bus.subscribe(&pattern("p.>"), stays.inbox()).unwrap();
    settle(rig, &bus, &gone, "p.settle");
    settle(rig, &bus, &stays, "p.settle");
    drop(subscription);
    let before = count_messages(&gone.seen());
    let mut publisher = bus.publisher();
    for _ in 0..100 {
        publish(&mut publisher, "p.e.1", b"");
    }
    assert!(rig.wait(&stays, &|seen| count_messages(seen) >= 101));
    assert_eq!(count_messages(&gone.seen()), before);
    assert_eq!(bus.status().lost, 0, "a subscription that ended is no loss");
}

fn a_subscription_may_be_dropped_by_its_own_inbox(rig: &dyn Rig) {
    let bus = rig.bus();
    let (fence, calls) = (Recorder::new(), Recorder::new());
    let own = Arc::new(Mutex::new(None));
    let inbox = {
        let (own, calls) = (Arc::clone(&own), calls.clone());
        move |delivery: Delivery<'_>| {
            drop(own.lock().unwrap().take());
            calls.record(delivery);
        }
    };
    // Held until the handle is in place, so that the first delivery finds it.
    let mut place = own.lock().unwrap();
    *place = Some(bus.subscribe(&pattern("p.>"), Box::new(inbox)).unwrap());
    drop(place);
    let _fence = bus.subscribe(&pattern("p.>"), fence.inbox()).unwrap();
    let mut publisher = bus.publisher();
    for _ in 0..10 {
        publish(&mut publisher, "p.e.1", b"");
    }
    assert!(rig.wait(&calls, &|seen| count_messages(seen) == 1));
    assert!(rig.wait(&fence, &|seen| count_messages(seen) == 10));
    settle(rig, &bus, &fence, "p.settle");
    assert_eq!(calls.len(), 1, "{calls:?}");
}

fn an_inbox_may_publish_and_subscribe(rig: &dyn Rig) {
    let bus = rig.bus();
    let recorder = Recorder::new();
    let inner = Arc::new(Mutex::new(Vec::new()));
    let inbox = {
        let (bus, recorder, inner) = (Arc::clone(&bus), recorder.clone(), Arc::clone(&inner));
        move |delivery: Delivery<'_>| {
            if let Delivery::Message { .. } = delivery {
                let added = bus
                    .subscribe(&pattern("answer.>"), recorder.inbox())
                    .unwrap();
                inner.lock().unwrap().push(added);
                publish(&mut bus.publisher(), "answer.1", b"from inside");
            }
        }
    };
    let outer = bus.subscribe(&pattern("p.>"), Box::new(inbox)).unwrap();
    publish(&mut bus.publisher(), "p.e.1", b"");
    assert!(
        rig.wait(&recorder, &|seen| count_messages(seen) == 1),
        "{recorder:?}"
    );
    drop(outer);
}

fn a_panicking_inbox_harms_nobody(rig: &dyn Rig) {
    let bus = rig.bus();
    let (calls, other) = (Recorder::new(), Recorder::new());
    let inbox = {
        let calls = calls.clone();
        move |delivery: Delivery<'_>| {
            calls.record(delivery);
            if let Delivery::Message {
                payload: b"bad", ..
            } = delivery
            {
                panic!("planted");
            }
        }
    };
    let _panics = bus.subscribe(&pattern("p.>"), Box::new(inbox)).unwrap();
    let _other = bus.subscribe(&pattern("p.>"), other.inbox()).unwrap();
    let mut publisher = bus.publisher();
    for payload in [&b"good"[..], b"bad", b"good", b"bad", b"good"] {
        publish(&mut publisher, "p.e.1", payload);
    }
    for recorder in [&calls, &other] {
        assert!(
            rig.wait(recorder, &|seen| count_messages(seen) == 5),
            "{recorder:?}"
        );
    }
    assert_eq!(bus.status().inbox_panics, 2);
}

fn an_oversize_payload_is_refused_with_its_numbers(rig: &dyn Rig) {
    let bus = rig.bus();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let max = bus.max_payload();
    let payload = vec![7; max + 1];
    let mut publisher = bus.publisher();
    assert_eq!(
        publisher.publish(subject("p.e.1"), &payload),
        Err(PublishError::TooLarge { len: max + 1, max })
    );
    // The longest that is allowed still passes.
    publish(&mut publisher, "p.e.2", &payload[..max]);
    assert!(rig.wait(&recorder, &|seen| count_messages(seen) == 1));
    assert_eq!(recorder.messages()[0].1.len(), max);
}

fn a_slow_inbox_loses_the_newest_and_is_told_how_many(rig: &dyn Rig) {
    const CAPACITY: usize = 16;
    const SENT: usize = 2_000;
    let (slow, fenced) = (rig.slow(CAPACITY), rig.bus());
    let (recorder, fence) = (Recorder::new(), Recorder::new());
    let inbox = {
        let (recorder, gate) = (recorder.clone(), Arc::clone(&slow.gate));
        move |delivery: Delivery<'_>| {
            gate.pass();
            recorder.record(delivery);
        }
    };
    let _subscription = slow
        .bus
        .subscribe(&pattern("p.>"), Box::new(inbox))
        .unwrap();
    settle(rig, &slow.bus, &recorder, "p.settle");
    let _fence = fenced.subscribe(&pattern("*.end"), fence.inbox()).unwrap();
    settle(rig, &fenced, &fence, "fence.end");
    let mut publisher = fenced.publisher();
    (slow.stick)(true);
    for number in 0..SENT {
        publish(&mut publisher, "p.e", number.to_string().as_bytes());
        if number % 10 == 0 {
            settle(rig, &fenced, &fence, &format!("{number}.end"));
        }
    }
    (slow.stick)(false);
    let lost = |seen: &[Seen]| -> usize {
        let lost = seen.iter().map(|seen| match seen {
            Seen::Event(Event::Lost { n }) => *n as usize,
            _ => 0,
        });
        lost.sum()
    };
    let received = |seen: &[Seen]| count_messages(seen) - 1;
    let all_there = |seen: &[Seen]| received(seen) + lost(seen) >= SENT;
    assert!(rig.wait(&recorder, &all_there), "{:?}", recorder.events());
    let seen = recorder.seen();
    assert_eq!(
        received(&seen) + lost(&seen),
        SENT,
        "received + lost = sent"
    );
    assert!(
        lost(&seen) > 0 && received(&seen) >= CAPACITY,
        "{:?}",
        recorder.events()
    );
    assert_eq!(slow.bus.status().lost as usize, lost(&seen));
    // The newest were lost: the beginning is there without a hole.
    for (number, (_, payload)) in recorder.messages()[1..=CAPACITY].iter().enumerate() {
        assert_eq!(*payload, number.to_string().into_bytes());
    }
    // The subscription goes on.
    settle(rig, &slow.bus, &recorder, "p.after");
}

fn closing_ends_publishers_and_inboxes(rig: &dyn Rig) {
    let bus = rig.bus();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    settle(rig, &bus, &recorder, "p.settle");
    let mut publisher = bus.publisher();
    bus.close();
    bus.close();
    let ended = |seen: &[Seen]| seen.contains(&Seen::Event(Event::Closed));
    assert!(rig.wait(&recorder, &ended), "{recorder:?}");
    assert_eq!(recorder.seen().last(), Some(&Seen::Event(Event::Closed)));
    assert_eq!(
        publisher.publish(subject("p.e.1"), b""),
        Err(PublishError::Closed)
    );
    let mut context = Context::from_waker(Waker::noop());
    let closed = Poll::Ready(Err(PublishError::Closed));
    assert_eq!(publisher.poll_ready(&mut context), closed);
    assert_eq!(publisher.poll_flush(&mut context), closed);
    let refused = bus.subscribe(&pattern("p.>"), recorder.inbox());
    assert_eq!(refused.err(), Some(SubscribeError::Closed));
    assert_eq!(bus.status().link, Link::Closed);
}

fn a_quiet_bus_has_one_generation_and_no_losses(rig: &dyn Rig) {
    let bus = rig.bus();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    settle(rig, &bus, &recorder, "p.settle");
    let status = bus.status();
    assert_eq!((bus.generation(), status.generation), (1, 1));
    assert_eq!(status.link, Link::Up);
    let counters = (status.lost, status.publish_denied, status.subscribe_denied);
    assert_eq!((counters, status.inbox_panics), ((0, 0, 0), 0));
    assert_eq!(recorder.events(), []);
}

fn many_publishers_reach_many_subscribers_once_each(rig: &dyn Rig) {
    const NODES: usize = 3;
    const EACH: usize = 300;
    let buses: Vec<_> = (0..NODES).map(|_| rig.bus()).collect();
    let recorders: Vec<_> = (0..NODES).map(|_| Recorder::new()).collect();
    let _subscriptions: Vec<_> = buses
        .iter()
        .zip(&recorders)
        .map(|(bus, recorder)| {
            let subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
            settle(rig, bus, recorder, "p.settle");
            subscription
        })
        .collect();
    let mut publishers: Vec<_> = buses.iter().map(|bus| bus.publisher()).collect();
    for number in 0..EACH {
        for (node, publisher) in publishers.iter_mut().enumerate() {
            publish(publisher, &format!("p.{node}.{number}"), b"");
        }
    }
    for recorder in &recorders {
        let numbered = |it: &&Seen| matches!(it, Seen::Message(to, _) if to != "p.settle");
        let all = |seen: &[Seen]| seen.iter().filter(numbered).count() >= NODES * EACH;
        assert!(rig.wait(recorder, &all));
        let messages = recorder.messages();
        for node in 0..NODES {
            let mine = format!("p.{node}.");
            let from = messages.iter().filter_map(|(to, _)| to.strip_prefix(&mine));
            let wanted = (0..EACH).map(|number| number.to_string());
            assert!(from.map(str::to_owned).eq(wanted), "each once, in order");
        }
    }
}

fn a_publisher_with_room_is_ready_and_flushes(rig: &dyn Rig) {
    let bus = rig.bus();
    let mut publisher = bus.publisher();
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(publisher.poll_ready(&mut context), Poll::Ready(Ok(())));
    publish(&mut publisher, "p.e.1", b"");
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match publisher.poll_flush(&mut context) {
            Poll::Ready(outcome) => return assert_eq!(outcome, Ok(())),
            Poll::Pending => assert!(std::time::Instant::now() < deadline),
        }
        std::thread::yield_now();
    }
}
