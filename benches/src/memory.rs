//! Bytes of an idle subscriber and of a key, by the layouts of what is allocated.

use afterwrite::{Overflow, Registry, SubscribeOptions};

use crate::alloc::live_bytes;
use crate::input;
use crate::rivals::{BUFFER, CrossbeamChannel, Reference, TokioChannel};

/// Bytes of one thing.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was counted.
    pub what: &'static str,
    /// Whose.
    pub contender: &'static str,
    /// Its bytes, handle included.
    pub bytes: f64,
}

/// Subscribers that are counted together.
const N: usize = 10_000;

/// As many again, where a registry has its memory in blocks.
const MANY: usize = 1_000_000;

/// Bytes that `make` leaves allocated for each of `N`, the vector of its results included.
fn each<S>(make: impl FnMut(usize) -> S) -> f64 {
    each_of(N, make)
}

/// As [`each`], for each of `n`.
fn each_of<S>(n: usize, mut make: impl FnMut(usize) -> S) -> f64 {
    let before = live_bytes();
    let mut standing = Vec::with_capacity(n);
    standing.extend((0..n).map(&mut make));
    let bytes = live_bytes() - before;
    drop(standing);
    bytes as f64 / n as f64
}

fn ours<T: Clone + Send + 'static>(options: SubscribeOptions, same_key: bool) -> f64 {
    ours_of::<T>(options, N, if same_key { 1 } else { N })
}

/// `n` subscribers over as many keys as `keys`.
fn ours_of<T: Clone + Send + 'static>(options: SubscribeOptions, n: usize, keys: usize) -> f64 {
    let registry: Registry<T> = Registry::builder()
        .workers(1)
        .hash_seed(1)
        .build()
        .expect("the settings are in range");
    let keys = input::keys(keys);
    each_of(n, |n| {
        registry
            .subscribe_with(&keys[n % keys.len()], options)
            .expect("there is no cap")
    })
}

fn full() -> f64 {
    let registry = Registry::builder()
        .workers(1)
        .hash_seed(1)
        .build()
        .expect("the settings are in range");
    let before = live_bytes();
    let mut standing = Vec::with_capacity(N);
    standing.extend((0..N).map(|_| registry.subscribe("hot").expect("there is no cap")));
    for value in 0..BUFFER as u64 + 1 {
        let _ = registry.publish("hot", value);
    }
    (live_bytes() - before) as f64 / N as f64
}

/// Counts all. The process must count ([`crate::alloc::counts`]).
#[must_use]
pub fn rows() -> Vec<Row> {
    let plain = SubscribeOptions::new().buffer_capacity(BUFFER);
    let latest = plain.overflow(Overflow::Conflate);
    let reference = Reference::<CrossbeamChannel>::new(1, 64);
    let tokio = Reference::<TokioChannel>::new(1, 64);
    let keys = input::keys(N);
    let (sender, _) = tokio::sync::broadcast::channel::<u64>(BUFFER);
    let row = |what, contender, bytes| Row {
        what,
        contender,
        bytes,
    };
    let (same, own) = (
        "idle subscriber, same key, u64",
        "idle subscriber, key of its own, u64",
    );
    vec![
        row(same, "afterwrite", ours::<u64>(plain, true)),
        row(
            same,
            "reference",
            each(|_| reference.subscribe("hot", BUFFER)),
        ),
        row(
            same,
            "reference (tokio channels)",
            each(|_| tokio.subscribe("hot", BUFFER)),
        ),
        row(same, "tokio broadcast", each(|_| sender.subscribe())),
        row(own, "afterwrite", ours::<u64>(plain, false)),
        row(
            own,
            "reference",
            each(|n| reference.subscribe(&keys[n], BUFFER)),
        ),
        row(
            own,
            "tokio broadcast",
            each(|_| tokio::sync::broadcast::channel::<u64>(BUFFER)),
        ),
        row(
            "idle subscriber, one of a million keys, u64",
            "afterwrite",
            ours_of::<u64>(plain, MANY, MANY),
        ),
        row(
            "idle subscriber, one of a million keys, u64",
            "reference",
            {
                let keys = input::keys(MANY);
                each_of(MANY, |n| reference.subscribe(&keys[n], BUFFER))
            },
        ),
        row(
            "idle subscriber, same key, ()",
            "afterwrite",
            ours::<()>(plain, true),
        ),
        row(
            "idle subscriber, same key, (), Conflate",
            "afterwrite",
            ours::<()>(latest, true),
        ),
        row(
            "idle subscriber, same key, u64, Conflate",
            "afterwrite",
            ours::<u64>(latest, true),
        ),
        row("full subscriber, same key, u64", "afterwrite", full()),
    ]
}

/// Prints rows as a table.
pub fn print(rows: &[Row]) {
    for row in rows {
        println!(
            "{:<42} {:<28} {:>8.0} B",
            row.what, row.contender, row.bytes
        );
    }
}
