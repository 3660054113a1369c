//! The tables of the module's documentation, event by event.

mod hostile;
mod limits;
mod since;

use std::sync::Arc;

use super::*;
use crate::invalidation::cache::Reason;
use crate::invalidation::frame::{
    BatchWriter, BeatWriter, Echo, Frame, Header, Incarnation, Mark, Position, write_all,
    write_batch, write_one,
};
use crate::invalidation::subject::{Entity, EntityRef, IdRef, Prefix};

const MS: Micros = 1_000;
const SECOND: Micros = 1_000_000;
const RULES: Rules = Rules {
    beat: SECOND,
    lease: 3 * SECOND,
    e_max: 500 * MS,
    min_flush: 100 * MS,
    retire_after: 60 * SECOND,
    max_publishers: 4,
    max_entities: 3,
    mutant: None,
};
const P: Incarnation = Incarnation(7);
const OWN: Incarnation = Incarnation(1);

/// Writes down what the node wants.
#[derive(Debug, Default)]
struct Log(Vec<String>);

impl Log {
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}

impl Effects for Log {
    fn remove(&mut self, _: RowId, id: IdRef<'_>, position: Option<u64>, _: Option<Micros>) {
        self.0.push(match position {
            Some(position) => format!("remove {} at {position}", id.as_str()),
            None => format!("remove {}", id.as_str()),
        });
    }
    fn flush(&mut self, _: RowId, reason: Reason, _: Option<u64>) {
        self.0.push(format!("flush: {reason}"));
    }
    fn doubt(&mut self, _: RowId, reason: Reason) {
        self.0.push(format!("doubt: {reason}"));
    }
    fn recover(&mut self, _: RowId, reason: Reason, floor: Option<u64>) {
        self.0.push(match floor {
            Some(floor) => format!("recover: {reason} from {floor}"),
            None => format!("recover: {reason}"),
        });
    }
    fn trust_until(&mut self, _: Micros) {}
    fn returned(&mut self, _: &str, sequence: u64) {
        self.0.push(format!("returned {sequence}"));
    }
    fn tracked(&mut self, _: RowId, entity: &Entity) {
        self.0.push(format!("tracked {}", entity.as_str()));
    }
    fn forked(&mut self) {
        self.0.push("forked".into());
    }
}

/// A node that watches `user`, and a publisher whose clock is a second behind.
struct Stage {
    node: Node,
    log: Log,
    now: Micros,
    row: RowId,
    beats: u64,
    own: Arc<OwnMarks>,
}

impl Stage {
    fn new() -> Self {
        let now = 100 * SECOND;
        let own = Arc::<OwnMarks>::default();
        let mut node = Node::new(RULES, OWN, now, own.clone());
        let row = node.track(&Entity::new("user").unwrap(), now).unwrap();
        Self {
            node,
            log: Log::default(),
            now,
            row,
            beats: 0,
            own,
        }
    }

    /// A stage on which everybody has been heard.
    fn coherent() -> Self {
        let mut stage = Self::new();
        stage.own_beat();
        stage.now += 100 * MS;
        stage.beat(0);
        stage.now += 1_100 * MS;
        stage.own_beat();
        assert_eq!(stage.beat(0), ["recover: joined"]);
        assert_eq!(stage.node.belief(stage.row), Belief::Coherent);
        stage
    }

    fn theirs(&self) -> u64 {
        self.now - SECOND
    }

    fn message(&mut self, subject: &str, payload: &[u8]) {
        let subject = format!("cache.invalidate.{subject}");
        let prefix = Prefix::default();
        let address = prefix.parse(&subject).unwrap();
        self.node
            .message(self.now, &address, payload, &mut self.log);
    }

    fn one(&mut self, sequence: u64) -> Vec<String> {
        self.one_of(P, sequence, None)
    }

    fn one_of(
        &mut self,
        who: Incarnation,
        sequence: u64,
        position: Option<Position>,
    ) -> Vec<String> {
        let mut payload = Vec::new();
        let header = Header {
            incarnation: who,
            sequence,
            sent: self.theirs(),
            position,
        };
        write_one(&mut payload, &header);
        self.message("user.x", &payload);
        self.log.take()
    }

    /// Our own beat leaves, and comes back a millisecond later.
    fn own_beat(&mut self) {
        let (subject, payload) = self.plan();
        self.now += MS;
        self.message(&subject, &payload);
    }

    fn plan(&mut self) -> (String, Vec<u8>) {
        let plan = self.node.plan_beat(self.now, 0);
        let writer = BeatWriter {
            incarnation: plan.incarnation,
            sequence: plan.sequence,
            sent: plan.sent,
            solicit: plan.solicit,
            reader: false,
            bye: false,
            name: "own",
            lease: RULES.lease,
        };
        let mut payload = Vec::new();
        writer.write(&mut payload, plan.echoes.into_iter(), std::iter::empty());
        (format!("%-c.{}", plan.incarnation), payload)
    }

    fn beat(&mut self, mark: u64) -> Vec<String> {
        self.beat_of(P, mark, |_| {}, 0)
    }

    /// A beat of a publisher, which has just heard ours.
    fn beat_of(
        &mut self,
        who: Incarnation,
        mark: u64,
        change: impl FnOnce(&mut BeatWriter<'_>),
        unsettled: u64,
    ) -> Vec<String> {
        self.beats += 1;
        let mut writer = BeatWriter {
            incarnation: who,
            sequence: self.beats,
            sent: self.theirs(),
            solicit: false,
            reader: false,
            bye: false,
            name: "p",
            lease: RULES.lease,
        };
        change(&mut writer);
        let echo = Echo {
            incarnation: OWN,
            sent: (self.now - MS).saturating_sub(100 * SECOND),
            held: 0,
        };
        let mark = Mark {
            entity: EntityRef::new("user").unwrap(),
            mark,
            position: 0,
            unsettled,
        };
        // What was stamped at another time had not heard our last beat.
        let echoes = [echo]
            .into_iter()
            .take(usize::from(writer.sent == self.theirs()));
        let echoes: Vec<_> = echoes.collect();
        let mut payload = Vec::new();
        writer.write(&mut payload, echoes.into_iter(), [mark].into_iter());
        self.message(&format!("%-c.{who}"), &payload);
        self.log.take()
    }

    fn bye(&mut self, mark: u64) -> Vec<String> {
        self.beat_of(P, mark, |beat| beat.bye = true, 0)
    }

    /// Time passes, with our own beats in it.
    fn pass(&mut self, span: Micros) -> Vec<String> {
        let end = self.now + span;
        while self.now < end {
            self.now = end.min(self.now + 500 * MS);
            self.own_beat();
        }
        self.node.tick(self.now, &mut self.log);
        self.log.take()
    }
}

const GAP: [&str; 2] = ["doubt: gap", "recover: gap"];

#[test]
fn live_frames_in_order_are_drops_and_others_are_gaps() {
    let mut stage = Stage::coherent();
    assert_eq!(stage.one(1), ["remove x"]);
    assert_eq!(stage.one(2), ["remove x"]);
    assert_eq!(stage.one(2), ["remove x"], "a copy is applied, and no gap");
    assert_eq!(stage.one(1), ["remove x"], "a late one as well");
    stage.now += SECOND;
    assert_eq!(stage.one(4), ["remove x", GAP[0], GAP[1]]);
    assert_eq!(stage.one(3), ["remove x"], "it was counted as lost");
    assert_eq!(stage.one(5), ["remove x"]);
    assert_eq!(stage.node.counts().gaps, 1);
}

#[test]
fn an_unheard_publisher_begins_at_zero() {
    let mut stage = Stage::coherent();
    let (first, late) = (Incarnation(8), Incarnation(9));
    assert_eq!(stage.one_of(first, 1, None), ["remove x"]);
    stage.now += SECOND;
    assert_eq!(
        stage.one_of(late, 2, None),
        ["remove x", GAP[0], "recover: gap"][..2]
    );
}

#[test]
fn a_mark_tells_of_the_last_frame() {
    let mut stage = Stage::coherent();
    stage.one(1);
    assert_eq!(stage.beat(1), [""; 0]);
    stage.now += SECOND;
    stage.own_beat();
    assert_eq!(stage.beat(2), GAP);
}

#[test]
fn flushes_are_spaced_and_meanwhile_there_is_doubt() {
    let mut stage = Stage::coherent();
    stage.now += SECOND;
    assert_eq!(stage.one(5), ["remove x", GAP[0], GAP[1]]);
    stage.now += MS;
    assert_eq!(stage.one(9), ["remove x", "doubt: gap"]);
    assert_eq!(stage.node.belief(stage.row), Belief::Suspect);
    assert_eq!(stage.one(12), ["remove x"]);
    stage.now += 100 * MS;
    stage.node.tick(stage.now, &mut stage.log);
    assert_eq!(stage.log.take(), ["recover: gap"]);
}

#[test]
fn a_lease_ends_and_a_beat_renews_it() {
    let mut stage = Stage::coherent();
    assert_eq!(stage.pass(2_900 * MS), [""; 0]);
    assert_eq!(stage.pass(200 * MS), ["doubt: publisher silent"]);
    let doubters = stage.node.doubters(stage.row, stage.now);
    assert!(matches!(
        &doubters[..],
        [Doubter::Peer { name, why: PeerWhy::Silent, .. }] if &**name == "p"
    ));
    assert_eq!(stage.beat(0), ["recover: publisher silent"]);
}

#[test]
fn trust_lasts_no_longer_because_time_passes() {
    let mut stage = Stage::coherent();
    stage.now += 500 * MS;
    // What comes first from now on is the end of the publisher's lease, not of our own proof.
    stage.own_beat();
    let until = stage.node.horizon(stage.now);
    assert!(until > stage.now + 2_400 * MS);
    for passed in (0..2_400 * MS).step_by(137) {
        assert_eq!(stage.node.horizon(stage.now + passed), until);
    }
}

#[test]
fn a_late_beat_renews_nothing_but_its_marks_count() {
    let mut stage = Stage::coherent();
    stage.pass(3_100 * MS);
    let late = stage.theirs() - 3_050 * MS;
    assert_eq!(stage.beat_of(P, 3, |beat| beat.sent = late, 0), [""; 0]);
    assert_eq!(stage.node.counts().expired_beats, 1);
    assert_eq!(stage.node.counts().gaps, 1);
    assert_eq!(stage.node.belief(stage.row), Belief::Suspect);
}

#[test]
fn a_goodbye_ends_a_claim_and_a_word_after_it_is_a_gap() {
    let mut stage = Stage::coherent();
    stage.one(1);
    assert_eq!(stage.bye(1), [""; 0]);
    assert_eq!(stage.pass(10 * SECOND), [""; 0], "nobody waits for it");
    assert_eq!(stage.one(1), ["remove x"], "a late copy");
    assert_eq!(stage.pass(10 * SECOND), [""; 0], "which revives nobody");
    assert_eq!(stage.one(2), ["remove x", "doubt: gap"]);
    let mut stage = Stage::coherent();
    stage.now += SECOND;
    stage.own_beat();
    assert_eq!(stage.bye(1), GAP, "its last frame never came");
    stage.now += SECOND;
    assert_eq!(stage.beat(1)[0], "doubt: gap", "it was not the end");
}

#[test]
fn a_new_incarnation_does_not_excuse_the_old_one() {
    let mut stage = Stage::coherent();
    for _ in 0..6 {
        stage.pass(500 * MS);
        stage.beat_of(Incarnation(8), 0, |_| {}, 0);
    }
    stage.pass(500 * MS);
    assert_eq!(stage.node.belief(stage.row), Belief::Suspect);
    assert_eq!(stage.node.forget("p"), 1, "the one that is not heard");
    stage.beat_of(Incarnation(8), 0, |_| {}, 0);
    assert_eq!(stage.node.belief(stage.row), Belief::Coherent);
}

#[test]
fn the_silent_retire_and_are_forgotten() {
    let mut stage = Stage::coherent();
    stage.one(1);
    stage.pass(4 * SECOND);
    assert_eq!(
        stage.pass(RULES.retire_after),
        ["recover: publisher silent"]
    );
    assert_eq!(stage.node.counts().retired, 1);
    stage.now += SECOND;
    assert_eq!(
        stage.one(2),
        ["remove x", "doubt: gap"],
        "it was alive after all"
    );
    let mut stage = Stage::coherent();
    stage.one(1);
    stage.pass(4 * SECOND);
    stage.pass(2 * RULES.retire_after);
    // Forgotten: it is one that was never heard, and 2 is not its first.
    assert_eq!(stage.one(2), ["remove x", "doubt: gap"]);
}

#[test]
fn an_unsettled_write_is_doubted_until_it_ends() {
    let mut stage = Stage::coherent();
    stage.now += SECOND;
    stage.own_beat();
    assert_eq!(stage.beat_of(P, 0, |_| {}, 1), ["doubt: unsettled write"]);
    assert_eq!(stage.pass(500 * MS), [""; 0]);
    assert_eq!(stage.beat(0), ["recover: unsettled write"]);
    let (row, now) = (stage.row, stage.now + SECOND);
    stage.node.own_unsettled(row, true, now, &mut stage.log);
    assert_eq!(stage.log.take(), ["doubt: unsettled write"]);
    stage.node.own_unsettled(row, false, now, &mut stage.log);
    assert_eq!(stage.log.take(), ["recover: unsettled write"]);
}

#[test]
fn a_new_connection_has_to_be_proved_anew() {
    let mut stage = Stage::coherent();
    let before = stage.plan();
    stage.node.generation(stage.now, 1, &mut stage.log);
    assert_eq!(stage.log.take(), ["doubt: reconnected"]);
    stage.message(&before.0, &before.1);
    assert!(!stage.node.has_proof(), "it was sent on the old connection");
    let plan = stage.node.plan_beat(stage.now, 1);
    assert!(plan.solicit);
}

#[test]
fn a_beat_of_ours_that_is_older_than_a_lease_proves_nothing() {
    let mut stage = Stage::coherent();
    let slow = stage.plan();
    stage.now += RULES.lease + MS;
    stage.message(&slow.0, &slow.1);
    assert!(!stage.node.has_proof());
    assert_eq!(stage.node.belief(stage.row), Belief::Suspect);
}

#[test]
fn after_a_proof_everybody_has_to_be_heard_anew() {
    let mut stage = Stage::new();
    stage.beat(0);
    stage.own_beat();
    let stamped_before = stage.theirs() - 10 * MS;
    stage.now += 1_100 * MS;
    stage.beat_of(P, 0, |beat| beat.sent = stamped_before, 0);
    assert_eq!(stage.node.belief(stage.row), Belief::Joining);
    stage.own_beat();
    assert_eq!(stage.beat(0), ["recover: joined"]);
}

#[test]
fn a_node_that_does_not_hear_itself_asks_again() {
    let mut stage = Stage::coherent();
    let asks = |stage: &mut Stage, after: Micros| {
        stage.now += after;
        stage.node.asks_again(stage.now)
    };
    stage.own_beat();
    assert!(!asks(&mut stage, 2 * RULES.lease - MS), "not yet");
    assert!(asks(&mut stage, MS));
    assert!(!asks(&mut stage, RULES.lease), "it has just asked");
    assert!(asks(&mut stage, RULES.lease), "in vain");
    // A late beat is no proof, but shows that the server knows of the subscription.
    let (subject, payload) = stage.plan();
    stage.now += RULES.lease + MS;
    stage.message(&subject, &payload);
    assert!(!stage.node.has_proof());
    assert!(!asks(&mut stage, RULES.lease));
    // Who makes a new connection asks for everything.
    stage.node.generation(stage.now, 1, &mut Log::default());
    assert!(!asks(&mut stage, RULES.lease));
    stage.node.ended(stage.now, &mut Log::default());
    assert!(!asks(&mut stage, 2 * RULES.lease), "nobody could answer");
}

#[test]
fn our_own_frames_are_no_news_and_a_twin_is_noticed() {
    let mut stage = Stage::coherent();
    let mark = Arc::new(OwnMark::default());
    mark.raise(1, stage.theirs());
    stage
        .own
        .insert(&Entity::new("user").unwrap(), mark.clone());
    assert_eq!(stage.one_of(OWN, 1, None), ["returned 1"]);
    assert_eq!(stage.one_of(OWN, 1, None), ["remove x"], "a copy");
    // A twin's may have a number that came back, one that is under way, or one not given out.
    mark.raise(2, stage.theirs());
    for number in [1, 2, 3] {
        stage.now += SECOND;
        stage.own_beat();
        stage.beat(0);
        let log = stage.one_of(OWN, number, None);
        for effect in ["forked", "doubt: gap", "remove x"] {
            assert!(log.contains(&effect.to_owned()), "{number}: {log:?}");
        }
    }
    stage.now += SECOND;
    let twin = stage.now - 100 * SECOND - 5;
    let log = stage.beat_of(OWN, 0, |beat| (beat.sequence, beat.sent) = (2, twin), 0);
    assert!(log.contains(&"forked".to_owned()), "{log:?}");
}

#[test]
fn what_cannot_be_read_is_a_drop_or_a_gap() {
    let mut stage = Stage::coherent();
    stage.message("user.x", b"");
    assert!(stage.node.has_plain(stage.row));
    stage.message("user.x", b"\xAF\x57");
    assert_eq!(stage.log.take(), ["remove x", "remove x"]);
    for subject in ["user.%-batch", "%-c.0000000000000007"] {
        stage.now += SECOND;
        stage.own_beat();
        stage.beat(0);
        stage.message(subject, b"\xAF\x57");
        assert_eq!(stage.log.take(), GAP, "{subject}");
    }
    stage.now += SECOND;
    stage.message("user.%-all", b"");
    assert_eq!(stage.log.take(), ["flush: requested"]);
    stage.message("user.%-all", b"");
    assert_eq!(
        stage.log.take(),
        ["doubt: requested"],
        "too soon after the last"
    );
}

#[test]
fn batches_and_alls_count_as_one_frame() {
    let mut stage = Stage::coherent();
    let header = |sequence| Header {
        incarnation: P,
        sequence,
        sent: 0,
        position: Some(Position::Own(40 + sequence)),
    };
    let (mut ids, mut payload) = (Vec::new(), Vec::new());
    let mut batch = BatchWriter::new(&mut ids);
    for id in ["a", "b"] {
        assert!(batch.push(IdRef::new(id).unwrap(), 1_000));
    }
    write_batch(&mut payload, &header(1), 2, &ids);
    stage.message("user.%-batch", &payload);
    assert_eq!(stage.log.take(), ["remove a at 41", "remove b at 41"]);
    payload.clear();
    write_all(&mut payload, &header(2));
    stage.now += SECOND;
    stage.message("user.%-all", &payload);
    assert_eq!(stage.log.take(), ["flush: requested"]);
    stage.now += SECOND;
    // The highest position so far is not this frame's own, but a flush asks for it.
    assert_eq!(
        stage.one_of(P, 4, Some(Position::Floor(44))),
        ["remove x", GAP[0], "recover: gap from 44"]
    );
}

#[test]
fn tables_are_bounded_and_a_crowd_is_doubted() {
    let mut stage = Stage::coherent();
    for n in 0..3 {
        stage.one_of(Incarnation(100 + n), 1, None);
    }
    let log = stage.one_of(Incarnation(200), 1, None);
    assert_eq!(log, ["doubt: overflow", "remove x"]);
    let doubters = stage.node.doubters(stage.row, stage.now);
    assert!(doubters.contains(&Doubter::Crowded { since: stage.now }));
    stage.node.watch_unknown(true);
    for name in ["a.1", "b.1", "c.1"] {
        stage.message(name, b"");
    }
    let tracked = ["tracked a", "remove 1", "tracked b", "remove 1"];
    assert_eq!(stage.log.take(), tracked);
}

#[test]
fn who_is_expected_vouches_for_a_lease_after_its_goodbye() {
    let mut stage = Stage::new();
    stage.node.expect(["p".into()]);
    stage.own_beat();
    assert_eq!(stage.pass(2 * SECOND), [""; 0], "it was not heard yet");
    assert_eq!(stage.beat(0), ["recover: joined"]);
    stage.bye(0);
    assert_eq!(stage.pass(2_900 * MS), [""; 0]);
    assert_eq!(stage.pass(200 * MS), ["doubt: publisher silent"]);
    let doubters = stage.node.doubters(stage.row, stage.now);
    assert!(matches!(&doubters[..], [Doubter::Expected { name, .. }] if &**name == "p"));
    assert_eq!(
        stage.beat_of(Incarnation(8), 0, |_| {}, 0).len(),
        1,
        "its next life"
    );
}

#[test]
fn hostile_numbers_do_not_overflow() {
    use crate::invalidation::frame::MAX_MICROS;
    let mut stage = Stage::coherent();
    for sequence in [u64::MAX, 1, u64::MAX - 1] {
        stage.one_of(P, sequence, Some(Position::Own(u64::MAX)));
    }
    for (sent, lease) in [
        (MAX_MICROS, MAX_MICROS),
        (0, 0),
        (0, MAX_MICROS),
        (MAX_MICROS, 0),
    ] {
        for bye in [false, true] {
            let change = |beat: &mut BeatWriter<'_>| {
                (beat.sent, beat.lease, beat.bye) = (sent, lease, bye);
                beat.sequence = u64::MAX;
            };
            stage.beat_of(P, u64::MAX, change, u64::MAX);
            stage.beat_of(Incarnation(50), u64::MAX, change, u64::MAX);
            stage.pass(SECOND);
            stage.node.next_tick(stage.now);
        }
    }
    assert!(Frame::is_stamped(&stage.plan().1));
}
