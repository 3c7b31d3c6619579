//! Determines which checks catch a mutant, by running them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{Level, Mutant};
use crate::random::{self, OpenStore, Search};
use crate::{Fixture, Production, Rules, Time, cases, run_case};

/// A table of cases.
macro_rules! candidates {
    ($($group:ident::$case:ident,)*) => {
        [$((stringify!($case), |open| fails(open, cases::$group::$case))),*]
    };
}
/// Enough cases for every fault that a few commands can show.
const COMMANDS: Search = Search {
    seed: 7,
    cases: 1200,
};

/// The same for managers; their cases take longer.
const MANAGERS: Search = Search { seed: 7, cases: 40 };

/// The checks that catch a mutant, in the order of their names. `open` opens a good, empty
/// store in this process.
#[must_use]
pub fn catchers(mutant: &Mutant, open: OpenStore<'_>) -> BTreeSet<String> {
    match &mutant.level {
        Level::Rules(rules) => of_rules(&**rules),
        Level::Store(breaks) => of_store(&|| breaks(open())),
    }
}

/// The checks that fail with the production code, over a good store. There should be none.
#[must_use]
pub fn catchers_of_production(open: OpenStore<'_>) -> BTreeSet<String> {
    let mut catchers = of_rules(&Production);
    catchers.extend(of_store(open));
    catchers
}

fn of_rules(rules: &dyn Rules) -> BTreeSet<String> {
    let found = random::survey(rules, COMMANDS).into_iter();
    found.map(|check| format!("commands: {check}")).collect()
}

fn of_store(open: OpenStore<'_>) -> BTreeSet<String> {
    let found = random::survey_managers(open, MANAGERS).into_iter();
    let mut catchers: BTreeSet<_> = found.map(|check| format!("managers: {check}")).collect();
    for (name, fails) in CASES {
        if fails(open) {
            catchers.insert(format!("case: {name}"));
        }
    }
    catchers
}

/// The cases that may catch a broken store: those in which several managers depend on the store,
/// or a session dies. Running them shows which of them do.
const CASES: [Case; 24] = candidates! {
    driver_contract::a_dead_session_does_nothing_more,
    driver_contract::nothing_is_granted_to_the_dead,
    driver_contract::a_commit_is_of_its_revision,
    admission_and_order::limit_one_starts_one_after_the_other,
    admission_and_order::batches_never_pass_each_other,
    admission_and_order::priority_goes_before_age,
    release_cancel_removal::a_stale_holder_frees_nothing,
    release_cancel_removal::removal_ends_everything_and_leaves_nothing,
    release_cancel_removal::anybody_can_release_by_name,
    limits::raising_starts_exactly_as_many,
    waiting_and_waking::a_watch_survives_a_lost_connection,
    waiting_and_waking::places_can_be_read_and_watched,
    leases_and_crashes::long_runs_keep_their_slots,
    leases_and_crashes::a_crash_frees_what_it_has_to,
    leases_and_crashes::a_stopped_controller_learns_it,
    leases_and_crashes::everybody_restarts,
    wishes::a_pause_holds_against_everybody_and_is_told,
    wishes::a_pin_holds_against_announcements_and_proposals,
    wishes::a_heavy_run_gets_its_slots_in_one_step,
    wishes::a_newer_run_takes_the_place_of_those_that_it_supersedes,
    wishes::superseding_all_asks_the_holders,
    wishes::a_holder_is_asked_and_keeps_its_slot,
    wishes::a_bumped_run_keeps_its_place_and_goes_back,
    state::a_session_tells_who_it_is,
};

/// A case's name, and a function that tells whether the case fails over a store.
type Case = (&'static str, fn(OpenStore<'_>) -> bool);

fn fails(open: OpenStore<'_>, case: impl AsyncFnOnce(&Fixture)) -> bool {
    // Managers draw their intervals at random; the seed makes every run the same.
    fastrand::seed(MANAGERS.seed);
    // With usual leases the sweeps over hours of paused time would take seconds of real time.
    let lease_ttl = Duration::from_secs(60);
    let fixture = async |time| Fixture::over(open(), time).with_lease_ttl(lease_ttl);
    let run = || run_case(Time::Paused, fixture, case);
    catch_unwind(AssertUnwindSafe(run)).is_err()
}
