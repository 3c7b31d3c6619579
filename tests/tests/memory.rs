//! The memory driver against all cases.

use std::sync::Arc;

use pac_concurrency::{MemoryDriver, MemoryOptions};
use pac_tests::{Fixture, Time};

pac_tests::conformance!(crate::memory);

async fn memory(time: Time) -> Fixture {
    let driver = MemoryDriver::new(MemoryOptions::default());
    Fixture::over(Arc::new(driver), time)
}
