//! The cases that need nothing but a cluster: each is run in memory, as a test of its own, and all are
//! run on a cluster that is given.

use std::pin::Pin;

use crate::world::Place;

/// The name of a case, and the case.
pub(crate) type Case = (&'static str, fn(Place) -> Running);
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($module:ident::$case:ident,)*) => {
        mod in_memory {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$module::$case(crate::world::Place::InMemory).await;
            }
        )*}

        /// All cases.
        pub(crate) fn all() -> Vec<Case> {
            vec![$((stringify!($case), |place| Box::pin(crate::$module::$case(place)))),*]
        }
    };
}

cases! {
    apart::runs_of_users_and_of_kueue_stay_as_they_are,
    apart::a_run_that_is_deleted_or_cancelled_while_it_waits_lets_the_next_one_pass,
    apart::a_run_that_others_start_counts_beyond_the_limit,
    apart::two_repositories_of_one_namespace_never_mix,
    failures::while_the_store_is_away_nothing_starts_and_then_all_goes_on,
    limits::without_a_limit_ten_runs_run_side_by_side_and_are_counted,
    limits::a_limit_that_goes_starts_all_and_one_that_is_lowered_evicts_none,
    replicas::a_controller_that_is_started_anew_finds_its_waiters_in_their_order,
    replicas::two_controllers_that_are_killed_in_turn_lose_no_run_and_start_none_twice,
    reports::a_priority_that_is_none_is_told_and_a_good_one_goes_first,
    sections::runs_are_in_a_section_one_after_the_other_and_however_they_end_it_goes_on,
    together::ten_runs_with_limit_one_start_in_their_order_and_never_overlap,
    together::two_controllers_share_a_store_and_one_ends_in_the_middle,
    together::a_limit_is_used_to_the_full_and_a_raised_one_at_once,
    wishes::cancel_in_progress_works_with_a_limit,
    wishes::a_full_queue_refuses_a_run_and_says_why,
    wishes::a_paused_repository_starts_nothing_until_the_annotation_goes,
    wishes::a_weighted_run_takes_its_slots_in_one_step,
    wishes::a_run_that_waits_for_too_long_is_cancelled_and_told_so,
}
