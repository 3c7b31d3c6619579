//! Recognises a command that an earlier attempt, whose answer was lost, has carried out already.

use super::command::{Admitted, Command, Ended, Outcome};
use crate::name::PipelineRunKey;
use crate::state::{Entry, RunOutcome};
use crate::value::SessionId;

/// The outcome to report for a command whose earlier attempt may have been committed although
/// its answer was lost. If the store is already as the command wanted it, that is success.
///
/// `uncertain` is the outcome that the earlier attempt would have had, `outcome` the result of
/// applying the command now, `entry` the command's run as it is now, and `session` the issuer's.
#[must_use]
pub fn recognise(
    command: &Command,
    uncertain: &Outcome,
    outcome: Outcome,
    entry: Option<&Entry>,
    session: SessionId,
) -> Outcome {
    let is_meant = |entry: &Entry| command.uid().is_none_or(|uid| entry.uid == *uid);
    let own = entry.is_some_and(|entry| entry.owner() == Some(session) && is_meant(entry));
    match (command, outcome) {
        (Command::Release { outcome: asked, .. }, outcome) => ended_as(*asked, uncertain, outcome),
        (Command::Cancel { .. }, outcome) => ended_as(RunOutcome::Cancelled, uncertain, outcome),
        (Command::Abandon { owner, .. }, outcome) => {
            // What was owned by a session that is over ended as such, unless the current one had it
            // again by then.
            let outcome = match *owner == session {
                true => outcome,
                false => ended_as(RunOutcome::LeaseLost, uncertain, outcome),
            };
            ended_as(RunOutcome::Cancelled, uncertain, outcome)
        }
        (Command::Requeue { .. }, Outcome::Admitted { created, .. }) if own => Outcome::Admitted {
            admitted: entry.map_or(Admitted::NotHeld, Admitted::of),
            created,
        },
        // Those that the earlier attempt has ended are not ended once more.
        (Command::CancelAll { .. }, Outcome::Swept { affected, promoted }) => {
            both(uncertain, affected, promoted)
        }
        (Command::RemoveRepository, Outcome::Removed(now)) if now.is_empty() => uncertain.clone(),
        (Command::Admit(_), Outcome::Admitted { admitted, created }) => Outcome::Admitted {
            admitted,
            created: created
                || (own && matches!(uncertain, Outcome::Admitted { created: true, .. })),
        },
        (_, outcome) => outcome,
    }
}

/// A run that has ended before in the way that was asked for was ended by the earlier attempt,
/// which started those that it was planned to start.
fn ended_as(asked: RunOutcome, uncertain: &Outcome, outcome: Outcome) -> Outcome {
    match (outcome, uncertain) {
        (
            Outcome::Ended {
                ended: Ended::Before(before),
                ..
            },
            Outcome::Ended {
                ended: Ended::Done,
                promoted,
            },
        ) if before == asked => Outcome::Ended {
            ended: Ended::Done,
            promoted: promoted.clone(),
        },
        (outcome, _) => outcome,
    }
}

/// Runs that either of two attempts at one sweep was to end.
fn both(
    uncertain: &Outcome,
    mut affected: Vec<PipelineRunKey>,
    mut promoted: Vec<PipelineRunKey>,
) -> Outcome {
    if let Outcome::Swept {
        affected: before,
        promoted: started,
    } = uncertain
    {
        let add = |known: &mut Vec<PipelineRunKey>, more: &[PipelineRunKey]| {
            let new = more.iter().filter(|run| !known.contains(run));
            let new: Vec<_> = new.cloned().collect();
            known.splice(0..0, new);
        };
        add(&mut affected, before);
        add(&mut promoted, started);
    }
    Outcome::Swept { affected, promoted }
}
