//! Models of the topic and the mailbox, on the code that ships.
//!
//! Each model states its property, its threads (the model's own included) and which operations
//! meet; each asserts conservation (received + missed + merged + discarded = pushed), order, and
//! that every payload is dropped exactly once; the checker asserts that every mailbox, chunk and
//! topic is freed. The preemption bound is 2, or what `LOOM_MAX_PREEMPTIONS` says. `faults.rs` weakens every
//! ordering and takes away steps of the protocol, and expects a named model to fail for each.
#![cfg(afterwrite_loom)]

mod close;
mod faults;
mod first;
mod latest;
mod loss;
mod overflow;
mod push;
mod reuse;
mod shut;
mod wait;

use afterwrite::models::{Topic, Walk};
use afterwrite_loom_tests::Payload;

/// A key with nobody listening.
fn topic() -> Topic<Payload> {
    Topic::new()
}

/// Pushes when the turn is free, else gives the number back.
fn push(topic: &Topic<Payload>, value: u64) -> u32 {
    topic
        .push(Payload::new(value))
        .map_or(0, |pushed| pushed.reached)
}

/// Takes the turn for a push in slices.
fn walk(topic: &Topic<Payload>, value: u64) -> Walk<Payload> {
    match topic.walk(Payload::new(value)) {
        Ok(walk) => walk,
        Err(_) => panic!("the turn is free"),
    }
}
