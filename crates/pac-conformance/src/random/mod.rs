//! Random commands, judged by a reference model and by the protocol's invariants. A failing
//! sequence is shortened.

mod allowed;
mod asked;
mod book;
mod check;
mod cluster;
mod deeds;
mod edge;
mod invariants;
mod manager;
mod moves;
mod process;
mod rules;
mod search;
mod steps;

pub use check::Check;
#[cfg(feature = "mutants")]
pub(crate) use manager::survey as survey_managers;
pub use manager::{OpenStore, manager};
pub use rules::rules;
#[cfg(feature = "mutants")]
pub(crate) use rules::survey;
pub use search::{Failure, Search};
