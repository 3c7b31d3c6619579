//! The clock of the store is its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pac_conformance::cases::leases_and_crashes::a_wrong_clock_changes_nothing;
use pac_conformance::{Fixture, Time, run_case};
use pac_core::Timestamp;
use pac_memory::{MemoryDriver, MemoryOptions};

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
