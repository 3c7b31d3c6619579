//! The macro that expands to one test per case.

/// Expands to one test per case, in modules named after the driver and the groups.
///
/// ```text
/// conformance!(crate::OPEN);
/// conformance!(crate::OPEN, time = Real);
/// conformance!(crate::OPEN, time = Real, except {
///     s41_a_wrong_clock_changes_nothing: "nobody can set the clock of a server",
/// });
/// ```
///
/// `OPEN` is the name of an `async fn(Time) -> Fixture` at the root of the test file. Give it
/// the driver's name: every test is called `OPEN::GROUP::CASE`, which tells it from the same
/// case of another driver.
///
/// Without `time`, a case runs on paused time unless it needs threads; this is only for stores
/// in this process. With `time = Real` no case runs on paused time, as a store behind a socket
/// needs; durations are then those of [`Fixture::options`](crate::Fixture::options).
///
/// A case named in `except` still becomes a test, but an ignored one that shows the reason, so
/// no case is left out silently. A name that belongs to no case does not compile.
#[macro_export]
macro_rules! conformance {
    (
        $root:tt::$open:ident $(, time = $time:ident)?
        $(, except { $($left_out:ident: $why:literal),* $(,)? })? $(,)?
    ) => {
        $crate::conformance! { @expand
            ($root $open)
            (None$(.or(Some($crate::Time::$time)))?)
            [$($($left_out $why)*)?]
            admission_and_order {
                Nothing s01_no_limit_starts_everything no_limit_starts_everything;
                Nothing s02_limit_one_starts_one_after_the_other
                    limit_one_starts_one_after_the_other;
                Nothing s03_admitting_again_changes_nothing admitting_again_changes_nothing;
                Nothing s04_a_batch_keeps_its_order a_batch_keeps_its_order;
                Nothing s05_batches_never_pass_each_other batches_never_pass_each_other;
                Threads s06_no_barging no_barging;
                Nothing s07_priority_goes_before_age priority_goes_before_age;
                Nothing s08_requeued_runs_get_their_old_place requeued_runs_get_their_old_place;
                Nothing s09_repositories_never_mix repositories_never_mix;
                Nothing s10_a_new_uid_is_a_new_run a_new_uid_is_a_new_run;
                Threads s11_limit_holds_under_contention limit_holds_under_contention;
                Threads s12_hundred_repositories_drain hundred_repositories_drain;
            }
            release_cancel_removal {
                Nothing s13_release_starts_exactly_the_next release_starts_exactly_the_next;
                Nothing s14_releases_without_effect_say_so releases_without_effect_say_so;
                Nothing s15_a_stale_holder_frees_nothing a_stale_holder_frees_nothing;
                Nothing s16_cancel_ends_a_run_wherever_it_is cancel_ends_a_run_wherever_it_is;
                Nothing s17_removal_ends_everything_and_leaves_nothing
                    removal_ends_everything_and_leaves_nothing;
                Nothing s18_anybody_can_release_by_name anybody_can_release_by_name;
            }
            limits {
                Nothing s19_raising_starts_exactly_as_many raising_starts_exactly_as_many;
                Nothing s20_lowering_evicts_nobody lowering_evicts_nobody;
                Nothing s21_removing_the_limit_starts_everybody
                    removing_the_limit_starts_everybody;
                Nothing s22_the_newest_announcement_holds the_newest_announcement_holds;
                Nothing s23_a_default_limit_is_stored a_default_limit_is_stored;
            }
            waiting_and_waking {
                Machine s24_a_release_wakes_another_manager
                    a_release_wakes_another_manager;
                Nothing s25_without_hints_the_back_stop_starts_waiters
                    without_hints_the_back_stop_starts_waiters;
                Nothing s26_slow_watchers_hold_nothing_up slow_watchers_hold_nothing_up;
                Nothing s27_a_watch_survives_a_lost_connection a_watch_survives_a_lost_connection;
                Nothing s28_a_waiter_that_gives_up_leaves_nothing
                    a_waiter_that_gives_up_leaves_nothing;
                Nothing s28_giving_up_outlives_the_session giving_up_outlives_the_session;
                Nothing s29_dropped_admissions_leak_nothing dropped_admissions_leak_nothing;
                Nothing s30_places_can_be_read_and_watched places_can_be_read_and_watched;
                Nothing slots_of_several_repositories_come_together
                    slots_of_several_repositories_come_together;
            }
            leases_and_crashes {
                Nothing s31_long_runs_keep_their_slots long_runs_keep_their_slots;
                Nothing s32_long_waiters_keep_their_places long_waiters_keep_their_places;
                Nothing s33_s34_s35_a_crash_frees_what_it_has_to a_crash_frees_what_it_has_to;
                Nothing s36_a_stopped_controller_learns_it a_stopped_controller_learns_it;
                Nothing s36_a_closed_manager_holds_nothing a_closed_manager_holds_nothing;
                Nothing s37_everybody_restarts everybody_restarts;
                Nothing s38_a_restart_of_the_store_loses_nothing
                    a_restart_of_the_store_loses_nothing;
                Nothing s38_a_stopped_store_is_told_and_returned_to
                    a_stopped_store_is_told_and_returned_to;
                Nothing s38_a_store_that_is_back_is_used_at_once
                    a_store_that_is_back_is_used_at_once;
                Nothing s38_hints_lost_after_an_outage_cost_no_time
                    hints_lost_after_an_outage_cost_no_time;
                Nothing s39_a_long_outage_fails_calls_and_passes
                    a_long_outage_fails_calls_and_passes;
                Nothing s40_a_lost_answer_is_recognised a_lost_answer_is_recognised;
                Nothing s41_a_wrong_clock_changes_nothing a_wrong_clock_changes_nothing;
                Machine s42_keep_alive_survives_blocked_workers
                    keep_alive_survives_blocked_workers;
                Nothing s43_dead_keep_alive_is_not_hidden dead_keep_alive_is_not_hidden;
                Nothing s43_a_failed_renewal_is_told_at_once a_failed_renewal_is_told_at_once;
                Nothing s44_a_paused_store_costs_no_lease a_paused_store_costs_no_lease;
            }
            state {
                Nothing s45_every_state_can_be_read every_state_can_be_read;
                Nothing s46_finished_states_vanish_by_themselves
                    finished_states_vanish_by_themselves;
                Nothing s47_every_transition_has_its_time every_transition_has_its_time;
                Nothing s48_all_repositories_can_be_listed all_repositories_can_be_listed;
                Nothing a_session_tells_who_it_is a_session_tells_who_it_is;
            }
            time_limits {
                Nothing a_run_waits_for_as_long_as_it_may a_run_waits_for_as_long_as_it_may;
                Nothing a_waiting_run_times_out_without_its_controller
                    a_waiting_run_times_out_without_its_controller;
                Nothing a_run_is_asked_to_end_once_it_has_held_its_slot_for_long
                    a_run_is_asked_to_end_once_it_has_held_its_slot_for_long;
            }
            wishes {
                Nothing a_pause_holds_against_everybody_and_is_told
                    a_pause_holds_against_everybody_and_is_told;
                Nothing an_adoption_is_no_start an_adoption_is_no_start;
                Nothing a_pin_holds_against_announcements_and_proposals
                    a_pin_holds_against_announcements_and_proposals;
                Nothing a_heavy_run_gets_its_slots_in_one_step
                    a_heavy_run_gets_its_slots_in_one_step;
                Nothing a_run_too_heavy_is_refused_or_passed_over
                    a_run_too_heavy_is_refused_or_passed_over;
                Nothing lighter_runs_pass_a_heavy_one_so_many_times
                    lighter_runs_pass_a_heavy_one_so_many_times;
                Threads slot_numbers_are_unique_under_a_crowd
                    slot_numbers_are_unique_under_a_crowd;
                Nothing a_newer_run_takes_the_place_of_those_that_it_supersedes
                    a_newer_run_takes_the_place_of_those_that_it_supersedes;
                Nothing a_newer_run_supersedes_however_many_wait
                    a_newer_run_supersedes_however_many_wait;
                Nothing superseding_all_asks_the_holders superseding_all_asks_the_holders;
                Nothing a_holder_is_asked_and_keeps_its_slot a_holder_is_asked_and_keeps_its_slot;
                Nothing a_conditional_cancellation_ends_nothing_that_has_started
                    a_conditional_cancellation_ends_nothing_that_has_started;
                Nothing many_are_cancelled_in_one_commit many_are_cancelled_in_one_commit;
                Nothing a_bumped_run_keeps_its_place_and_goes_back
                    a_bumped_run_keeps_its_place_and_goes_back;
                Threads a_bounded_queue_holds_no_more_under_a_crowd
                    a_bounded_queue_holds_no_more_under_a_crowd;
                Nothing a_request_is_skipped_where_others_wait_or_run
                    a_request_is_skipped_where_others_wait_or_run;
            }
            recovery {
                Nothing s52_a_malformed_record_stops_no_recovery
                    a_malformed_record_stops_no_recovery;
                Nothing a_rewound_store_is_read_anew a_rewound_store_is_read_anew;
            }
            driver_contract {
                Nothing a_dead_session_does_nothing_more a_dead_session_does_nothing_more;
                Nothing nothing_is_granted_to_the_dead nothing_is_granted_to_the_dead;
                Nothing a_commit_is_of_its_revision a_commit_is_of_its_revision;
                Nothing a_version_is_compared_as_a_whole a_version_is_compared_as_a_whole;
                Nothing a_removal_answers_with_what_is_left a_removal_answers_with_what_is_left;
            }
            terms_and_policies {
                Nothing terms_and_policies_are_kept_as_they_were_written
                    terms_and_policies_are_kept_as_they_were_written;
                Nothing what_could_start_is_listed_by_its_needs
                    what_could_start_is_listed_by_its_needs;
                Nothing a_run_of_another_weight_does_not_fit a_run_of_another_weight_does_not_fit;
            }
            hostile_input {
                Nothing s57_hostile_keys_are_refused_or_kept_apart
                    hostile_keys_are_refused_or_kept_apart;
                Nothing s58_corrupt_state_is_reported_and_left_alone
                    corrupt_state_is_reported_and_left_alone;
                Nothing s59_newer_state_is_not_overwritten newer_state_is_not_overwritten;
                Nothing s60_numbers_at_their_ends numbers_at_their_ends;
            }
            poisoned_records {
                Nothing counters_at_their_end_stay_in_their_repository
                    counters_at_their_end_stay_in_their_repository;
                Nothing waiters_and_watches_of_a_corrupt_repository_are_told
                    waiters_and_watches_of_a_corrupt_repository_are_told;
            }
        }
    };
    (@expand ($root:tt $open:ident) $store:tt [$($left_out:ident $why:literal)*] $($group:ident {
        $($needs:ident $test:ident $case:ident;)*
    })*) => {
        macro_rules! unless_left_out {
            $(($left_out $item:item) => {
                #[ignore = $why]
                $item
            };)*
            ($name:ident $item:item) => {
                $item
            };
        }
        mod $open {
            $(mod $group {
                $(
                    unless_left_out! { $test
                        #[test]
                        fn $test() {
                            let case = $crate::cases::$group::$case;
                            let store = $store;
                            $crate::run_case_that($crate::Needs::$needs, store, $root::$open, case);
                        }
                    }
                    const _: () = assert!($crate::ends_with(stringify!($test), stringify!($case)));
                )*
            })*
        }
        const _: () = assert!(
            $crate::are_among(
                &[$(stringify!($left_out)),*],
                &[$($(stringify!($test)),*),*]
            ),
            "`except` names something that is no case"
        );
    };
}

/// Whether a test's name is its case's name with a number prefixed.
#[doc(hidden)]
#[must_use]
pub const fn ends_with(name: &str, end: &str) -> bool {
    let (name, end) = (name.as_bytes(), end.as_bytes());
    let mut at = 0;
    while at < end.len() {
        if name[name.len() - 1 - at] != end[end.len() - 1 - at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Whether every one of `names` is the name of a test.
#[doc(hidden)]
#[must_use]
pub const fn are_among(names: &[&str], tests: &[&str]) -> bool {
    let mut found = 0;
    let mut at = 0;
    while found < names.len() && at < tests.len() {
        let (name, test) = (names[found], tests[at]);
        if name.len() == test.len() && ends_with(test, name) {
            found += 1;
            at = 0;
        } else {
            at += 1;
        }
    }
    found == names.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_to_be_there() {
        let tests = ["s01_a", "s02_b", "s03_c"];
        assert!(are_among(&[], &tests) && are_among(&["s03_c", "s01_a"], &tests));
        assert!(!are_among(&["s01_b"], &tests) && !are_among(&["s01_a", "a"], &tests));
    }
}
