//! The protocol: which runs get a slot, in which order, and what every command changes. Pure: no
//! I/O, no clock, no randomness. Drivers store what the protocol decides and decide nothing
//! themselves.

mod admit;
mod apply;
mod cancel;
mod command;
mod overlay;
mod plan;
mod promote;
mod recognise;
mod request;
mod rules;
mod supersede;
#[cfg(test)]
mod tests;

pub use command::{
    Admitted, Bump, Cancellation, Claim, Command, Death, Ended, Outcome, PauseCondition, Which,
};
pub use plan::{Changes, Issuer, Plan};
pub use recognise::recognise;
pub use request::{Replaces, RunRequest, SkipIf, Supersedes};

/// How long a run that has held its slots for as long as it may, and was asked to end, keeps them
/// before they are given to others.
pub const HOLD_GRACE: Duration = Duration::from_secs(30);

use std::time::Duration;

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
