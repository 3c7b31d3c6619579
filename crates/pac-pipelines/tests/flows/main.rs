//! The flows of the guide on the store in memory.

#[macro_use]
mod suite;

use std::sync::Arc;

use pac_conformance::{Fixture, Time};
use pac_memory::{MemoryDriver, MemoryOptions};

mod memory {
    flows!(memory, Paused);
}

async fn memory(time: Time) -> Fixture {
    let driver = MemoryDriver::new(MemoryOptions::default());
    Fixture::over(Arc::new(driver), time)
}
