//! I10 over two routed nats-servers: what a route loses, and who is told.
#![cfg(feature = "nats")]

mod support;

use std::time::{Duration, Instant};

use afterwrite::bus::Bus;
use support::PATIENCE;
use support::nats::{block_on, connect, pattern, subject, until_seen};
use support::proxy::Mode;
use support::record::{Recorder, Seen};
use support::server::Cluster;

/// What the bus cannot know, and the protocol above has to find out: a subscription that is proved
/// at one server of a cluster says nothing of what is published at another.
#[test]
fn a_cluster_loses_messages_without_a_word() {
    let cluster = Cluster::start();
    let (near, far) = (connect(&cluster.a), connect(&cluster.b));
    let recorder = Recorder::new();
    let _subscription = near.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = far.publisher();
    until_seen(&recorder, &mut publisher, "p.over.the.route");

    cluster.route.set(Mode::Cut);
    cluster.b.wait_for("Router connection closed");
    for _ in 0..100 {
        publisher.publish(subject("p.lost"), b"").unwrap();
    }
    assert_eq!(
        block_on(std::future::poll_fn(|cx| publisher.poll_flush(cx))),
        Ok(())
    );
    until_seen(&recorder, &mut near.publisher(), "p.own.still.comes.back");
    cluster.route.set(Mode::Pass);
    until_seen(&recorder, &mut publisher, "p.healed");
    let lost = |(to, _): &(String, Vec<u8>)| to == "p.lost";
    assert!(!recorder.messages().iter().any(lost));
    assert_eq!(recorder.events(), [], "neither side was told");
    assert_eq!((near.generation(), far.generation()), (1, 1));
}

#[test]
fn a_route_that_holds_delivers_late_and_one_that_delays_keeps_order() {
    let cluster = Cluster::start();
    let (near, far) = (connect(&cluster.a), connect(&cluster.b));
    let recorder = Recorder::new();
    let _subscription = near.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = far.publisher();
    until_seen(&recorder, &mut publisher, "p.over.the.route");
    let late = |seen: &[Seen]| -> Vec<u8> {
        let late = seen.iter().filter_map(|seen| match seen {
            Seen::Message(to, payload) if to == "p.late" => Some(payload[0]),
            _ => None,
        });
        late.collect()
    };
    let mut send = |numbers: std::ops::Range<u8>| {
        for number in numbers {
            publisher.publish(subject("p.late"), &[number]).unwrap();
        }
    };
    cluster.route.set(Mode::Hold);
    send(0..50);
    assert!(!recorder.wait(Duration::from_millis(300), |seen| !late(seen).is_empty()));
    cluster.route.set(Mode::Delay(Duration::from_millis(200)));
    assert!(recorder.wait(PATIENCE, |seen| late(seen).len() == 50));
    let sent = Instant::now();
    send(50..100);
    assert!(recorder.wait(PATIENCE, |seen| late(seen).len() == 100));
    assert!(
        sent.elapsed() >= Duration::from_millis(200),
        "{:?}",
        sent.elapsed()
    );
    assert!(late(&recorder.seen()).into_iter().eq(0..100));
}
