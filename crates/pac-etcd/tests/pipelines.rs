//! The flows of PipelineRuns, the rows of upstream's queue, and the states of runs on etcd.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../pac-pipelines/tests/queue_manager/rows/mod.rs"]
#[macro_use]
mod rows;
#[path = "../../pac-pipelines/tests/state_manager/states.rs"]
#[macro_use]
mod states;
#[path = "../../pac-pipelines/tests/flows/suite/mod.rs"]
#[macro_use]
mod suite;
mod support;

use std::time::Duration;

use pac_conformance::{Fixture, Time};

mod etcd {
    flows!(etcd, Real);
    rows!(etcd, Real);
    states!(etcd, Real);
}

async fn etcd(time: Time) -> Fixture {
    let endpoint = support::member::variable("PAC_TEST_ETCD");
    let options = support::options([&endpoint]);
    Fixture::over(support::driver(&options).await, time)
        .with_session_ttl(Duration::from_secs(3))
        .with_lease_ttl(Duration::from_secs(10))
        .with_expiry_delay(Duration::from_millis(1_500))
        .with_tolerance(Duration::from_secs(1))
        .with_quiet(Duration::from_millis(300))
        .with_scale(0.1)
}
