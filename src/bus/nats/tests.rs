use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::events::{Listener, Shared, read_error};
use super::pump::Ledger;
use crate::bus::Event;

#[test]
fn refusals_are_read_from_the_servers_words() {
    let cases = [
        (
            r#"nats: Permissions Violation for Publish to "cache.invalidate.user.1""#,
            Event::PublishDenied {
                subject: "cache.invalidate.user.1".into(),
            },
        ),
        (
            r#"Permissions Violation for Subscription to "cache.>" using queue "q""#,
            Event::SubscribeDenied {
                subject: "cache.>".into(),
            },
        ),
        (
            r#"Permissions Violation for Publish to "unfinished"#,
            Event::Error {
                message: r#"Permissions Violation for Publish to "unfinished"#.into(),
            },
        ),
        (
            "nats: authorization violation",
            Event::Error {
                message: "nats: authorization violation".into(),
            },
        ),
    ];
    for (text, event) in cases {
        assert_eq!(read_error(text), event, "{text}");
    }
}

/// Closes the ledger until it tells something, or has nothing to settle.
async fn settle(ledger: &mut Ledger, counted: u64) -> u64 {
    std::future::poll_fn(|cx| match ledger.close(counted, cx) {
        0 if ledger.is_settling() => Poll::Pending,
        told => Poll::Ready(told),
    })
    .await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}

#[test]
fn a_loss_is_told_without_any_event() {
    block_on(async {
        let mut ledger = Ledger::new(0, 100);
        ledger.received += 7;
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(ledger.close(107, &mut context), 0, "all received");
        // All but the last counted message are certain at once; the last after a pause.
        assert_eq!(ledger.close(112, &mut context), 4);
        let started = Instant::now();
        assert_eq!(settle(&mut ledger, 112).await, 1);
        assert!(started.elapsed() >= Duration::from_millis(5));
        assert_eq!(settle(&mut ledger, 112).await, 0, "told once");
    });
}

#[test]
fn a_message_that_is_counted_early_is_no_loss() {
    block_on(async {
        let mut ledger = Ledger::new(0, 0);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(ledger.close(1, &mut context), 0);
        assert!(ledger.is_settling());
        ledger.received += 1;
        assert_eq!(settle(&mut ledger, 1).await, 0);
        assert!(!ledger.is_settling());
    });
}

#[test]
fn a_loss_is_told_once_whether_counted_or_heard_of_first() {
    block_on(async {
        let mut ledger = Ledger::new(0, 0);
        assert_eq!(ledger.hear(3), 3);
        assert_eq!(
            settle(&mut ledger, 5).await,
            1,
            "heard of before it was counted"
        );
        assert_eq!(settle(&mut ledger, 5).await, 1);
        assert_eq!(ledger.hear(2), 0, "counted before it was heard of");
        assert_eq!(settle(&mut ledger, 5).await, 0);
        assert_eq!(ledger.hear(1), 1);
        assert_eq!(settle(&mut ledger, 6).await, 0);
    });
}

#[test]
fn a_count_is_exact_only_for_a_pump_that_is_alone() {
    let shared = Shared::default();
    let listeners = [(); 3].map(|()| Arc::new(Listener::default()));
    let one = shared.enter(&listeners[0]);
    assert!(shared.is_alone(one));
    let two = shared.enter(&listeners[1]);
    assert!(!shared.is_alone(one) && !shared.is_alone(two));
    shared.leave();
    assert!(
        !shared.is_alone(one) && !shared.is_alone(two),
        "what the other took is unknown"
    );
    shared.leave();
    let three = shared.enter(&listeners[2]);
    assert!(shared.is_alone(three));
}
