//! The memory driver against all cases.

use std::sync::Arc;

use pac_conformance::{Fixture, Time};
use pac_core::Timestamp;
use pac_core::driver::Driver;
use pac_memory::{MemoryDriver, MemoryOptions};

pac_conformance::conformance!(crate::memory);

async fn memory(time: Time) -> Fixture {
    let usual = MemoryOptions::default();
    Fixture::over(open(usual.epoch), time).with_clock(open)
}

fn open(epoch: Timestamp) -> Arc<dyn Driver> {
    let usual = MemoryOptions::default();
    Arc::new(MemoryDriver::new(MemoryOptions { epoch, ..usual }))
}
