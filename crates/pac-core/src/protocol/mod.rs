//! The protocol: who gets a slot, in which order, and what every command does to that. Pure: no
//! I/O, no clock, no randomness. Drivers make what it decides durable, and decide nothing.

mod apply;
mod command;
mod overlay;
mod plan;
mod recognise;
#[cfg(test)]
mod tests;

pub use command::{Admitted, Command, Death, Ended, Outcome, RunRequest};
pub use plan::{Changes, Issuer, Plan};
pub use recognise::recognise;

use crate::state::RepositoryState;

/// Applies one command to a state: what comes of it, and what has to be written to make it
/// true (`None`: nothing). The state stays as it is.
#[must_use]
pub fn apply(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let mut plan = Plan::new(state, issuer, usize::MAX);
    let outcome = plan.apply(command);
    (outcome, plan.finish())
}
