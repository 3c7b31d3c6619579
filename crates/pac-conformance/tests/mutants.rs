//! Every mutant is caught, the production code is not, and `docs/testing.md` lists the catchers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{panic, thread};

use pac_conformance::mutants::{self, Mutant};
use pac_core::driver::Driver;
use pac_memory::{MemoryDriver, MemoryOptions};

mod document;

#[test]
fn every_mutant_is_caught_and_nothing_that_ships_is() {
    let mutants = mutants::all();
    assert!(
        mutants.len() >= 12,
        "{} mutants prove little",
        mutants.len()
    );
    let rows = caught(&mutants);
    let uncaught = mutants.iter().zip(&rows);
    let uncaught = uncaught.filter(|(_, catchers)| catchers.is_empty());
    let uncaught: Vec<_> = uncaught.map(|(mutant, _)| mutant.name).collect();
    assert_eq!(uncaught, [""; 0], "no check catches these mutants");
    document::holds("mutants", &table(&mutants, &rows));
}

#[test]
fn names_of_mutants_are_used_once() {
    let mutants = mutants::all();
    let names: BTreeSet<_> = mutants.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), mutants.len());
}

/// The catchers of each mutant, determined on all cores at once.
fn caught(mutants: &[Mutant]) -> Vec<BTreeSet<String>> {
    let rows = Mutex::new(vec![BTreeSet::new(); mutants.len()]);
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Mutants are caught by panics, whose messages are not of interest.
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((at, mutant)) = pick(mutants, &next) {
                    let catchers = mutants::catchers(mutant, &memory);
                    rows.lock().unwrap()[at] = catchers;
                }
            });
        }
    });
    let innocent = mutants::catchers_of_production(&memory);
    panic::set_hook(loud);
    assert_eq!(
        innocent,
        BTreeSet::new(),
        "caught, although nothing is broken"
    );
    rows.into_inner().unwrap()
}

fn pick<'a>(mutants: &'a [Mutant], next: &AtomicUsize) -> Option<(usize, &'a Mutant)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, mutants.get(at)?))
}

fn memory() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}

fn table(mutants: &[Mutant], rows: &[BTreeSet<String>]) -> String {
    let mut table = "| Mutant | Level | What is broken | Caught by |\n".to_owned();
    table.push_str("| --- | --- | --- | --- |\n");
    for (mutant, catchers) in mutants.iter().zip(rows) {
        table.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            mutant.name,
            mutant.level,
            mutant.breaks,
            grouped(catchers)
        ));
    }
    table
}

/// Writes `case: a`, `case: b`, `managers: c` as `case: a, b; managers: c`.
fn grouped(catchers: &BTreeSet<String>) -> String {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (kind, name) in catchers
        .iter()
        .filter_map(|catcher| catcher.split_once(": "))
    {
        groups.entry(kind).or_default().push(name);
    }
    let groups = groups.iter();
    let groups: Vec<_> = groups
        .map(|(kind, names)| format!("{kind}: {}", names.join(", ")))
        .collect();
    groups.join("; ")
}
