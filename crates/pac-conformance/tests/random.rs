//! Random commands against what ships.

use std::sync::Arc;

use pac_conformance::Production;
use pac_conformance::random::{self, Search};
use pac_core::driver::Driver;
use pac_memory::{MemoryDriver, MemoryOptions};

#[test]
fn the_protocol_does_what_the_reference_model_does() {
    let search = Search {
        seed: 1,
        cases: 1000,
    };
    if let Err(failure) = random::rules(&Production, search) {
        panic!("{failure}");
    }
}

#[test]
fn managers_do_what_the_reference_model_does() {
    let open = || -> Arc<dyn Driver> { Arc::new(MemoryDriver::new(MemoryOptions::default())) };
    let search = Search {
        seed: 1,
        cases: 200,
    };
    if let Err(failure) = random::manager(&open, search) {
        panic!("{failure}");
    }
}
