//! Peers without frames, over a real server: what one that subscribes sees of an afterwrite node, and
//! what a node makes of one that publishes.
#![cfg(feature = "nats")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use afterwrite::bus::{Bus, NatsBus};
use afterwrite::invalidation::cache::Invalidation;
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{Emitted, Invalidator, Settings};
use async_nats::{Client, ConnectOptions, Subscriber};
use futures_util::StreamExt;
use support::PATIENCE;
use support::nats::{connect, connect_with, eager};
use support::server::NatsServer;
use support::stage::{eventually, nap, settings};
use tokio::runtime::Runtime;

/// A service that knows the subjects and nothing else, on a connection of its own.
struct Plain {
    runtime: Runtime,
    client: Client,
}

impl Plain {
    fn new(server: &NatsServer) -> Self {
        let runtime = Runtime::new().unwrap();
        // Room for all that a node hands over before its outbox is full.
        let options = ConnectOptions::new().subscription_capacity(1 << 20);
        let client = runtime.block_on(options.connect(server.url())).unwrap();
        Self { runtime, client }
    }

    fn publish(&self, to: &str) {
        self.runtime.block_on(async {
            self.client
                .publish(to.to_owned(), "".into())
                .await
                .expect("handed over");
            self.client.flush().await.expect("flushed");
        });
    }

    /// Hears whatever is written to `user`.
    fn listen(&self) -> Ids<'_> {
        let users = self.runtime.block_on(async {
            let users = self.client.subscribe("cache.invalidate.user.*").await;
            self.client.flush().await.expect("flushed");
            users.expect("subscribed")
        });
        Ids { plain: self, users }
    }
}

/// What stands where an id does in the subjects that come, in order.
struct Ids<'a> {
    plain: &'a Plain,
    users: Subscriber,
}

impl Ids<'_> {
    fn next(&mut self) -> String {
        let next = async { tokio::time::timeout(PATIENCE, self.users.next()).await };
        let message = self.plain.runtime.block_on(next).expect("something comes");
        let message = message.expect("a message");
        let id = message.subject.strip_prefix("cache.invalidate.user.");
        id.expect("it was asked for").to_owned()
    }
}

fn user() -> Entity {
    Entity::new("user").unwrap()
}

fn writer(bus: NatsBus, change: impl Fn(Settings) -> Settings) -> Invalidator {
    Invalidator::new(bus, change(settings("writer"))).unwrap()
}

#[test]
fn i1_a_plain_subscriber_sees_the_subject_of_every_id() {
    let server = NatsServer::start();
    let plain = Plain::new(&server);
    let mut seen = plain.listen();
    let node = writer(connect(&server), |settings| settings);
    let user = user();
    assert_eq!(node.emit(&user, "42"), Ok(Emitted::Sent));
    assert_eq!(seen.next(), "42");
    assert_eq!(node.emit_at(&user, "43", 7), Ok(Emitted::Sent));
    assert_eq!(seen.next(), "43");
    // What no token can carry is escaped: who wants such ids has to decode them.
    assert_eq!(node.emit(&user, "a.b é"), Ok(Emitted::Sent));
    assert_eq!(seen.next(), "a%2Eb%20%C3%A9");
    let mut writing = node.writing(&user, "44").unwrap();
    writing.also("45").unwrap();
    assert_eq!(writing.committed(), Ok(Emitted::Sent));
    assert_eq!([seen.next(), seen.next()], ["44", "45"]);
    // Batches are parted, with a peer of this kind in mind or by default.
    let ids: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(node.emit_batch(&user, &ids, None), Ok(Emitted::Sent));
    for id in &ids {
        assert_eq!(seen.next(), *id);
    }
}

/// The documented hole: one subject stands for all ids, and looks like one of them.
#[test]
fn i1_a_plain_subscriber_learns_no_id_from_what_drops_all_or_many() {
    let server = NatsServer::start();
    let plain = Plain::new(&server);
    let mut seen = plain.listen();
    let node = writer(connect(&server), |settings| settings);
    let user = user();
    assert_eq!(node.emit_all(&user), Ok(Emitted::Sent));
    assert_eq!(seen.next(), "%-all");
    assert_eq!(node.emit(&user, "1"), Ok(Emitted::Sent));
    assert_eq!(seen.next(), "1", "nothing came in between");

    // Only who says that there are no such peers sends this.
    let node = writer(connect(&server), |settings| settings.plain_peers(false));
    let batch = node.emit_batch(&user, ["2", "3"], None);
    assert_eq!(batch, Ok(Emitted::Sent));
    assert_eq!(seen.next(), "%-batch");
    assert_eq!(node.emit(&user, "4"), Ok(Emitted::Sent));
    assert_eq!(seen.next(), "4", "nothing came in between");
}

/// The same where nobody asked for it: the server stands still until the outbox is full.
#[test]
fn i1_a_plain_subscriber_learns_no_id_from_a_collapse() {
    let server = NatsServer::start();
    let plain = Plain::new(&server);
    let mut seen = plain.listen();
    let node = writer(connect_with(&server, eager()), |settings| {
        settings.outbox_capacity(2)
    });
    let user = user();
    // Long ids fill what lies between the two sooner.
    let id = |n: usize| format!("{n:0>900}");
    server.stop();
    let mut told = Vec::new();
    loop {
        let next = id(told.len());
        if node.emit(&user, &next) == Ok(Emitted::Collapsed) {
            break;
        }
        told.push(next);
        assert!(told.len() < 500_000, "never full");
    }
    assert_eq!(node.emit(&user, "after"), Ok(Emitted::Collapsed));
    server.go_on();
    for id in &told {
        assert_eq!(seen.next(), *id);
    }
    assert_eq!(seen.next(), "%-all");
    assert_ne!(node.emit(&user, "last"), Ok(Emitted::Collapsed));
    assert_eq!(seen.next(), "last", "nothing came in between");
}

/// What of a plain publisher's is no token of ours says nothing: its entries neither drop nor age.
#[test]
fn i4_a_plain_publisher_is_heard_if_its_tokens_are_canonical() {
    let server = NatsServer::start();
    let max_age = Duration::from_millis(400);
    // So long a lease that a busy machine causes no doubt.
    let settings = settings("reader").lease(Duration::from_secs(10));
    let node = Invalidator::new(connect(&server), settings.max_age(max_age)).unwrap();
    let users = Coherent::new(BoundedMap::<u64>::new(64));
    let watch = node.watch_inline(&user(), &users).unwrap();
    eventually("it is coherent", || {
        watch.coherence() == Coherence::Coherent
    });
    let load = |id: &str| {
        let loaded = users.get_or_load_blocking(id, || Ok::<_, std::io::Error>(Some(1)));
        assert_eq!(loaded.unwrap(), Some(1));
    };
    let cached = |id: &str| users.get(id).is_some();
    let (tell, told) = channel();
    let dropped = move |what: Invalidation<'_>| {
        if let Invalidation::One(id) = what {
            tell.send(id.to_owned()).ok();
        }
    };
    let _log = node.watch(&user(), dropped).unwrap();
    let plain = Plain::new(&server);

    let wrong = [
        ("a.b", "a.b"),         // two tokens: the dot is not escaped
        ("a%2eb", "a.b"),       // a lower-case digit
        ("%41", "A"),           // an escape that is not needed
        ("é", "é"),             // a byte that is not ASCII
        ("100%", "100%"),       // a bare `%`
        ("%C3", "\u{c3}"),      // no UTF-8, once decoded
        ("%-every", "%-every"), // reserved
    ];
    wrong.iter().for_each(|(_, id)| load(id));
    for (n, (token, _)) in (1..).zip(wrong) {
        plain.publish(&format!("cache.invalidate.user.{token}"));
        eventually(token, || node.stats().malformed == n);
    }
    nap(2 * max_age);
    for (token, id) in wrong {
        assert!(cached(id), "{token}: dropped, or too old");
    }
    assert!(!node.is_plain(&user()) && node.stats().plain == 0);

    // One valid token: its id drops, and the others age.
    plain.publish("cache.invalidate.user.a%2Eb");
    assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok("a.b"));
    assert!(node.is_plain(&user()));
    eventually("the others age", || !wrong.iter().any(|(_, id)| cached(id)));
    plain.publish("cache.invalidate.user.%C3%A9");
    assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok("é"));
    let stats = node.stats();
    assert_eq!((stats.gaps, stats.plain), (0, 2));
    assert_eq!(watch.coherence(), Coherence::Coherent);
}

/// The client gives up a connection over which such a subject comes. What it may have missed meanwhile
/// is doubted as after any other end of a connection.
#[test]
fn i4_a_subject_that_is_no_text_costs_the_connection_and_is_noticed() {
    let server = NatsServer::start();
    let bus = connect_with(&server, eager());
    let node = Invalidator::new(bus.clone(), settings("reader")).unwrap();
    let users = Coherent::new(BoundedMap::<u64>::new(8));
    let watch = node.watch_inline(&user(), &users).unwrap();
    let coherent = || watch.coherence() == Coherence::Coherent;
    eventually("it is coherent", coherent);
    let doubts = node.stats().doubts;
    let mut raw = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let text = b"CONNECT {\"verbose\":false}\r\nPUB cache.invalidate.user.\xff 0\r\n\r\n";
    raw.write_all(text).unwrap();
    eventually("it connects again", || bus.generation() == 2);
    eventually("it doubts", || node.stats().doubts > doubts);
    eventually("it is coherent again", coherent);
}
