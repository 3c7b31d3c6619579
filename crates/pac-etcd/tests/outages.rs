//! The cases on outages against a server that is really stopped and started.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support;

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use pac_conformance::cases::leases_and_crashes;
use pac_conformance::{Fixture, Server, Time, run_case};
use support::own::Member;
use tokio::task::block_in_place;

#[test]
fn a_stopped_server_is_told_and_returned_to() {
    let case = leases_and_crashes::a_stopped_store_is_told_and_returned_to;
    run_case(Time::Real, own_server, case);
}

async fn own_server(time: Time) -> Fixture {
    let member = block_in_place(|| Member::single(&[]));
    let driver = support::driver(&support::options([member.endpoint()])).await;
    Fixture::over(driver, time)
        .with_tolerance(Duration::from_secs(1))
        .with_server(Own(Mutex::new(member)))
}

struct Own(Mutex<Member>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member of the test's own")
    }
}

#[async_trait]
impl Server for Own {
    async fn stop(&self) {
        block_in_place(|| self.0.lock().unwrap().kill());
    }

    async fn start(&self) {
        block_in_place(|| {
            let mut member = self.0.lock().unwrap();
            member.start();
            member.wait_until_healthy();
        });
    }
}
