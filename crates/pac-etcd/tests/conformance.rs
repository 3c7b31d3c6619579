//! The etcd driver against all cases, on the oldest version that is supported and on a newer
//! one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use pac_conformance::{Fixture, Time};
use support::vandal::EtcdVandal;

pac_conformance::conformance!(
    crate::etcd,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "etcd has no time of day that anybody could set",
    }
);

pac_conformance::conformance!(
    crate::newest_etcd,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "etcd has no time of day that anybody could set",
    }
);

async fn etcd(time: Time) -> Fixture {
    fixture("PAC_TEST_ETCD", time).await
}

async fn newest_etcd(time: Time) -> Fixture {
    fixture("PAC_TEST_ETCD_NEWEST", time).await
}

async fn fixture(server: &str, time: Time) -> Fixture {
    let endpoint = support::member::variable(server);
    let mut options = support::options([&endpoint]);
    options.retention = support::RETENTION;
    let vandal = EtcdVandal::new(support::raw(&endpoint).await, &options.prefix);
    Fixture::over(support::driver(&options).await, time)
        // etcd accepts a TTL of 2 s, but a busy machine may renew too late for it.
        .with_session_ttl(Duration::from_secs(3))
        .with_lease_ttl(Duration::from_secs(10))
        // etcd looks for expired leases twice a second, and revokes them through its log.
        .with_expiry_delay(Duration::from_millis(1_500))
        .with_tolerance(Duration::from_secs(1))
        .with_quiet(Duration::from_millis(300))
        .with_scale(0.1)
        .with_vandal(vandal)
}
