//! Rule 6: who hears its own incarnation from elsewhere takes a new one, and nobody misses anything.

#[path = "invalidation/support.rs"]
mod support;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use afterwrite::bus::{Bus, Delivery, Interest, LocalBus};
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::Pattern;
use afterwrite::invalidation::{Emitted, Farewell, Why};
use support::{LONG, entity, eventually, pair, recorder};

/// What is said on a bus from now on.
struct Tap {
    said: Receiver<(String, Vec<u8>)>,
    _interest: Interest,
}

impl Tap {
    fn new(bus: &LocalBus, pattern: &str) -> Self {
        let (say, said) = channel();
        let inbox = move |delivery: Delivery<'_>| {
            if let Delivery::Message { subject, payload } = delivery {
                let _ = say.send((subject.to_owned(), payload.to_vec()));
            }
        };
        let pattern = Pattern::new(pattern).unwrap();
        let interest = bus.subscribe(&pattern, Box::new(inbox)).unwrap();
        Self {
            said,
            _interest: interest,
        }
    }

    fn next(&self) -> (String, Vec<u8>) {
        self.said.recv_timeout(LONG).expect("nothing was said")
    }
}

/// The digits of the incarnation in a frame: they follow its magic, kind and flags.
fn incarnation(frame: &[u8]) -> String {
    frame[4..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn rule_6_a_node_with_a_twin_takes_a_new_incarnation() {
    let pair = pair(|settings| settings.retire_after(Duration::from_secs(2)));
    let (own, tell) = recorder();
    let _watch = pair.writer.watch(&entity(), tell).unwrap();
    assert_eq!(own.next(LONG), "all: joined");
    let tap = Tap::new(&pair.bus.inner(), "cache.invalidate.user.*");
    assert_eq!(pair.writer.emit(&entity(), "1").unwrap(), Emitted::Sent);
    let (subject, frame) = tap.next();
    assert_eq!(
        (own.next(LONG), pair.seen.next(LONG)),
        ("1".into(), "1".into())
    );

    // A copy is a copy.
    pair.bus.publish(&subject, &frame);
    assert_eq!(tap.next(), (subject, frame.clone()));
    assert_eq!(own.next(LONG), "1");
    assert_eq!(pair.writer.stats().forks, 0);

    // Of another entity that number was never given out.
    pair.bus.publish("cache.invalidate.order.1", &frame);
    eventually("a fork is noticed", || pair.writer.stats().forks == 1);
    assert_eq!(
        own.next(LONG),
        "all: gap",
        "something may have been meant for it"
    );
    assert_eq!(pair.writer.emit(&entity(), "2").unwrap(), Emitted::Sent);
    let (_, next) = tap.next();
    assert_ne!(incarnation(&frame), incarnation(&next));
    pair.seen.until(LONG, |seen| seen == "2");

    // Whoever knew the old one cannot know what else it said.
    eventually("the old one is missed", || {
        let suspects = pair.reader.suspects(&entity());
        let mut missed = suspects.iter().filter(|one| one.why == Why::Silent);
        missed.any(|one| {
            one.incarnation
                .is_some_and(|who| who.to_string() == incarnation(&frame))
        })
    });
    assert_eq!(pair.watch.coherence(), Coherence::Suspect);
    eventually("it is retired", || pair.reader.stats().retired == 1);
    pair.seen
        .until(LONG, |seen| seen == "all: publisher silent");
    eventually("the new one is enough", || {
        pair.watch.coherence() == Coherence::Coherent && pair.reader.stats().publishers == 1
    });
    // It goes on as any other does, to its end.
    let _ = pair.writer.emit(&entity(), "3").unwrap();
    pair.seen.until(LONG, |seen| seen == "3");
    let stats = pair.writer.stats();
    assert_eq!((stats.forks, stats.refused, stats.failed), (1, 0, 0));
    let doubts = pair.reader.stats().doubts;
    assert_eq!(pair.writer.close(LONG), Farewell::Said);
    eventually("its goodbye is heard", || {
        pair.reader.stats().publishers == 0
    });
    assert_eq!(pair.reader.stats().doubts, doubts);
}
