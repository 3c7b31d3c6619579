//! The protocol and the commit loop keep their invariants in every behaviour, and the model
//! check finds each mistake.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says how many states there are"
)]

use pac_conformance::model::{Mutant, Variant, check, suite};

mod document;

#[test]
fn production_holds_in_every_behaviour() {
    let verdicts: Vec<_> = suite()
        .iter()
        .map(|scenario| check(Variant::Faithful, scenario, 2))
        .inspect(|verdict| println!("{verdict}"))
        .collect();
    let states: usize = verdicts.iter().map(|verdict| verdict.unique_states).sum();
    println!("{states} states in {} scenarios", verdicts.len());
    for verdict in &verdicts {
        assert!(verdict.is_clean(), "{verdict}\n{}", verdict.trace);
    }
    let rows = verdicts
        .iter()
        .map(|verdict| format!("| {} | {} |\n", verdict.scenario, verdict.unique_states));
    let rows: String = rows.collect();
    document::holds(
        "states",
        &format!("| Scenario | States |\n| --- | ---: |\n{rows}| all | {states} |\n"),
    );
}

#[test]
fn every_mistake_is_caught() {
    let rows = Mutant::all().into_iter().map(|mutant| {
        let shown_by = mutant.shown_by.iter();
        let caught: Vec<_> = shown_by
            .map(|scenario| caught(mutant.variant, scenario))
            .collect();
        format!(
            "| `{}` | {} | {} | {} |\n",
            mutant.name,
            mutant.level,
            mutant.breaks,
            caught.join("; ")
        )
    });
    let rows: String = rows.collect();
    let head = "| Mutant | Level | What is broken | Caught by |\n| --- | --- | --- | --- |\n";
    document::holds("model mutants", &format!("{head}{rows}"));
}

/// The invariants that the shortest violation in this scenario breaks. One thread searches in
/// the same order each time, so that the same violation is found first.
fn caught(variant: Variant, scenario: &str) -> String {
    let mut suite = suite().into_iter();
    let scenario = suite.find(|known| known.name == scenario).unwrap();
    let verdict = check(variant, &scenario, 1);
    println!("{variant:?}: {verdict}");
    assert!(
        !verdict.violated.is_empty(),
        "{variant:?} is not caught: {verdict}"
    );
    format!("{}: {}", verdict.scenario, verdict.violated.join(", "))
}
