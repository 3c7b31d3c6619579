//! The memory driver against all cases.

use std::sync::Arc;

use pac_conformance::{Fixture, Time};
use pac_memory::{MemoryDriver, MemoryOptions};

pac_conformance::conformance!(crate::memory);

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}
