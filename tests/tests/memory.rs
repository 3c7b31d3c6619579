//! The memory driver against all cases.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pac_concurrency::{MemoryDriver, MemoryOptions, Timestamp};
use pac_tests::cases::leases_and_crashes::a_wrong_clock_changes_nothing;
use pac_tests::{Fixture, Time, run_case};

pac_tests::conformance!(crate::memory);

async fn memory(time: Time) -> Fixture {
    let driver = MemoryDriver::new(MemoryOptions::default());
    Fixture::over(Arc::new(driver), time)
}

/// Of a server nobody can set the clock: this one says where its own starts.
#[test]
fn s41_a_wrong_clock_changes_nothing() {
    let hour = Duration::from_secs(60 * 60);
    let now = Timestamp::from(SystemTime::now());
    let year_1970 = Timestamp::from_unix_millis(0);
    for epoch in [now.plus(hour), now.minus(hour), year_1970] {
        let open = async |time| {
            let options = MemoryOptions {
                epoch,
                ..MemoryOptions::default()
            };
            Fixture::over(Arc::new(MemoryDriver::new(options)), time)
        };
        let case = async |fixture: &Fixture| a_wrong_clock_changes_nothing(fixture, epoch).await;
        run_case(Time::Paused, open, case);
    }
}
