//! I4: what makes no sense is logged at a limited rate. Alone in its process: it listens to all logs.

#[path = "invalidation/support.rs"]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use afterwrite::bus::LocalBus;
use afterwrite::invalidation::Invalidator;
use afterwrite::invalidation::cache::Invalidation;
use support::{Moody, entity, eventually, quick};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static WARNINGS: AtomicUsize = AtomicUsize::new(0);

/// Counts warnings.
struct Count;

impl Subscriber for Count {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target().starts_with("afterwrite") {
            WARNINGS.fetch_add(1, SeqCst);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn i4_malformed_subjects_are_logged_at_a_limited_rate() {
    tracing::subscriber::set_global_default(Count).unwrap();
    let bus = Moody::new(LocalBus::new());
    let reader = Invalidator::new(bus.clone(), quick("reader")).unwrap();
    let _watch = reader.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..10_000 {
        bus.publish("cache.invalidate.user", b"");
    }
    eventually("all are counted", || reader.stats().malformed == 10_000);
    let seconds = begun.elapsed().as_secs() as usize;
    let lines = WARNINGS.load(SeqCst);
    assert!(
        (1..=seconds + 1).contains(&lines),
        "{lines} lines in {seconds} s"
    );
}
