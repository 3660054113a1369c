use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};

use super::super::Link;
use super::*;

type Log = Arc<Mutex<Vec<(Duration, String)>>>;

const MS: Duration = Duration::from_millis(1);

fn subject(text: &str) -> Subject<'_> {
    Subject::new(text).expect("a valid subject")
}

/// Subscribes to everything; notes what comes, and when.
fn listen(bus: &ChaosBus) -> (Log, Interest) {
    let log = Log::default();
    let (own, net) = (Arc::clone(&log), bus.net().clone());
    let inbox = move |delivery: Delivery<'_>| {
        let text = match delivery {
            Delivery::Message { subject, .. } => subject.to_owned(),
            Delivery::Event(event) => format!("{event:?}"),
        };
        own.lock().push((net.now(), text));
    };
    let pattern = Pattern::new(">").expect("a valid pattern");
    let subscription = bus.subscribe(&pattern, Box::new(inbox));
    (log, subscription.expect("subscribed"))
}

fn send(bus: &ChaosBus, numbers: std::ops::Range<u32>) {
    let mut publisher = bus.publisher();
    for number in numbers {
        let to = format!("n.{number}");
        publisher.publish(subject(&to), b"").expect("published");
    }
}

fn texts(log: &Log) -> Vec<String> {
    log.lock().iter().map(|(_, text)| text.clone()).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("n.{number}")).collect()
}

/// How often it was woken.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn faults(delay: std::ops::Range<Duration>) -> Faults {
    Faults {
        delay,
        ..Faults::NONE
    }
}

#[test]
fn a_seed_replays_a_run() {
    let run = |seed| {
        let net = ChaosNet::with_servers(seed, 2);
        let (near, far) = (net.bus(), net.bus_at(net.server(1)));
        let wild = Faults {
            loss: 0.1,
            duplication: 0.1,
            reordering: 0.1,
            delay: MS..5 * MS,
        };
        net.set_faults(near.node(), wild.clone());
        net.set_faults(far.node(), wild.clone());
        net.set_route_faults(net.server(0), net.server(1), wild);
        let (log, _subscription) = listen(&far);
        net.advance(100 * MS);
        for round in 0..20 {
            send(&near, round * 10..(round + 1) * 10);
            net.advance(2 * MS);
        }
        net.advance(100 * MS);
        let log = log.lock().clone();
        (log, net.counts())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let (_, counts) = run(1);
    assert!(
        counts.lost > 10 && counts.duplicated > 10 && counts.reordered > 10,
        "{counts:?}"
    );
}

#[test]
fn delay_keeps_order_and_reordering_breaks_it() {
    let net = ChaosNet::new(3);
    let (sender, receiver) = (net.bus(), net.bus());
    net.set_faults(sender.node(), faults(MS..20 * MS));
    let (log, _subscription) = listen(&receiver);
    net.advance(MS);
    send(&sender, 0..200);
    net.advance(20 * MS);
    assert_eq!(texts(&log), numbers(0..200));
    let times: Vec<_> = log.lock().iter().map(|(at, _)| *at).collect();
    assert!(
        times.is_sorted() && times[0] >= 2 * MS && times[199] <= 21 * MS,
        "{times:?}"
    );

    let reordering = 0.2;
    net.set_faults(
        sender.node(),
        Faults {
            reordering,
            ..faults(MS..20 * MS)
        },
    );
    log.lock().clear();
    for round in 0..20 {
        send(&sender, round * 10..(round + 1) * 10);
        net.advance(10 * MS);
    }
    net.advance(100 * MS);
    let mut seen = texts(&log);
    assert_ne!(seen, numbers(0..200), "some came late");
    seen.sort();
    let mut all = numbers(0..200);
    all.sort();
    assert_eq!(seen, all, "and none was lost");
}

#[test]
fn loss_and_duplication_happen_as_often_as_asked() {
    let net = ChaosNet::new(4);
    let (sender, receiver) = (net.bus(), net.bus());
    let (log, _subscription) = listen(&receiver);
    net.advance(MS);
    let rates = |loss, duplication| Faults {
        loss,
        duplication,
        ..Faults::NONE
    };
    net.set_faults(sender.node(), rates(0.25, 0.0));
    for round in 0..10 {
        send(&sender, round * 1_000..(round + 1) * 1_000);
        net.advance(MS);
    }
    assert!(
        (7_200..7_800).contains(&log.lock().len()),
        "{}",
        log.lock().len()
    );
    log.lock().clear();
    net.set_faults(sender.node(), rates(0.0, 0.25));
    send(&sender, 0..1_000);
    net.advance(MS);
    assert!(
        (1_150..1_350).contains(&log.lock().len()),
        "{}",
        log.lock().len()
    );
    net.set_faults(sender.node(), rates(2.0, 0.0));
    log.lock().clear();
    send(&sender, 0..100);
    net.advance(MS);
    assert_eq!(log.lock().len(), 0, "a probability above 1 is certainty");
}

#[test]
fn a_way_that_drops_swallows_and_one_that_holds_delivers_late() {
    let net = ChaosNet::new(5);
    let (sender, receiver) = (net.bus(), net.bus());
    let (log, _subscription) = listen(&receiver);
    net.advance(MS);
    net.set_up_flow(sender.node(), Flow::Drop);
    send(&sender, 0..10);
    net.set_up_flow(sender.node(), Flow::Hold);
    send(&sender, 10..20);
    net.set_down_flow(receiver.node(), Flow::Hold);
    net.advance(100 * MS);
    assert_eq!(texts(&log), [""; 0]);
    net.set_up_flow(sender.node(), Flow::Open);
    net.advance(100 * MS);
    assert_eq!(texts(&log), [""; 0], "held on its other leg");
    net.set_down_flow(receiver.node(), Flow::Open);
    net.advance(MS);
    assert_eq!(texts(&log), numbers(10..20));
    assert_eq!(log.lock()[0].0, 201 * MS);
    assert_eq!((net.counts().partitioned, net.counts().held), (10, 20));
    assert_eq!(
        (sender.generation(), receiver.generation()),
        (1, 1),
        "nobody was told"
    );
    // What was held is swallowed as well, once the way drops.
    net.set_up_flow(sender.node(), Flow::Hold);
    send(&sender, 20..25);
    net.set_up_flow(sender.node(), Flow::Drop);
    assert_eq!((net.counts().partitioned, net.counts().held), (15, 25));
}

#[test]
fn a_subscription_proved_at_one_server_says_nothing_of_another() {
    let net = ChaosNet::with_servers(6, 2);
    let (zero, one) = (net.server(0), net.server(1));
    let (near, far) = (net.bus_at(zero), net.bus_at(one));
    net.set_route_faults(zero, one, faults(50 * MS..51 * MS));
    let (log, _subscription) = listen(&near);
    send(&near, 0..1);
    net.advance(MS);
    assert_eq!(texts(&log), numbers(0..1), "its own message is back");
    send(&far, 1..10);
    net.advance(10 * MS);
    assert_eq!(
        texts(&log),
        numbers(0..1),
        "the other server does not know yet"
    );
    net.advance(100 * MS);
    send(&far, 10..20);
    net.advance(MS);
    assert_eq!(texts(&log)[1..], numbers(10..20));
    // Over two routes nothing comes twice.
    net.set_route_flow(one, zero, Flow::Drop);
    send(&far, 20..30);
    send(&near, 30..31);
    net.advance(MS);
    assert_eq!(texts(&log)[11..], numbers(30..31));
}

#[test]
fn a_broken_connection_loses_what_was_under_way_and_says_so() {
    let net = ChaosNet::new(7);
    let (sender, receiver) = (net.bus(), net.bus());
    let (log, _subscription) = listen(&receiver);
    net.set_faults(receiver.node(), faults(10 * MS..11 * MS));
    net.advance(20 * MS);
    send(&sender, 0..5);
    net.advance(5 * MS);
    net.disconnect(receiver.node());
    net.disconnect(receiver.node());
    assert_eq!(receiver.status().link, Link::Down);
    send(&sender, 5..10);
    net.advance(50 * MS);
    net.connect(receiver.node());
    assert_eq!(
        (receiver.generation(), receiver.status().link),
        (2, Link::Up)
    );
    send(&sender, 10..15);
    net.advance(5 * MS);
    send(&sender, 15..20);
    net.advance(50 * MS);
    send(&sender, 20..25);
    net.advance(50 * MS);
    let mut wanted = vec!["Disconnected".into(), "Connected { generation: 2 }".into()];
    wanted.extend(numbers(20..25));
    assert_eq!(
        texts(&log),
        wanted,
        "until the subscription has travelled, nothing comes"
    );
    assert_eq!((net.counts().broken, net.counts().disconnects), (5, 1));
}

#[test]
fn what_a_node_sends_without_a_connection_waits_and_fills_up() {
    let net = ChaosNet::with_servers(8, 2);
    let (sender, receiver) = (net.bus(), net.bus_at(net.server(1)));
    let (log, _subscription) = listen(&receiver);
    net.advance(MS);
    net.set_capacity(sender.node(), 10, 5);
    net.disconnect(sender.node());
    send(&sender, 0..5);
    let mut publisher = sender.publisher();
    let full = publisher.publish(subject("n.5"), b"");
    assert_eq!(full, Err(PublishError::Full));
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert_eq!(publisher.poll_ready(&mut context), Poll::Pending);
    net.advance(MS);
    assert_eq!((woken.0.load(Ordering::SeqCst), texts(&log).len()), (0, 0));
    net.connect_to(sender.node(), net.server(1));
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(publisher.poll_ready(&mut context), Poll::Ready(Ok(())));
    net.advance(MS);
    assert_eq!(texts(&log), numbers(0..5));
    // A way that holds fills up as well.
    net.set_up_flow(sender.node(), Flow::Hold);
    send(&sender, 5..10);
    assert_eq!(
        publisher.publish(subject("n.10"), b""),
        Err(PublishError::Full)
    );
    assert_eq!(publisher.poll_flush(&mut context), Poll::Pending);
    net.set_up_flow(sender.node(), Flow::Open);
    assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    assert_eq!(publisher.poll_flush(&mut context), Poll::Ready(Ok(())));
}

#[test]
fn a_paused_process_takes_what_it_can_hold_and_hears_how_much_was_lost() {
    let net = ChaosNet::new(9);
    let (sender, receiver) = (net.bus(), net.bus());
    let (log, _subscription) = listen(&receiver);
    net.advance(MS);
    net.set_capacity(receiver.node(), 3, 2_048);
    net.pause(receiver.node());
    send(&sender, 0..10);
    net.advance(1_000 * MS);
    assert_eq!(texts(&log), [""; 0]);
    net.resume(receiver.node());
    net.advance(MS);
    let mut wanted = numbers(0..3);
    wanted.push("Lost { n: 7 }".into());
    assert_eq!(texts(&log), wanted);
    assert_eq!((receiver.status().lost, net.counts().overflowed), (7, 7));
}

#[test]
fn time_stands_still_unless_it_is_moved() {
    let net = ChaosNet::new(10);
    let bus = net.bus();
    net.set_faults(bus.node(), faults(5 * MS..6 * MS));
    let (log, _subscription) = listen(&bus);
    assert!(net.next_at() >= Some(5 * MS) && net.next_at() <= Some(6 * MS));
    assert!(!net.step(4 * MS), "not due");
    assert_eq!(net.now(), Duration::ZERO);
    net.advance(20 * MS);
    send(&bus, 0..1);
    assert!(net.step(Duration::MAX) && net.step(Duration::MAX));
    assert!(
        net.now() >= 30 * MS && net.now() <= 32 * MS,
        "{:?}",
        net.now()
    );
    assert_eq!(net.next_at(), Some(net.now()), "arrived, not yet delivered");
    assert_eq!(texts(&log).len(), 0);
    assert!(net.step(net.now()));
    assert_eq!(texts(&log), numbers(0..1));
    assert_eq!(net.next_at(), None);
}

#[test]
fn a_right_to_subscribe_that_is_taken_away_and_given_back_has_to_be_asked_for_again() {
    let net = ChaosNet::with_servers(1, 2);
    let (near, far) = (net.bus(), net.bus_at(net.server(1)));
    let (log, interest) = listen(&far);
    net.advance(MS);
    net.deny_subscribing(far.node());
    send(&near, 0..1);
    send(&far, 1..2);
    net.advance(MS);
    let refused = "SubscribeDenied { subject: \">\" }";
    assert_eq!(texts(&log), [refused]);
    assert_eq!(
        (far.status().link, far.status().subscribe_denied),
        (Link::Up, 1)
    );
    // Asked for too early, and then in time.
    drop(interest);
    let (early, interest) = listen(&far);
    net.advance(MS);
    assert_eq!(texts(&early), [refused]);
    net.allow_subscribing(far.node());
    send(&near, 2..3);
    net.advance(MS);
    assert_eq!(texts(&early).len(), 1, "nothing comes by itself");
    drop(interest);
    let (late, _interest) = listen(&far);
    net.advance(MS);
    send(&near, 3..4);
    net.advance(MS);
    assert_eq!(texts(&late), ["n.3"]);
    assert_eq!(net.counts().denied, 2);
}

#[test]
fn what_a_node_may_not_publish_reaches_nobody_and_it_hears_so() {
    let net = ChaosNet::new(1);
    let (near, far) = (net.bus(), net.bus());
    let (own, _own) = listen(&near);
    let (log, _interest) = listen(&far);
    net.advance(MS);
    net.deny_publishing(near.node(), &Pattern::new("n.1").expect("a valid pattern"));
    send(&near, 0..3);
    net.advance(MS);
    assert_eq!(texts(&log), ["n.0", "n.2"]);
    assert!(texts(&own).contains(&"PublishDenied { subject: \"n.1\" }".to_owned()));
    assert_eq!(near.status().publish_denied, 1);
    net.allow_publishing(near.node());
    send(&near, 1..2);
    net.advance(MS);
    assert_eq!(texts(&log), ["n.0", "n.2", "n.1"]);
}

#[test]
fn what_waits_for_a_connection_can_be_thrown_away_and_subscriptions_stay() {
    let net = ChaosNet::new(1);
    let bus = net.bus();
    net.disconnect(bus.node());
    let (log, _interest) = listen(&bus);
    send(&bus, 0..3);
    net.discard(bus.node());
    send(&bus, 3..4);
    net.connect(bus.node());
    net.advance(MS);
    assert_eq!(texts(&log), ["Connected { generation: 2 }", "n.3"]);
    assert_eq!(net.counts().broken, 3);
}

#[test]
fn a_publisher_that_waits_for_room_is_woken_however_it_comes() {
    let makes_room: [fn(&ChaosNet, NodeId); 4] = [
        |net, node| net.set_up_flow(node, Flow::Open),
        |net, node| net.disconnect(node),
        |net, node| net.set_capacity(node, 1, 9),
        |net, node| {
            net.disconnect(node);
            net.discard(node);
        },
    ];
    for make_room in makes_room {
        let net = ChaosNet::new(1);
        let bus = net.bus();
        net.set_capacity(bus.node(), 1, 3);
        net.set_up_flow(bus.node(), Flow::Hold);
        send(&bus, 0..3);
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut publisher = bus.publisher();
        assert_eq!(publisher.poll_ready(&mut context), Poll::Pending);
        make_room(&net, bus.node());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(publisher.poll_ready(&mut context), Poll::Ready(Ok(())));
    }
}

#[test]
fn rights_are_the_nodes_on_every_connection_and_a_refusal_is_lost_with_its_own() {
    let net = ChaosNet::with_servers(1, 2);
    let bus = net.bus();
    net.deny_subscribing(bus.node());
    net.set_down_flow(bus.node(), Flow::Hold);
    let (log, _interest) = listen(&bus);
    net.advance(MS);
    assert_eq!(net.counts().denied, 1);
    net.connect_to(bus.node(), net.server(1));
    net.set_down_flow(bus.node(), Flow::Open);
    net.advance(MS);
    let heard = [
        "Disconnected",
        "Connected { generation: 2 }",
        "SubscribeDenied { subject: \">\" }",
    ];
    assert_eq!(texts(&log), heard, "the second refusal alone");
    net.allow_subscribing(bus.node());
    net.deny_publishing(bus.node(), &Pattern::new("n.1").expect("a valid pattern"));
    net.deny_publishing(bus.node(), &Pattern::new("n.2").expect("a valid pattern"));
    net.connect(bus.node());
    send(&bus, 1..3);
    net.advance(MS);
    let last = ["n.1", "PublishDenied { subject: \"n.2\" }"];
    assert_eq!(
        texts(&log)[heard.len() + 2..],
        last,
        "the later pattern alone"
    );
}

#[test]
fn copies_keep_the_order_and_a_new_connection_waits_for_nothing_of_the_old() {
    let net = ChaosNet::new(1);
    let (near, far) = (net.bus(), net.bus());
    let (log, _interest) = listen(&far);
    net.advance(MS);
    let doubling = Faults {
        duplication: 0.5,
        ..faults(MS..99 * MS)
    };
    net.set_up_faults(near.node(), doubling);
    send(&near, 100..200);
    net.advance(200 * MS);
    let arrived = texts(&log);
    assert!(arrived.len() > 120 && arrived.is_sorted(), "{arrived:?}");
    net.set_up_faults(near.node(), faults(6_000 * MS..6_000 * MS));
    send(&near, 0..1);
    net.disconnect(near.node());
    net.connect(near.node());
    net.set_up_faults(near.node(), Faults::NONE);
    send(&near, 1..2);
    net.advance(MS);
    assert_eq!(texts(&log).last().map(String::as_str), Some("n.1"));
}

#[test]
fn each_way_has_faults_of_its_own() {
    let net = ChaosNet::new(1);
    let (near, far) = (net.bus(), net.bus());
    let (log, _interest) = listen(&far);
    net.advance(MS);
    net.set_up_faults(far.node(), faults(9 * MS..9 * MS));
    net.set_down_faults(near.node(), faults(9 * MS..9 * MS));
    send(&near, 0..1);
    net.advance(MS);
    assert_eq!(texts(&log), ["n.0"]);
    net.set_up_faults(near.node(), faults(2 * MS..2 * MS));
    net.set_down_faults(far.node(), faults(3 * MS..3 * MS));
    let sent = net.now();
    send(&near, 1..2);
    net.advance(9 * MS);
    assert_eq!(log.lock().last(), Some(&(sent + 5 * MS, "n.1".to_owned())));
}
