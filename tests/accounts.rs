//! The rights of `examples/nats-accounts.conf`, tried on a real server: what they allow and, above
//! all, what they deny.
#![cfg(feature = "nats")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, Event, NatsBus, NatsError};
use afterwrite::invalidation::subject::{Pattern, Subject};
use afterwrite::invalidation::{EmitError, Emitted, Farewell, Invalidator};
use async_nats::{ConnectErrorKind, ConnectOptions};
use support::PATIENCE;
use support::record::{Recorder, Seen};
use support::server::NatsServer;
use support::stage::{IDS, Reader, Rows, eventually, settings};

const CONFIG: &str = include_str!("../examples/nats-accounts.conf");

fn start() -> NatsServer {
    NatsServer::with_config(CONFIG)
}

fn connect(server: &NatsServer, user: &str, password: &str) -> NatsBus {
    let options = ConnectOptions::new()
        .user_and_password(user.into(), password.into())
        .custom_inbox_prefix(format!("_INBOX.{user}"));
    let builder = NatsBus::builder().options(options);
    builder.connect_blocking(server.url()).expect("connected")
}

fn writer(server: &NatsServer) -> NatsBus {
    connect(server, "cache-writer", "w")
}

fn reader(server: &NatsServer) -> NatsBus {
    connect(server, "cache-reader", "r")
}

fn plain(server: &NatsServer) -> NatsBus {
    connect(server, "cache-plain", "p")
}

fn subscribe(bus: &NatsBus, pattern: &str, recorder: &Recorder) -> afterwrite::bus::Interest {
    let pattern = Pattern::new(pattern).expect("a valid pattern");
    bus.subscribe(&pattern, recorder.inbox())
        .expect("subscribed")
}

/// Publishes, and says whether the writer's subscription got it.
fn reaches(server: &NatsServer, from: &NatsBus, to: &str) -> bool {
    let witness = writer(server);
    let recorder = Recorder::new();
    let _subscription = subscribe(&witness, "cache.invalidate.>", &recorder);
    let came = |to: &str, payload: &[u8]| {
        let message = Seen::Message(to.into(), payload.into());
        move |seen: &[Seen]| seen.contains(&message)
    };
    let mut own = witness.publisher();
    let settle = Subject::new("cache.invalidate.settle.1").expect("a valid subject");
    own.publish(settle, b"").expect("published");
    assert!(recorder.wait(PATIENCE, came(settle.as_str(), b"")));

    let refused = from.status().publish_denied;
    let mut publisher = from.publisher();
    let subject = Subject::new(to).expect("a valid subject");
    publisher.publish(subject, b"tried").expect("handed over");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if recorder.wait(Duration::from_millis(10), came(to, b"tried")) {
            return true;
        }
        if from.status().publish_denied > refused {
            return false;
        }
    }
    panic!("{to} is neither delivered nor denied");
}

/// Subscribes, and says whether the server allows it.
fn may_subscribe(bus: &NatsBus, pattern: &str) -> bool {
    let recorder = Recorder::new();
    let _subscription = subscribe(bus, pattern, &recorder);
    let denied = |seen: &[Seen]| {
        let denied = |seen: &Seen| matches!(seen, Seen::Event(Event::SubscribeDenied { .. }));
        seen.iter().any(denied)
    };
    !recorder.wait(Duration::from_millis(500), denied)
}

#[test]
fn strangers_stay_outside() {
    let server = start();
    for url in [
        server.url(),
        server.url_as("cache-writer", "wrong"),
        server.url_as("cache-stranger", "w"),
    ] {
        let refused = NatsBus::connect_blocking(&url);
        let kind = ConnectErrorKind::AuthorizationViolation;
        assert!(
            matches!(&refused, Err(NatsError::Connect { kind: it, .. }) if *it == kind),
            "{refused:?}"
        );
    }
}

#[test]
fn a_writer_publishes_and_hears_under_the_prefix_and_nowhere_else() {
    let server = start();
    let bus = writer(&server);
    for to in [
        "cache.invalidate.user.42",
        "cache.invalidate.user.%-all",
        "cache.invalidate.user.%-batch",
        "cache.invalidate.%-c.0123456789abcdef",
    ] {
        assert!(reaches(&server, &bus, to), "{to}");
    }
    for to in [
        "cache.invalidate",
        "cache.other.1",
        "orders.1",
        "$SYS.REQ.SERVER.PING",
    ] {
        assert!(!reaches(&server, &bus, to), "{to}");
    }
    assert!(may_subscribe(&bus, "cache.invalidate.>"));
    for pattern in [
        ">",
        "cache.>",
        "*.invalidate.>",
        "_INBOX.>",
        "_INBOX.cache-reader.>",
    ] {
        assert!(!may_subscribe(&bus, pattern), "{pattern}");
    }
}

#[test]
fn a_reader_hears_and_beats_and_drops_nothing() {
    let server = start();
    let bus = reader(&server);
    assert!(reaches(
        &server,
        &bus,
        "cache.invalidate.%-c.0123456789abcdef"
    ));
    for to in [
        "cache.invalidate.user.42",
        "cache.invalidate.user.%-all",
        "cache.invalidate.user.%-batch",
        "cache.invalidate.%-c",
        "orders.1",
    ] {
        assert!(!reaches(&server, &bus, to), "{to}");
    }
    assert!(may_subscribe(&bus, "cache.invalidate.>"));
    assert!(!may_subscribe(&bus, ">"));
}

#[test]
fn a_plain_publisher_drops_single_ids_and_neither_flushes_nor_forges_beats() {
    let server = start();
    let bus = plain(&server);
    assert!(reaches(&server, &bus, "cache.invalidate.user.42"));
    for to in [
        "cache.invalidate.%-c.0123456789abcdef",
        "cache.invalidate.user.%-all",
        "cache.invalidate.user.%-batch",
        "cache.invalidate.user.a.b",
        "orders.1",
    ] {
        assert!(!reaches(&server, &bus, to), "{to}");
    }
    for pattern in ["cache.invalidate.>", "cache.invalidate.user.42", ">"] {
        assert!(!may_subscribe(&bus, pattern), "{pattern}");
    }
}

#[test]
fn each_proves_its_echo_by_inbox_subjects_of_its_own() {
    let server = start();
    for (user, password) in [("cache-writer", "w"), ("cache-reader", "r")] {
        let bus = connect(&server, user, password);
        let status = bus.status();
        assert_eq!(
            (status.publish_denied, status.subscribe_denied),
            (0, 0),
            "{user}"
        );
        let silent = ConnectOptions::new()
            .user_and_password(user.into(), password.into())
            .custom_inbox_prefix(format!("_INBOX.{user}"))
            .no_echo();
        let refused = NatsBus::builder()
            .options(silent)
            .connect_blocking(server.url());
        assert!(
            matches!(refused, Err(NatsError::NoEcho)),
            "{user}: {refused:?}"
        );
        // Without its prefix the proof is refused, the connection is not, and nobody waits.
        let started = Instant::now();
        let bus = NatsBus::connect_blocking(&server.url_as(user, password)).expect("connected");
        assert!(bus.status().subscribe_denied > 0);
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
    }
}

/// The rights suffice for what each is there for.
#[test]
fn a_reader_is_coherent_and_drops_what_a_writer_emits() {
    let server = start();
    let (writes, reads) = (writer(&server), reader(&server));
    // So long a lease that a busy machine causes no doubt.
    let settings = |name| settings(name).lease(Duration::from_secs(10));
    let rows = Arc::<Rows>::default();
    let node = Invalidator::new(writes.clone(), settings("writer").plain_peers(false)).unwrap();
    let read_only = settings("reader").read_only(true);
    let reader = Reader::new(reads.clone(), read_only, rows.clone());
    reader.look_until_coherent();
    reader.settles();
    let before = reader.node.stats();

    let cached = |id: usize| reader.users.get(&id.to_string()).is_some();
    assert!((0..IDS).all(cached));
    rows.write(&node, &reader.entity, 7);
    eventually("one id is dropped", || !cached(7));
    assert!((0..IDS).all(|id| id == 7 || cached(id)), "others are not");
    let batch = node.emit_batch(&reader.entity, ["1", "2", "3"], None);
    assert_eq!(batch, Ok(Emitted::Sent));
    eventually("a batch is dropped", || !(1..=3).any(cached));
    assert!((4..IDS).all(|id| id == 7 || cached(id)), "others are not");
    assert!(reader.is_coherent());
    let after = reader.node.stats();
    assert_eq!(
        (after.gaps, after.doubts, after.flushes),
        (before.gaps, before.doubts, before.flushes)
    );
    assert_eq!(node.emit_all(&reader.entity), Ok(Emitted::Sent));
    eventually("all is dropped", || !(0..IDS).any(cached));
    reader.settles();

    let own = reader.node.emit(&reader.entity, "1");
    assert_eq!(own, Err(EmitError::ReadOnly));
    assert_eq!(node.close(PATIENCE), Farewell::Said);
    eventually("its goodbye is heard", || {
        reader.node.stats().publishers == 0
    });
    for (who, bus) in [("writer", writes), ("reader", reads)] {
        let status = bus.status();
        let denied = (status.publish_denied, status.subscribe_denied);
        assert_eq!(denied, (0, 0), "{who}");
    }
}
