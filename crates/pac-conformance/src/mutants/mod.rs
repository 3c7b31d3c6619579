//! Deliberately broken variants of what the project is made of. A check that catches none of
//! them proves nothing; each of them has to be caught, and nothing that ships.
//!
//! Of these, the shipped crates contain nothing: a mutant of the rules wraps
//! [`protocol::apply`](pac_core::protocol::apply), a mutant of the store wraps a driver.

mod catchers;
mod edit;
mod rules;
mod store;
mod store_layer;

use std::fmt;
use std::sync::Arc;

use pac_core::driver::Driver;

pub use catchers::{catchers, catchers_of_production};

use crate::Rules;

/// A broken variant.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// What it is called.
    pub name: &'static str,
    /// What is broken, in a sentence.
    pub breaks: &'static str,
    /// Where.
    pub level: Level,
}

/// Where a mutant is broken. A level more is a variant here, a table like those of the others in
/// [`all`], and an arm in [`catchers`] that runs its checks. The commit loops with a mistake are
/// the model check's own, as only it can be given one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Level {
    /// In what decides over a repository.
    Rules(Arc<dyn Rules>),
    /// In what a store does: makes a broken one of a good one.
    Store(fn(Arc<dyn Driver>) -> Arc<dyn Driver>),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rules(_) => "rules",
            Self::Store(_) => "store",
        })
    }
}

/// All mutants, in the order in which they are listed.
#[must_use]
pub fn all() -> Vec<Mutant> {
    let rules = rules::ALL.into_iter().map(|(name, breaks, rules)| Mutant {
        name,
        breaks,
        level: Level::Rules(Arc::new(rules)),
    });
    let stores = store::ALL.into_iter().map(|(name, breaks, how)| Mutant {
        name,
        breaks,
        level: Level::Store(how),
    });
    rules.chain(stores).collect()
}
