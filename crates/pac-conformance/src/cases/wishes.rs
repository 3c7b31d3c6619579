//! What people ask of a queue beyond a place in it.

mod cancelling;
mod groups;
mod queue;
mod rules;
mod slots;

pub use cancelling::{
    a_conditional_cancellation_ends_nothing_that_has_started, a_holder_is_asked_and_keeps_its_slot,
    many_are_cancelled_in_one_commit,
};
pub use groups::{
    a_newer_run_supersedes_however_many_wait,
    a_newer_run_takes_the_place_of_those_that_it_supersedes, superseding_all_asks_the_holders,
};
pub use queue::{
    a_bounded_queue_holds_no_more_under_a_crowd, a_bumped_run_keeps_its_place_and_goes_back,
    a_request_is_skipped_where_others_wait_or_run,
};
pub use rules::{
    a_pause_holds_against_everybody_and_is_told, a_pin_holds_against_announcements_and_proposals,
    an_adoption_is_no_start,
};
pub use slots::{
    a_heavy_run_gets_its_slots_in_one_step, a_run_too_heavy_is_refused_or_passed_over,
    lighter_runs_pass_a_heavy_one_so_many_times, slot_numbers_are_unique_under_a_crowd,
};
