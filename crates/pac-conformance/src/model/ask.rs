//! A question on its way, and what the monitor knows of it.

use std::sync::Arc;

use pac_core::manager::machine::{Reply, RequestId};
use pac_core::protocol::{Command, Outcome};
use pac_core::state::{Entry, RepositoryState};
use pac_core::{Revision, SessionId};

use super::book::Book;
use super::port::{Asker, ModelPort};
use super::store::Sent;
use super::target::{Target, is_done};

#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) asker: Asker,
    /// No part of the state: the request is the one with this asker.
    pub(super) request: RequestId,
    pub(super) command: Command,
    pub(super) reader: Reader,
    /// For the monitor: what is cached is older than the question. 0 when it is not.
    pub(super) asked_at: Revision,
    /// For the monitor: a commit of it was done, and came to this.
    pub(super) landed: Option<Outcome>,
    /// For the monitor: it has changed what it may change once only.
    pub(super) changed: bool,
    /// For the monitor: the answer to a commit of it was lost.
    pub(super) lost: bool,
    /// For the monitor: what the first commit whose answer was lost would have ended.
    pub(super) target: Option<Target>,
    /// Was planned before; only one variant cares.
    pub(super) again: bool,
}

/// Whether the answer is awaited.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    Listens,
    /// The asker has gone, and is about to say so.
    Stopped,
    /// The answer came meanwhile, and nobody has read it.
    Unheard(Arc<Reply<ModelPort>>),
}

impl Ask {
    pub(super) fn new(asker: Asker, command: Command, asked_at: Revision) -> Self {
        Self {
            asker,
            request: RequestId::default(),
            command,
            reader: Reader::Listens,
            asked_at,
            landed: None,
            changed: false,
            lost: false,
            target: None,
            again: false,
        }
    }

    /// A commit of it was done, which brought the repository from `before` to `after`. False when
    /// that was the second change that it made, or it was made to something else than planned.
    pub(super) fn land(&mut self, sent: &Sent, before: &Book, after: &Book) -> bool {
        let changes = is_a_change(sent, before, after);
        let other = self.target.is_some() && self.target != sent.target;
        let right = !changes || !(self.changed || other);
        self.changed |= changes;
        self.landed.get_or_insert_with(|| sent.outcome.clone());
        if changes {
            self.landed = Some(sent.outcome.clone());
        }
        right
    }

    /// The answer to a commit of it was lost.
    pub(super) fn lose(&mut self, sent: &Sent) {
        self.lost = true;
        if self.target.is_none() {
            self.target.clone_from(&sent.target);
        }
    }

    /// Whether an answer may be given, if what was asked for has happened in this way or not at
    /// all. An asker may inherit what was created for another one that has gone.
    pub(super) fn may_hear(
        &self,
        told: &Outcome,
        entry: Option<&Entry>,
        session: SessionId,
        may_inherit: bool,
    ) -> bool {
        let has_place = |outcome: &Outcome| matches!(outcome, Outcome::Admitted { admitted, .. } if admitted.has_a_place());
        let created =
            |outcome: &Outcome| matches!(outcome, Outcome::Admitted { created: true, .. });
        match &self.landed {
            Some(landed) => {
                let own = entry.is_some_and(|entry| entry.owner() == Some(session));
                (!is_done(landed) || is_done(told))
                    && (!has_place(landed) || !own || has_place(told))
                    && (!is_accepted(landed) || is_accepted(told) || self.limit_was_replaced(told))
                    && (!removes(landed) || removes(told))
            }
            None => self.lost || !(is_done(told) || (created(told) && !may_inherit)),
        }
    }

    fn limit_was_replaced(&self, told: &Outcome) -> bool {
        match (&self.command, told) {
            (Command::SetLimit { rules, .. }, Outcome::LimitSet { limit, .. }) => {
                rules.limit != Some(*limit)
            }
            _ => false,
        }
    }
}

/// Whether a command that may be carried out once only was, by a commit.
fn is_a_change(sent: &Sent, before: &Book, after: &Book) -> bool {
    match &sent.command {
        Command::Cancel { run, .. } | Command::Release { run, .. } => {
            let (Some(before), Some(after)) = (before.entry(run), after.entry(run)) else {
                return false;
            };
            let meant = sent.command.uid().is_none_or(|uid| before.uid == *uid);
            let meant = meant && is_done(&sent.outcome);
            let ended = !before.is_finished() && after.is_finished();
            meant && ended && before.ticket == after.ticket
        }
        Command::SetLimit { .. } => before.head().limit != after.head().limit,
        Command::RemoveRepository => before.state().exists() && !after.state().exists(),
        _ => false,
    }
}

fn is_accepted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::LimitSet { accepted: true, .. })
}

fn removes(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Removed(ended) if !ended.is_empty())
}

/// Whether a command asks for what is so already, and so has nothing to write.
pub(super) fn is_done_already(
    command: &Command,
    cache: &RepositoryState,
    session: SessionId,
) -> bool {
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
        Command::Requeue { run, token, .. } | Command::Disown { run, token, .. } => {
            let entry = cache.entry(run);
            entry.is_none_or(|entry| !entry.is_started() || entry.token() != Some(*token))
        }
        _ => false,
    }
}
