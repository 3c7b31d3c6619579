//! The cases on outages against a server that is really stopped and started.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pac_conformance::cases::leases_and_crashes;
use pac_conformance::{Fixture, Server, Time, run_case};
use pac_postgres::PostgresDriver;
use support::own::OwnServer;
use support::{SYSTEM, options};
use tokio::task::block_in_place;

#[test]
fn a_stopped_server_is_told_and_returned_to() {
    let case = leases_and_crashes::a_stopped_store_is_told_and_returned_to;
    run_case(Time::Real, own_server, case);
}

async fn own_server(time: Time) -> Fixture {
    let server = block_in_place(|| OwnServer::start(SYSTEM, "", ""));
    let driver = PostgresDriver::connect(options(server.port)).await.unwrap();
    Fixture::over(Arc::new(driver), time)
        .with_tolerance(Duration::from_millis(700))
        .with_server(Own(Mutex::new(server)))
}

#[derive(Debug)]
struct Own(Mutex<OwnServer>);

#[async_trait]
impl Server for Own {
    async fn stop(&self) {
        block_in_place(|| self.0.lock().unwrap().kill_9());
    }

    async fn start(&self) {
        block_in_place(|| self.0.lock().unwrap().start_again());
    }
}
