//! A question on its way, and what the monitor knows of it.

use std::sync::Arc;

use pac_core::manager::machine::{Reply, RequestId};
use pac_core::protocol::{Command, Ended, Outcome};
use pac_core::state::{Entry, RepositoryState};
use pac_core::{FencingToken, Revision, SessionId, Uid};

use super::port::{Asker, ModelPort};
use super::store::{Parcel, Sent};

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
    /// For the monitor: the answer to a commit of it was lost.
    pub(super) lost: bool,
    /// For the monitor: what the commit whose answer was lost would have ended.
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

/// What a command that names less than it ends has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Run(Uid),
    Slot(FencingToken),
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
            lost: false,
            target: None,
            again: false,
        }
    }

    /// A commit of it was done. False when that was the second change that it made, or it was
    /// made to something else than planned.
    pub(super) fn land(&mut self, parcel: &Parcel, sent: &Sent) -> bool {
        let changes = is_a_change(&sent.command, &sent.outcome);
        let known = self.landed.as_ref();
        let twice = changes && known.is_some_and(|known| is_a_change(&self.command, known));
        let target = Target::of(parcel, sent);
        let other = changes && self.target.is_some() && self.target != target;
        if !twice && (changes || known.is_none()) {
            self.landed = Some(sent.outcome.clone());
        }
        !(twice || other)
    }

    /// The answer to a commit of it was lost.
    pub(super) fn lose(&mut self, parcel: &Parcel, sent: &Sent) {
        self.lost = true;
        if self.target.is_none() && is_a_change(&sent.command, &sent.outcome) {
            self.target = Target::of(parcel, sent);
        }
    }

    /// Whether an answer may be given, if what was asked for has happened in this way or not at
    /// all.
    pub(super) fn may_hear(
        &self,
        told: &Outcome,
        entry: Option<&Entry>,
        session: SessionId,
    ) -> bool {
        let has_place = |outcome: &Outcome| matches!(outcome, Outcome::Admitted { admitted, .. } if admitted.has_a_place());
        let created =
            |outcome: &Outcome| matches!(outcome, Outcome::Admitted { created: true, .. });
        match &self.landed {
            Some(landed) => {
                let own = entry.is_some_and(|entry| entry.owner() == Some(session));
                (!is_done(landed) || is_done(told))
                    && (!has_place(landed) || !own || has_place(told))
                    && (!is_accepted(landed)
                        || is_accepted(told)
                        || self.limit_was_replaced(told))
                    && (!removes(landed) || removes(told))
            }
            None => self.lost || !(is_done(told) || created(told)),
        }
    }

    fn limit_was_replaced(&self, told: &Outcome) -> bool {
        match (&self.command, told) {
            (Command::SetLimit { limit: asked, .. }, Outcome::LimitSet { limit, .. }) => {
                asked != limit
            }
            _ => false,
        }
    }
}

impl Target {
    fn of(parcel: &Parcel, sent: &Sent) -> Option<Self> {
        let run = sent.command.run()?;
        let mut written = parcel.changes.entries.iter();
        let entry = written.find(|entry| entry.run == *run)?;
        match sent.command {
            Command::Cancel { uid: None, .. } => Some(Self::Run(entry.uid.clone())),
            Command::Release { token: None, .. } => entry.token().map(Self::Slot),
            _ => None,
        }
    }
}

/// Whether a command that may be carried out once only was.
fn is_a_change(command: &Command, outcome: &Outcome) -> bool {
    match command {
        Command::Cancel { .. }
        | Command::Release { .. }
        | Command::SetLimit { .. }
        | Command::RemoveRepository => {
            is_done(outcome) || is_accepted(outcome) || removes(outcome)
        }
        _ => false,
    }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Ended {
            ended: Ended::Done,
            ..
        }
    )
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
        Command::Requeue { run, token } | Command::Disown { run, token, .. } => {
            let entry = cache.entry(run);
            entry.is_none_or(|entry| !entry.is_started() || entry.token() != Some(*token))
        }
        _ => false,
    }
}
