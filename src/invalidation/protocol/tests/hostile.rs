//! Frames that are well formed and mean anything: whatever they say, nothing panics and no table grows
//! beyond its limit.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::invalidation::frame::MAX_MICROS;
use crate::invalidation::frame::mirror::{Plain, PlainBeat, PlainBody, PlainPosition, write};

/// What happens to the node.
#[derive(Debug)]
enum Step {
    /// A frame, at one of the subjects that there are.
    Hear {
        subject: String,
        frame: Plain,
    },
    /// Bytes that are none.
    Noise {
        subject: String,
        payload: Vec<u8>,
    },
    /// Its own beat leaves, and comes back or not.
    Beat {
        back: bool,
    },
    Pass(Micros),
    Generation(u64),
    Forget(&'static str),
}

/// Numbers that mean something, or next to nothing.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..5_u64,
        2 => select(vec![u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, 1 << 32]),
        1 => any::<u64>(),
    ]
}

/// Times near the stage's, at the limits, or anywhere.
fn time() -> impl Strategy<Value = Micros> {
    prop_oneof![
        4 => 95 * SECOND..120 * SECOND,
        2 => 0..10 * SECOND,
        2 => select(vec![0, 1, MAX_MICROS - 1, MAX_MICROS]),
        1 => 0..=MAX_MICROS,
    ]
}

/// This node, two known publishers, and a crowd.
fn incarnation() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(OWN.0), 4 => Just(P.0), 2 => Just(8), 2 => 100..108_u64, 1 => any::<u64>()]
}

fn entity() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("user".to_owned()), 2 => "[a-h]"]
}

fn position() -> impl Strategy<Value = PlainPosition> {
    proptest::option::of((number(), any::<bool>()))
}

prop_compose! {
    fn beat()(
        solicit in any::<bool>(),
        reader in any::<bool>(),
        name in prop_oneof![select(vec!["p", "own", "q"]).prop_map(str::to_owned), "[a-z]{1,128}"],
        lease in time(),
        echoes in vec((incarnation(), time(), time()), 0..5),
        marks in vec((entity(), number(), number(), number()), 0..6),
    ) -> PlainBeat {
        PlainBeat { solicit, reader, name, lease, echoes, marks }
    }
}

fn body() -> impl Strategy<Value = PlainBody> {
    prop_oneof![
        3 => position().prop_map(PlainBody::One),
        1 => position().prop_map(PlainBody::All),
        2 => (position(), vec("[a-z.%é]{1,9}", 1..4)).prop_map(|(position, ids)| {
            PlainBody::Batch(position, ids)
        }),
        4 => beat().prop_map(PlainBody::Beat),
        2 => beat().prop_map(PlainBody::Bye),
    ]
}

fn frame() -> impl Strategy<Value = Plain> {
    // Numbers begin at 1.
    let sequence = number().prop_map(|number| number.max(1));
    let parts = (incarnation(), sequence, time(), body());
    parts.prop_map(|(incarnation, sequence, sent, body)| Plain {
        incarnation,
        sequence,
        sent,
        body,
    })
}

fn subject() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => entity().prop_map(|entity| format!("{entity}.%2E")),
        2 => entity().prop_map(|entity| format!("{entity}.%-all")),
        2 => entity().prop_map(|entity| format!("{entity}.%-batch")),
        2 => incarnation().prop_map(|who| format!("%-c.{who:016x}")),
    ]
}

/// Where such a frame belongs.
fn at_home(entity: &str, frame: &Plain) -> String {
    match frame.body {
        PlainBody::One(_) => format!("{entity}.x"),
        PlainBody::All(_) => format!("{entity}.%-all"),
        PlainBody::Batch(..) => format!("{entity}.%-batch"),
        PlainBody::Beat(_) | PlainBody::Bye(_) => format!("%-c.{:016x}", frame.incarnation),
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (entity(), frame()).prop_map(|(entity, frame)| Step::Hear {
            subject: at_home(&entity, &frame),
            frame,
        }),
        2 => (subject(), frame()).prop_map(|(subject, frame)| Step::Hear { subject, frame }),
        1 => (subject(), vec(any::<u8>(), 0..40)).prop_map(|(subject, payload)| Step::Noise {
            subject,
            payload,
        }),
        3 => any::<bool>().prop_map(|back| Step::Beat { back }),
        3 => (0..RULES.retire_after).prop_map(Step::Pass),
        1 => (0..3_u64).prop_map(Step::Generation),
        1 => select(vec!["p", "q", "0000000000000064"]).prop_map(Step::Forget),
    ]
}

fn act(stage: &mut Stage, step: &Step) {
    match step {
        Step::Hear { subject, frame } => {
            let payload = write(frame);
            assert!(Frame::decode(&payload).is_ok(), "{frame:?}");
            stage.message(subject, &payload);
        }
        Step::Noise { subject, payload } => stage.message(subject, payload),
        Step::Beat { back: true } => stage.own_beat(),
        Step::Beat { back: false } => drop(stage.plan()),
        Step::Pass(span) => {
            stage.now += span;
            stage.node.tick(stage.now, &mut stage.log);
        }
        Step::Generation(generation) => {
            stage
                .node
                .generation(stage.now, *generation, &mut stage.log);
        }
        Step::Forget(who) => drop(stage.node.forget(who)),
    }
}

proptest! {
    #[test]
    fn i4_well_formed_frames_neither_panic_nor_pile_up(
        steps in vec(step(), 1..60),
        follows_all in any::<bool>(),
    ) {
        let mut stage = Stage::coherent();
        stage.node.watch_unknown(follows_all);
        stage.node.expect(["p".into()]);
        for step in &steps {
            act(&mut stage, step);
            stage.log.take();
            let node = &stage.node;
            prop_assert!(node.peers.iter().count() <= RULES.max_publishers);
            prop_assert!(node.entities().count() <= RULES.max_entities);
            prop_assert!(node.once.len() <= RULES.max_entities);
            prop_assert!(node.to_echo.len() <= RULES.max_publishers);
            for (row, _) in node.entities() {
                for doubter in node.doubters(row, stage.now) {
                    // Nothing lasts longer than the node has been there.
                    if let Doubter::Peer { since, .. } | Doubter::Unsettled { since, .. } = doubter {
                        prop_assert!(since <= stage.now, "{since} after {}", stage.now);
                    }
                }
            }
            prop_assert!(node.next_tick(stage.now) > stage.now);
        }
    }
}
