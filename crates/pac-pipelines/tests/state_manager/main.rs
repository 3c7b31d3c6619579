//! The states of runs on the store in memory.

#[macro_use]
mod states;

use std::sync::Arc;

use pac_conformance::{Fixture, Time};
use pac_memory::{MemoryDriver, MemoryOptions};

mod memory {
    states!(memory, Paused);
}

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}
