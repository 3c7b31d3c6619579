//! The rows of upstream's unit tests of its queue on the store in memory.

#[macro_use]
mod rows;

use std::sync::Arc;

use pac_conformance::{Fixture, Time};
use pac_memory::{MemoryDriver, MemoryOptions};

mod memory {
    rows!(memory, Paused);
}

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// `docs/pipelines.md` names every test of the rows, and no other.
#[test]
fn the_guide_names_every_row() {
    let guide = include_str!("../../../../docs/pipelines.md");
    for row in memory::rows::ROWS {
        assert!(guide.contains(&format!("`{row}`")), "`{row}` is missing");
    }
    let is_row = |name: &&str| {
        let number = name[1..].split('_').next().unwrap_or_default();
        name.starts_with(['q', 's', 'r']) && number.parse::<u8>().is_ok() && name.contains('_')
    };
    for name in guide
        .split('`')
        .filter(|name| name.len() > 2)
        .filter(is_row)
    {
        assert!(memory::rows::ROWS.contains(&name), "`{name}` is no test");
    }
}
