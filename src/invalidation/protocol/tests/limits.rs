//! Clocks, tables, names and memories at their limits.

use super::*;

/// In `coherent` of fifty seconds the entity is trusted at their end; doubts and echoes asked for are
/// counted besides.
#[derive(Debug, Default)]
struct Minute {
    coherent: usize,
    doubts: usize,
    solicited: usize,
}

/// A publisher whose clock has lost `lost`, once, beats every second and answers whoever asks.
fn after_a_stop(lost: Micros) -> Minute {
    let mut stage = Stage::coherent();
    let mut minute = Minute::default();
    for _ in 0..50 {
        stage.now += 100 * MS;
        let asked = stage.now;
        let (subject, payload) = stage.plan();
        let Ok(Frame {
            body: crate::invalidation::frame::Body::Beat(ours),
            ..
        }) = Frame::decode(&payload)
        else {
            panic!("a beat");
        };
        minute.solicited += usize::from(ours.solicit);
        let echo = ours.solicit.then_some(Echo {
            incarnation: OWN,
            sent: asked - 100 * SECOND,
            held: 0,
        });
        stage.now += MS;
        stage.message(&subject, &payload);
        stage.beats += 1;
        let writer = BeatWriter {
            incarnation: P,
            sequence: stage.beats,
            sent: stage.theirs() - lost,
            solicit: false,
            reader: false,
            bye: false,
            name: "p",
            lease: RULES.lease,
        };
        let echoes: Vec<_> = echo.into_iter().collect();
        let mut payload = Vec::new();
        writer.write(&mut payload, echoes.into_iter(), std::iter::empty());
        stage.message(&format!("%-c.{P}"), &payload);
        for _ in 0..9 {
            stage.now += 100 * MS;
            stage.node.tick(stage.now, &mut stage.log);
        }
        let log = stage.log.take();
        minute.doubts += log.iter().filter(|did| did.starts_with("doubt")).count();
        minute.coherent += usize::from(stage.node.belief(stage.row) == Belief::Coherent);
    }
    minute
}

#[test]
fn i7_a_publisher_whose_clock_stood_still_is_trusted_again_soon() {
    // Less than is worth a question; about a lease, so that it comes and goes; far more.
    for (lost, at_most) in [(500 * MS, 0), (2_500 * MS, 3), (10 * SECOND, 1)] {
        let minute = after_a_stop(lost);
        assert!(minute.coherent >= 40, "{lost}: {minute:?}");
        assert!(minute.doubts <= at_most, "{lost}: {minute:?}");
        assert!(minute.solicited <= 15, "{lost}: {minute:?}");
    }
}

#[test]
fn nothing_is_asked_of_a_publisher_that_is_heard_no_more() {
    let mut stage = Stage::coherent();
    let late = stage.theirs() - 2_900 * MS;
    stage.beat_of(P, 0, |beat| beat.sent = late, 0);
    assert!(stage.node.plan_beat(stage.now, 0).solicit);
    stage.pass(RULES.lease);
    assert!(!stage.node.plan_beat(stage.now, 0).solicit);
}

#[test]
fn i6_an_entity_that_made_room_is_still_known_as_plain() {
    let mut stage = Stage::new();
    stage.node.watch_unknown(true);
    let plain = |stage: &Stage, name: &str| stage.node.is_plain(&Entity::new(name).unwrap());
    for name in ["a", "b"] {
        stage.message(&format!("{name}.1"), b"");
    }
    stage.now += 10 * SECOND;
    for name in ["c", "d"] {
        stage.message(&format!("{name}.1"), b"");
    }
    for name in ["a", "b", "c", "d"] {
        assert!(plain(&stage, name), "{name}");
    }
    assert!(!plain(&stage, "e"), "nobody spoke of it");
    // More of them than are remembered: then nothing is said to be without them.
    stage.now += 10 * SECOND;
    for name in ["f", "g", "h"] {
        stage.message(&format!("{name}.1"), b"");
    }
    stage.now += 10 * SECOND;
    for name in ["i", "j"] {
        stage.message(&format!("{name}.1"), b"");
    }
    for name in ["a", "b", "c", "d", "f", "g", "h"] {
        assert!(plain(&stage, name), "{name}");
    }
}

#[test]
fn i8_an_entity_that_is_tracked_again_asks_for_positions_of_who_has_left() {
    let mut stage = Stage::coherent();
    stage.one_of(P, 1, Some(Position::Own(70)));
    assert_eq!(stage.bye(1), [""; 0]);
    stage.node.untrack(stage.row);
    stage.row = stage
        .node
        .track(&Entity::new("user").unwrap(), stage.now)
        .unwrap();
    assert_eq!(stage.node.floor(stage.row), Some(70));
}

#[test]
fn i7_an_expected_reader_is_heard_and_waited_for() {
    let mut stage = Stage::new();
    stage.node.expect(["r".into()]);
    let reader = |beat: &mut BeatWriter<'_>| (beat.reader, beat.name) = (true, "r");
    for _ in 0..3 {
        stage.own_beat();
        stage.beat_of(Incarnation(9), 0, reader, 0);
        // Nobody waits for this one.
        stage.beat_of(
            Incarnation(10),
            0,
            |beat| (beat.reader, beat.name) = (true, "q"),
            0,
        );
        stage.now += SECOND;
    }
    let doubters = stage.node.doubters(stage.row, stage.now);
    assert_eq!(
        stage.node.belief(stage.row),
        Belief::Coherent,
        "{doubters:?}"
    );
    assert_eq!(stage.node.heard(), 1);
    stage.pass(RULES.lease);
    let doubters = stage.node.doubters(stage.row, stage.now);
    let expected =
        |doubter: &Doubter| matches!(doubter, Doubter::Expected { name, .. } if &**name == "r");
    assert!(doubters.iter().any(expected), "{doubters:?}");
}

#[test]
fn rule_6_a_twin_that_is_behind_is_noticed() {
    let mut stage = Stage::coherent();
    let beats = 4_000;
    let mut sent = Vec::new();
    for _ in 0..beats {
        stage.now += SECOND;
        sent.push(stage.now - 100 * SECOND);
        stage.own_beat();
        stage.beat(0);
    }
    stage.log.take();
    let of_ours = |stage: &mut Stage, number: u64, then: Micros| {
        stage.beat_of(
            OWN,
            0,
            |beat| (beat.sequence, beat.sent) = (number, then),
            0,
        )
    };
    // Two were sent before: a late copy says nothing.
    assert_eq!(of_ours(&mut stage, 23, sent[20]), [""; 0]);
    // A twin goes on from a snapshot of more than an hour ago.
    let log = of_ours(&mut stage, 23, sent[20] + 5);
    assert!(log.contains(&"forked".to_owned()), "{log:?}");
}

/// A cache falls into doubt by the clock, and whoever asks why may come before the node has looked.
#[test]
fn i6_who_asks_before_the_node_has_looked_is_told_why() {
    let mut stage = Stage::coherent();
    stage.now += 500 * MS;
    stage.beat(0);
    // The own proof is over before the publisher's lease.
    let over = stage.node.horizon(stage.now);
    assert_eq!(stage.node.doubters(stage.row, over - 1), []);
    let own_path = [Doubter::OwnPath { since: over }];
    assert_eq!(stage.node.doubters(stage.row, over), own_path);
    stage.now = over + 100 * MS;
    stage.node.tick(stage.now, &mut stage.log);
    assert_eq!(stage.node.doubters(stage.row, stage.now), own_path);
}

#[test]
fn i6_a_late_first_beat_of_an_expected_name_does_not_put_off_b() {
    let mut stage = Stage::coherent();
    stage.node.expect(["p".into()]);
    stage.bye(0);
    // The next of that name says hello, and then emits; all is lost but the hello, which is long under way.
    let emitted = stage.now;
    let hello = stage.theirs();
    stage.pass(2_900 * MS);
    let row = stage.row;
    assert_eq!(
        stage.node.belief(row),
        Belief::Coherent,
        "its goodbye vouches"
    );
    stage.beat_of(Incarnation(9), 0, |beat| beat.sent = hello, 0);
    let bound = RULES.lease + RULES.e_max;
    let left = emitted + bound - stage.now;
    stage.pass(left);
    assert_ne!(stage.node.belief(row), Belief::Coherent);
}
