//! How a node knows that it may have missed an invalidation, and what follows.
//!
//! # The claim
//!
//! Let publisher P have been known to this node for B and not retired since, and let e be an
//! invalidation that was handed over there at time t (the return of [`emit`], or of
//! [`Writing::committed`]). Whenever a watch of e's entity reads [`Coherent`] at a time T > t + B, then e
//! was applied to its cache, or the whole cache was flushed after t; and no load that began before
//! either is stored after it.
//!
//! A publisher is *known* once a beat of it was heard, or when it is named in [`Settings::expect`]. "For
//! B" leaves out its first lease, in which its clock may not be understood yet. A name that is expected is
//! known from the start, so that nobody vouches for it before that: until then nothing is `Coherent`, unless
//! the goodbye of the last of that name still vouches. It is waited for even if its node is read-only; no other
//! read-only node is.
//!
//! # B
//!
//! > **B = L + e_max + tick**
//!
//! | | is | set by | default |
//! |---|---|---|---|
//! | H | the time between two beats of a node | [`Settings::beat`] | 1 s |
//! | L | the lease: for how long a beat vouches, counted from its *sending* | [`Settings::lease`] | 3 H |
//! | e_max | the error up to which a publisher's clock counts as understood | [`Settings::e_max`] | 500 ms |
//! | tick | what the thread that ends leases may be late by | [`TICK`], fixed | 50 ms |
//!
//! With the defaults that is 3.55 s; [`Settings::bound`] computes it. Counted from the *commit* of a
//! write under a guard, it is B + [`write_limit`]: a guard that is open for longer puts its entity in
//! doubt everywhere.
//!
//! ```
//! use std::time::Duration;
//! use afterwrite::invalidation::{Settings, TICK};
//!
//! let ms = Duration::from_millis;
//! assert_eq!(Settings::new("orders-1").bound(), ms(3 * 1_000 + 500) + TICK);
//!
//! // In one room, with fast beats:
//! let near = Settings::new("orders-1").beat(ms(200)).e_max(ms(200));
//! assert_eq!(near.bound(), ms(3 * 200 + 200) + TICK); // 850 ms
//! ```
//!
//! A smaller B costs messages: n nodes send n beats in each H, and each is delivered n times. A lease of
//! less than three beats takes a late beat for a dead node. An e_max below the round trip to the
//! farthest publisher keeps the cache from ever being coherent.
//!
//! # Why it holds
//!
//! 1. `Coherent` at T stands on a beat of P whose lease had not run out, so P *sent* that beat at most
//!    L + e_max + tick before T. When it arrived is of no account: a beat that the network held back
//!    is an old beat.
//! 2. So the beat was sent after t. A beat counts all that was handed over before it: it carries, for
//!    each entity, the number of P's last frame.
//! 3. This node compares that number with the last one it got. If they differ there is a gap: the
//!    cache falls into doubt, and is flushed.
//! 4. If they agree then e had arrived, or a frame after it had, which left a gap and a flush behind.
//!
//! No delay of the network is assumed to be bounded. Assumed are: that writers emit, or hold guards;
//! that the nodes' monotonic clocks run at nearly the same rate (their readings are never compared) and
//! do not stand still, as they do while a machine is suspended;
//! that the thread that ends leases gets its turn within [`TICK`] of a lease's end, which is all that it
//! needs, since it waits for no lock that a cache, a runtime or the bus could hold;
//! that loads see what was committed before them, or say by a position what they saw; and that nobody
//! forges frames.
//!
//! The turn of that thread is the machine's to give. Where it comes later, B is longer by as much. That
//! is measured, from the end of a lease to the doubt: [`late_deadlines`] counts how often it was more
//! than [`TICK`], and [`worst_lateness`] is the longest. A process that was stopped finds itself late.
//!
//! The lease that runs from the sending is the idea of Gray and Cheriton (*Leases*, SOSP 1989), and
//! the offset between two clocks is bounded by a round trip as Cristian bounds it (*Probabilistic
//! clock synchronization*, 1989). What the other clock says of the time for which it held our beat drifts
//! as well: the bound is loosened from the moment at which that beat was sent.
//!
//! # The states
//!
//! ```text
//!              everything proved                 a gap, a silence, a doubt
//!   Joining ─────────────────────▶ Coherent ─────────────────────────────▶ Suspect
//!                  flush              ▲                                       │
//!                                     └─────── everything proved: flush ──────┘
//! ```
//!
//! | [`Coherence`] | an entry is served |
//! |---|---|
//! | `Coherent` | for as long as the cache keeps it (or [`Settings::max_age`], if [`is_plain`] says so) |
//! | `Joining`, `Suspect` | if it was loaded since the doubt began, and for at most L after its load began |
//! | `Standalone` | for as long as the cache keeps it: no other node is listened to |
//!
//! *Into doubt.* The epoch rises in one atomic step, which bypasses all older entries at once, cleared
//! or not. Loads go on: callers of one id share one, and what they load is cached for a lease.
//! [`suspects`] says who is to blame. A cache that cannot see the epoch, as a closure cannot, is told to
//! drop everything now, and again when the doubt ends; what it is given in between has no lease, so
//! who fills it should ask [`Watch::coherence`]. It is told at most once every [`min_flush`].
//!
//! *Out of it.* This node's own beat must come back through the very subscription that is watched, on a
//! connection that has not changed since; one more H must pass; and every known publisher must be heard
//! by a beat sent after that. Then the epoch rises again, the cache is cleared, and only then it reads
//! `Coherent`. After a mere gap all of that still stands, so that the doubt lasts for no longer than the
//! clearing, unless the last flush was less than [`min_flush`] ago.
//!
//! # What makes a cache suspect
//!
//! | what happened | how it shows | who notices |
//! |---|---|---|
//! | a frame is lost | a gap in the numbers, at the next frame or beat | who missed it |
//! | a publisher is cut off, stopped or killed | its lease ends | all others |
//! | this node is cut off, or its subscription is gone | its own beat does not come back for a lease | itself |
//! | this node's beats are longer than [`Bus::max_payload`]: a mark for each of very many entities | they do not leave, and do not come back | all others; itself, which [says so](crate::invalidation::Why::BeatTooLarge) |
//! | the connection is made anew | [`Bus::generation`] has changed | itself |
//! | messages are dropped on this side | the bus says so, or a gap does | itself |
//! | a watch's queue is full, or its cache fails | at once | that watch alone |
//! | a watch of everything hears of more than [`max_entities`] | at once; it is told their names | that watch alone |
//! | a watch is dropped or stopped | at once | its cache |
//! | a write takes longer than [`write_limit`] | beats carry it as unsettled | all |
//! | an emit is refused after its commit: denied, too large, or while the node ends | its number is used up: a gap, at the next beat | all |
//! | the server denies an emit that this node did not know to be denied | as a lost frame | all others; its caller with a later emit |
//! | another process speaks with this node's incarnation (a fork, a snapshot) | a number or a time that this node did not send | both, who then take new ones |
//! | a publisher ends in order | it is not suspect: its goodbye carries its last numbers. Of a name that is [expected] the goodbye vouches for one lease, in which the next node of that name should be heard | who expects it, if none is |
//!
//! `cargo run --release --example two_replicas` does three of them to two nodes over one database, and
//! judges each read by what the claim says.
//!
//! # What a look costs
//!
//! [`Watch::coherence`] of one entity, and `coherence` of a cache or a fence, is one atomic load, and so
//! is the check of a hit. [`Invalidator::coherence`] takes a lock for reading, finds the entity in a map
//! and asks each of its caches; a watch of everything asks all of its entities. [`suspects`] and
//! [`is_plain`] take the lock that messages are received under: for people and probes, not for requests.
//!
//! # What is proved how
//!
//! | | what runs | over what | what it shows |
//! |---|---|---|---|
//! | the simulator, a unit test of the protocol | both halves of the state machine, feeds and fences, as they ship, in one thread | [`ChaosBus`], two servers, in simulated time, with clocks that differ; all from a seed | the claim, with no allowance on top of B, in a million writes and a thousand faults of each kind; each rule that is broken on purpose is found out |
//! | `tests/invalidation_chaos` | whole nodes: their threads, watches, caches and shared loads | [`ChaosBus`], in real time; a seed fixes what goes wrong, and not how threads interleave | the claim, with a second on top of B for a busy machine, and that nodes are coherent as soon as nothing is wrong |
//! | `tests/invalidation_cluster`, `_nats`, `_processes` | whole nodes, some of them processes of their own | real servers, cut off, stopped, killed, and denied what they were allowed | that the bus and its client do what the others take for granted |
//! | the models in `loom-tests` | fences and shared loads | all interleavings of a few threads, within the checker's limits | I8, save what caches do |
//!
//! So the simulator does not show what threads, locks, lanes and the sharing of loads do: it calls what decides,
//! and has loads of its own.
//!
//! # Not covered
//!
//! - **Publishers that were never heard** and are not expected: a node that starts while it is cut off
//!   from a publisher does not know what it lacks.
//! - **Publishers that were retired**: after five minutes of silence ([`Settings::retire_after`]) one is
//!   taken for dead and counted, and what it had not said is lost. The same goes for
//!   [`forget`](crate::invalidation::Invalidator::forget).
//! - **Plain publishers**, which send subjects without frames: what is lost on the way from them shows
//!   only if it was lost on this node's own connection. [`Settings::max_age`] bounds the harm.
//! - **What plain publishers do not encode**: an id with a raw dot, a byte that is not visible ASCII or a `%`,
//!   or with escapes that [an id does not have](crate::invalidation::subject) (lower-case or needless ones,
//!   or such as give no UTF-8), makes a subject that is counted as [`malformed`] and skipped. Its entry
//!   does not drop, and [`Settings::max_age`] is not put in force by it.
//! - **Plain subscribers**, of whatever drops more than one id: [`emit_all`], and what a full outbox merged
//!   ([`Emitted::Collapsed`]), is one message to `<prefix>.<entity>.%-all`, which they take for an id. So
//!   are batches, to `%-batch`, with [`plain_peers(false)`].
//! - **Emits that no entity is left for**: beyond [`Settings::max_entities`] an [`emit`] is refused, and
//!   nobody but its caller knows; a guard is refused before the write.
//! - **Emits after the end**: a node that has said goodbye refuses, and is not listened to any more.
//! - **Writes that nobody tells**: by hand, by a migration, by a program that does not emit.
//! - **Replicas that lag**, unless the emit carries a position and the loader says what it had seen
//!   ([`Loaded::at`]), or stores are put off by
//!   [`settle`](crate::invalidation::coherent::Builder::settle).
//! - **Positions of nodes that have left**: each node speaks of its own alone. A node that joins after a
//!   publisher has left, or [watches](crate::invalidation::Invalidator::watch) an entity only then, stores
//!   what a replica answers that has not reached the position of that publisher's last writes.
//! - **A suspended machine**: its monotonic clock stands still (a laptop that sleeps, a virtual machine that
//!   is paused or moved), so that leases go on where they were. After the resume a node may read `Coherent`
//!   for up to L on beats from before, unless the connection was found broken earlier.
//! - **A pause between the check and the use**: a process that is stopped after it got a value uses it
//!   when it goes on, however late that is.
//! - **A twin from long ago**: a machine that was restored from a snapshot more than 4,096 beats old (over an
//!   hour by default; beats that others ask for count as well) speaks with an incarnation that goes on
//!   elsewhere, and who goes on does not notice. What it emits before it hears the other is applied, but may
//!   be lost unnoticed. A younger twin is noticed by its first beat.
//! - **Within B**, an old value may be served as `Coherent`: that is what a bound means. A write that has
//!   to be seen at once needs the database.
//!
//! [expected]: crate::invalidation::Settings::expect
//! [`emit_all`]: crate::invalidation::Invalidator::emit_all
//! [`Emitted::Collapsed`]: crate::invalidation::Emitted::Collapsed
//! [`malformed`]: crate::invalidation::InvalidatorStats::malformed
//! [`plain_peers(false)`]: crate::invalidation::Settings::plain_peers
//! [`emit`]: crate::invalidation::Invalidator::emit
//! [`is_plain`]: crate::invalidation::Invalidator::is_plain
//! [`Invalidator::coherence`]: crate::invalidation::Invalidator::coherence
//! [`Watch::coherence`]: crate::invalidation::Watch::coherence
//! [`max_entities`]: crate::invalidation::Settings::max_entities
//! [`suspects`]: crate::invalidation::Invalidator::suspects
//! [`Writing::committed`]: crate::invalidation::Writing::committed
//! [`Coherence`]: crate::invalidation::fence::Coherence
//! [`Coherent`]: crate::invalidation::fence::Coherence::Coherent
//! [`Settings::beat`]: crate::invalidation::Settings::beat
//! [`Settings::lease`]: crate::invalidation::Settings::lease
//! [`Settings::e_max`]: crate::invalidation::Settings::e_max
//! [`Settings::bound`]: crate::invalidation::Settings::bound
//! [`Settings::expect`]: crate::invalidation::Settings::expect
//! [`Settings::max_entities`]: crate::invalidation::Settings::max_entities
//! [`Settings::max_age`]: crate::invalidation::Settings::max_age
//! [`Settings::retire_after`]: crate::invalidation::Settings::retire_after
//! [`write_limit`]: crate::invalidation::Settings::write_limit
//! [`min_flush`]: crate::invalidation::Settings::min_flush
//! [`TICK`]: crate::invalidation::TICK
//! [`late_deadlines`]: crate::invalidation::InvalidatorStats::late_deadlines
//! [`worst_lateness`]: crate::invalidation::InvalidatorStats::worst_lateness
//! [`Bus::generation`]: crate::bus::Bus::generation
//! [`ChaosBus`]: crate::bus::ChaosBus
//! [`Bus::max_payload`]: crate::bus::Bus::max_payload
//! [`Loaded::at`]: crate::invalidation::coherent::Loaded::at
