//! One test per case.

/// Expands to one test per case, in modules named after the groups. `$open` is the path of an
/// `async fn(Time) -> Fixture`.
#[macro_export]
macro_rules! conformance {
    ($open:path) => {
        $crate::conformance! { @expand $open;
            admission_and_order {
                Paused s01_no_limit_starts_everything no_limit_starts_everything;
                Paused s02_limit_one_starts_one_after_the_other limit_one_starts_one_after_the_other;
                Paused s03_admitting_again_changes_nothing admitting_again_changes_nothing;
                Paused s04_a_batch_keeps_its_order a_batch_keeps_its_order;
                Paused s05_batches_never_pass_each_other batches_never_pass_each_other;
                Real s06_no_barging no_barging;
                Paused s07_priority_goes_before_age priority_goes_before_age;
                Paused s08_requeued_runs_get_their_old_place requeued_runs_get_their_old_place;
                Paused s09_repositories_never_mix repositories_never_mix;
                Paused s10_a_new_uid_is_a_new_run a_new_uid_is_a_new_run;
                Real s11_limit_holds_under_contention limit_holds_under_contention;
                Real s12_hundred_repositories_drain hundred_repositories_drain;
            }
            release_cancel_removal {
                Paused s13_release_starts_exactly_the_next release_starts_exactly_the_next;
                Paused s14_releases_without_effect_say_so releases_without_effect_say_so;
                Paused s15_a_stale_holder_frees_nothing a_stale_holder_frees_nothing;
                Paused s16_cancel_ends_a_run_wherever_it_is cancel_ends_a_run_wherever_it_is;
                Paused s17_removal_ends_everything_and_leaves_nothing
                    removal_ends_everything_and_leaves_nothing;
                Paused s18_anybody_can_release_by_name anybody_can_release_by_name;
            }
            limits {
                Paused s19_raising_starts_exactly_as_many raising_starts_exactly_as_many;
                Paused s20_lowering_evicts_nobody lowering_evicts_nobody;
                Paused s21_removing_the_limit_starts_everybody removing_the_limit_starts_everybody;
                Paused s22_the_newest_announcement_holds the_newest_announcement_holds;
                Paused s23_a_default_limit_is_stored a_default_limit_is_stored;
            }
            waiting_and_waking {
                Real s24_a_release_wakes_another_manager a_release_wakes_another_manager;
                Paused s25_without_hints_the_back_stop_starts_waiters
                    without_hints_the_back_stop_starts_waiters;
                Paused s26_slow_watchers_hold_nothing_up slow_watchers_hold_nothing_up;
                Paused s27_a_watch_survives_a_lost_connection a_watch_survives_a_lost_connection;
                Paused s28_a_waiter_that_gives_up_leaves_nothing
                    a_waiter_that_gives_up_leaves_nothing;
                Paused s28_giving_up_outlives_the_session giving_up_outlives_the_session;
                Paused s29_dropped_admissions_leak_nothing dropped_admissions_leak_nothing;
                Paused s30_places_can_be_read_and_watched places_can_be_read_and_watched;
            }
            leases_and_crashes {
                Paused s31_long_runs_keep_their_slots long_runs_keep_their_slots;
                Paused s32_long_waiters_keep_their_places long_waiters_keep_their_places;
                Paused s33_s34_s35_a_crash_frees_what_it_has_to a_crash_frees_what_it_has_to;
                Paused s36_a_stopped_controller_learns_it a_stopped_controller_learns_it;
                Paused s36_a_closed_manager_holds_nothing a_closed_manager_holds_nothing;
                Paused s37_everybody_restarts everybody_restarts;
                Paused s40_a_lost_answer_is_recognised a_lost_answer_is_recognised;
                Real s42_keep_alive_survives_blocked_workers keep_alive_survives_blocked_workers;
                Paused s43_dead_keep_alive_is_not_hidden dead_keep_alive_is_not_hidden;
                Paused s44_a_paused_store_costs_no_lease a_paused_store_costs_no_lease;
            }
            state {
                Paused s45_every_state_can_be_read every_state_can_be_read;
                Paused s46_finished_states_vanish_by_themselves
                    finished_states_vanish_by_themselves;
                Paused s47_every_transition_has_its_time every_transition_has_its_time;
                Paused s48_all_repositories_can_be_listed all_repositories_can_be_listed;
            }
            hostile_input {
                Paused s57_hostile_keys_are_refused_or_kept_apart
                    hostile_keys_are_refused_or_kept_apart;
                Paused s58_corrupt_state_is_reported_and_left_alone
                    corrupt_state_is_reported_and_left_alone;
                Paused s59_newer_state_is_not_overwritten newer_state_is_not_overwritten;
                Paused s60_numbers_at_their_ends numbers_at_their_ends;
            }
        }
    };
    (@expand $open:path; $($group:ident {
        $($time:ident $test:ident $case:ident;)*
    })*) => {
        $(mod $group {
            $(
                #[test]
                fn $test() {
                    const { assert!($crate::ends_with(stringify!($test), stringify!($case))) };
                    $crate::run_case($crate::Time::$time, $open, $crate::cases::$group::$case);
                }
            )*
        })*
    };
}
