//! Random commands, judged by a reference model and by the invariants themselves, and made short
//! when something is found.

mod book;
mod check;
mod edge;
mod invariants;
mod rules;
mod search;
mod steps;

pub use check::Check;
pub use rules::rules;
#[cfg(feature = "mutants")]
pub(crate) use rules::survey;
pub use search::{Failure, Search};
