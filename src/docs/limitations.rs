//! What registry and invalidation do not promise, and what is not proved of them.
//!
//! # Not promised
//!
//! - **Delivery across a crash.** Notices are in memory. After a restart clients subscribe and query anew;
//!   [`subscribe_gated`] closes the gap between the two.
//! - **The truth of a gate.** A producer that answers `Some` too early, or a watermark that is advanced
//!   before the commit, tells subscribers too early. A view behind a load balancer is as far as its
//!   slowest replica.
//! - **A gate that opens.** If the view is not fed by the event that was submitted the gate expires.
//! - **Isolation from synchronous producers that block.** One that does holds up every key of its shard,
//!   which [`ShardStats::reading`] shows, and its read may go on past the deadline. An asynchronous read
//!   that hangs holds up nobody, and is dropped at the deadline.
//! - **Order between submits that overlap**, or between a [`publish`] and gates: a publish overtakes the
//!   gates that wait.
//! - **The exact place of a refused submit.** It never comes before what was queued earlier; it may come
//!   up to one queue's length late.
//! - **Safety of `Missed { visible: false }`.** The loss may not be in the view yet: a refetch may come
//!   too early, and nothing follows to say when it would not.
//! - **Anything under `panic = "abort"`** that rests on catching the user's panics.
//! - **Lock-freedom of what is not a push.** [`submit`] takes flume's short lock. Subscribing and closing
//!   take a topic's and a stripe's lock, and in a large registry those of its memory. An [`advance`] that
//!   somebody waits for takes the watermark's, and waking a thread enters the operating system. An observer is
//!   called by the thread that pushes.
//! - **Progress of one key while its pusher is preempted.** The turn is held for the length of a walk:
//!   meanwhile publishers of the same key hand over, and other keys know nothing of it. Wakers are called
//!   once it is given back; but where more than 32 receivers of one key sleep, those before the last 32
//!   are woken while it is held, and a waker is the user's code.
//! - **A thread's first look without an allocation.** arc-swap keeps a few words for each thread, which its
//!   first push, publish or submit by a key's name may allocate; they are used again by later threads.
//! - **Memory that shrinks.** A directory keeps the buckets, and a topic the chunks, of its largest
//!   extent: a topic until its key has neither subscribers nor handles. A registry that has had more than some
//!   32,000 keys keeps the room for topics as well, for later keys of its own: in all some 270 bytes for each key of
//!   its largest extent, somewhat more where several threads subscribe, until the registry and all that came of it
//!   are gone.
//! - **Memory key by key.** That room comes from the global allocator 2 MiB at a time or more, so a heap profiler shows
//!   blocks, under whoever subscribed when one was due, and no topic by itself. The first touch of a page of 2 MiB takes
//!   some 100 µs, more if the kernel has to make room: who subscribes waits for it, and so may others that subscribe to
//!   keys of the same stripe; pushes do not.
//!
//! # Not promised of invalidation
//!
//! - **An old value never seen.** Within B of a write one may be served as `Coherent`.
//! - **Publishers that nobody knows of**: never heard and not expected, retired, or plain. Nor
//!   **subscribers without frames**, of what drops more than one id.
//!   [`coherence`](super::coherence#not-covered) has the list.
//! - **The order of drops** between publishers, or of what is emitted and what is loaded elsewhere: a drop
//!   says that the id changed, not to what.
//! - **Confirmation by others.** An emit that is confirmed came back through this node's own
//!   subscription. That somebody else has it is not known; that somebody else lacks it, they notice.
//! - **Secrecy, or defence against forgers.** Whoever may publish under the prefix may drop entries, and
//!   keep nodes in doubt; a subject that is no UTF-8 is enough, over which the client gives up its
//!   connection. The server's rights keep strangers out.
//! - **Any number of nodes.** Beats go from all to all: n nodes cost n x n / H deliveries.
//! - **The bound over a suspension.** A suspended machine's monotonic clock stands still: for up to L after
//!   the resume its node may read `Coherent` on what it heard before.
//! - **A lease for closures.** A cache that cannot see its fence is told when a doubt begins and when it ends;
//!   what it is given in between is its owner's to distrust.
//! - **Nothing kept over a restart.** A cache begins empty, and its node `Joining`.
//! - **Inline watches that block.** One holds up all that its node receives, and leases run out.
//!
//! # Not proved
//!
//! The models run the shipped topic, mailbox, shard, watermark, directory and arena. Under their cfg these stand-ins
//! are compiled in, because the originals know no model checker:
//!
//! | ships | in the models | so it is not shown that |
//! |---|---|---|
//! | arc-swap, in the directory | an atomic pointer, whose retired snapshots live to the end of the model | arc-swap protects what is read, and snapshots are freed in time |
//! | the arena, in the directory | the global allocator; the arena has models of its own | the two together |
//! | fetching ahead, of buckets, topics and mailboxes | nothing | it is free of races; it follows no pointer that it reads |
//! | flume, the queue of a shard | a locked queue of the same capacity | flume loses and reorders nothing |
//! | crossbeam's `SegQueue`, the lists of refused keys and of woken gates | a locked list | the same of it |
//! | crossbeam's `AtomicCell`, the place of a key's refused producers | a locked place | the same of it |
//! | `park` and `unpark`, by which a shard or a blocking receiver sleeps | the checker's | the system's wake a thread; nor that a sleep ends at its time |
//!
//! For those there are stress tests, among them one of the directory with three of arc-swap's strategies,
//! a soak of two minutes, and runs under AddressSanitizer and ThreadSanitizer. The latter finds a race
//! that is planted in the ring, and one in the freeing of snapshots.
//!
//! The model checker itself has limits. It treats sequentially consistent accesses as acquire and release, of
//! which there are none here, explores no load buffering, and lets no time pass. Models are small (three
//! threads, chunks of two entries, splits at two keys) and their preemptions are bounded, by two unless
//! `LOOM_MAX_PREEMPTIONS` says otherwise: a fault that needs more is not found.
//!
//! What stands behind the claim of invalidation, and what does not, is in
//! [`coherence`](super::coherence#what-is-proved-how).
//!
//! [`subscribe_gated`]: crate::Registry::subscribe_gated
//! [`ShardStats::reading`]: crate::ShardStats::reading
//! [`publish`]: crate::Registry::publish
//! [`submit`]: crate::Registry::submit
//! [`advance`]: crate::Watermark::advance
