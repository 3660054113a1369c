//! How an invalidator begins and ends when it cannot work.

#[path = "invalidation/support.rs"]
mod support;

use std::time::Duration;

use afterwrite::bus::LocalBus;
use afterwrite::invalidation::cache::Invalidation;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::{EmitError, Farewell, Invalidator, StartError, Why};
use support::{entity, eventually, quick};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn senseless_settings_and_closed_buses_are_refused() {
    use afterwrite::bus::Bus as _;
    let settings = quick("n").beat(Duration::ZERO);
    let refused = Invalidator::new(LocalBus::new(), settings).unwrap_err();
    assert!(matches!(refused, StartError::Settings(_)));
    let bus = LocalBus::new();
    bus.close();
    let refused = Invalidator::new(bus.clone(), quick("n")).unwrap_err();
    assert!(matches!(refused, StartError::Subscribe(_)));
    let bus = LocalBus::new();
    let node = Invalidator::new(bus.clone(), quick("n")).unwrap();
    let watch = node.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    eventually("it is coherent", || {
        watch.coherence() == Coherence::Coherent
    });
    bus.close();
    eventually("it doubts", || watch.coherence() == Coherence::Suspect);
    assert_eq!(node.emit(&entity(), "1"), Err(EmitError::Closed));
    assert!(node.suspects(&entity()).iter().any(|s| s.why == Why::Ended));
    assert_ne!(node.close_blocking(LONG), Farewell::Said);
}

#[test]
fn everything_is_send_and_sync() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Invalidator>();
    check::<afterwrite::invalidation::Watch>();
    check::<afterwrite::invalidation::Writing>();
}
