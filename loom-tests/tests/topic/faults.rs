//! Models that must fail: every ordering of the topic and the mailbox weakened, each half of an
//! `AcqRel` alone, and steps of the protocol taken away.

use afterwrite::models::{ROLES, STEPS};
use afterwrite_loom_tests::{assert_killed, assert_listed, faulted, weakenings};

/// Which model has to fail for which weakened ordering.
const ORDERINGS: &[(&str, &str)] = &[
    (
        "turn_acquire",
        "push::two_pushers_against_the_receiver_of_a_ring",
    ),
    (
        "turn_leave",
        "push::two_pushers_against_the_receiver_of_a_ring",
    ),
    (
        "turn_answer:acquire",
        "loss::loss_and_push_against_a_receiver_that_waits",
    ),
    (
        "turn_answer:release",
        "loss::loss_against_push_to_a_conflating_mailbox",
    ),
    ("turn_join", "reuse::subscribe_with_a_ring_against_push"),
    (
        "turn_retire:acquire",
        "close::push_against_the_drop_of_a_ring",
    ),
    (
        "turn_retire:release",
        "close::push_against_the_drop_of_a_ring",
    ),
    (
        "turn_wait",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "turn_read",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "stamp_publish",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "stamp_take",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    ("head_release", "overflow::drop_newest_of_one"),
    ("head_reload", "overflow::drop_newest_of_one"),
    ("record_swap:acquire", "overflow::records_change_hands"),
    ("record_swap:release", "overflow::drop_oldest_of_two"),
    ("record_claim:acquire", "overflow::drop_oldest_of_two"),
    ("record_claim:release", "overflow::records_change_hands"),
    ("mark_publish", "latest::two_pushes_of_nothing"),
    ("mark_take", "latest::two_pushes_of_nothing"),
    ("live_set", "reuse::subscribe_with_a_ring_against_push"),
    ("live_read", "reuse::subscribe_with_a_ring_against_push"),
    ("chunk_link", "reuse::a_new_chunk_against_push"),
    ("chunk_read", "reuse::a_new_chunk_against_push"),
    ("retired_put", "close::two_closes_under_a_push"),
    ("retired_take", "close::two_closes_under_a_push"),
    ("swept_put", "reuse::a_swept_entry_is_used_again"),
    ("swept_take", "reuse::a_swept_entry_is_used_again"),
    ("settle:acquire", "close::push_against_the_drop_of_a_ring"),
    ("settle:release", "close::push_against_the_drop_of_a_ring"),
    (
        "refs_drop:acquire",
        "close::the_last_reference_frees_the_mailbox",
    ),
    (
        "refs_drop:release",
        "close::the_last_reference_frees_the_mailbox",
    ),
    (
        "waker_register",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "waker_registered",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "waker_take:acquire",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "waker_take:release",
        "close::close_against_a_sleeping_receiver",
    ),
    (
        "waker_taken",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    ("first_fill", "first::first_notice_keeps_its_place"),
    ("first_read", "first::first_notice_keeps_its_place"),
];

/// Orderings that are argued where they are defined, since the checker cannot see what they forbid.
const ARGUED: &[&str] = &["turn_owe", "lost_count", "lost_read"];

/// Which model has to fail for which step taken away.
const CANARIES: &[(&str, &str)] = &[
    (
        "loss_before_first",
        "first::a_loss_that_follows_the_first_notice_comes_after_it",
    ),
    (
        "close_ignores_holder",
        "close::push_against_the_drop_of_a_ring",
    ),
    (
        "close_leaves_live",
        "close::push_against_the_drop_of_a_ring",
    ),
    (
        "closed_before_it_is",
        "close::a_second_close_returns_no_earlier_than_the_first",
    ),
    ("close_asks_for_no_sweep", "close::two_closes_under_a_push"),
    (
        "sleep_without_turn",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "sleep_without_look",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    ("miss_after_one_look", "wait::push_against_a_cancelled_wait"),
    (
        "leave_without_attention",
        "wait::push_against_a_receiver_that_waits_on_a_ring",
    ),
    (
        "begin_after_live",
        "reuse::subscribe_with_a_ring_against_push",
    ),
    ("end_while_held", "shut::shut_and_loss_under_a_push"),
    ("loss_without_flag", "loss::loss_against_push_to_a_ring"),
];

#[test]
fn every_ordering_has_a_model_that_kills_its_weakening() {
    if faulted() {
        return;
    }
    let modelled = ROLES.iter().filter(|(role, _)| !ARGUED.contains(role));
    let expected = weakenings(modelled);
    let listed: Vec<_> = ORDERINGS
        .iter()
        .map(|(fault, _)| (*fault).to_owned())
        .collect();
    assert_eq!(
        listed, expected,
        "each ordering needs a model, in the order of its definition"
    );
    assert_killed(ORDERINGS);
}

#[test]
fn every_step_has_a_model_that_misses_it() {
    if faulted() {
        return;
    }
    assert_listed(CANARIES, STEPS);
    assert_killed(CANARIES);
}
