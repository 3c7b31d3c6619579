//! Random commands against what ships: the same ones every time. `cargo xtask soak` tries others.

use std::sync::Arc;

use pac_conformance::Production;
use pac_conformance::random::{self, Search};
use pac_core::driver::Driver;
use pac_memory::{MemoryDriver, MemoryOptions};

#[test]
fn the_protocol_does_what_the_reference_model_does() {
    let search = Search {
        seed: 1,
        cases: 8_000,
    };
    if let Err(failure) = random::rules(&Production, search) {
        panic!("{failure}");
    }
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
    if let Err(failure) = random::manager(&memory, search) {
        panic!("{failure}");
    }
}

fn memory() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}
