//! Every mutant is caught, and nothing that ships is.

use std::sync::Arc;

use pac_conformance::mutants;
use pac_core::driver::Driver;
use pac_memory::{MemoryDriver, MemoryOptions};

fn memory() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}

#[test]
fn every_mutant_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    for mutant in mutants::all() {
        if std::env::var("ONLY").is_ok_and(|o| o != mutant.level.to_string()) { continue }
        let start = std::time::Instant::now();
        let catchers = mutants::catchers(&mutant, &memory);
        eprintln!("{}: {:?}", mutant.name, start.elapsed());
        for c in catchers { eprintln!("      {c}"); }
    }
    let start = std::time::Instant::now();
    eprintln!("production: {:?} {:?}", mutants::catchers_of_production(&memory), start.elapsed());
}
