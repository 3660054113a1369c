use std::sync::Arc;
use std::task::{Context, Poll};

use super::*;
use crate::bus::{PublishError, Publisher};
use crate::invalidation::frame::{Body, Frame, Position};
use crate::invalidation::protocol::BeatPlan;
use crate::invalidation::subject::Subject;

/// Keeps what was published; has room for some.
#[derive(Debug)]
struct Tape {
    room: usize,
    closed: bool,
    /// The longest payload.
    most: usize,
    sent: Vec<(String, Vec<u8>)>,
}

impl Publisher for Tape {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        if self.closed {
            return Err(PublishError::Closed);
        }
        let (len, max) = (payload.len(), self.most);
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        self.room = self.room.checked_sub(1).ok_or(PublishError::Full)?;
        let subject = subject.as_str().trim_start_matches("cache.invalidate.");
        self.sent.push((subject.to_owned(), payload.to_owned()));
        Ok(())
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        Poll::Ready(Ok(()))
    }
}

impl Tape {
    fn new(room: usize) -> Self {
        Self {
            room,
            closed: false,
            most: usize::MAX,
            sent: Vec::new(),
        }
    }

    /// Subjects and numbers of what was sent since the last look.
    fn take(&mut self) -> Vec<String> {
        let read = |(subject, payload): (String, Vec<u8>)| {
            let frame = Frame::decode(&payload).unwrap();
            match frame.body {
                Body::Batch(ids) => {
                    let ids: Vec<_> = ids.iter().map(IdRef::as_str).collect();
                    format!("{subject} {} {}", frame.header.sequence, ids.join(","))
                }
                Body::Beat(beat) | Body::Bye(beat) => {
                    let mark = |m: crate::invalidation::frame::Mark<'_>| {
                        format!("{}={}/{}", m.entity.as_str(), m.mark, m.unsettled)
                    };
                    let marks: Vec<_> = beat.marks().map(mark).collect();
                    format!("beat {}", marks.join(","))
                }
                _ => match frame.header.position {
                    Some(Position::Own(at)) => {
                        format!("{subject} {} at {at}", frame.header.sequence)
                    }
                    Some(Position::Floor(at)) => {
                        format!("{subject} {} after {at}", frame.header.sequence)
                    }
                    None => format!("{subject} {}", frame.header.sequence),
                },
            }
        };
        self.sent.drain(..).map(read).collect()
    }
}

fn outbox(plain_peers: bool) -> (Outbox, TopicId) {
    let rules = OutboxRules {
        prefix: Prefix::default(),
        name: "n".into(),
        reader: false,
        plain_peers,
        lease: 3,
        write_limit: 100,
        capacity: 3,
        max_entities: 2,
        mutant: None,
    };
    let mut outbox = Outbox::new(rules, Incarnation(1), 0, Arc::default());
    let topic = outbox.topic(&user()).unwrap();
    (outbox, topic)
}

fn user() -> Entity {
    Entity::new("user").unwrap()
}

fn one(outbox: &mut Outbox, topic: TopicId, id: &str, tape: &mut Tape) -> Result<Handed, Refusal> {
    let request = Request {
        id: IdRef::new(id).unwrap(),
        position: None,
        ticket: None,
        giver: Giver::Anyone,
    };
    outbox.emit(topic, request, 1, tape)
}

fn plan() -> BeatPlan {
    BeatPlan {
        incarnation: Incarnation(1),
        sequence: 1,
        sent: 1,
        solicit: false,
        echoes: Vec::new(),
    }
}

#[test]
fn numbers_follow_the_order_of_sending() {
    let ((mut outbox, topic), mut tape) = (outbox(true), Tape::new(1));
    assert_eq!(one(&mut outbox, topic, "a", &mut tape), Ok(Handed::Sent));
    assert_eq!(one(&mut outbox, topic, "b", &mut tape), Ok(Handed::Queued));
    tape.room = 9;
    // There is room, but "b" is first.
    assert_eq!(one(&mut outbox, topic, "c", &mut tape), Ok(Handed::Queued));
    assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Empty);
    assert_eq!(one(&mut outbox, topic, "d", &mut tape), Ok(Handed::Sent));
    assert_eq!(
        tape.take(),
        ["user.a 1", "user.b 2", "user.c 3", "user.d 4"]
    );
}

#[test]
fn what_has_no_room_collapses_behind_what_waits() {
    let ((mut outbox, topic), mut tape) = (outbox(true), Tape::new(0));
    let handed: Vec<_> = ["a", "b", "c", "d", "e"]
        .iter()
        .map(|id| one(&mut outbox, topic, id, &mut tape).unwrap())
        .collect();
    use Handed::{Collapsed, Queued};
    assert_eq!(handed, [Queued, Queued, Queued, Collapsed, Collapsed]);
    assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Blocked);
    tape.room = 2;
    assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Blocked);
    // The entity stays collapsed until its "all" is sent.
    assert_eq!(one(&mut outbox, topic, "f", &mut tape), Ok(Collapsed));
    tape.room = 9;
    assert_eq!(outbox.drain(1, 1, &mut tape), Drained::More);
    assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Empty);
    assert_eq!(one(&mut outbox, topic, "g", &mut tape), Ok(Handed::Sent));
    let sent = [
        "user.a 1",
        "user.b 2",
        "user.c 3",
        "user.%-all 4",
        "user.g 5",
    ];
    assert_eq!(tape.take(), sent);
    assert_eq!(outbox.counts().collapsed, 3);
}

#[test]
fn batches_go_together_or_one_by_one_and_wait_whole() {
    for (plain, first, rest) in [
        (true, &["user.a 1", "user.b 2"][..], &["user.c 3"][..]),
        (false, &["user.%-batch 1 a,b,c"], &[]),
    ] {
        let ((mut outbox, topic), mut tape) = (outbox(plain), Tape::new(first.len()));
        let ids = ["a", "b", "c"].map(|id| IdRef::new(id).unwrap());
        outbox.emit_batch(topic, ids, None, 1, &mut tape).unwrap();
        assert_eq!(tape.take(), first);
        tape.room = 9;
        assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Empty);
        assert_eq!(tape.take(), rest);
    }
    let ((mut outbox, topic), mut tape) = (outbox(false), Tape::new(0));
    let ids = ["a", "b", "c"].map(|id| IdRef::new(id).unwrap());
    let handed = outbox.emit_batch(topic, ids, None, 1, &mut tape);
    assert_eq!(handed, Ok(Handed::Queued));
    tape.room = 9;
    assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Empty);
    assert_eq!(tape.take(), ["user.%-batch 1 a,b,c"]);
}

#[test]
fn a_large_batch_is_cut_to_what_the_bus_takes() {
    let ((mut outbox, topic), mut tape) = (outbox(false), Tape::new(99));
    outbox.set_max_payload(100);
    let ids: Vec<String> = (0..20).map(|n| format!("id-{n}")).collect();
    let refs = ids.iter().map(|id| IdRef::new(id).unwrap());
    let handed = outbox.emit_batch(topic, refs, None, 1, &mut tape);
    assert_eq!(handed, Ok(Handed::Sent));
    assert!(tape.sent.len() > 1);
    assert!(tape.sent.iter().all(|(_, payload)| payload.len() <= 100));
    let sent = tape.take().join(" ");
    assert!(ids.iter().all(|id| sent.contains(id.as_str())));
}

#[test]
fn positions_only_rise() {
    let ((mut outbox, topic), mut tape) = (outbox(true), Tape::new(9));
    for (id, position) in [("a", Some(7)), ("b", Some(5)), ("c", None), ("d", Some(9))] {
        let request = Request {
            id: IdRef::new(id).unwrap(),
            position,
            ticket: None,
            giver: Giver::Anyone,
        };
        outbox.emit(topic, request, 1, &mut tape).unwrap();
    }
    let sent = [
        "user.a 1 at 7",
        "user.b 2 at 7",
        "user.c 3 after 7",
        "user.d 4 at 9",
    ];
    assert_eq!(tape.take(), sent);
}

#[test]
fn a_beat_counts_what_was_handed_over_before_it() {
    let ((mut outbox, topic), mut tape) = (outbox(true), Tape::new(0));
    one(&mut outbox, topic, "a", &mut tape).unwrap();
    let full = Err(NoBeat::Bus(PublishError::Full));
    assert_eq!(outbox.beat(&plan(), false, 1, &mut tape), full);
    tape.room = 9;
    assert_eq!(outbox.beat(&plan(), false, 1, &mut tape), Ok(()));
    assert_eq!(tape.take(), ["user.a 1", "beat user=1/0"]);
    let guard = outbox.open_guard(&user(), 1).unwrap().1;
    assert_eq!(outbox.next_unsettled(1), Some(101));
    assert_eq!(outbox.beat(&plan(), false, 100, &mut tape), Ok(()));
    assert_eq!(outbox.beat(&plan(), false, 101, &mut tape), Ok(()));
    assert_eq!(tape.take(), ["beat user=1/0", "beat user=1/1"]);
    let other = BeatPlan {
        incarnation: Incarnation(2),
        ..plan()
    };
    assert_eq!(outbox.beat(&other, false, 1, &mut tape), Err(NoBeat::Stale));
    outbox.close_guard(topic, guard);
}

#[test]
fn a_goodbye_is_said_only_if_it_is_true() {
    let ((mut outbox, topic), mut tape) = (outbox(true), Tape::new(9));
    let guard = outbox.open_guard(&user(), 1).unwrap().1;
    outbox.close();
    assert!(outbox.open_guard(&user(), 1).is_err());
    assert!(!outbox.wants_bye());
    let unsettled = Err(NoBeat::Unsettled);
    assert_eq!(outbox.beat(&plan(), true, 1, &mut tape), unsettled);
    // Until the guard lets go there are beats.
    assert_eq!(outbox.beat(&plan(), false, 1, &mut tape), Ok(()));
    let request = Request {
        id: IdRef::new("b").unwrap(),
        position: None,
        ticket: None,
        giver: Giver::Guard,
    };
    assert_eq!(outbox.emit(topic, request, 1, &mut tape), Ok(Handed::Sent));
    outbox.close_guard(topic, guard);
    assert!(outbox.wants_bye());
    assert_eq!(outbox.beat(&plan(), true, 1, &mut tape), Ok(()));
    assert_eq!(tape.take(), ["beat ", "user.b 1", "beat user=1/0"]);
    outbox.end();
    let after = outbox.beat(&plan(), false, 1, &mut tape);
    assert_eq!(after, Err(NoBeat::Stale), "nothing follows a goodbye");
}

#[test]
fn what_is_refused_after_its_commit_takes_a_number() {
    let ((mut outbox, topic), mut tape) = (outbox(true), Tape::new(9));
    outbox.deny("user", 1);
    assert!(outbox.open_guard(&user(), 1).is_err());
    assert_eq!(outbox.mark(topic), 0, "nothing was written");
    let denied = Err(Refusal::Denied);
    assert_eq!(one(&mut outbox, topic, "a", &mut tape), denied);
    assert_eq!(outbox.emit_all(topic, Some(5), 3, &mut tape), denied);
    let ids = [IdRef::new("a").unwrap()];
    assert_eq!(outbox.emit_batch(topic, ids, None, 3, &mut tape), denied);
    assert_eq!(outbox.beat(&plan(), false, 3, &mut tape), Ok(()));
    // After a lease it is tried again.
    assert_eq!(
        outbox.emit_batch(topic, ids, None, 4, &mut tape),
        Ok(Handed::Sent)
    );
    outbox.deny("user", 5);
    outbox.allow();
    assert_eq!(one(&mut outbox, topic, "a", &mut tape), Ok(Handed::Sent));
    outbox.close();
    let closed = Err(Refusal::Closed);
    assert_eq!(one(&mut outbox, topic, "a", &mut tape), closed);
    assert_eq!(outbox.beat(&plan(), false, 5, &mut tape), Ok(()));
    let sent = [
        "beat user=3/0",
        "user.a 4 after 5",
        "user.a 5 after 5",
        "beat user=6/0",
    ];
    assert_eq!(tape.take(), sent);
    let bye = outbox.beat(&plan(), true, 5, &mut tape);
    assert_eq!(bye, Err(NoBeat::Unsettled), "something was refused");
}

#[test]
fn what_is_too_large_is_given_up_once() {
    for plain in [true, false] {
        let ((mut outbox, topic), mut tape) = (outbox(plain), Tape::new(0));
        let ids = ["a", "b"].map(|id| IdRef::new(id).unwrap());
        outbox.set_max_payload(8);
        outbox.emit_batch(topic, ids, None, 1, &mut tape).unwrap();
        one(&mut outbox, topic, "c", &mut tape).unwrap();
        outbox.emit_all(topic, None, 1, &mut tape).unwrap();
        (tape.room, tape.most) = (9, 8);
        assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Empty);
        assert_eq!((outbox.counts().failed, outbox.mark(topic)), (4, 4));
        let large = Refusal::TooLarge { len: 14, max: 8 };
        assert_eq!(one(&mut outbox, topic, "d", &mut tape), Err(large));
        let batch = outbox.emit_batch(topic, ids, None, 1, &mut tape);
        assert_eq!(batch, Err(large));
        assert_eq!(outbox.mark(topic), 6);
    }
}

#[test]
fn tickets_tell_what_became_of_a_frame() {
    let ((mut outbox, topic), mut tape) = (outbox(true), Tape::new(9));
    let emit = |outbox: &mut Outbox, now, tape: &mut Tape| {
        let ticket = Arc::new(Ticket::default());
        let request = Request {
            id: IdRef::new("a").unwrap(),
            position: None,
            ticket: Some(ticket.clone()),
            giver: Giver::Anyone,
        };
        let _ = outbox.emit(topic, request, now, tape);
        ticket
    };
    let tickets: Vec<_> = (1..=4)
        .map(|now| emit(&mut outbox, now, &mut tape))
        .collect();
    let outcomes = || tickets.iter().map(|t| t.outcome()).collect::<Vec<_>>();
    assert_eq!(outcomes(), [None; 4]);
    outbox.returned("user", 2);
    let (yes, unknown) = (Some(Outcome::Returned), Some(Outcome::Unknown));
    assert_eq!(outcomes(), [unknown, yes, None, None]);
    outbox.expire(4);
    assert_eq!(outcomes(), [unknown, yes, unknown, None]);
    outbox.end();
    assert_eq!(outcomes(), [unknown, yes, unknown, unknown]);
    // Who waits for what has not left waits no longer than anybody else.
    let ((mut outbox, _), mut tape) = (self::outbox(true), Tape::new(0));
    let tickets: Vec<_> = (1..=5)
        .map(|now| emit(&mut outbox, now, &mut tape))
        .collect();
    outbox.expire(9);
    assert!(tickets.iter().all(|ticket| ticket.outcome().is_none()));
    for before in 1..=6 {
        outbox.expire_waiting(before);
        let known = tickets.iter().filter(|ticket| ticket.outcome() == unknown);
        assert_eq!(known.count() as u64, before - 1);
    }
    tape.room = 9;
    assert_eq!(outbox.drain(9, 1, &mut tape), Drained::Empty);
    assert_eq!(tape.take().len(), 4, "it is sent nevertheless");
    // One that collapsed is confirmed by the "all".
    let ((mut outbox, _), mut tape) = (self::outbox(true), Tape::new(0));
    let tickets: Vec<_> = (0..4).map(|_| emit(&mut outbox, 1, &mut tape)).collect();
    tape.room = 9;
    outbox.drain(9, 1, &mut tape);
    for number in 1..=4 {
        outbox.returned("user", number);
    }
    assert!(tickets.iter().all(|ticket| ticket.outcome() == yes));
    tape.closed = true;
    let ticket = emit(&mut outbox, 1, &mut tape);
    assert_eq!(ticket.outcome(), unknown);
}

#[test]
fn entities_are_bounded() {
    let (mut outbox, _) = outbox(true);
    assert!(outbox.topic(&Entity::new("b").unwrap()).is_ok());
    let third = outbox.topic(&Entity::new("c").unwrap());
    assert_eq!(third, Err(Refusal::TooManyEntities));
}
