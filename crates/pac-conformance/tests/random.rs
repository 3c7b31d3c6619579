//! The same random commands every time against the production code. `cargo xtask soak` tries
//! others.

use std::sync::Arc;

use pac_conformance::Production;
use pac_conformance::random::{self, Failure, Search};
use pac_core::driver::Driver;
use pac_memory::{MemoryDriver, MemoryOptions};

#[test]
fn the_protocol_does_what_the_reference_model_does() {
    let search = Search {
        seed: 1,
        cases: 8_000,
    };
    nothing_found(random::rules(&Production, search));
}

#[test]
fn managers_do_what_the_reference_model_does() {
    managers(1);
}

#[test]
fn managers_do_what_the_reference_model_does_again() {
    managers(2);
}

fn managers(seed: u64) {
    let search = Search { seed, cases: 1_000 };
    nothing_found(random::manager(&memory, search));
}

fn nothing_found(search: Result<(), Failure>) {
    let found = search.err().map(|failure| failure.to_string());
    assert!(found.is_none(), "{}", found.unwrap_or_default());
}

fn memory() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}
