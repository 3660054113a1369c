//! Since when somebody is suspected.

use super::*;

impl Stage {
    fn doubters(&self) -> Vec<Doubter> {
        self.node.doubters(self.row, self.now)
    }

    /// For how long the only one who is suspected has been so.
    fn for_how_long(&self, wanted: PeerWhy) -> Micros {
        match self.doubters()[..] {
            [Doubter::Peer { why, since, .. }] if why == wanted => self.now - since,
            ref others => panic!("{others:?}"),
        }
    }
}

#[test]
fn i7_a_proof_is_lost_once() {
    let mut stage = Stage::new();
    let begun = stage.now;
    stage.now += SECOND;
    let since = |since| [Doubter::OwnPath { since }];
    assert_eq!(stage.doubters(), since(begun), "there was none");
    let mut stage = Stage::coherent();
    stage.now += 10 * MS;
    let lost = stage.now;
    stage.node.generation(lost, 1, &mut stage.log);
    stage.now += SECOND;
    stage.node.unsubscribed(stage.now, &mut stage.log);
    assert!(stage.doubters().starts_with(&since(lost)));
    let ended = stage.now;
    stage.node.ended(ended, &mut stage.log);
    stage.now += SECOND;
    stage.node.ended(stage.now, &mut stage.log);
    assert_eq!(stage.doubters()[0], Doubter::Ended { since: ended });
    assert_eq!(stage.doubters()[1], Doubter::OwnPath { since: lost });
}

#[test]
fn i7_a_silence_begins_with_the_end_of_the_lease() {
    let mut stage = Stage::coherent();
    stage.now += 500 * MS;
    stage.own_beat();
    // What comes first from now on is the end of the publisher's lease.
    let over = stage.node.horizon(stage.now);
    stage.now = over + 10 * MS;
    assert_eq!(
        stage.for_how_long(PeerWhy::Silent),
        10 * MS,
        "not found yet"
    );
    stage.own_beat();
    let found = stage.now;
    stage.pass(SECOND);
    assert_eq!(stage.for_how_long(PeerWhy::Silent), stage.now - found);
}

#[test]
fn i7_a_write_is_unsettled_from_the_first_beat_that_says_so() {
    let mut stage = Stage::coherent();
    stage.now += 10 * MS;
    let since = stage.now;
    stage.beat_of(P, 0, |_| {}, 1);
    for _ in 0..3 {
        stage.pass(500 * MS);
        stage.beat_of(P, 0, |_| {}, 1);
    }
    let theirs = Doubter::Unsettled {
        name: Some("p".into()),
        incarnation: P,
        since,
    };
    assert_eq!(stage.doubters(), [theirs]);
    stage.beat(0);
    assert_eq!(stage.doubters(), []);
    let since = stage.now;
    for _ in 0..3 {
        stage
            .node
            .own_unsettled(stage.row, true, stage.now, &mut stage.log);
        stage.now += 10 * MS;
    }
    let ours = Doubter::Unsettled {
        name: None,
        incarnation: OWN,
        since,
    };
    assert_eq!(stage.doubters(), [ours]);
}

#[test]
fn i7_a_write_that_a_beat_speaks_of_no_more_is_settled() {
    let mut stage = Stage::coherent();
    stage.beat_of(P, 0, |_| {}, 1);
    stage.beats += 1;
    let silent = BeatWriter {
        incarnation: P,
        sequence: stage.beats,
        sent: stage.theirs(),
        solicit: false,
        reader: false,
        bye: false,
        name: "p",
        lease: RULES.lease,
    };
    let mut payload = Vec::new();
    silent.write(&mut payload, std::iter::empty(), std::iter::empty());
    stage.now += 200 * MS;
    stage.message(&format!("%-c.{P}"), &payload);
    assert_eq!(stage.log.take(), ["recover: unsettled write"]);
}

#[test]
fn i7_a_crowd_is_as_old_as_its_first() {
    let mut stage = Stage::coherent();
    for n in 0..3 {
        stage.one_of(Incarnation(100 + n), 1, None);
    }
    let since = stage.now;
    for _ in 0..3 {
        stage.one_of(Incarnation(200), 1, None);
        stage.now += SECOND;
    }
    assert!(stage.doubters().contains(&Doubter::Crowded { since }));
    stage.now += RULES.lease;
    let since = stage.now;
    stage.one_of(Incarnation(200), 1, None);
    assert!(stage.doubters().contains(&Doubter::Crowded { since }));
}

#[test]
fn i7_who_is_expected_is_missed_from_the_start_or_the_end_of_what_vouched() {
    let mut stage = Stage::new();
    stage.node.expect(["p".into()]);
    let missed = |since| Doubter::Expected {
        name: "p".into(),
        since,
    };
    let begun = stage.now;
    stage.pass(2 * SECOND);
    assert_eq!(stage.doubters(), [missed(begun)]);
    stage.beat(0);
    assert_eq!(stage.doubters(), []);
    stage.bye(0);
    while stage.doubters().is_empty() {
        stage.pass(100 * MS);
    }
    let since = stage.now;
    stage.pass(SECOND);
    assert_eq!(stage.doubters(), [missed(since)]);
}

#[test]
fn i7_a_beat_is_awaited_from_the_proof_on_and_a_clock_unclear_from_its_last_limit() {
    let mut stage = Stage::coherent();
    stage.now += 10 * MS;
    stage.node.generation(stage.now, 1, &mut stage.log);
    stage.node.generation(stage.now, 0, &mut stage.log);
    stage.own_beat();
    stage.now += 50 * MS;
    assert_eq!(stage.for_how_long(PeerWhy::Awaited), 50 * MS);
    // One whom nobody answers, and who is believed for one lease without.
    let mut stage = Stage::new();
    let heard = stage.now;
    for _ in 0..8 {
        let unanswered = stage.theirs() - MS;
        stage.beat_of(P, 0, |beat| beat.sent = unanswered, 0);
        stage.pass(500 * MS);
    }
    assert_eq!(stage.for_how_long(PeerWhy::Uncalibrated), stage.now - heard);
}
