//! The cases on the driver's contract against memory.

use std::sync::Arc;

use pac_conformance::cases::driver_contract;
use pac_conformance::{Fixture, Time, run_case};
use pac_memory::{MemoryDriver, MemoryOptions};

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

#[test]
fn a_dead_session_does_nothing_more() {
    let case = driver_contract::a_dead_session_does_nothing_more;
    run_case(Time::Paused, memory, case);
}

#[test]
fn nothing_is_granted_to_the_dead() {
    let case = driver_contract::nothing_is_granted_to_the_dead;
    run_case(Time::Paused, memory, case);
}

#[test]
fn a_commit_is_of_its_revision() {
    let case = driver_contract::a_commit_is_of_its_revision;
    run_case(Time::Paused, memory, case);
}
