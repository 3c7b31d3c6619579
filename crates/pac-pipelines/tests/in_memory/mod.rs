//! Cases on the store in memory, with paused time.

use std::sync::Arc;

use pac_conformance::{Fixture, Time};
use pac_memory::{MemoryDriver, MemoryOptions};

pub(crate) async fn memory(time: Time) -> Fixture {
    let driver = MemoryDriver::new(MemoryOptions::default());
    Fixture::over(Arc::new(driver), time)
}

/// Expands to one test per case of the module `cases`.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        $(#[test]
        fn $case() {
            pac_conformance::run_case(
                pac_conformance::Time::Paused,
                crate::in_memory::memory,
                cases::$case,
            );
        })*
    };
}
