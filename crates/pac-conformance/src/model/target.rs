//! What a command that names less than it ends is about to end.

use pac_core::protocol::{Command, Ended, Outcome};
use pac_core::state::RepositoryState;
use pac_core::{FencingToken, Uid};

/// What a command that names less than it ends has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Run(Uid),
    Slot(FencingToken),
}

impl Target {
    /// What a command is about to end, by what is known when it is planned.
    pub(super) fn of(command: &Command, outcome: &Outcome, base: &RepositoryState) -> Option<Self> {
        let entry = base.entry(command.run()?).filter(|_| is_done(outcome))?;
        match command {
            Command::Cancel { uid: None, .. } if !entry.is_finished() => {
                Some(Self::Run(entry.uid.clone()))
            }
            Command::Release { token: None, .. } if entry.is_started() => {
                entry.token().map(Self::Slot)
            }
            _ => None,
        }
    }
}

/// Whether a run was ended.
pub(super) fn is_done(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Ended {
            ended: Ended::Done,
            ..
        }
    )
}
