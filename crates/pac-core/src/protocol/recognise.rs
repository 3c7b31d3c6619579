//! One's own work, found again after its answer was lost.

use super::command::{Admitted, Command, Ended, Outcome};
use crate::state::{Entry, RunOutcome};
use crate::value::SessionId;

/// What the outcome of a command is when an earlier attempt, whose answer was lost, may have
/// carried it out: finding done what one asked for is success.
///
/// `uncertain` is what that attempt would have come to, `outcome` what the command comes to now,
/// and `entry` its run as it is now; `session` is the issuer's.
#[must_use]
pub fn recognise(
    command: &Command,
    uncertain: &Outcome,
    outcome: Outcome,
    entry: Option<&Entry>,
    session: SessionId,
) -> Outcome {
    let own = entry.is_some_and(|entry| entry.owner() == Some(session));
    match (command, outcome) {
        (Command::Release { outcome: asked, .. }, outcome) => {
            ended_as(*asked, uncertain, outcome)
        }
        (Command::Cancel { .. } | Command::Abandon { .. }, outcome) => {
            ended_as(RunOutcome::Cancelled, uncertain, outcome)
        }
        (Command::Requeue { .. }, Outcome::Admitted { created, .. }) if own => Outcome::Admitted {
            admitted: entry.map_or(Admitted::NotHeld, Admitted::of),
            created,
        },
        (
            Command::SetLimit { limit: asked, .. },
            Outcome::LimitSet {
                limit,
                accepted: false,
                ..
            },
        ) if *asked == limit => uncertain.clone(),
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
