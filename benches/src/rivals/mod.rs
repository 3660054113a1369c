//! Everybody who takes part, each behind the trait of its workload, at its best.
//!
//! A contender shows that it does the work before it is timed: `workload` calls the trait's `check`,
//! which panics if it does not. Each trait says what counts as the work.

mod fanout;
mod keyed;
mod publish;
mod reference;

pub use fanout::{
    Afterwrite as AfterwriteFanout, AsyncBroadcast as AsyncBroadcastFanout, Crossbeam, Fanout,
    Flume, LinePerReceiver, Rings, TokioBroadcast as TokioBroadcastFanout,
};
pub use keyed::{
    AfterwriteBatch, AfterwriteKeys, Churn, DashMapOfBroadcasts, Gated, Miss, ReferenceKeys,
};
pub use publish::{
    AfterwriteHandle, AfterwriteKey, AsyncBroadcast, BareArrayQueue, BareRing, DashMapKey, Publish,
    ReferenceKey, TokioBroadcast, TokioWatch,
};
pub use reference::{Channel, CrossbeamChannel, Reference, Standing, TokioChannel};

/// The buffer of every subscriber, in every workload that does not say otherwise.
pub const BUFFER: usize = 20;
