//! I6 over a real nats-server that is killed and stopped: nothing stale is served as coherent.
#![cfg(feature = "nats")]

mod support;

use std::time::{Duration, Instant};

use afterwrite::invalidation::Why;
use support::nats::{connect_with, eager};
use support::server::NatsServer;
use support::stage::{Source, Stage, eventually};

fn stage(server: &NatsServer) -> Stage {
    Stage::new(connect_with(server, eager()), connect_with(server, eager()))
}

#[test]
fn i6_no_gap_goes_unnoticed_when_the_server_is_killed_while_writing() {
    let kills = std::env::var("AFTERWRITE_KILLS").map_or(8, |n| n.parse().unwrap());
    let mut server = NatsServer::start();
    let stage = stage(&server);
    let reader = &stage.reader;
    let scribe = stage.keep_writing(Duration::from_micros(200));
    let mut coherent = 0;
    for kill in 0..kills {
        coherent += reader.look_for(Duration::from_millis(150 + 37 * (kill % 5)));
        server.kill();
        reader.look_for(Duration::from_millis(20 + 90 * (kill % 3)));
        server.restart();
        reader.look_until_coherent();
        scribe.rest();
        reader.serves_the_last_once_quiet();
        scribe.go_on();
    }
    let writes = scribe.end();
    let (told, heard) = (stage.writer.stats(), reader.node.stats());
    println!("{kills} kills, {writes} writes, {coherent} coherent looks, {told:?}, {heard:?}");
    assert!(writes > 0 && coherent > 0);
    assert!(heard.doubts >= kills, "{heard:?}");
}

#[test]
fn i6_a_server_that_stands_still_is_noticed_within_the_bound() {
    let server = NatsServer::start();
    let stage = stage(&server);
    let reader = &stage.reader;
    for _ in 0..3 {
        stage.write(1);
        reader.load(1);
        server.stop();
        let stopped = Instant::now();
        stage.write(1);
        reader.look_until_in_doubt(stopped);
        assert!(reader.suspects(&[Why::OwnPath, Why::Silent]));
        server.go_on();
        reader.look_until_coherent();
        let last = stage.rows.version(1);
        eventually("the write is known", || reader.load(1) == last);
    }
}
