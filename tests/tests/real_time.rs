//! The memory driver as a server would be, against all cases on real time: what drivers of
//! servers are held to is thereby proven to be possible before they come.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::driver::{Descriptor, Driver, Retention};
use pac_concurrency::{MemoryDriver, MemoryOptions};
use pac_conformance::faults::Faults;
use pac_conformance::{Fixture, Time};

pac_conformance::conformance!(
    crate::server,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "nobody can set the clock of a server",
    }
);

async fn server(time: Time) -> Fixture {
    let retention = Retention {
        age: Duration::from_secs(10),
        per_repository: usize::MAX,
    };
    let memory = MemoryDriver::new(MemoryOptions {
        retention,
        ..MemoryOptions::default()
    });
    let memory: Arc<dyn Driver> = Arc::new(memory);
    let wire = Faults::none();
    wire.describe(|inner| Descriptor {
        remote: true,
        ..inner
    });
    Fixture::over(wire.over(&Faults::line().over(&memory)), time)
        .with_session_ttl(Duration::from_millis(1_500))
        .with_lease_ttl(Duration::from_secs(4))
        .with_scale(0.1)
}
