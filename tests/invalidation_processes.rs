//! I6 between processes: a writer that dies between its commit and its emit, a reader that stands
//! still for longer than a lease.
#![cfg(feature = "nats")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use afterwrite::bus::NatsBus;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{Invalidator, TICK, Why};
use support::child::{Child, is_child, listen, tell, variable};
use support::nats::eager;
use support::proxy::Mode;
use support::server::Cluster;
use support::shelf::Shelf;
use support::stage::{IDS, Reader, Source, eventually, nap, settings};

fn connect(url: &str) -> NatsBus {
    let builder = NatsBus::builder().options(eager());
    builder.connect_blocking(url).expect("connected")
}

fn child(test: &str, url: &str, shelf: &Shelf) -> Child {
    let shelf = shelf.path().to_str().expect("a path in UTF-8");
    Child::run(test, &[("URL", url), ("SHELF", shelf)])
}

/// Not a test, but the writer of one.
#[test]
fn child_that_writes() {
    if !is_child() {
        return;
    }
    let shelf = Shelf::open(variable("SHELF"));
    let node = Invalidator::new(connect(&variable("URL")), settings("writer")).unwrap();
    let user = Entity::new("user").unwrap();
    tell("ready");
    let mut open = Vec::new();
    for line in listen() {
        let (what, id) = line.split_once(' ').expect("what, and to which id");
        match what {
            "write" => shelf.write(&node, &user, id.parse().unwrap()),
            // The emit never comes.
            _ => {
                open.push(node.writing(&user, id).unwrap());
                shelf.commit(id.parse().unwrap());
            }
        }
        tell("done");
    }
}

#[test]
fn i6_a_writer_killed_between_commit_and_emit() {
    let cluster = Cluster::start();
    let shelf = Arc::new(Shelf::make());
    let reader = Reader::new(connect(&cluster.a.url()), settings("reader"), shelf.clone());
    let write = || child("child_that_writes", &cluster.b.url(), &shelf);
    let mut writer = write();
    writer.hear("ready");
    for round in 0..3 {
        reader.look_until_coherent();
        for id in 0..IDS {
            writer.say(&format!("write {id}"));
            writer.hear("done");
        }
        reader.settles();
        let hot = round * 5;
        writer.say(&format!("commit {hot}"));
        writer.hear("done");
        writer.kill();
        let killed = Instant::now();
        shelf.tell(hot, shelf.version(hot));
        // B from the kill: no beat was sent later.
        reader.look_until_in_doubt(killed);
        eventually("it knows why", || reader.suspects(&[Why::Silent]));
        // Its successor says nothing about what the dead one had not said.
        writer = write();
        writer.hear("ready");
        reader.stays_in_doubt(reader.a_spell());
        assert_eq!(reader.node.forget("writer"), 1, "the one that is not heard");
        reader.look_until_coherent();
        reader.settles();
    }
}

/// Not a test, but the reader of one.
#[test]
fn child_that_reads() {
    if !is_child() {
        return;
    }
    let shelf = Arc::new(Shelf::open(variable("SHELF")));
    let reader = Reader::new(connect(&variable("URL")), settings("reader"), shelf);
    reader.look_until_coherent();
    reader.settles();
    tell("ready");
    let asked = listen();
    let (mut last, mut doubts, mut waits) = (Instant::now(), 0, false);
    for id in (0..IDS).cycle() {
        // What is due is reckoned from before the pause is looked for, so that a pause shows here or
        // comes later. One that comes between the check of the state and the use of what it vouches
        // for is not covered by any promise, and excused by this order.
        let now = Instant::now();
        let paused = last.elapsed() > PAUSE / 2;
        if paused && waits {
            waits = false;
            tell(format_args!(
                "noticed after {} turns",
                notices(&reader, doubts)
            ));
        }
        last = Instant::now();
        if paused {
            reader.forget_lateness();
            continue;
        }
        reader.look_as_of(id, now);
        nap(Duration::from_micros(100));
        doubts = reader.node.stats().doubts;
        match asked.try_recv().as_deref() {
            Ok("wait") => {
                waits = true;
                tell("waits");
            }
            Ok("doubt") => {
                reader.stays_in_doubt(reader.a_spell());
                tell("doubted");
            }
            Ok(_) => {
                reader.look_until_coherent();
                reader.settles();
                tell("settled");
            }
            Err(_) => {}
        }
    }
}

/// How many turns of a millisecond this thread had, from the end of the pause, until there was a doubt.
/// The thread that doubts stood still as well: it has one tick from then on. On a busy machine both get
/// their turns late, so that turns are counted rather than time.
fn notices(reader: &Reader, doubts: u64) -> u128 {
    for turn in 0..TICK.as_millis() {
        // All may be well again before this thread has its turn.
        if !reader.is_coherent() || reader.node.stats().doubts > doubts {
            return turn;
        }
        nap(Duration::from_millis(1));
    }
    panic!("nothing was noticed");
}

/// Longer than the oldest that may be served as coherent.
const PAUSE: Duration = Duration::from_millis(2_600);

#[test]
fn i6_a_reader_that_is_stopped_and_goes_on() {
    let cluster = Cluster::start();
    let shelf = Shelf::make();
    let node = Invalidator::new(connect(&cluster.b.url()), settings("writer")).unwrap();
    let user = Entity::new("user").unwrap();
    let mut reader = child("child_that_reads", &cluster.a.url(), &shelf);
    reader.hear("ready");
    let write_for = |span: Duration| {
        let until = Instant::now() + span;
        for id in (0..IDS).cycle().take_while(|_| Instant::now() < until) {
            shelf.write(&node, &user, id);
            nap(Duration::from_millis(10));
        }
    };
    for cut in [false, true, false, true] {
        reader.say("settle");
        reader.hear("settled");
        reader.say("wait");
        reader.hear("waits");
        reader.stop();
        if cut {
            // Nothing is left on the way that could tell what was missed.
            cluster.route.set(Mode::Cut);
        }
        write_for(PAUSE);
        reader.go_on();
        println!("noticed after {}", reader.hear("noticed after"));
        if cut {
            reader.say("doubt");
            reader.hear("doubted");
            cluster.route.set(Mode::Pass);
        } else {
            write_for(PAUSE / 4);
        }
    }
    reader.say("settle");
    reader.hear("settled");
}
