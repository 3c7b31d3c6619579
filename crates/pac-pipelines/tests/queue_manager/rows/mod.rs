//! The rows of upstream's unit tests of its queue, against the queue manager of this crate, for
//! every store: a driver's test file includes this folder and says how its store is opened. The
//! differences are listed in the documentation of `pac_pipelines::queue_manager`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bench;
pub(crate) mod methods;
pub(crate) mod queues;
mod scripted;
pub(crate) mod semaphore;
pub(crate) mod start_loop;

/// Expands to one test per row, in modules named after the parts, and to the names of all rows:
/// `rows!(memory, Paused)`, in a module named after the store, where `memory` is the function at
/// the root of the test file that opens it.
macro_rules! rows {
    ($open:ident, $time:ident) => {
        rows!(@expand $open, $time, {
    queues {
        q1_without_a_limit_every_run_is_acquired,
        q2_what_is_added_as_pending_is_not_started,
        q3_below_the_limit_a_run_is_acquired,
        q4_the_end_of_the_only_run_starts_none,
        q5_of_two_runs_the_first_is_acquired,
        q6_at_the_limit_none_is_acquired,
        q7_the_list_decides_and_not_the_creation_time,
        q8_a_raised_limit_starts_a_run_that_is_not_in_the_list,
        q9_the_same_list_again_acquires_none,
        q10_another_list_goes_behind,
        q11_a_restart_takes_the_order_and_not_the_creation_time,
        q11_a_restart_keeps_the_repositories_of_a_namespace_apart,
        q11_what_has_ended_takes_no_slot,
        q11_a_repository_that_inherits_its_limit_is_rebuilt,
        q11_a_limit_that_was_lowered_meanwhile_holds_at_once,
        q11_a_run_that_cannot_be_understood_keeps_its_slot,
        q11_what_was_granted_and_not_started_is_handed_out,
        q12_only_what_is_queued_and_pending_waits,
        q13_runs_without_an_order_do_not_stop_the_others,
        q14_many_callers_never_spoil_a_queue,
        q15_a_limit_that_is_removed_starts_every_waiter,
    }
    semaphore {
        s1_the_oldest_is_first_and_is_acquired_once,
        s2_a_release_lets_the_next_oldest_in,
        s3_a_raised_limit_lets_as_many_in_as_may_run,
        s4_a_lowered_limit_evicts_no_run_and_lets_none_in,
        s5_runs_of_one_second_go_by_their_names,
    }
    start_loop {
        r1_a_run_without_an_order_waits_for_it,
        r2_a_run_that_names_no_repository_is_an_error,
        r3_a_run_that_names_an_empty_repository_is_an_error,
        r4_a_repository_that_is_gone_is_no_error,
        r5_the_global_limit_is_merged_and_the_list_stays_as_it_is,
        r6_nothing_acquired_is_no_error,
        r7_an_absent_run_is_returned_once,
        r8_a_failure_after_the_start_keeps_the_slot,
        r8_a_start_of_which_nothing_is_known_keeps_the_slot,
        r9_a_run_that_vanished_frees_its_slot,
        r10_a_start_that_failed_gives_the_slot_back,
        r11_a_run_that_cannot_be_read_gives_the_slot_back,
        r12_one_start_that_failed_does_not_stop_another,
        r13_runs_that_vanish_after_the_list_are_no_error,
        r14_a_candidate_that_is_gone_gives_way_to_the_next,
        r15_a_candidate_that_could_not_be_started_stays_the_next,
        r16_a_candidate_that_started_keeps_its_slot,
        r17_a_removed_run_is_not_returned_again,
        r18_a_malformed_entry_never_gets_into_the_queue,
        r19_a_caller_that_is_dropped_leaves_its_candidate_to_the_next,
        r20_a_finished_and_an_absent_run_leave_nothing,
    }
    methods {
        every_method_may_be_called_again,
        a_slot_that_is_freed_wakes_its_run,
        a_wake_that_nobody_read_is_kept,
        two_controllers_share_a_queue,
        a_run_that_is_handed_back_keeps_its_place,
        a_uid_tells_runs_of_one_name_apart,
        a_full_queue_fails_no_call,
    }
        });
    };
    (@expand $open:ident, $time:ident, { $($part:ident { $($row:ident,)* })* }) => {
        pub(crate) mod rows {
            $(mod $part {
                $(#[test]
                fn $row() {
                    let row = crate::rows::$part::$row;
                    pac_conformance::run_case(pac_conformance::Time::$time, crate::$open, row);
                })*
            })*

            #[allow(dead_code, reason = "one test file holds the guide against it")]
            pub(crate) const ROWS: &[&str] = &[$($(stringify!($row),)*)*];
        }
    };
}
