//! I4: what anybody can cause is logged at a limited rate, each kind of line at its own. Alone in its
//! process: it listens to all logs, and each test to lines that no other causes.

#[path = "invalidation/support.rs"]
mod support;

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::sync::{LazyLock, Mutex, Once};
use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, Delivery, Event as BusEvent, LocalBus};
use afterwrite::invalidation::cache::Invalidation;
use afterwrite::invalidation::subject::{Entity, Pattern};
use afterwrite::invalidation::{Farewell, Invalidator};
use support::{LONG, Moody, entity, eventually, nap, pair, quick};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// How often each line was written, without its fields.
static LINES: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

/// Counts warnings and errors.
struct Count;

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

impl Subscriber for Count {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("afterwrite")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        *LINES.lock().unwrap().entry(message.0).or_default() += 1;
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// From now on all lines are counted.
fn listen() -> Instant {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Count).unwrap());
    Instant::now()
}

/// Sees that this line was written, and no more often than once a second since then.
fn limited(since: Instant, line: &str) {
    let most = since.elapsed().as_secs() as usize + 1;
    let lines = LINES.lock().unwrap().get(line).copied().unwrap_or(0);
    assert!((1..=most).contains(&lines), "{lines} times {line:?}");
}

#[test]
fn i4_a_flood_of_malformed_subjects_hides_no_denial() {
    let begun = listen();
    let bus = Moody::new(LocalBus::new());
    let reader = Invalidator::new(bus.clone(), quick("reader")).unwrap();
    let _watch = reader.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    for n in 0..10_000 {
        bus.publish("cache.invalidate.user", b"");
        // The flood has been noticed by then.
        if n == 100 {
            eventually("it is counted", || reader.stats().malformed > 0);
        }
        if n >= 100 && n % 100 == 0 {
            let subject = "cache.invalidate.user.1".into();
            bus.tell(&BusEvent::PublishDenied { subject });
            let subject = "cache.invalidate.>".into();
            bus.tell(&BusEvent::SubscribeDenied { subject });
            let message = "slow".into();
            bus.tell(&BusEvent::Error { message });
        }
    }
    eventually("all are counted", || reader.stats().malformed == 10_000);
    limited(begun, "a subject makes no sense");
    limited(begun, "the server denies publishing");
    limited(begun, "the server denies subscribing");
    limited(begun, "the bus reports an error");
}

#[test]
fn i4_writes_that_cannot_be_told_are_logged_at_a_limited_rate() {
    let begun = listen();
    let pair = pair(|s| s);
    let open = |n: usize| pair.writer.writing(&entity(), &n.to_string()).unwrap();
    let guards: Vec<_> = (0..1_000).map(open).collect();
    assert_eq!(pair.writer.close(Duration::ZERO), Farewell::Unsaid);
    drop(guards);
    limited(begun, "a write could not be told");
}

#[test]
fn i4_watchers_that_panic_are_logged_at_a_limited_rate() {
    let begun = listen();
    let pair = pair(|s| s);
    let panics = |what: Invalidation<'_>| assert!(matches!(what, Invalidation::All(_)), "{what:?}");
    let inline = pair.reader.watch_inline(&entity(), panics).unwrap();
    let queued = pair.reader.watch(&entity(), panics).unwrap();
    for _ in 0..20 {
        let _ = pair.writer.emit(&entity(), "1").unwrap();
    }
    let both = [&inline, &queued];
    eventually("all fail", || {
        both.iter().all(|watch| watch.stats().failures >= 20)
    });
    // One limit a watch.
    limited(
        begun - Duration::from_secs(1),
        "a watcher panicked; its cache is in doubt",
    );
}

#[test]
fn i4_a_watcher_of_everything_that_panics_is_logged_at_a_limited_rate() {
    let begun = listen();
    let pair = pair(|s| s.max_entities(1));
    let watch = pair.reader.watch_all(|entity, _| {
        assert_eq!(entity.as_str(), "user");
    });
    let watch = watch.unwrap();
    let other = Invalidator::new(pair.bus.inner(), quick("other")).unwrap();
    for n in 0..20 {
        let _ = other
            .emit(&Entity::new(&format!("e{n}")).unwrap(), "1")
            .unwrap();
    }
    eventually("all are heard", || pair.reader.stats().strays >= 20);
    assert!(watch.stop_blocking(LONG));
    limited(begun, "a watcher of everything panicked");
}

#[test]
fn i4_inboxes_that_panic_are_logged_at_a_limited_rate() {
    let begun = listen();
    let bus = Moody::new(LocalBus::new());
    let (seen, count) = std::sync::mpsc::channel();
    let panics = move |_: Delivery<'_>| {
        seen.send(()).unwrap();
        panic!("an inbox");
    };
    let pattern = Pattern::new("a").unwrap();
    let _interest = bus.inner().subscribe(&pattern, Box::new(panics)).unwrap();
    for _ in 0..20 {
        bus.publish("a", b"");
        count.recv_timeout(LONG).unwrap();
    }
    // The last one is logged after it was seen.
    nap(Duration::from_millis(50));
    limited(begun, "an inbox panicked; the subscription goes on");
}

#[test]
fn i4_twins_are_logged_at_a_limited_rate() {
    let begun = listen();
    let pair = pair(|s| s);
    let (tell, heard) = std::sync::mpsc::channel();
    let inbox = move |delivery: Delivery<'_>| {
        if let Delivery::Message { subject, payload } = delivery {
            tell.send((subject.to_owned(), payload.to_vec())).ok();
        }
    };
    let beats = Pattern::new("cache.invalidate.%-c.*").unwrap();
    let _interest = pair.bus.subscribe(&beats, Box::new(inbox)).unwrap();
    // Whoever repeats a beat with another number is a twin, and there is one of every life.
    let mut said = Vec::new();
    while pair.reader.stats().forks < 5 {
        assert!(begun.elapsed() < LONG, "{:?}", pair.reader.stats());
        let (subject, mut payload) = heard.recv_timeout(LONG).unwrap();
        if said.contains(&payload) {
            continue;
        }
        // Magic, version and kind, flags, incarnation, and then the number.
        let number = &mut payload[2 + 1 + 1 + 8];
        *number = (*number & 0x80) | (((*number & 0x7f) + 1) & 0x7f);
        pair.bus.publish(&subject, &payload);
        said.push(payload);
    }
    limited(
        begun - Duration::from_secs(1),
        "another node speaks with this node's incarnation; taking a new one",
    );
}
