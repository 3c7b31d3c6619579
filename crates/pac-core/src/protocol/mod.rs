//! The protocol: which runs get a slot, in which order, and what every command changes. Pure: no
//! I/O, no clock, no randomness. Drivers store what the protocol decides and decide nothing
//! themselves.

mod apply;
mod command;
mod overlay;
mod plan;
mod recognise;
#[cfg(test)]
mod tests;

pub use command::{Admitted, Command, Death, Ended, Outcome, Replaces, RunRequest};
pub use plan::{Changes, Issuer, Plan};
pub use recognise::recognise;

use crate::state::RepositoryState;

/// Applies one command to a state. Returns the outcome, and the changes that a driver must
/// commit to make that outcome true (`None` when the command changes nothing). `state` is not
/// modified.
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
