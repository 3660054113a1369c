//! What the registry, the watermark and the invalidation promise, line by line.
//!
//! Tests are named after the lines: `r4_…` checks R4. Those in `tests/` see what a user sees, those in
//! `loom-tests/` explore the interleavings.
//!
//! # Subscribing and receiving
//!
//! | | promise |
//! |---|---|
//! | R1 | [`subscribe`] fails with a typed error, for an empty or overlong key, a cap that is reached, a closed registry. A call that fails leaves nothing behind |
//! | R2 | A [`Subscription`] owns its registration. Dropping or closing it, or any [`Closer`] of it, ends it. A push that begins after a close has returned never touches the mailbox; a close never waits for a push; every payload is dropped exactly once |
//! | R3 | [`recv`] (cancel-safe), [`recv_blocking`], [`recv_timeout`], [`try_recv`] and `Stream + FusedStream`; none needs an asynchronous runtime. `Send + Unpin + 'static` |
//! | R4 | Pushes and losses that were ordered after the registration = received + sum of [`Missed`]`.n` + merged + skipped + discarded by the close. Submits that overlap the `subscribe` may or may not count. A `Missed` comes no later than the next notice after the loss, and does not wait for one |
//! | R5 | What a full buffer does is the subscription's own [`Overflow`]. A slow subscriber slows neither a push nor another subscriber |
//! | R16 | Who has subscribed before a submit or publish was called gets it |
//! | R17 | [`subscribe_gated`] delivers a first notice through a gate, to the new subscription alone, at its place in the key's order |
//!
//! # Gates and order
//!
//! | | promise |
//! |---|---|
//! | R6 | [`submit`] never runs the producer on the caller's thread, and waits for no gate, read, push or receiver; it takes the queue's short lock |
//! | R7 | A producer is asked until it answers `Some`. Asynchronous ones run on the shard, need not be `Send`, and run in the context of a runtime that the builder was given |
//! | R8 | A gate's budget counts from its first read, see [`Retry`] |
//! | R9 | A gate that expires is reported to the [`Observer`], and as `Missed` with `visible: false`, or not at all with [`Expiry::Skip`] |
//! | R10 | Gated pushes of one key happen in the order of their submits, if of two submits one had returned before the other was called |
//! | R11 | A key that waits delays no other key, also on the same shard; nor does an asynchronous read that hangs. A synchronous producer that blocks holds up its own shard |
//! | R12 | Jobs handed over to a shard are bounded by [`queue_capacity`], gates that wait there by [`pending_capacity`], and those of one key by [`pending_per_key`]. Beyond, [`QueueFull`], and R4: each key keeps one refused gate besides, which waits as well. Memory grows with the keys, never with the submits |
//! | R13 | [`publish`] pushes at once, on the calling thread; all subscribers of a key see its pushes in one order. If another push of the key is under way its shard gets the payload. No thread waits for another |
//! | R23 | With [`coalesce`], a key keeps one waiting gate beside its head: the newest producer, the highest position, the oldest deadline |
//! | R24 | [`submit_batch`] makes one hand-over for each shard and keeps the order within a key |
//!
//! # Progress and closing
//!
//! | | promise |
//! |---|---|
//! | R14 | A push takes no lock, and neither allocates nor frees the registry's memory, but for a thread's [first](super::limitations#not-promised); what the payload's own clone and drop do is the user's. Subscribing and unsubscribing lock only each other. Among a million subscribers, of one key or of as many, they take at most twice the instructions that they take among a thousand |
//! | R15 | Whatever the interleaving: no send after a close, no lost wake-up, no lost subscriber, no double drop, no leak |
//! | R18 | [`close`] cancels waiting gates, reports jobs that never started as `Missed`, waits for the shards, except on one of them. Dropping the last [`Registry`] closes without waiting. No job is stranded by a close that it overlaps. A stream ends once it is drained |
//! | R22 | A panic in a producer, observer, waker or a payload's clone is caught, counted and reported; the shard lives on. Needs `panic = "unwind"` |
//!
//! # Watching
//!
//! | | promise |
//! |---|---|
//! | R19 | The [`Observer`] is called after the walk, never inside it; clocks are read only if it wants timing |
//! | R20 | [`subscriber_count`], [`has_subscribers`] and [`stats`] lock nothing |
//! | R21 | Settings out of range are a [`BuildError`] or a documented clamp, never a panic |
//!
//! # Watermark
//!
//! | | promise |
//! |---|---|
//! | W1 | A [`Watermark`] only grows; smaller values are ignored |
//! | W2 | [`submit_at`] is pushed as soon as the position is reached; nothing polls. [`advance`] is two loads and a read-modify-write of one cache line when nobody is due, and wakes outside any lock |
//! | W3 | [`wait_for`] and [`wait_for_timeout`]: read your writes in a request handler |
//! | W4 | Order, budget, expiry and isolation are those of any gate |
//! | W5 | [`follow`] reads the position for all who wait, only while somebody does |
//!
//! # Invalidation
//!
//! | | promise |
//! |---|---|
//! | I1 | An [`Entity`] and an [`Id`] are checked when they are made. Any id up to its length has exactly one subject, and a subject exactly one id |
//! | I2 | [`emit`] drops here first, then hands over and returns; it waits for no network. A [`Writing`] that ends in any way but [`rolled_back`] emits. A full outbox merges into "all", and says `Collapsed`. What is refused after its commit shows to the others as a gap |
//! | I3 | Dropping a [`Watch`] ends it, and leaves its cache in doubt; [`stop`] first applies what is queued |
//! | I4 | Malformed subjects are counted and skipped. An unreadable payload drops its id, or is a gap. Nothing that arrives causes a panic or unbounded memory |
//! | I5 | A watch with a thread of its own that is slow or panics harms no other; the overflow of its queue drops everything for it alone |
//! | I6 | A missed invalidation of a known publisher is noticed within B, once that publisher has been known for B: see [`coherence`](super::coherence) |
//! | I7 | [`Watch::coherence`] of one entity is one atomic load, and so is that of a cache or a fence; [`Invalidator::coherence`] takes a lock for reading. `Suspect` bypasses older entries, and serves newer ones for a lease at most |
//! | I8 | No load that began before an invalidation is stored after it. Callers of one id share a load, but none shares one whose read began before an invalidation that the caller came after. Errors are not cached |
//! | I9 | Any cache can be watched that can remove an id and clear |
//! | I10 | All of it needs a [`Bus`] and nothing more of the network |
//! | I11 | [`Watch::lag`] never reads less than the true lag, of those drops whose publisher's clock is understood, and more by at most the time that a beat took to that publisher: less than e_max while `Coherent` |
//!
//! [`Entity`]: crate::invalidation::subject::Entity
//! [`Id`]: crate::invalidation::subject::Id
//! [`emit`]: crate::invalidation::Invalidator::emit
//! [`Writing`]: crate::invalidation::Writing
//! [`rolled_back`]: crate::invalidation::Writing::rolled_back
//! [`Watch`]: crate::invalidation::Watch
//! [`stop`]: crate::invalidation::Watch::stop
//! [`Invalidator::coherence`]: crate::invalidation::Invalidator::coherence
//! [`Watch::coherence`]: crate::invalidation::Watch::coherence
//! [`Watch::lag`]: crate::invalidation::Watch::lag
//! [`Bus`]: crate::bus::Bus
//! [`subscribe`]: crate::Registry::subscribe
//! [`Subscription`]: crate::Subscription
//! [`Closer`]: crate::Closer
//! [`recv`]: crate::Subscription::recv
//! [`recv_blocking`]: crate::Subscription::recv_blocking
//! [`recv_timeout`]: crate::Subscription::recv_timeout
//! [`try_recv`]: crate::Subscription::try_recv
//! [`Missed`]: crate::Notice::Missed
//! [`Overflow`]: crate::Overflow
//! [`subscribe_gated`]: crate::Registry::subscribe_gated
//! [`submit`]: crate::Registry::submit
//! [`Retry`]: crate::Retry
//! [`Observer`]: crate::Observer
//! [`Expiry::Skip`]: crate::Expiry::Skip
//! [`queue_capacity`]: crate::Builder::queue_capacity
//! [`pending_capacity`]: crate::Builder::pending_capacity
//! [`pending_per_key`]: crate::Builder::pending_per_key
//! [`QueueFull`]: crate::Submitted::QueueFull
//! [`publish`]: crate::Registry::publish
//! [`coalesce`]: crate::Builder::coalesce
//! [`submit_batch`]: crate::Registry::submit_batch
//! [`close`]: crate::Registry::close
//! [`Registry`]: crate::Registry
//! [`subscriber_count`]: crate::Registry::subscriber_count
//! [`has_subscribers`]: crate::Registry::has_subscribers
//! [`stats`]: crate::Registry::stats
//! [`BuildError`]: crate::BuildError
//! [`Watermark`]: crate::Watermark
//! [`submit_at`]: crate::Registry::submit_at
//! [`advance`]: crate::Watermark::advance
//! [`wait_for`]: crate::Watermark::wait_for
//! [`wait_for_timeout`]: crate::Watermark::wait_for_timeout
//! [`follow`]: crate::Watermark::follow
