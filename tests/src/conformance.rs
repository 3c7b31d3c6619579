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
                Paused s29_dropped_admissions_leak_nothing dropped_admissions_leak_nothing;
                Paused s30_places_can_be_read_and_watched places_can_be_read_and_watched;
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
