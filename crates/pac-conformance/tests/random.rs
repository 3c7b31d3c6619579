//! Random commands against what ships.

use pac_conformance::Production;
use pac_conformance::random::{self, Search};

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
