//! I7: `suspects` says who, why and since when.

#[path = "invalidation/support.rs"]
mod support;

use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, LocalBus};
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{Invalidator, Watch, Why};
use support::{Moody, entity, eventually, nap, pair, quick, recorder};

/// The earliest and the latest moment from which on this node suspects `name` for that reason.
fn since(node: &Invalidator, name: &str, why: Why) -> (Instant, Instant) {
    let before = Instant::now();
    let suspects = node.suspects(&entity());
    let after = Instant::now();
    let wanted = suspects.iter().find(|s| s.name == name && s.why == why);
    let wanted = wanted.unwrap_or_else(|| panic!("no {name}, {why} in {suspects:?}"));
    (before - wanted.for_how_long, after - wanted.for_how_long)
}

/// Something was broken at `broken`. Waits for the suspect, and sees that its time lies between, and
/// that it stays what it is while beats come and go.
fn lies_between(node: &Invalidator, name: &str, why: Why, broken: Instant) {
    eventually("it is suspected", || {
        let suspects = node.suspects(&entity());
        suspects.iter().any(|s| s.name == name && s.why == why)
    });
    let doubted = Instant::now();
    let (earliest, latest) = since(node, name, why);
    assert!(latest >= broken, "{why}: {:?} too early", broken - latest);
    let late = earliest.saturating_duration_since(doubted);
    assert_eq!(late, Duration::ZERO, "{why}: too late");
    nap(Duration::from_millis(200));
    let again = since(node, name, why);
    assert!(
        again.0 <= latest && earliest <= again.1,
        "{why}: it moved from {earliest:?}..{latest:?} to {again:?}"
    );
}

/// A node that watches, and trusts what it hears.
fn coherent(bus: impl Bus) -> (Invalidator, Watch) {
    let reader = Invalidator::new(bus, quick("reader")).unwrap();
    let (_seen, tell) = recorder();
    let watch = reader.watch(&entity(), tell).unwrap();
    eventually("it is coherent", || {
        reader.coherence(&entity()) == Coherence::Coherent
    });
    (reader, watch)
}

#[test]
fn i7_a_silent_publisher_is_suspected_since_its_lease_ended() {
    let pair = pair(|s| s);
    let broken = Instant::now();
    pair.bus.set_silent(true);
    lies_between(&pair.reader, "writer", Why::Silent, broken);
}

#[test]
fn i7_the_own_path_is_suspected_since_its_proof_was_lost() {
    let bus = Moody::new(LocalBus::new());
    let (reader, _watch) = coherent(bus.clone());
    let broken = Instant::now();
    bus.set_silent(true);
    lies_between(&reader, "reader", Why::OwnPath, broken);
}

#[test]
fn i7_a_write_is_suspected_since_it_was_found_to_take_too_long() {
    let pair = pair(|s| s.write_limit(Duration::from_millis(100)));
    let broken = Instant::now();
    let theirs = pair.writer.writing(&entity(), "1").unwrap();
    lies_between(&pair.reader, "writer", Why::Unsettled, broken);
    theirs.rolled_back();
    eventually("it is coherent", || {
        pair.reader.coherence(&entity()) == Coherence::Coherent
    });
    // This node's own.
    let broken = Instant::now();
    let ours = pair.reader.writing(&entity(), "1").unwrap();
    lies_between(&pair.reader, "reader", Why::Unsettled, broken);
    ours.rolled_back();
}

#[test]
fn i7_who_is_expected_is_suspected_since_the_start() {
    let broken = Instant::now();
    let reader = Invalidator::new(LocalBus::new(), quick("reader").expect(["writer"])).unwrap();
    let (_seen, tell) = recorder();
    let _watch = reader.watch(&entity(), tell).unwrap();
    lies_between(&reader, "writer", Why::Expected, broken);
}

#[test]
fn i7_an_end_of_the_bus_is_suspected_since_it_came() {
    let bus = LocalBus::new();
    let (reader, _watch) = coherent(bus.clone());
    let broken = Instant::now();
    bus.close();
    lies_between(&reader, "reader", Why::Ended, broken);
}

#[test]
fn i7_beats_that_the_bus_does_not_take_are_told_apart() {
    let pair = pair(|s| s);
    let (_seen, tell) = recorder();
    let _watch = pair.writer.watch(&entity(), tell).unwrap();
    for n in 0..20 {
        let entity = Entity::new(&format!("entity-{n}")).unwrap();
        let _ = pair.writer.emit(&entity, "1").unwrap();
    }
    eventually("it is coherent", || {
        pair.writer.coherence(&entity()) == Coherence::Coherent
    });
    assert_eq!(pair.writer.stats().beats_too_large, 0);
    let broken = Instant::now();
    pair.bus.set_max_payload(200);
    // Emits are short enough, and are heard; but nobody can believe that all of them are.
    assert!(pair.writer.emit(&entity(), "1").is_ok());
    lies_between(&pair.writer, "writer", Why::BeatTooLarge, broken);
    lies_between(&pair.reader, "writer", Why::Silent, broken);
    let stats = pair.writer.stats();
    assert!(stats.beats_too_large > 0 && stats.beats_failed == stats.beats_too_large);
    pair.bus.set_max_payload(usize::MAX);
    for node in [&pair.writer, &pair.reader] {
        eventually("all is well again", || {
            node.coherence(&entity()) == Coherence::Coherent && node.suspects(&entity()).is_empty()
        });
    }
    // A loss of the way is one again.
    let broken = Instant::now();
    pair.bus.set_silent(true);
    lies_between(&pair.writer, "writer", Why::OwnPath, broken);
}
