//! Which checks catch a mutant: found by running them.

use super::{Level, Mutant};
use crate::random::{self, Search};
use crate::{Production, Rules};

/// Enough for everything that a few commands can show.
const SEARCH: Search = Search {
    seed: 7,
    cases: 250,
};

/// What a check is called.
pub type Catcher = String;

/// The checks that catch a mutant, in the order of their names.
#[must_use]
pub fn catchers(mutant: &Mutant) -> Vec<Catcher> {
    match &mutant.level {
        Level::Rules(rules) => catch_rules(&**rules),
    }
}

/// The checks that find something wrong with what ships.
#[must_use]
pub fn catchers_of_production() -> Vec<Catcher> {
    catch_rules(&Production)
}

fn catch_rules(rules: &dyn Rules) -> Vec<Catcher> {
    let found = random::survey(rules, SEARCH);
    found.into_iter().map(|check| check.to_string()).collect()
}
