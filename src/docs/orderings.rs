//! The memory orderings of the registry and the watermark, and why they suffice.
//!
//! Orderings above `Relaxed` are named functions that say which operation they order and which one it
//! pairs with: in `sync/order.rs` for the topic, the mailbox, the shard and the arena, in `directory/order.rs` and
//! `gate/watermark/order.rs` for those. Only the count of a directory's snapshot, which is that of an
//! `Arc`, has its orderings in place. None of them is `SeqCst`, and there is no fence: handshakes are
//! read-modify-writes on one location, whose single modification order carries the argument, and which
//! model checkers and ThreadSanitizer see as they are.
//!
//! # Handshakes
//!
//! Each of these is of one kind. Both sides pass by one word with a read-modify-write, so one of them
//! comes first, and the later one sees what the earlier one did before.
//!
//! | sides | word | the earlier side leaves | so that |
//! |---|---|---|---|
//! | push, subscribe | the topic's turn | a live bit, or a counted ticket | a subscriber gets every push that begins later |
//! | push, close | the topic's turn | a cleared bit, or all of its deliveries | no push follows a close: it is quiet at once, or the holder says when |
//! | push, a receiver about to sleep | the topic's turn | a waiting bit, or its deliveries | the holder wakes it, or its second look finds the payload |
//! | two pushes | the topic's turn | everything that it wrote to the entries | a pusher's side of a mailbox is plain memory |
//! | the last push, the receiver's end | the mailbox's state | what it did with the payloads | exactly one of them drops what is left |
//! | leaving work, a shard about to sleep | the shard's bell | work, or that it sleeps | the shard sees the work, or is woken |
//! | refusing a producer, taking the key off the refused list | the key's mark that it is listed | the producer in its place, or the mark cleared | the shard finds the producer, or the key is listed again |
//! | waking a gate, polling it | the gate's node | the reason for the wake, or that it may be listed | a wake during a poll lists the gate again |
//! | advance, register | the watermark's position | the position, or the least awaited one | the registrant finds it reached, or the advancer finds the registrant |
//!
//! # Publication
//!
//! The rest are pairs of a release and an acquire: a payload and its stamp, a slot and its clearing, a
//! new chunk and its link, a bucket and the number of buckets, a tag word and what it stands for, a slot
//! that is given back and the list that it is taken from, the last handle to a value and its end, the push of a
//! handed-over payload and the count of those that are still on their way.
//!
//! # What each is worth
//!
//! Under `--cfg afterwrite_loom` each named ordering can be weakened from outside, by
//! `AFTERWRITE_MUTANT`. A weakened ordering that no model notices is either not needed or not tested, so
//! the models are run against them one by one, and for each a named model fails, but for four.
//!
//! Three are of the shard: the mark of a key on the refused list, and both sides of the count of
//! handed-over payloads. What the first orders lies in crossbeam's list and cell, which have locks in
//! the models, and those order as much by themselves. The count is looked at before the turn is taken by a
//! read-modify-write; and so is the fourth, `turn_owe`, beside another one of the turn: of two such the
//! checker lets the later one see the earlier one in any case. Each is argued where it is defined, and
//! ThreadSanitizer and the stress tests run the real ones. What else models cannot see is said in
//! [`limitations`](super::limitations).
