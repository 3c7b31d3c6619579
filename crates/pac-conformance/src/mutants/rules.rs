//! Variants of the protocol, each broken in one way.

mod turns;
mod wishes;

use std::sync::Arc;

use pac_core::PipelineRunKey;
use pac_core::protocol::{Admitted, Changes, Command, Issuer, Outcome, apply};
use pac_core::state::{Entry, Head, Moment, Policy, RepositoryState, Snapshot};

use super::edit::Edit;
use crate::Rules;

/// One broken variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokenRules(fn(&Asked<'_>) -> Answered);

/// A command, and the state that it is applied to.
struct Asked<'a> {
    state: &'a RepositoryState,
    issuer: Issuer,
    command: &'a Command,
}

type Answered = (Outcome, Option<Changes>);

impl Rules for BrokenRules {
    fn apply(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        command: &Command,
    ) -> (Outcome, Option<Changes>) {
        self.0(&Asked {
            state,
            issuer,
            command,
        })
    }
}

/// All variants: name, defect and rules.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str, BrokenRules)> {
    turns::ALL.into_iter().chain(wishes::ALL)
}

impl<'a> Asked<'a> {
    fn to(&self, command: &'a Command) -> Self {
        Self { command, ..*self }
    }

    fn honest(&self) -> Answered {
        apply(self.state, self.issuer, self.command)
    }

    fn honest_to(&self, command: &Command) -> Answered {
        apply(self.state, self.issuer, command)
    }

    /// The production answer over a repository with another policy, which is put back afterwards.
    fn with_policy(
        &self,
        change: impl FnOnce(&mut Policy),
        back: impl FnOnce(&mut Policy),
    ) -> Answered {
        let mut head = self.state.head().clone();
        change(policy(&mut head));
        let snapshot = Snapshot {
            since: None,
            exists: self.state.exists(),
            head,
            entries: self.state.entries().cloned().collect(),
        };
        let state = RepositoryState::from_snapshot(&snapshot).unwrap();
        let (outcome, mut changes) = apply(&state, self.issuer, self.command);
        if let Some(changes) = &mut changes {
            back(policy(&mut changes.head));
        }
        (outcome, changes)
    }

    /// The production answer with edited changes, and an outcome adjusted to them.
    fn edited(&self, change: impl FnOnce(&mut Edit<'_>)) -> Answered {
        let (mut outcome, changes) = self.honest();
        if changes.as_ref().is_none_or(|changes| changes.remove) {
            return (outcome, changes);
        }
        let mut edit = Edit::of(self.state, changes);
        change(&mut edit);
        if let Outcome::Ended { promoted, .. }
        | Outcome::LimitSet { promoted, .. }
        | Outcome::Moved { promoted, .. }
        | Outcome::Paused { promoted, .. }
        | Outcome::Swept { promoted, .. } = &mut outcome
        {
            *promoted = edit.promoted();
        }
        match self.command.run() {
            Some(run) => stands(run, edit, outcome),
            None => (outcome, edit.finish()),
        }
    }
}

/// Moves a waiting run to the end of the queue.
fn to_the_back(run: &PipelineRunKey, mut edit: Edit<'_>, outcome: Outcome) -> Answered {
    if let Some(entry) = edit.entry(run).filter(|entry| entry.is_queued()) {
        let entry = Entry::clone(entry);
        edit.head.last_ticket = edit.head.last_ticket.next();
        edit.put(Entry {
            ticket: edit.head.last_ticket,
            started: Moment::NEVER,
            ..entry
        });
    }
    stands(run, edit, outcome)
}

/// Finishes the edit, with an outcome that describes the run as edited.
fn stands(run: &PipelineRunKey, edit: Edit<'_>, outcome: Outcome) -> Answered {
    let outcome = match (outcome, edit.entry(run)) {
        (Outcome::Admitted { admitted, created }, Some(entry)) if admitted.has_a_place() => {
            let admitted = Admitted::of(entry);
            Outcome::Admitted { admitted, created }
        }
        (outcome, _) => outcome,
    };
    (outcome, edit.finish())
}

fn policy(head: &mut Head) -> &mut Policy {
    Arc::make_mut(head.policy.get_or_insert_default())
}
