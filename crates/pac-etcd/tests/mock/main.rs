//! The driver on the mock etcd, in this process: against all cases, and with faults. In paused time,
//! but for the cases that need several threads.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod faults;
mod removal;
#[path = "../support/mod.rs"]
mod support;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{Fixture, Time};
use pac_etcd::{EtcdDriver, EtcdOptions};
use pac_etcd_mock::MockEtcd;
use support::vandal::EtcdVandal;

pac_conformance::conformance!(
    crate::mock,
    except {
        s41_a_wrong_clock_changes_nothing: "etcd has no time of day that anybody could set",
        s47_every_transition_has_its_time: "runs by itself, in real time",
        a_run_waits_for_as_long_as_it_may: "runs by itself, in real time",
        a_waiting_run_times_out_without_its_controller: "runs by itself, in real time",
        a_run_is_asked_to_end_once_it_has_held_its_slot_for_long: "runs by itself, in real time",
    }
);

/// The driver takes the time of day of the machine, which a paused clock does not move.
#[test]
fn every_transition_has_the_time_of_the_machine() {
    let case = pac_conformance::cases::state::every_transition_has_its_time;
    pac_conformance::run_case(Time::Real, mock, case);
}

#[test]
fn a_run_waits_for_as_long_as_the_time_of_the_machine_allows() {
    let case = pac_conformance::cases::time_limits::a_run_waits_for_as_long_as_it_may;
    pac_conformance::run_case(Time::Real, mock, case);
}

#[test]
fn a_waiting_run_times_out_by_the_time_of_the_machine_without_its_controller() {
    let case = pac_conformance::cases::time_limits::a_waiting_run_times_out_without_its_controller;
    pac_conformance::run_case(Time::Real, mock, case);
}

#[test]
fn a_run_is_asked_to_end_by_the_time_of_the_machine() {
    let case = pac_conformance::cases::time_limits::a_run_is_asked_to_end_once_it_has_held_its_slot_for_long;
    pac_conformance::run_case(Time::Real, mock, case);
}

async fn mock(time: Time) -> Fixture {
    let etcd = MockEtcd::builder().start().await.unwrap();
    let mut options = EtcdOptions::default();
    options.retention = support::RETENTION;
    let vandal = EtcdVandal::new(etcd.client().await.unwrap(), &options.prefix);
    let driver = EtcdDriver::connect_over(&options, etcd.into_direct_channel());
    let fixture = Fixture::over(Arc::new(driver.await.unwrap()), time).with_vandal(vandal);
    match time {
        Time::Paused => fixture,
        // Leases have whole seconds, two at least.
        Time::Real => fixture
            .with_session_ttl(Duration::from_secs(3))
            .with_lease_ttl(Duration::from_secs(10))
            .with_tolerance(Duration::from_secs(1)),
    }
}
