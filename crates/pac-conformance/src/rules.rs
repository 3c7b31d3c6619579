//! The protocol as the checks see it: what they hold to its word is production's, or a mutant's.

use std::fmt;

use pac_core::protocol::{self, Changes, Command, Issuer, Outcome};
use pac_core::state::RepositoryState;

/// What decides over a repository. Pure, as [`protocol::apply`] is.
pub trait Rules: fmt::Debug + Send + Sync + 'static {
    /// What comes of a command, and what has to be written to make it true.
    fn apply(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        command: &Command,
    ) -> (Outcome, Option<Changes>);
}

/// The protocol that ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Production;

impl Rules for Production {
    fn apply(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        command: &Command,
    ) -> (Outcome, Option<Changes>) {
        protocol::apply(state, issuer, command)
    }
}
