//! R21: every setting, and what is refused.

use afterwrite::{BuildError, Builder, Expiry, Overflow, Pinning, Registry, Retry, WaitStrategy};

use crate::support::*;

fn build(with: impl FnOnce(Builder<u64>) -> Builder<u64>) -> Result<Registry<u64>, BuildError> {
    with(Registry::builder()).build()
}

#[test]
fn r21_nonsense_sizes_are_typed_errors() {
    type Set = fn(Builder<u64>, usize) -> Builder<u64>;
    let sizes: [(&str, Set, usize); 8] = [
        ("workers", Builder::workers, 1024),
        ("queue_capacity", Builder::queue_capacity, 1 << 20),
        ("pending_capacity", Builder::pending_capacity, 1 << 20),
        ("pending_per_key", Builder::pending_per_key, 1 << 15),
        ("buffer_capacity", Builder::buffer_capacity, 0x4000),
        ("max_subscribers", Builder::max_subscribers, 1 << 31),
        (
            "max_subscribers_per_key",
            Builder::max_subscribers_per_key,
            1 << 31,
        ),
        ("max_key_bytes", Builder::max_key_bytes, 1 << 20),
    ];
    for (name, set, most) in sizes {
        match build(|b| set(b, 0)).unwrap_err() {
            BuildError::Zero { setting } => assert_eq!(setting, name),
            other => panic!("{name}: {other:?}"),
        }
        for value in [most + 1, usize::MAX] {
            let error = build(|b| set(b, value)).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(name) && text.contains(&most.to_string()),
                "{text}"
            );
            match error {
                BuildError::TooLarge {
                    setting,
                    value: found,
                    max,
                } => assert_eq!((setting, found, max), (name, value, most)),
                other => panic!("{name}: {other:?}"),
            }
        }
        if name != "workers" {
            // The extremes themselves work.
            for value in [1, most] {
                let registry = build(|b| set(b.workers(1), value)).unwrap();
                let mut subscription = registry.subscribe("a").unwrap();
                queued(registry.submit("a", |_| Some(1)));
                assert_eq!(next(&mut subscription), changed(1));
            }
        }
    }
}

#[test]
fn r21_a_core_that_does_not_exist_is_an_error() {
    let pinned = |cores: Vec<usize>| build(|b| b.workers(2).pinning(Pinning::Cores(cores)));
    match pinned(vec![usize::MAX]).unwrap_err() {
        BuildError::NoSuchCore { core, usable } => {
            assert_eq!(core, usize::MAX);
            assert!(!usable.contains(&core));
            let fine = pinned(vec![usable[0]]).unwrap();
            let mut subscription = fine.subscribe("a").unwrap();
            queued(fine.submit("a", |_| Some(1)));
            assert_eq!(next(&mut subscription), changed(1));
        }
        other => panic!("{other:?}"),
    }
    assert!(pinned(Vec::new()).is_ok());
}

/// Where each shard may run, by its own word. Nothing outside Linux.
fn cores_of_shards(pinning: Pinning, workers: usize) -> Vec<Vec<usize>> {
    let registry = build(|b| b.workers(workers).pinning(pinning)).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let mut cores = vec![None; workers];
    let mut n = 0;
    while cores.iter().any(Option::is_none) {
        // Keys, until each shard has had one.
        n += 1;
        let key = format!("k{n}");
        let _subscription = registry.subscribe(&key).unwrap();
        let tell = tell.clone();
        queued(registry.submit(&key, move |_| {
            let thread = std::thread::current();
            let shard = thread
                .name()
                .and_then(|name| name.strip_prefix("afterwrite-"));
            let shard: usize = shard.and_then(|n| n.parse().ok()).expect("a shard's name");
            let allowed = core_affinity::get_core_ids().unwrap();
            let allowed: Vec<usize> = allowed.iter().map(|core| core.id).collect();
            tell.send((shard, allowed)).unwrap();
            Some(0)
        }));
        let (shard, allowed) = told.recv_timeout(SOON).unwrap();
        cores[shard] = Some(allowed);
    }
    cores.into_iter().flatten().collect()
}

#[cfg(target_os = "linux")]
#[test]
fn r21_pinning_gives_each_shard_a_core_if_there_are_more_cores_than_shards() {
    let usable: Vec<usize> = core_affinity::get_core_ids()
        .unwrap()
        .iter()
        .map(|core| core.id)
        .collect();
    // As many shards as cores, or more: none is pinned.
    for workers in [usable.len(), usable.len() + 1] {
        for cores in cores_of_shards(Pinning::Auto, workers) {
            assert_eq!(cores, usable);
        }
    }
    // One core is left over: each shard has one of its own.
    if usable.len() > 1 {
        let workers = usable.len() - 1;
        let mut pinned = Vec::new();
        for cores in cores_of_shards(Pinning::Auto, workers) {
            assert_eq!(cores.len(), 1, "{cores:?}");
            pinned.extend(cores);
        }
        pinned.sort_unstable();
        pinned.dedup();
        assert_eq!(pinned.len(), workers);
    }
    // Cores that are named, from the front again; none at all is off.
    let first = vec![usable[0]];
    assert_eq!(
        cores_of_shards(Pinning::Cores(first.clone()), 2),
        [first.clone(), first]
    );
    for off in [Pinning::Off, Pinning::Cores(Vec::new())] {
        assert_eq!(cores_of_shards(off, 1), std::slice::from_ref(&usable));
    }
}

#[test]
fn r21_each_strategy_pinning_and_retry_delivers() {
    for strategy in [
        WaitStrategy::Spin,
        WaitStrategy::SpinThenPark,
        WaitStrategy::Park,
    ] {
        for pinning in [Pinning::Auto, Pinning::Off] {
            for retry in [
                Retry::default(),
                Retry::fixed(0, std::time::Duration::MAX),
                Retry::fixed(u32::MAX, std::time::Duration::ZERO),
                Retry::backoff(std::time::Duration::MAX),
            ] {
                let registry = build(|b| {
                    b.workers(1)
                        .wait_strategy(strategy)
                        .pinning(pinning.clone())
                        .retry(retry)
                        .hash_seed(1)
                })
                .unwrap();
                let mut subscription = registry.subscribe("a").unwrap();
                for value in 0..3 {
                    queued(registry.submit("a", move |_| Some(value)));
                    assert_eq!(next(&mut subscription), changed(value));
                }
                registry.close();
            }
        }
    }
}

#[test]
fn r21_the_defaults() {
    let registry: Registry<u64> = Registry::new().unwrap();
    assert_eq!(registry.stats().shards.len(), 4);
    let mut subscription = registry.subscribe("a").unwrap();
    for value in 0..21 {
        let _ = registry.publish("a", value);
    }
    for value in 0..20 {
        assert_eq!(next(&mut subscription), changed(value));
    }
    assert_eq!(next(&mut subscription), overrun(1));
    assert!(registry.subscribe(&"k".repeat(1024)).is_ok());
    assert!(registry.subscribe(&"k".repeat(1025)).is_err());
    let view = afterwrite::Watermark::new(0);
    for _ in 0..16 {
        queued(registry.submit_at("a", view.reached(1), 1));
    }
    let refused = registry.submit_at("a", view.reached(1), 1);
    assert_eq!(refused, afterwrite::Submitted::QueueFull);
    assert_eq!(Overflow::default(), Overflow::DropNewest);
    assert_eq!(Expiry::default(), Expiry::Missed);
    assert_eq!(WaitStrategy::default(), WaitStrategy::SpinThenPark);
    assert_eq!(Pinning::default(), Pinning::Auto);
}

#[test]
fn r21_a_payload_without_size_and_one_that_is_large() {
    let registry: Registry<()> = Registry::new().unwrap();
    let large: Registry<[u64; 1024]> = Registry::new().unwrap();
    for overflow in POLICIES {
        let options = afterwrite::SubscribeOptions::new().overflow(overflow);
        let mut nothing = registry.subscribe_with("a", options).unwrap();
        let mut much = large.subscribe_with("a", options).unwrap();
        for _ in 0..3 {
            let _ = registry.publish("a", ());
            let _ = large.publish("a", [7; 1024]);
        }
        assert_eq!(next(&mut nothing), changed(()));
        assert_eq!(next(&mut much), changed([7; 1024]));
    }
    // As much alignment as a cache line.
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(align(128))]
    struct Aligned(u8);
    let aligned: Registry<Aligned> = Registry::new().unwrap();
    for overflow in POLICIES {
        let options = afterwrite::SubscribeOptions::new().overflow(overflow);
        let mut subscription = aligned.subscribe_with("a", options).unwrap();
        let _ = aligned.publish("a", Aligned(3));
        assert_eq!(next(&mut subscription), changed(Aligned(3)));
    }
}
