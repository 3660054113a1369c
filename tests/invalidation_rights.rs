//! I6 where the server denies: a right that is taken away while the connection stays, and deny
//! clauses that were there from the start.
#![cfg(feature = "nats")]

mod support;

use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, Link, NatsBus};
use afterwrite::invalidation::Why;
use support::nats::{connect_with, eager};
use support::server::Cluster;
use support::stage::{Stage, eventually};

/// The reader's rights at its server.
fn may_subscribe(rights: &str) -> String {
    format!(
        "authorization {{ users: [{{ user: reader, password: p, permissions: {{ \
         publish: \">\", subscribe: {rights} }} }}] }}\n"
    )
}

const PAUSE: Duration = Duration::from_millis(4);

const ALL: &str = "{ allow: [\"cache.invalidate.>\", \"_INBOX.>\"] }";
const NONE: &str = "{ allow: [\"_INBOX.>\"] }";

fn reader(cluster: &Cluster) -> NatsBus {
    let options = eager().user_and_password("reader".into(), "p".into());
    connect_with(&cluster.a, options)
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
