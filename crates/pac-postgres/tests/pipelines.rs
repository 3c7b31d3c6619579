//! The flows of PipelineRuns, the rows of upstream's queue, and the states of runs on PostgreSQL.

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

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{Fixture, Time};
use pac_postgres::PostgresDriver;
use support::{SYSTEM, options, port};

mod postgres {
    flows!(postgres, Real);
    rows!(postgres, Real);
    states!(postgres, Real);
}

async fn postgres(time: Time) -> Fixture {
    let driver = PostgresDriver::connect(options(port(SYSTEM)))
        .await
        .unwrap();
    Fixture::over(Arc::new(driver), time)
        .with_session_ttl(Duration::from_secs(3))
        .with_lease_ttl(Duration::from_secs(9))
        .with_tolerance(Duration::from_millis(700))
        .with_quiet(Duration::from_millis(300))
        .with_expiry_delay(Duration::from_millis(500))
        .with_scale(0.1)
}
