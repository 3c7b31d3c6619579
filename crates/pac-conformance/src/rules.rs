//! The rules under check: the protocol that ships, or a mutant of it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use pac_core::SessionId;
use pac_core::protocol::{self, Changes, Command, Issuer, Outcome, Plan};
use pac_core::state::{Entry, EntryState, RepositoryState, Snapshot};

/// Decides over a repository. Pure, as [`protocol::apply`] is.
pub trait Rules: fmt::Debug + Send + Sync + 'static {
    /// The outcome of a command, and the changes to commit to make it true.
    fn apply(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        command: &Command,
    ) -> (Outcome, Option<Changes>);

    /// Plans commands together, from the first on. Returns the outcomes of as many as it
    /// planned, and the changes to commit. Grants nothing to the sessions in `dead`. The default
    /// plans one command at a time.
    fn plan(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        dead: &[SessionId],
        commands: &[Command],
    ) -> (Vec<Outcome>, Option<Changes>) {
        let Some(first) = commands.first() else {
            return (Vec::new(), None);
        };
        let (outcome, changes) = self.apply(&disowned(state, dead, first), issuer, first);
        (vec![outcome], changes)
    }
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

    fn plan(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        dead: &[SessionId],
        commands: &[Command],
    ) -> (Vec<Outcome>, Option<Changes>) {
        let mut plan = Plan::new(state, issuer, usize::MAX).without(dead);
        let outcomes = commands.iter().map(|command| plan.apply(command)).collect();
        (outcomes, plan.finish())
    }
}

/// The state without the ownership of waiting runs by dead sessions, except by the session that
/// `command` expires.
fn disowned<'a>(
    state: &'a RepositoryState,
    dead: &[SessionId],
    command: &Command,
) -> Cow<'a, RepositoryState> {
    let expires =
        |dead: &SessionId| matches!(command, Command::Expire { session, .. } if session == dead);
    let is_dead = |owner: &SessionId| dead.contains(owner) && !expires(owner);
    let waits_for_dead =
        |entry: &Entry| entry.is_queued() && entry.owner().as_ref().is_some_and(is_dead);
    if !state.entries().any(|entry| waits_for_dead(entry)) {
        return Cow::Borrowed(state);
    }
    let disown = |entry: &Arc<Entry>| {
        let mut entry = Arc::clone(entry);
        if waits_for_dead(&entry) {
            Arc::make_mut(&mut entry).state = EntryState::Queued { owner: None };
        }
        entry
    };
    let snapshot = Snapshot {
        since: None,
        exists: state.exists(),
        head: state.head().clone(),
        entries: state.entries().map(disown).collect(),
    };
    Cow::Owned(RepositoryState::from_snapshot(&snapshot).unwrap())
}
