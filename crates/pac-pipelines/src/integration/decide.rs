//! What is to be done about one run, given what the cluster shows and what the store knows.

use std::collections::HashMap;

use pac_core::manager::{RepositoryStatus, RunStatus};
use pac_core::state::{Moment, RunOutcome};
use pac_core::{PipelineRunKey, SessionId, Uid};

use super::phase::Phase;

/// What the store knows of a run's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Known {
    /// Nothing (any more), or that it was only given up, so that it may ask again.
    Unknown,
    /// It waits.
    Queued {
        /// Which run of that name.
        uid: Uid,
        /// The controller that its grant goes to.
        holder: Holder,
    },
    /// It holds a slot.
    Started {
        /// Which run of that name.
        uid: Uid,
        /// The controller that holds it.
        holder: Holder,
        /// It was asked to end.
        asked: bool,
    },
    /// It has ended.
    Finished {
        /// Which run of that name.
        uid: Uid,
        /// How.
        outcome: RunOutcome,
    },
}

/// The controller that looks after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This one.
    Us,
    /// Another one, as far as the store knows a live one.
    Other,
    /// None: the one that did has died.
    Nobody,
}

impl Known {
    /// From the store's answer to a controller with this session.
    #[must_use]
    pub fn of(status: &RunStatus, session: SessionId) -> Self {
        let holder = |other: SessionId| {
            if other == session {
                Holder::Us
            } else {
                Holder::Other
            }
        };
        match status {
            RunStatus::Queued(run) => Self::Queued {
                uid: run.uid.clone(),
                holder: run.owner.map_or(Holder::Nobody, holder),
            },
            RunStatus::Started(run) => Self::Started {
                uid: run.uid.clone(),
                holder: if run.orphaned {
                    Holder::Nobody
                } else {
                    holder(run.session)
                },
                asked: run.terms().asked != Moment::NEVER,
            },
            RunStatus::Finished(run) if !run.abandoned => Self::Finished {
                uid: run.uid.clone(),
                outcome: run.outcome,
            },
            _ => Self::Unknown,
        }
    }

    /// What the store knows of each run of a Repository.
    pub(crate) fn all(
        status: &RepositoryStatus,
        session: SessionId,
    ) -> HashMap<PipelineRunKey, Self> {
        let started = status.running.iter().cloned().map(|run| {
            let key = run.run.clone();
            (key, RunStatus::Started(run))
        });
        let queued = status.queued.iter().cloned().map(|run| {
            let key = run.run.clone();
            (key, RunStatus::Queued(run))
        });
        let finished = status.finished.iter().cloned().map(|run| {
            let key = run.run.clone();
            (key, RunStatus::Finished(run))
        });
        let all = started.chain(queued).chain(finished);
        all.map(|(key, status)| (key, Self::of(&status, session)))
            .collect()
    }

    /// Which run of the name it is.
    #[must_use]
    pub fn uid(&self) -> Option<&Uid> {
        match self {
            Self::Unknown => None,
            Self::Queued { uid, .. } | Self::Started { uid, .. } | Self::Finished { uid, .. } => {
                Some(uid)
            }
        }
    }

    /// Whether it waits or holds a slot.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Queued { .. } | Self::Started { .. })
    }
}

/// What is to be done about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Admit it together with the other new runs of its event.
    AdmitNew,
    /// Ask for the slot or the place that it has, or had, and start it if that is a slot. If the
    /// store answers that it has ended, it was ended in the store alone: end it in the cluster.
    Admit,
    /// Its slot was given up because no controller looked after it, but it never started: record
    /// it, and queue it in its old place.
    Readmit,
    /// It runs: record it, also beyond the limit. If the store answers that it has ended, it was
    /// ended in the store alone: end it in the cluster.
    Adopt,
    /// It runs, and was asked in the store to end: ask the cluster to end it. It keeps its slot until
    /// it has.
    AskToEnd,
    /// It was granted a slot and asked to end before it started: ask the cluster to end it at once,
    /// so that no `finally` tasks run; then free the slot.
    EndBeforeStart,
    /// It holds a slot and has ended: free the slot.
    Release(RunOutcome),
    /// It ran to its end while the store had it waiting: record both.
    AdoptAndRelease(RunOutcome),
    /// It will never start: take it out of the queue, and out of its slot.
    Leave,
    /// Another controller decides about it: take it out of the queue, and out of its slot, so that
    /// it may ask again.
    GiveUp,
    /// It never started and would still run its `finally` tasks: ask the cluster to end it at
    /// once; then as [`Leave`](Self::Leave).
    EndAtOnce,
    /// The store has another run of this name: find out which one there is.
    Verify,
}

/// Decides about a run that is in the cluster. `marked` says whether something on the run says
/// that it was put into a queue; it matters for [`Phase::Ending`] alone.
#[must_use]
pub fn decide(uid: &Uid, phase: Phase, marked: bool, known: &Known) -> Step {
    let lost = |outcome| outcome == RunOutcome::LeaseLost;
    if known.uid().is_some_and(|other| other != uid) {
        return match (phase, known) {
            // The end of a run that the store has replaced already, or has never heard of.
            (Phase::LeftAlone | Phase::HeldByUser, _)
            | (Phase::Done(_), Known::Finished { .. }) => Step::Nothing,
            _ => Step::Verify,
        };
    }
    // What the store has was held back for us: a limit that is gone since changes nothing.
    let phase = match phase {
        Phase::HeldByUser if known.is_live() => Phase::Held,
        phase => phase,
    };
    match (phase, known) {
        (Phase::Held, Known::Unknown) => Step::AdmitNew,
        (Phase::Held, Known::Queued { holder, .. }) => match holder {
            Holder::Us | Holder::Other => Step::Nothing,
            Holder::Nobody => Step::Admit,
        },
        (Phase::Held, Known::Started { holder, asked, .. }) => match holder {
            Holder::Us | Holder::Nobody if *asked => Step::EndBeforeStart,
            Holder::Us | Holder::Nobody => Step::Admit,
            Holder::Other => Step::Nothing,
        },
        (Phase::Held, Known::Finished { outcome, .. }) if lost(*outcome) => Step::Readmit,
        // Taken back by a controller that had asked for it, or ended for good: the store knows.
        (Phase::Held, Known::Finished { .. }) => Step::Admit,
        (Phase::Running, Known::Unknown | Known::Queued { .. }) => Step::Adopt,
        (Phase::Running, Known::Started { holder, asked, .. }) => match holder {
            Holder::Us if *asked => Step::AskToEnd,
            Holder::Us | Holder::Other => Step::Nothing,
            Holder::Nobody => Step::Adopt,
        },
        (Phase::Running, Known::Finished { outcome, .. }) => match outcome {
            RunOutcome::LeaseLost
            | RunOutcome::Cancelled
            | RunOutcome::Superseded
            | RunOutcome::TimedOut => Step::Adopt,
            // Released by the controller that saw its end, or refused and run by its user.
            RunOutcome::Completed | RunOutcome::Failed | RunOutcome::QueueFull => Step::Nothing,
        },
        (Phase::Done(outcome), Known::Started { .. }) => Step::Release(outcome),
        (Phase::Done(RunOutcome::Cancelled), Known::Queued { .. }) => Step::Leave,
        (Phase::Done(outcome), Known::Queued { .. }) => Step::AdoptAndRelease(outcome),
        (Phase::Done(_), _) => Step::Nothing,
        (Phase::Ending { graceful: true }, known) if marked || *known != Known::Unknown => {
            Step::EndAtOnce
        }
        (Phase::Ending { .. }, known) if known.is_live() => Step::Leave,
        // It must not block the queue.
        (Phase::LeftAlone, Known::Queued { .. } | Known::Started { .. }) => Step::GiveUp,
        (Phase::Ending { .. } | Phase::LeftAlone | Phase::HeldByUser, _) => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        text.parse().unwrap()
    }

    fn queued(holder: Holder) -> Known {
        Known::Queued {
            uid: uid("u"),
            holder,
        }
    }

    fn started(holder: Holder) -> Known {
        Known::Started {
            uid: uid("u"),
            holder,
            asked: false,
        }
    }

    fn asked(holder: Holder) -> Known {
        Known::Started {
            uid: uid("u"),
            holder,
            asked: true,
        }
    }

    fn finished(outcome: RunOutcome) -> Known {
        Known::Finished {
            uid: uid("u"),
            outcome,
        }
    }

    /// (49) to (51), (53) and (56) as a table: what the cluster shows, what the store knows.
    #[test]
    fn the_store_is_brought_to_what_the_cluster_shows() {
        use Holder::{Nobody, Other, Us};
        use RunOutcome::{Cancelled, Completed, Failed, LeaseLost, Superseded, TimedOut};
        let graceful = Phase::Ending { graceful: true };
        let at_once = Phase::Ending { graceful: false };
        for (phase, known, step) in [
            (Phase::Held, Known::Unknown, Step::AdmitNew),
            (Phase::Held, queued(Us), Step::Nothing),
            (Phase::Held, queued(Other), Step::Nothing),
            (Phase::Held, queued(Nobody), Step::Admit),
            (Phase::Held, started(Us), Step::Admit),
            (Phase::Held, started(Other), Step::Nothing),
            (Phase::Held, started(Nobody), Step::Admit),
            (Phase::Held, finished(LeaseLost), Step::Readmit),
            (Phase::Held, finished(Cancelled), Step::Admit),
            (Phase::Held, finished(Completed), Step::Admit),
            (Phase::Held, finished(Superseded), Step::Admit),
            (Phase::Held, finished(TimedOut), Step::Admit),
            (Phase::Held, asked(Us), Step::EndBeforeStart),
            (Phase::Held, asked(Nobody), Step::EndBeforeStart),
            (Phase::Held, asked(Other), Step::Nothing),
            (Phase::Running, asked(Us), Step::AskToEnd),
            (Phase::Running, asked(Other), Step::Nothing),
            (Phase::Running, asked(Nobody), Step::Adopt),
            (Phase::Running, finished(Superseded), Step::Adopt),
            (Phase::Running, finished(TimedOut), Step::Adopt),
            (graceful, asked(Us), Step::EndAtOnce),
            (Phase::Done(Cancelled), asked(Us), Step::Release(Cancelled)),
            (Phase::Running, Known::Unknown, Step::Adopt),
            (Phase::Running, queued(Us), Step::Adopt),
            (Phase::Running, started(Us), Step::Nothing),
            (Phase::Running, started(Other), Step::Nothing),
            (Phase::Running, started(Nobody), Step::Adopt),
            (Phase::Running, finished(LeaseLost), Step::Adopt),
            (Phase::Running, finished(Completed), Step::Nothing),
            (Phase::Done(Failed), started(Other), Step::Release(Failed)),
            (
                Phase::Done(Failed),
                queued(Us),
                Step::AdoptAndRelease(Failed),
            ),
            (Phase::Done(Cancelled), queued(Us), Step::Leave),
            (Phase::Done(Completed), Known::Unknown, Step::Nothing),
            (Phase::Done(Completed), finished(LeaseLost), Step::Nothing),
            (graceful, queued(Us), Step::EndAtOnce),
            (graceful, started(Us), Step::EndAtOnce),
            (graceful, Known::Unknown, Step::Nothing),
            (at_once, queued(Other), Step::Leave),
            (at_once, Known::Unknown, Step::Nothing),
            (Phase::LeftAlone, Known::Unknown, Step::Nothing),
            (Phase::LeftAlone, queued(Us), Step::GiveUp),
            (Phase::HeldByUser, Known::Unknown, Step::Nothing),
            (Phase::HeldByUser, finished(Cancelled), Step::Nothing),
            (Phase::HeldByUser, started(Us), Step::Admit),
            (Phase::HeldByUser, queued(Nobody), Step::Admit),
        ] {
            assert_eq!(
                decide(&uid("u"), phase, false, &known),
                step,
                "{phase:?}, {known:?}"
            );
        }
        assert_eq!(
            decide(&uid("u"), graceful, true, &Known::Unknown),
            Step::EndAtOnce
        );
    }

    #[test]
    fn a_name_that_two_runs_bear_is_looked_into() {
        for phase in [Phase::Held, Phase::Running, Phase::Done(RunOutcome::Failed)] {
            let step = decide(&uid("other"), phase, true, &started(Holder::Us));
            assert_eq!(step, Step::Verify, "{phase:?}");
        }
        let ended = finished(RunOutcome::Completed);
        let done = Phase::Done(RunOutcome::Failed);
        assert_eq!(decide(&uid("other"), done, true, &ended), Step::Nothing);
    }
}
