//! I6 over two routed nats-servers, the writer at one and the reader at the other: whatever
//! becomes of the route, of a server or of a slow consumer, nothing stale is served as coherent.
#![cfg(feature = "nats")]

mod support;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, EventTap, NatsBus};
use afterwrite::invalidation::cache::Invalidation;
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{InvalidatorStats, Settings, Watch, Why};
use async_nats::ConnectOptions;
use support::PATIENCE;
use support::nats::{connect_with, eager};
use support::proxy::Mode;
use support::server::Cluster;
use support::stage::{IDS, Stage, eventually};
use tokio::runtime::Runtime;

const PAUSE: Duration = Duration::from_millis(4);
const A_WHILE: Duration = Duration::from_millis(300);

fn stage(cluster: &Cluster) -> Stage {
    Stage::new(
        connect_with(&cluster.b, eager()),
        connect_with(&cluster.a, eager()),
    )
}

/// Breaks something while there are writes, sees that the reader doubts in time and for as long as
/// it lasts, mends it, and sees that the reader comes to know all. `late` is by how much what
/// still arrives does so. Says how many beats came too late.
fn endures(
    breaks: impl FnOnce(&mut Cluster),
    mends: impl FnOnce(&mut Cluster),
    why: Why,
    late: Duration,
) -> u64 {
    let mut cluster = Cluster::start();
    let stage = stage(&cluster);
    let reader = &stage.reader;
    let scribe = stage.keep_writing(PAUSE);
    assert!(reader.look_for(A_WHILE) > 0, "nothing is served");
    breaks(&mut cluster);
    // Whatever left before has arrived or never will: from here on, B runs.
    reader.look_until_in_doubt(Instant::now());
    eventually("it knows why", || reader.suspects(&[why]));
    reader.stays_in_doubt(late + reader.a_spell());
    let expired = reader.node.stats().expired_beats;
    mends(&mut cluster);
    reader.look_until_coherent();
    assert!(reader.look_for(A_WHILE) > 0, "nothing is served");
    assert!(scribe.end() > 0);
    reader.settles();
    expired
}

fn route(mode: Mode, late: Duration) -> u64 {
    endures(
        |cluster| cluster.route.set(mode),
        |cluster| cluster.route.set(Mode::Pass),
        Why::Silent,
        late,
    )
}

#[test]
fn i6_a_route_that_is_cut() {
    route(Mode::Cut, Duration::ZERO);
}

#[test]
fn i6_a_route_that_swallows_everything() {
    route(Mode::Swallow, Duration::ZERO);
}

#[test]
fn i6_a_route_that_stands_still_and_then_delivers_everything_late() {
    route(Mode::Hold, Duration::ZERO);
}

/// Beats arrive all the time, and say nothing about the present.
#[test]
fn i6_a_route_that_delays_by_more_than_a_lease() {
    let late = Duration::from_secs(3);
    assert!(route(Mode::Delay(late), late) > 0, "nothing arrived");
}

#[test]
fn i6_the_writers_server_stands_still() {
    endures(
        |cluster| cluster.b.stop(),
        |cluster| cluster.b.go_on(),
        Why::Silent,
        Duration::ZERO,
    );
}

#[test]
fn i6_the_readers_server_stands_still() {
    endures(
        |cluster| cluster.a.stop(),
        |cluster| cluster.a.go_on(),
        Why::OwnPath,
        Duration::ZERO,
    );
}

#[test]
fn i6_the_writers_server_is_killed() {
    endures(
        |cluster| cluster.b.kill(),
        |cluster| cluster.b.restart(),
        Why::Silent,
        Duration::ZERO,
    );
}

#[test]
fn i6_the_readers_server_is_killed() {
    endures(
        |cluster| cluster.a.kill(),
        |cluster| cluster.a.restart(),
        Why::OwnPath,
        Duration::ZERO,
    );
}

/// Holds up whatever delivers, from the id `stick` on until it is let go.
fn stick(stage: &Stage) -> (Watch, Receiver<()>, Gate) {
    let (stuck, sticks) = channel();
    let (gate, waits) = channel::<()>();
    let waits = Mutex::new(waits);
    let holds_up = move |what: Invalidation<'_>| {
        if what == Invalidation::One("stick") {
            stuck.send(()).ok();
            waits.lock().unwrap().recv_timeout(PATIENCE).ok();
        }
    };
    let reader = &stage.reader;
    let watch = reader.node.watch_inline(&reader.entity, holds_up).unwrap();
    (watch, sticks, Gate(gate))
}

/// Lets go when it is told to, or dropped.
struct Gate(Sender<()>);

/// The reader's subscription overflows while its inbox is held up: drops are lost on the reader's
/// own side, and the connection is as well as ever.
fn overflows(cluster: &Cluster, bus: NatsBus, told: bool) {
    let patient = |settings: Settings| settings.lease(Duration::from_secs(2));
    let stage = Stage::with(connect_with(&cluster.b, eager()), bus.clone(), patient);
    let reader = &stage.reader;
    let begun = Instant::now();
    reader.settles();
    let (gaps, lost) = (reader.node.stats().gaps, bus.status().lost);
    // What the client has not read yet when its inbox moves again is not lost: then once more.
    while reader.node.stats().gaps == gaps || (told && bus.status().lost == lost) {
        assert!(begun.elapsed() < PATIENCE, "nothing overflows");
        let (watch, sticks, gate) = stick(&stage);
        let _ = stage.writer.emit(&reader.entity, "stick").unwrap();
        sticks.recv_timeout(PATIENCE).expect("it sticks");
        // One id takes all the room; what is lost is the only word of the others.
        for n in 0..20 * SMALL + IDS {
            stage.write(n.saturating_sub(20 * SMALL));
        }
        reader.look_for(A_WHILE);
        gate.0.send(()).unwrap();
        reader.look_for(A_WHILE);
        drop(watch);
    }
    reader.settles();
    assert_eq!(bus.generation(), 1);
}

const SMALL: usize = 16;

fn small() -> ConnectOptions {
    eager().subscription_capacity(SMALL)
}

#[test]
fn i6_a_slow_consumer_on_a_connection_of_its_own() {
    let cluster = Cluster::start();
    // On one thread a slow inbox would slow its connection, and nothing would overflow.
    let runtime = Runtime::new().unwrap();
    let bus = NatsBus::builder()
        .options(small())
        .runtime(runtime.handle().clone())
        .connect_blocking(cluster.a.url())
        .unwrap();
    overflows(&cluster, bus, true);
}

#[test]
fn i6_a_slow_consumer_on_a_callers_client() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let tap = EventTap::new();
    let forward = tap.clone();
    let options = small().event_callback(move |event| {
        forward.forward(&event);
        async {}
    });
    let client = runtime.block_on(options.connect(cluster.a.url())).unwrap();
    let bus = NatsBus::builder().events(tap).client(client);
    overflows(&cluster, runtime.block_on(bus).unwrap(), true);
}

/// Nobody tells: the numbers of the frames do.
#[test]
fn i6_a_slow_consumer_on_a_callers_client_without_a_tap() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(small().connect(cluster.a.url())).unwrap();
    let bus = runtime.block_on(NatsBus::builder().client(client)).unwrap();
    overflows(&cluster, bus, false);
}

#[test]
fn i6_a_plain_publisher_beside_others_is_heard_and_worries_nobody() {
    let cluster = Cluster::start();
    // So long a lease that a busy machine causes no doubt.
    let settings = |settings: Settings| {
        let lease = Duration::from_secs(10);
        settings.lease(lease).max_age(Duration::from_secs(3))
    };
    let (writer, reader) = (&cluster.b, &cluster.a);
    let stage = Stage::with(
        connect_with(writer, eager()),
        connect_with(reader, eager()),
        settings,
    );
    let reader = &stage.reader;
    let order = Entity::new("order").unwrap();
    let orders = Coherent::new(BoundedMap::<u64>::new(8));
    let orders_watch = reader.node.watch_inline(&order, &orders).unwrap();
    let trusted = || orders_watch.coherence() == Coherence::Coherent;
    eventually("orders are coherent", || trusted() && reader.is_coherent());
    let load = || Ok::<_, std::io::Error>(Some(1));
    orders.get_or_load_blocking("7", load).unwrap();
    reader.settles();
    let before = reader.node.stats();

    let runtime = Runtime::new().unwrap();
    let plain = runtime.block_on(async_nats::connect(writer.url())).unwrap();
    let publish = |to: &'static str| {
        runtime.block_on(async {
            plain.publish(to, "".into()).await.unwrap();
            plain.flush().await.unwrap();
        });
    };
    publish("cache.invalidate.user.7");
    let cached = |id: &str| reader.users.get(id).is_some();
    eventually("7 is dropped", || !cached("7"));
    assert!(cached("8"), "its neighbour is not");
    let after = reader.node.stats();
    assert_eq!(after.plain, before.plain + 1, "the node says plain");
    let quiet =
        |stats: &InvalidatorStats| (stats.gaps, stats.doubts, stats.flushes, stats.unreadable);
    assert_eq!(quiet(&after), quiet(&before));
    assert!(reader.is_coherent() && trusted());

    // The others go on as before, beside it.
    reader.settles();
    for n in 0..4 * IDS {
        stage.write(n % IDS);
        publish("cache.invalidate.user.7");
    }
    reader.settles();
    // What a plain publisher writes to is kept for `max_age` at most, and nothing else is.
    eventually("users age", || (0..IDS).all(|id| !cached(&id.to_string())));
    assert!(orders.get("7").is_some(), "orders do not");
    assert_eq!(quiet(&reader.node.stats()), quiet(&before));
    drop(orders_watch);
}

/// Writes over a route that delays by `late`, and compares the lag that is measured with what one clock
/// for both sides shows. Says by how much it was overstated.
fn overstated(stage: &Stage, late: Duration) -> Duration {
    let (told, drops) = channel();
    let tell = move |what: Invalidation<'_>| {
        if what == Invalidation::One("lags") {
            told.send(Instant::now()).ok();
        }
    };
    let reader = &stage.reader;
    let watch = reader.node.watch_inline(&reader.entity, tell).unwrap();
    let drop_one = || {
        let before = Instant::now();
        let _ = stage.writer.emit(&reader.entity, "lags").unwrap();
        let dropped = drops.recv_timeout(PATIENCE).expect("it is dropped");
        dropped - before
    };
    // A publisher that was only just heard is trusted for a lease, and measured once it is understood.
    eventually("its clock is understood", || {
        drop_one();
        watch.lag().count > 0
    });
    let mut over = Duration::ZERO;
    for _ in 0..5 {
        let counted = watch.lag().count;
        let most = drop_one();
        eventually("it is counted", || watch.lag().count > counted);
        let lag = watch.lag();
        assert!(late <= lag.last, "{lag:?} over a route that takes {late:?}");
        assert!(late <= lag.p50 && lag.p50 <= lag.p99 && lag.p99 <= lag.max);
        over = over.max(lag.last.saturating_sub(most));
    }
    println!("{over:?} too much");
    over
}

#[test]
fn i11_lag_is_never_understated_and_overstated_by_less_than_e_max() {
    let cluster = Cluster::start();
    let late = Duration::from_millis(200);
    let stage = |e_max| {
        let (writer, reader) = (&cluster.b, &cluster.a);
        // So long a lease that a busy machine causes no doubt.
        let settings = |settings: Settings| settings.lease(Duration::from_secs(10)).e_max(e_max);
        Stage::with(
            connect_with(writer, eager()),
            connect_with(reader, eager()),
            settings,
        )
    };
    // The clocks are understood before the route delays: then the lag is all but exact.
    let e_max = Duration::from_millis(100);
    let known = stage(e_max);
    overstated(&known, Duration::ZERO);
    cluster.route.set(Mode::Delay(late));
    assert!(overstated(&known, late) <= e_max);
    drop(known);

    // They are understood by beats that take as long as everything else: the way out counts as well.
    let e_max = Duration::from_millis(500);
    let slow = stage(e_max);
    assert!(overstated(&slow, late) <= e_max);
}
