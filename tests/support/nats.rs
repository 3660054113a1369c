//! What tests over a real server say again and again.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use afterwrite::bus::{Event, NatsBus, PublishError, Publisher};
use afterwrite::invalidation::subject::{Pattern, Subject};
use async_nats::ConnectOptions;

use super::PATIENCE;
use super::record::{Recorder, Seen};
use super::server::NatsServer;

pub fn subject(text: &str) -> Subject<'_> {
    Subject::new(text).expect("a valid subject")
}

pub fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a valid pattern")
}

pub fn connect(server: &NatsServer) -> NatsBus {
    NatsBus::connect_blocking(&server.url()).expect("connected")
}

pub fn connect_with(server: &NatsServer, options: ConnectOptions) -> NatsBus {
    let builder = NatsBus::builder().options(options);
    builder.connect_blocking(server.url()).expect("connected")
}

/// Reconnects at once, so that tests need not wait for the back-off.
pub fn eager() -> ConnectOptions {
    ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(10))
}

/// Publishes until it is seen, since a message may be lost while a connection is made.
pub fn until_seen(recorder: &Recorder, publisher: &mut Box<dyn Publisher>, to: &str) {
    let deadline = Instant::now() + PATIENCE;
    let came = |seen: &[Seen]| count(seen, to) > 0;
    while Instant::now() < deadline {
        publisher.publish(subject(to), b"").ok();
        if recorder.wait(Duration::from_millis(50), came) {
            return;
        }
    }
    panic!("{to} does not come: {recorder:?}");
}

/// How many messages have come to this subject.
pub fn count(seen: &[Seen], to: &str) -> usize {
    let mine = |seen: &&Seen| matches!(seen, Seen::Message(subject, _) if subject == to);
    seen.iter().filter(mine).count()
}

pub fn has_event(recorder: &Recorder, wanted: impl Fn(&Event) -> bool) -> bool {
    recorder.wait(PATIENCE, |seen| {
        let is_wanted = |seen: &Seen| matches!(seen, Seen::Event(event) if wanted(event));
        seen.iter().any(is_wanted)
    })
}

pub fn fill(publisher: &mut Box<dyn Publisher>, payload: &[u8]) -> usize {
    for taken in 0..1_000_000 {
        match publisher.publish(subject("p.e.1"), payload) {
            Ok(()) => {}
            Err(PublishError::Full) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("never full");
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: no runtime of any kind.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the future does not end");
        thread::park_timeout(left);
    }
}
