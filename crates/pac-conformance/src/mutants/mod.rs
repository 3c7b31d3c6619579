//! Deliberately broken variants of the project's parts. A check that catches none of them proves
//! nothing. Every mutant must be caught, and the production code by no check.
//!
//! The shipped crates contain none of this: a mutant of the rules wraps
//! [`protocol::apply`](pac_core::protocol::apply), a mutant of the store wraps a driver.

mod catchers;
mod edit;
mod forgotten;
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
    /// Its name.
    pub name: &'static str,
    /// The defect, in a sentence.
    pub breaks: &'static str,
    /// The part that has the defect.
    pub level: Level,
}

/// The part that a mutant breaks. To add a level, add a variant here, a table like the others in
/// [`all`], and an arm in [`catchers`] that runs its checks. The broken commit loops belong to
/// the model check, since only that can run them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Level {
    /// The rules that decide over a repository.
    Rules(Arc<dyn Rules>),
    /// The store: makes a broken one from a good one.
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

/// All mutants, in the order of the tables.
#[must_use]
pub fn all() -> Vec<Mutant> {
    let rules = rules::all().map(|(name, breaks, rules)| Mutant {
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
