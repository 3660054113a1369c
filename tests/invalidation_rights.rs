//! I6 where the server denies: a right that is taken away while the connection stays, the reader's to
//! hear or the writer's to speak, and deny clauses that were there from the start.
#![cfg(feature = "nats")]

mod support;

use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, Link, NatsBus};
use afterwrite::invalidation::{ConfirmError, EmitError, Emitted, Settings, Why};
use support::nats::{block_on, connect_with, eager};
use support::server::Cluster;
use support::stage::{IDS, Stage, eventually};

fn may(user: &str, publish: &str, subscribe: &str) -> String {
    format!(
        "authorization {{ users: [{{ user: {user}, password: p, permissions: {{ \
         publish: {publish}, subscribe: {subscribe} }} }}] }}\n"
    )
}

/// The reader's rights at its server.
fn may_subscribe(rights: &str) -> String {
    may("reader", "\">\"", rights)
}

/// The writer's rights at its server.
fn may_publish(rights: &str) -> String {
    may("writer", rights, "\">\"")
}

const PAUSE: Duration = Duration::from_millis(4);

const ALL: &str = "{ allow: [\"cache.invalidate.>\", \"_INBOX.>\"] }";
const NONE: &str = "{ allow: [\"_INBOX.>\"] }";

fn connect_as(user: &str, cluster: &Cluster) -> NatsBus {
    let options = eager().user_and_password(user.into(), "p".into());
    connect_with(&cluster.a, options)
}

fn reader(cluster: &Cluster) -> NatsBus {
    connect_as("reader", cluster)
}

#[test]
fn i6_a_right_taken_away_by_a_reload_is_noticed_and_so_is_its_return() {
    let mut cluster = Cluster::with_config(&may_subscribe(ALL));
    let bus = reader(&cluster);
    let stage = Stage::new(connect_with(&cluster.b, eager()), bus.clone());
    let reader = &stage.reader;
    let scribe = stage.keep_writing(PAUSE);
    for _ in 0..2 {
        assert!(
            reader.look_for(Duration::from_millis(300)) > 0,
            "nothing is served"
        );
        cluster.a.reload(&may_subscribe(NONE));
        reader.look_until_in_doubt(Instant::now());
        eventually("it knows why", || reader.suspects(&[Why::OwnPath]));
        reader.stays_in_doubt(reader.a_spell());
        cluster.a.reload(&may_subscribe(ALL));
        reader.look_until_coherent();
    }
    scribe.end();
    reader.settles();
    let connection = (bus.generation(), bus.status().link);
    assert_eq!(connection, (1, Link::Up), "it was the same all the time");
}

/// A deny clause that covers the subscription, or the beats alone: nothing is ever believed.
#[test]
fn i6_a_deny_clause_from_the_start() {
    for denied in ["cache.invalidate.>", "cache.invalidate.%-c.*"] {
        let rights = format!("{{ allow: \">\", deny: \"{denied}\" }}");
        let mut cluster = Cluster::with_config(&may_subscribe(&rights));
        let (writer, reader) = (connect_with(&cluster.b, eager()), reader(&cluster));
        let stage = Stage::begin(writer, reader, |settings| settings);
        let scribe = stage.keep_writing(PAUSE);
        stage.reader.stays_in_doubt(stage.reader.a_spell());
        scribe.end();
        // The same with the right.
        cluster.a.reload(&may_subscribe(ALL));
        stage.reader.look_until_coherent();
    }
}

/// Beats come, drops do not: the beats say what was missed.
#[test]
fn i6_a_deny_clause_that_hides_the_drops_alone() {
    let rights = "{ allow: \">\", deny: \"cache.invalidate.user.*\" }";
    let cluster = Cluster::with_config(&may_subscribe(rights));
    let stage = Stage::new(connect_with(&cluster.b, eager()), reader(&cluster));
    let reader = &stage.reader;
    let scribe = stage.keep_writing(PAUSE);
    assert!(
        reader.look_for(2 * reader.a_spell()) > 0,
        "nothing is served"
    );
    assert!(reader.node.stats().gaps > 0 && reader.watch.stats().applied == 0);
    scribe.end();
    reader.settles();
}

/// What is written without the right is not lost on anybody: beats, which are still allowed, count it.
#[test]
fn i6_a_right_to_publish_taken_away_by_a_reload_is_noticed_and_so_is_its_return() {
    const MUTE: &str = "{ allow: \">\", deny: \"cache.invalidate.user.*\" }";
    let mut cluster = Cluster::with_config(&may_publish("\">\""));
    let bus = connect_as("writer", &cluster);
    let patient = |settings: Settings| settings.lease(Duration::from_secs(2));
    let stage = Stage::with(bus.clone(), connect_with(&cluster.b, eager()), patient);
    let reader = &stage.reader;
    reader.settles();
    let confirmed = || {
        let emitted = stage.writer.emit_confirmed(&reader.entity, "0");
        block_on(emitted)
    };
    let denied = ConfirmError::Emit(EmitError::Denied);
    for _ in 0..2 {
        cluster.a.reload(&may_publish(MUTE));
        let (refused, gaps) = (bus.status().publish_denied, reader.node.stats().gaps);

        // Nobody knows it yet.
        assert_eq!(stage.write_bare(1), Ok(Emitted::Sent));
        let told = Instant::now();
        reader.look_until("the loss is noticed", || reader.node.stats().gaps > gaps);
        let took = told.elapsed();
        assert!(took < reader.bound() + reader.starved(), "{took:?}");
        eventually("it was the server", || {
            bus.status().publish_denied > refused
        });
        reader.settles();

        // Now the refusal has come back, and is remembered for a lease.
        let gaps = reader.node.stats().gaps;
        eventually("whatever is written is refused", || {
            let guard = stage.writer.writing(&reader.entity, "3");
            stage.write_bare(2) == Err(EmitError::Denied)
                && guard.err() == Some(EmitError::Denied)
                && confirmed() == Err(denied.clone())
        });
        let told = Instant::now();
        reader.look_until("the loss is noticed", || reader.node.stats().gaps > gaps);
        let took = told.elapsed();
        assert!(took < reader.bound() + reader.starved(), "{took:?}");
        reader.settles();

        // Then it is tried again: it was handed over, and did not come back.
        let mut outcome = Ok(());
        eventually("it is tried again", || {
            outcome = confirmed();
            outcome != Err(denied.clone())
        });
        assert_eq!(outcome, Err(ConfirmError::Unknown));

        let applied = || reader.watch.stats().applied;
        let before = applied();
        cluster.a.reload(&may_publish("\">\""));
        eventually("it may write again", || confirmed().is_ok());
        // With it came the news of all that was refused before.
        eventually("the reader has it", || applied() > before);
        reader.settles();
        let gaps = reader.node.stats().gaps;
        (0..IDS).for_each(|id| stage.write(id));
        reader.settles();
        assert_eq!(reader.node.stats().gaps, gaps, "all is as it was");
    }
    let connection = (bus.generation(), bus.status().link);
    assert_eq!(connection, (1, Link::Up), "it was the same all the time");
}
