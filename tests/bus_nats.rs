//! I10 over a real nats-server: what the wire does, and what the bus makes of it.
#![cfg(feature = "nats")]

mod support;

use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, Delivery, Event, EventTap, Link, NatsBus, NatsError, PublishError};
use afterwrite::invalidation::subject::{Id, Prefix};
use async_nats::{ConnectErrorKind, ConnectOptions};
use futures_util::StreamExt;
use support::PATIENCE;
use support::nats::{
    block_on, connect, connect_with, count, eager, fill, has_event, pattern, subject, until_seen,
};
use support::record::{Recorder, Seen};
use support::server::{NatsServer, free_port};
use tokio::runtime::Runtime;

#[test]
fn a_client_with_no_echo_is_refused() {
    let server = NatsServer::start();
    let builder = NatsBus::builder().options(ConnectOptions::new().no_echo());
    let refused = builder.connect_blocking(server.url());
    assert!(matches!(refused, Err(NatsError::NoEcho)), "{refused:?}");

    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let client = ConnectOptions::new()
            .no_echo()
            .connect(server.url())
            .await
            .unwrap();
        let refused = NatsBus::builder().client(client).await;
        assert!(matches!(refused, Err(NatsError::NoEcho)), "{refused:?}");
    });
}

#[test]
fn connecting_needs_no_runtime() {
    let server = NatsServer::start();
    let bus = block_on(NatsBus::connect(&server.url())).unwrap();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    until_seen(&recorder, &mut bus.publisher(), "p.e.1");
    assert_eq!(bus.status().link, Link::Up);
}

#[test]
fn a_failed_connection_says_why() {
    let url = format!("nats://127.0.0.1:{}", free_port());
    let failed = NatsBus::connect_blocking(&url);
    let Err(NatsError::Connect { kind, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(kind, ConnectErrorKind::Io);
    let failed = NatsBus::connect_blocking("nats://[");
    let Err(NatsError::Connect { kind, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(kind, ConnectErrorKind::ServerParse);
    let server = NatsServer::with_config("authorization { user: u, password: p }\n");
    let failed = NatsBus::connect_blocking(&server.url());
    let Err(NatsError::Connect { kind, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(kind, ConnectErrorKind::AuthorizationViolation);
}

#[test]
fn a_client_outside_a_runtime_is_refused() {
    let server = NatsServer::start();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(async_nats::connect(server.url())).unwrap();
    let refused = block_on(NatsBus::builder().client(client.clone()));
    assert!(matches!(refused, Err(NatsError::NoRuntime)), "{refused:?}");
    let named = NatsBus::builder().runtime(runtime.handle().clone());
    assert!(block_on(named.client(client)).is_ok());
}

#[test]
fn a_killed_server_changes_the_generation_and_is_found_again() {
    let mut server = NatsServer::start();
    let bus = connect_with(&server, eager());
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = bus.publisher();
    until_seen(&recorder, &mut publisher, "p.e.0");
    for round in 1..=3u64 {
        server.kill();
        assert!(has_event(&recorder, |event| *event == Event::Disconnected));
        server.restart();
        let generation = round + 1;
        let connected = Event::Connected { generation };
        assert!(
            has_event(&recorder, |event| *event == connected),
            "{recorder:?}"
        );
        assert_eq!(bus.generation(), generation);
        until_seen(&recorder, &mut publisher, &format!("p.e.{round}"));
    }
    assert_eq!(bus.status().link, Link::Up);
}

#[test]
fn publishing_without_a_server_never_waits() {
    let mut server = NatsServer::start();
    let bus = connect_with(&server, eager());
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = bus.publisher();
    until_seen(&recorder, &mut publisher, "p.e.0");
    server.kill();
    assert!(has_event(&recorder, |event| *event == Event::Disconnected));
    let started = Instant::now();
    fill(&mut publisher, b"");
    assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    assert_eq!(bus.status().link, Link::Down);
    server.restart();
    // Room is told to whoever waits for it.
    let room = std::future::poll_fn(|cx| publisher.poll_ready(cx));
    assert_eq!(block_on(room), Ok(()));
    assert_eq!(
        block_on(std::future::poll_fn(|cx| publisher.poll_flush(cx))),
        Ok(())
    );
    until_seen(&recorder, &mut publisher, "p.e.after");
}

#[test]
fn a_stopped_server_takes_publishes_and_delivers_them_late() {
    let server = NatsServer::start();
    let bus = connect_with(&server, eager());
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = bus.publisher();
    until_seen(&recorder, &mut publisher, "p.e.0");
    server.stop();
    for _ in 0..10 {
        publisher.publish(subject("p.late"), b"").unwrap();
    }
    // The flush confirms what nobody has read.
    assert_eq!(
        block_on(std::future::poll_fn(|cx| publisher.poll_flush(cx))),
        Ok(())
    );
    let moved = |seen: &[Seen]| count(seen, "p.late") > 0;
    assert!(
        !recorder.wait(Duration::from_millis(300), moved),
        "nothing comes back"
    );
    assert_eq!(bus.status().link, Link::Up, "and nobody has noticed");
    server.go_on();
    assert!(recorder.wait(PATIENCE, |seen| count(seen, "p.late") == 10));
    assert_eq!(bus.generation(), 1);
}

#[test]
fn a_stopped_server_and_many_publishes_end_in_full() {
    let server = NatsServer::start();
    let bus = connect_with(&server, eager());
    let mut publisher = bus.publisher();
    server.stop();
    let started = Instant::now();
    let taken = fill(&mut publisher, &vec![0; 64 << 10]);
    assert!(taken > 2_000, "{taken}");
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    server.go_on();
    assert_eq!(
        block_on(std::future::poll_fn(|cx| publisher.poll_ready(cx))),
        Ok(())
    );
}

#[test]
fn refusals_are_told() {
    let server = NatsServer::with_config(
        r#"authorization { users: [
            { user: reader, password: p, permissions: {
                publish: { allow: ["_INBOX.>"] }, subscribe: { allow: ["p.>", "_INBOX.>"] } } }
            { user: writer, password: p, permissions: {
                publish: { allow: ["p.>", "_INBOX.>"] }, subscribe: { allow: ["_INBOX.>"] } } }
        ] }"#,
    );
    let reader = NatsBus::connect_blocking(&server.url_as("reader", "p")).unwrap();
    let writer = NatsBus::connect_blocking(&server.url_as("writer", "p")).unwrap();
    let (reads, writes) = (Recorder::new(), Recorder::new());
    let _reads = reader.subscribe(&pattern("p.>"), reads.inbox()).unwrap();
    until_seen(&reads, &mut writer.publisher(), "p.e.1");

    reader.publisher().publish(subject("p.e.2"), b"").unwrap();
    let denied = Event::PublishDenied {
        subject: "p.e.2".into(),
    };
    assert!(has_event(&reads, |event| *event == denied), "{reads:?}");
    assert_eq!(reader.status().publish_denied, 1);

    let _writes = writer.subscribe(&pattern("p.>"), writes.inbox()).unwrap();
    let denied = Event::SubscribeDenied {
        subject: "p.>".into(),
    };
    assert!(has_event(&writes, |event| *event == denied), "{writes:?}");
    assert_eq!(writer.status().subscribe_denied, 1);
    assert_eq!(
        (reader.status().link, writer.status().link),
        (Link::Up, Link::Up)
    );
}

#[test]
fn a_right_taken_away_by_a_reload_is_told_while_the_connection_stays() {
    let rights = |subscribe: &str| {
        format!(
            "authorization {{ users: [{{ user: u, password: p, permissions: {{ \
             publish: \">\", subscribe: [{subscribe}, \"_INBOX.>\"] }} }}] }}\n"
        )
    };
    let mut server = NatsServer::with_config(&rights("\"p.>\""));
    let bus = NatsBus::connect_blocking(&server.url_as("u", "p")).unwrap();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = bus.publisher();
    until_seen(&recorder, &mut publisher, "p.e.1");
    server.reload(&rights("\"q.>\""));
    let denied = Event::SubscribeDenied {
        subject: "p.>".into(),
    };
    assert!(
        has_event(&recorder, |event| *event == denied),
        "{recorder:?}"
    );
    assert_eq!((bus.generation(), bus.status().link), (1, Link::Up));
    // The subscription is gone at the server, and nothing says so any more.
    publisher.publish(subject("p.e.2"), b"").unwrap();
    let more = |seen: &[Seen]| count(seen, "p.e.2") > 0;
    assert!(!recorder.wait(Duration::from_millis(300), more));
}

#[test]
fn the_servers_payload_limit_is_the_buss() {
    let server = NatsServer::with_config("max_payload: 1000\n");
    let bus = connect(&server);
    assert_eq!(bus.max_payload(), 1_000);
    let refused = bus.publisher().publish(subject("p.e.1"), &[0; 1_001]);
    let (len, max) = (1_001, 1_000);
    assert_eq!(refused, Err(PublishError::TooLarge { len, max }));
}

#[test]
fn the_longest_subject_passes() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern(">"), recorder.inbox()).unwrap();
    let prefix = Prefix::new(&"p".repeat(128)).unwrap();
    let entity = "e".repeat(128).parse().unwrap();
    let id = Id::new(&"\u{1}".repeat(1_024)).unwrap();
    let mut buf = String::new();
    let topic = prefix.topic(&entity);
    until_seen(
        &recorder,
        &mut bus.publisher(),
        topic.one(id.borrowed(), &mut buf).as_str(),
    );
    assert_eq!(bus.generation(), 1);
}

#[test]
fn plain_peers_and_hostile_ones_are_heard() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let recorder = Recorder::new();
    let everything = Prefix::default().everything();
    let _subscription = bus.subscribe(&everything, recorder.inbox()).unwrap();
    until_seen(&recorder, &mut bus.publisher(), "cache.invalidate.settle.1");
    let runtime = Runtime::new().unwrap();
    let subjects = [
        "cache.invalidate.user.42",
        "cache.invalidate.user.straße",
        "cache.invalidate.user.a.b.c",
        "cache.invalidate.user.%-what",
        "cache.invalidate.>",
        "cache.invalidate.*.1",
        "cache.invalidate.\u{1}\u{7f}",
    ];
    runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.unwrap();
        let mut heard = client.subscribe("cache.invalidate.user.*").await.unwrap();
        client.flush().await.unwrap();
        for to in subjects {
            client.publish(to, "".into()).await.unwrap();
        }
        client
            .publish("cache.invalidate.end.1", vec![0xff; 10].into())
            .await
            .unwrap();
        client.flush().await.unwrap();
        assert_eq!(heard.next().await.unwrap().subject.as_str(), subjects[0]);
        // And a plain peer hears us.
        bus.publisher()
            .publish(subject("cache.invalidate.user.ours"), b"")
            .unwrap();
        while heard.next().await.unwrap().subject.as_str() != "cache.invalidate.user.ours" {}
    });
    let end = Seen::Message("cache.invalidate.end.1".into(), vec![0xff; 10]);
    assert!(
        recorder.wait(PATIENCE, |seen| seen.contains(&end)),
        "{recorder:?}"
    );
    let messages = recorder.messages();
    for to in subjects {
        // What arrives is shown as it is; what to think of it is the parser's trade.
        let came = messages.iter().any(|(subject, _)| subject == to);
        assert!(came || to.contains(['*', '>']), "{to}");
        Prefix::default().parse(to).ok();
    }
    assert!(
        messages
            .iter()
            .any(|(subject, _)| subject == "cache.invalidate.user.straße")
    );
    assert_eq!(bus.status().link, Link::Up);
}

#[test]
fn the_table_of_matches_holds_on_the_server() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let mut publisher = bus.publisher();
    for (number, (to, wanted, matches)) in include!("support/matches.in").into_iter().enumerate() {
        let (recorder, fence) = (Recorder::new(), Recorder::new());
        let end = format!("end.of.round.{number}");
        let _subscription = bus.subscribe(&pattern(wanted), recorder.inbox()).unwrap();
        let _fence = bus.subscribe(&pattern(&end), fence.inbox()).unwrap();
        publisher.publish(subject(to), b"").unwrap();
        publisher.publish(subject(&end), b"").unwrap();
        assert!(fence.wait(PATIENCE, |seen| !seen.is_empty()));
        let came = |seen: &[Seen]| seen.contains(&Seen::Message(to.into(), Vec::new()));
        let patience = if matches { PATIENCE } else { Duration::ZERO };
        assert_eq!(recorder.wait(patience, came), matches, "{to} {wanted}");
    }
}

#[test]
fn a_callers_client_outlives_the_bus_and_its_events_are_tapped() {
    let mut server = NatsServer::start();
    let runtime = Runtime::new().unwrap();
    let tap = EventTap::new();
    let forward = tap.clone();
    let options = eager().event_callback(move |event| {
        forward.forward(&event);
        async {}
    });
    let client = runtime.block_on(options.connect(server.url())).unwrap();
    let builder = NatsBus::builder().events(tap.clone());
    let other = runtime.block_on(builder.client(client.clone())).unwrap();
    let builder = NatsBus::builder().events(tap);
    let bus = runtime.block_on(builder.client(client.clone())).unwrap();
    let elsewhere = Recorder::new();
    let _elsewhere = other.subscribe(&pattern("p.>"), elsewhere.inbox());
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = bus.publisher();
    until_seen(&recorder, &mut publisher, "p.e.1");
    server.kill();
    server.restart();
    let connected = Event::Connected { generation: 2 };
    for recorder in [&recorder, &elsewhere] {
        assert!(
            has_event(recorder, |event| *event == connected),
            "{recorder:?}"
        );
    }
    assert_eq!(bus.generation(), 2);
    // Another bus on the same client ends by itself.
    other.close();
    let links = (other.status().link, bus.status().link);
    assert_eq!(links, (Link::Closed, Link::Up));
    until_seen(&recorder, &mut publisher, "p.e.2");
    bus.close();
    assert!(has_event(&recorder, |event| *event == Event::Closed));
    assert_eq!(
        publisher.publish(subject("p.e.3"), b""),
        Err(PublishError::Closed)
    );
    runtime.block_on(async {
        let mut own = client.subscribe("p.own").await.unwrap();
        client.publish("p.own", "".into()).await.unwrap();
        assert!(
            own.next().await.is_some(),
            "the client is still the caller's"
        );
    });
}

#[test]
fn losses_on_a_callers_client_are_told_by_its_events() {
    let server = NatsServer::start();
    let runtime = Runtime::new().unwrap();
    let tap = EventTap::new();
    let forward = tap.clone();
    let options = eager()
        .subscription_capacity(16)
        .event_callback(move |event| {
            forward.forward(&event);
            async {}
        });
    let client = runtime.block_on(options.connect(server.url())).unwrap();
    let bus = runtime.block_on(NatsBus::builder().events(tap).client(client));
    let bus = bus.unwrap();
    let recorder = Recorder::new();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let inbox = {
        let recorder = recorder.clone();
        move |delivery: Delivery<'_>| {
            recorder.record(delivery);
            if matches!(
                delivery,
                Delivery::Message {
                    payload: b"stick",
                    ..
                }
            ) {
                // Until the other end is dropped.
                held.recv_timeout(PATIENCE).ok();
            }
        }
    };
    let _subscription = bus.subscribe(&pattern("p.>"), Box::new(inbox)).unwrap();
    let mut publisher = bus.publisher();
    publisher.publish(subject("p.e"), b"stick").unwrap();
    assert!(recorder.wait(PATIENCE, |seen| count(seen, "p.e") == 1));
    for _ in 0..100 {
        publisher.publish(subject("p.e"), b"").unwrap();
    }
    // Its own subscription shows that the client has taken in all of them.
    let fence = Recorder::new();
    let _fence = bus.subscribe(&pattern("end"), fence.inbox()).unwrap();
    until_seen(&fence, &mut publisher, "end");
    drop(hold);
    assert!(has_event(&recorder, |event| matches!(
        event,
        Event::Lost { .. }
    )));
    assert!(recorder.wait(PATIENCE, |seen| count(seen, "p.e") >= 17));
    let all = count(&recorder.seen(), "p.e") as u64 + recorder.lost();
    assert!(all <= 101, "{all}: no loss is made up");
}

#[test]
fn a_client_without_a_tap_still_shows_its_generation() {
    let mut server = NatsServer::start();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(eager().connect(server.url())).unwrap();
    let bus = runtime.block_on(NatsBus::builder().client(client)).unwrap();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    let mut publisher = bus.publisher();
    until_seen(&recorder, &mut publisher, "p.e.1");
    server.kill();
    server.restart();
    until_seen(&recorder, &mut publisher, "p.e.2");
    assert_eq!(bus.generation(), 2);
    assert_eq!(recorder.events(), []);
}

#[test]
fn what_was_published_is_written_out_when_the_bus_is_dropped() {
    // More than fits into the buffers on the way: many small messages, and a few large ones.
    for (messages, len) in [(1_500, 16 << 10), (15, 1 << 20)] {
        let server = NatsServer::start();
        let reader = connect(&server);
        let recorder = Recorder::new();
        let _subscription = reader.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
        until_seen(&recorder, &mut reader.publisher(), "p.settle");
        let bus = connect(&server);
        let mut publisher = bus.publisher();
        server.stop();
        for _ in 0..messages {
            publisher.publish(subject("p.e.1"), &vec![0; len]).unwrap();
        }
        drop((publisher, bus));
        server.go_on();
        let all = |seen: &[Seen]| count(seen, "p.e.1") == messages;
        let came = recorder.wait(PATIENCE, all);
        assert!(
            came,
            "{} of {messages} came",
            count(&recorder.seen(), "p.e.1")
        );
    }
}

#[test]
fn closing_ends_a_connection_on_the_callers_runtime() {
    let server = NatsServer::start();
    let runtime = Runtime::new().unwrap();
    let builder = NatsBus::builder().runtime(runtime.handle().clone());
    let bus = builder.connect_blocking(server.url()).unwrap();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    until_seen(&recorder, &mut bus.publisher(), "p.e.1");
    bus.close();
    assert!(
        has_event(&recorder, |event| *event == Event::Closed),
        "{recorder:?}"
    );
}

#[test]
fn a_connection_given_up_ends_the_bus() {
    let mut server = NatsServer::start();
    let bus = connect_with(&server, eager().max_reconnects(3));
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    until_seen(&recorder, &mut bus.publisher(), "p.e.1");
    server.kill();
    assert!(
        has_event(&recorder, |event| *event == Event::Closed),
        "{recorder:?}"
    );
    assert_eq!(bus.status().link, Link::Closed);
    assert_eq!(
        bus.publisher().publish(subject("p.e.2"), b""),
        Err(PublishError::Closed)
    );
}

#[test]
fn a_runtime_that_goes_away_ends_its_subscriptions() {
    let server = NatsServer::start();
    let runtime = Runtime::new().unwrap();
    let builder = NatsBus::builder().runtime(runtime.handle().clone());
    let bus = builder.connect_blocking(server.url()).unwrap();
    let recorder = Recorder::new();
    let _subscription = bus.subscribe(&pattern("p.>"), recorder.inbox()).unwrap();
    until_seen(&recorder, &mut bus.publisher(), "p.e.1");
    runtime.shutdown_background();
    assert!(
        has_event(&recorder, |event| *event == Event::Closed),
        "{recorder:?}"
    );
}
