//! Closing against pushes, receives and other closes.

use afterwrite::Overflow;
use afterwrite_loom_tests::{Subscriber, model};
use loom::thread;

use super::{push, topic};

/// Property: nothing is delivered after the owner's close, and all before it is received or
/// discarded. Two threads: pusher, owner.
fn push_against_owner(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, 2);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1) + push(&topic, 2))
        };
        subscriber.look();
        subscriber.receiver().close();
        assert!(!subscriber.look() && subscriber.ended());
        let reached = u64::from(pusher.join().unwrap());
        // One that overlapped the end may count or not, whether it came here or not.
        subscriber.assert_accounts_for(reached.saturating_sub(1)..=2);
        assert_eq!(push(&topic, 3), 0);
        assert_eq!(topic.subscribers(), 0);
    });
}

#[test]
fn push_against_the_owner_of_a_ring() {
    push_against_owner(Overflow::DropNewest);
}

#[test]
fn push_against_the_owner_of_an_evicting_mailbox() {
    push_against_owner(Overflow::DropOldest);
}
