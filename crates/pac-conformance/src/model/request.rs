//! A command on its way, and what the monitor knows of it.

use std::sync::Arc;

use pac_core::protocol::{Command, Ended, Outcome, RunRequest};
use pac_core::state::Entry;
use pac_core::{Revision, SessionId};

use super::book::Book;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) command: Command,
    /// Somebody wants to know what comes of it.
    pub(super) reply: bool,
    /// The state was read after it was put in.
    pub(super) covered: bool,
    pub(super) uncertain: Option<Outcome>,
    /// For the monitor: what is cached is older than the question. 0 when it is not.
    pub(super) asked_at: Revision,
    /// For the monitor: a commit of it was done, and came to this.
    pub(super) landed: Option<Outcome>,
    /// Was planned before; only one variant cares.
    pub(super) again: bool,
}

impl Request {
    pub(super) fn of(command: Command) -> Self {
        Self {
            command,
            reply: false,
            covered: false,
            uncertain: None,
            asked_at: Revision::default(),
            landed: None,
            again: false,
        }
    }

    pub(super) fn asks_for(&self, run: &RunRequest) -> bool {
        match &self.command {
            Command::Admit(request) | Command::Adopt(request) => {
                request.run == run.run && request.uid == run.uid
            }
            Command::Requeue { run: name, .. } => *name == run.run,
            _ => false,
        }
    }

    /// Whether a command asks for what is so already, and so has nothing to write.
    pub(super) fn is_done_already(&self, cache: &Book, session: SessionId) -> bool {
        let command = &self.command;
        let is_meant = |entry: &&Arc<Entry>| command.uid().is_none_or(|uid| entry.uid == *uid);
        let known = |run| cache.entry(run).filter(is_meant);
        match command {
            Command::Admit(request) => known(&request.run).is_some_and(|entry| {
                entry.owner() == Some(session) && entry.priority == request.priority
            }),
            Command::Release { run, token, .. } => known(run).is_none_or(|entry| {
                !entry.is_started() || token.is_some_and(|token| entry.token() != Some(token))
            }),
            Command::Cancel { run, .. } | Command::Abandon { run, .. } => {
                known(run).is_none_or(|entry| entry.is_finished())
            }
            Command::Requeue { run, token } => {
                let entry = cache.entry(run);
                entry.is_none_or(|entry| !entry.is_started() || entry.token() != Some(*token))
            }
            _ => false,
        }
    }

    /// Whether an answer may be given, if what was asked for has happened in this way or not at all.
    pub(super) fn may_hear(
        &self,
        told: &Outcome,
        entry: Option<&Entry>,
        session: SessionId,
    ) -> bool {
        let done = |outcome: &Outcome| {
            matches!(
                outcome,
                Outcome::Ended {
                    ended: Ended::Done,
                    ..
                }
            )
        };
        let accepted =
            |outcome: &Outcome| matches!(outcome, Outcome::LimitSet { accepted: true, .. });
        let has_place = |outcome: &Outcome| matches!(outcome, Outcome::Admitted { admitted, .. } if admitted.has_a_place());
        let created =
            |outcome: &Outcome| matches!(outcome, Outcome::Admitted { created: true, .. });
        match &self.landed {
            Some(landed) => {
                let own = entry.is_some_and(|entry| entry.owner() == Some(session));
                (!done(landed) || done(told))
                    && (!has_place(landed) || !own || has_place(told))
                    && (!accepted(landed)
                        || accepted(told)
                        || self.command_limit_was_replaced(told))
            }
            None => self.uncertain.is_some() || !(done(told) || created(told)),
        }
    }

    fn command_limit_was_replaced(&self, told: &Outcome) -> bool {
        match (&self.command, told) {
            (Command::SetLimit { limit: asked, .. }, Outcome::LimitSet { limit, .. }) => {
                asked != limit
            }
            _ => false,
        }
    }
}
