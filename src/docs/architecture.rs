//! The parts of the registry and of invalidation, and the ways of a notice and an invalidation through
//! them.
//!
//! ```text
//!  submit, submit_at                 publish                     subscribe, close
//!         │                             │                               │
//!         ▼                             ▼                               ▼
//!  ┌───────────────────────── directory: key ─▶ topic ─────────────────────────────┐
//!  │  64 stripes by hash; buckets of tags and snapshots; reads take no lock        │
//!  └──────┬──────────────────────────────┬──────────────────────────────┬──────────┘
//!         │ job                          │ on the caller's thread       │ writers' locks
//!         ▼                              │                              ▼
//!  ┌── shard: one thread ──┐             │                    ┌── topic: one a key ────┐
//!  │ bounded queue         │             ├───────────────────▶│ turn: ticket and flags │
//!  │ gates: timers, wakers │  gate opens │                    │ chunks of entries      │
//!  │ lanes: order in a key ├─────────────┘                    └──────────┬─────────────┘
//!  └───────▲───────────────┘                                             │ one store each
//!          │ wake                                             ┌──────────▼─────────────┐
//!  ┌───────┴───────┐                                          │ mailbox: one a         │
//!  │   watermark   │◀── advance ── the view's own feed        │ subscriber             │
//!  └───────────────┘                                          └──────────┬─────────────┘
//!                                                                        ▼
//!                                                              recv, Stream, blocking
//! ```
//!
//! # The directory
//!
//! From a key to its topic. One seeded hash is taken for each operation, and carried along: some of its
//! bits choose the shard, others the stripe, the bucket and an eight-bit tag. A bucket is a few words of
//! tags, each an atomic, and an immutable snapshot behind arc-swap. A key that nobody subscribes to is
//! most often refused by its tag alone. In a large directory (some 65,000 keys, on x86-64) a bucket also
//! remembers where its topics lie: a look-up fetches the topic from there while the snapshot is on its way. A
//! wrong hint costs a fetch, and the snapshot alone decides. Stripes grow by linear hashing, a bucket at a
//! time, and never shrink. Writers lock their stripe; readers lock nothing.
//!
//! With a million keys a look-up waits about as long for addresses to be translated as for what is there. So topics
//! and snapshots that are made beyond some 32,000 keys, and buckets beyond some 100,000, come from an *arena*:
//! blocks of 2 MiB or more from the global allocator, for which Linux is asked for large pages. Who takes a slot locks a
//! part of the arena, as writers alone do; who gives one back locks nothing.
//!
//! # The topic
//!
//! One key. Its *turn* is one word, which counts pushes and losses (the *ticket*) and says who is at
//! work. A thread that pushes takes the turn, walks over the entries of the live subscribers, and gives
//! it back. Whoever finds it taken does not wait: a publisher hands its payload to the shard, a shard
//! asks to be rung, a loss is left as a debt with the holder. Entries lie in chunks of 1, 4, 16 and then
//! 64, which stay where they are as long as the topic does.
//!
//! # The mailbox
//!
//! One subscriber: a ring whose slots bear the ticket of their payload. With one pusher at a time there
//! is no read-modify-write for a delivery, only a store; a gap in the tickets tells the receiver what it
//! has missed. [`DropOldest`] and [`Conflate`] have records that change hands by swaps instead; a
//! conflated `()` needs no more than the ticket of the last push. A subscription is two words beside its
//! mailbox.
//!
//! # The shard
//!
//! One thread, and a share of the keys. It is an event loop: a gate that is not open is put aside with a
//! timer, a future's waker or its watermark's, and the loop goes on. Gates of one key stand in a *lane*
//! and leave it in their order, also when a later one opens first. First reads go before repeated ones,
//! and walks over many subscribers are made in slices, with other keys between.
//!
//! # The watermark
//!
//! A position, those who wait for it in order, and the least position that anyone waits for. An
//! [`advance`] that reaches nobody is two loads and a read-modify-write of one cache line. One that does
//! wakes those who are due, outside its lock: a gate's waker lists the gate with its shard and rings it.
//!
//! # A notice, from commit to receiver
//!
//! 1. [`submit_at`] hashes the key and finds its topic; without subscribers that is all.
//! 2. The job takes a place in the shard's queue, or is refused: then the key keeps its newest refused
//!    producer, and what was lost is told once that one's gate opens.
//! 3. The shard makes the first read. A gate that is open, of a key without others before it, is pushed
//!    at once.
//! 4. Otherwise it waits in its lane, until it opens, expires, or is cancelled by the registry's close.
//! 5. At the head of its lane and open, it is pushed: the shard takes the topic's turn, counts a ticket,
//!    and stores a clone of the payload in each mailbox that has room.
//! 6. Receivers that wait are woken, after the walk and only those.
//!
//! # Invalidation
//!
//! Between processes, and apart from the registry: nodes tell each other which ids were written.
//!
//! ```text
//!   writing, emit                    other nodes' frames, and our own beats come back
//!        │                                               │
//!        ├── drop from own caches                        ▼
//!        ▼                                    ┌───── protocol ──────┐
//!  ┌── outbox ──────────┐     ┌── bus ──┐     │ numbers: gaps       │
//!  │ numbers each frame ├────▶│ local,  ├────▶│ leases: silence     │
//!  │ marks in each beat │     │ NATS    │     │ own echo: proof     │
//!  └─────────▲──────────┘     └─────────┘     └──────────┬──────────┘
//!            │ H                                         │ drop, doubt, recover
//!       beat thread          deadline thread ──doubt──▶ fence ◀── hits, loads
//!                                                        │ remove, clear
//!                                                        ▼
//!                                                      cache
//! ```
//!
//! - *The outbox* is one for a node. It numbers frames, per entity, in the order in which they are sent;
//!   a beat carries the last number of each entity, and which writes are still open.
//! - *The bus* carries bytes, and is believed nothing but its failings.
//! - *The protocol* is a machine without clock, lock or wire: it is told what arrived and when, and says
//!   what to drop and what to doubt. So a simulator can drive whole fleets of it through faults.
//! - *The fence* stands beside a cache: one word of epoch and state that every hit compares, and striped
//!   locks with versions under which loads are stored. What began before a drop is not stored.
//! - *The deadline thread* ends leases. It calls no cache and waits for no runtime, so that nothing that
//!   blocks can keep a cache coherent.
//!
//! An invalidation, from commit to drop: the guard ends, own caches drop; the outbox numbers the id and
//! hands it to the bus; the other node's protocol compares the number with the last one, and drops the
//! id in any case; if a number is missing, the cache is doubted and flushed as well. Had the frame been
//! the publisher's last, its next beat would tell; had the beats stopped, their lease would end. See
//! [`coherence`](super::coherence).
//!
//! [`DropOldest`]: crate::Overflow::DropOldest
//! [`Conflate`]: crate::Overflow::Conflate
//! [`advance`]: crate::Watermark::advance
//! [`submit_at`]: crate::Registry::submit_at
