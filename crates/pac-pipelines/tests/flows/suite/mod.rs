//! The flows of the guide, by its headings, for every store: a driver's test file includes this
//! folder and says how its store is opened.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

pub(crate) mod automatic_cleanup;
pub(crate) mod cancelling;
pub(crate) mod limits;
pub(crate) mod pipeline_run_completion;
pub(crate) mod pipeline_run_creation;
pub(crate) mod pipeline_run_reconciliation;
pub(crate) mod recovery;
mod support;

/// Expands to one test per flow, in modules named after the headings: `flows!(memory, Paused)`, in
/// a module named after the store, where `memory` is the function at the root of the test file
/// that opens it.
macro_rules! flows {
    ($open:ident, $time:ident) => {
        flows!(@expand $open, $time, {
    pipeline_run_creation {
        without_a_limit_every_run_starts_and_is_counted,
        a_run_starts_or_queues_in_one_step,
        the_runs_of_one_event_are_admitted_in_their_order,
        until_the_order_is_known_runs_wait_for_it,
        a_later_event_never_passes_an_earlier_one,
        a_run_that_was_not_held_back_is_if_it_has_to_wait,
        a_run_that_begins_meanwhile_is_counted,
    }
    pipeline_run_reconciliation {
        a_queued_run_starts_when_its_slot_comes,
        events_may_come_in_any_order_and_twice,
        a_start_whose_answer_was_lost_keeps_its_slot_until_the_truth_is_read,
        a_start_whose_request_was_lost_is_made_again,
        a_run_that_the_cluster_refuses_holds_up_no_other,
        a_start_that_certainly_failed_gives_the_old_place_back,
        runs_of_users_kueue_and_others_are_left_alone,
        a_run_that_another_controller_gives_back_queues_again,
        two_repositories_of_one_namespace_never_mix,
        a_watch_that_breaks_misses_nothing,
        two_controllers_start_every_run_once,
    }
    cancelling {
        every_cancel_form_takes_a_held_run_out_of_the_queue,
        a_running_run_keeps_its_slot_until_it_has_ended,
        a_run_that_is_cancelled_while_it_is_granted_never_starts,
        a_run_that_is_cancelled_in_the_store_alone_ends_in_the_cluster,
    }
    pipeline_run_completion {
        the_end_of_a_run_starts_the_next_one,
        the_end_counts_whatever_was_reported,
        a_run_that_ended_while_nobody_looked_frees_its_slot,
    }
    automatic_cleanup {
        a_deleted_run_leaves_slot_and_queue,
        a_run_that_is_being_deleted_never_starts,
        a_new_run_of_the_same_name_is_another_one,
        a_deleted_repository_leaves_nothing,
        a_controller_that_crashes_is_followed_by_another,
        a_controller_that_restarts_finds_everything_as_it_was,
    }
    limits {
        a_raised_limit_starts_waiters_at_once,
        a_lowered_limit_evicts_nobody,
        a_limit_that_is_removed_starts_every_waiter,
        the_global_limit_holds_for_all_without_one_of_their_own,
        a_limit_that_cannot_be_understood_admits_nobody,
    }
    recovery {
        what_runs_unknown_is_counted_beyond_the_limit,
        what_began_under_annotations_counts_beside_what_is_new,
        queued_here_and_running_there_is_started,
        started_here_and_held_there_is_started_there,
        started_here_and_done_there_is_released,
        what_is_gone_from_the_cluster_goes_at_once,
        what_ended_beyond_the_list_frees_its_slot_at_once,
        what_cannot_be_read_keeps_its_slot,
        what_is_gone_is_read_a_part_at_a_time_slots_first,
        what_others_queue_in_the_store_is_left_alone,
        the_queues_of_other_namespaces_are_left_alone,
        a_comparison_that_failed_is_made_again,
        one_malformed_object_stops_nothing,
        two_requests_however_many_runs,
        a_restart_keeps_two_repositories_of_a_namespace_apart,
    }
        });
    };
    (@expand $open:ident, $time:ident, { $($heading:ident { $($flow:ident,)* })* }) => {
        $(mod $heading {
            $(#[test]
            fn $flow() {
                let flow = crate::suite::$heading::$flow;
                pac_conformance::run_case(pac_conformance::Time::$time, crate::$open, flow);
            })*
        })*
    };
}
