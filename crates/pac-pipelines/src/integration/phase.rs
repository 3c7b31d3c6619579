//! Where a run stands in the cluster, as far as its place in a queue goes.

use pac_core::state::RunOutcome;

use super::options::Mode;
use crate::model::{ConditionStatus, PacState, RunView, SpecStatus};
use crate::vocabulary;

/// Where a run stands in the cluster. A pure function of its [view](RunView).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It is held back for us: it wants a slot.
    Held,
    /// It runs, or is about to run: it has a slot, whether the store knows or not.
    Running,
    /// It never started, and will not: a cancel form ends it, or it is being deleted.
    Ending {
        /// The form of the cancel would still run its `finally` tasks.
        graceful: bool,
    },
    /// It has ended.
    Done(RunOutcome),
    /// It is held back, and nothing says for whom: by its user, unless the store knows it.
    HeldByUser,
    /// Another controller decides about it: left alone.
    LeftAlone,
}

impl Phase {
    /// The phase of a run whose Repository has a limit (`limited`) or has none, where no other
    /// software queues runs.
    #[must_use]
    pub fn of(run: &RunView, limited: bool) -> Self {
        Self::in_mode(run, limited, Mode::Alone)
    }

    /// The phase of a run for a controller in this mode. What differs is which runs that are held
    /// back are held for it, and which ones by their users and other software.
    #[must_use]
    pub fn in_mode(run: &RunView, limited: bool, mode: Mode) -> Self {
        if run.is_foreign() {
            return Self::LeftAlone;
        }
        if let Some(condition) = run.succeeded.as_ref().filter(|_| run.is_done()) {
            let cancelled =
                condition.reason == vocabulary::REASON_CANCELLED || run.spec_status.is_cancel();
            return Self::Done(match condition.status {
                ConditionStatus::True => RunOutcome::Completed,
                _ if cancelled => RunOutcome::Cancelled,
                _ => RunOutcome::Failed,
            });
        }
        if run.has_started() {
            return Self::Running;
        }
        match &run.spec_status {
            SpecStatus::None => Self::Running,
            // It was started with this token; that Tekton has not begun yet is a matter of time.
            status if status.is_cancel() && run.token().is_some() => Self::Running,
            status if status.is_cancel() => Self::Ending {
                graceful: status.is_graceful(),
            },
            SpecStatus::Pending if run.deleted.is_some() => Self::Ending { graceful: false },
            SpecStatus::Pending if is_held_for_us(run, limited, mode) => Self::Held,
            SpecStatus::Pending => Self::HeldByUser,
            _ => Self::LeftAlone,
        }
    }
}

/// Whether a run that is held back waits for us, and not for its user. Pipelines-as-Code holds
/// its own runs back where there is a limit; a mark of a queue says so in any case.
fn is_held_for_us(run: &RunView, limited: bool, mode: Mode) -> bool {
    let is_limited = run.is_of_pac() && limited;
    bears_marks(run, mode)
        || match mode {
            Mode::Alone | Mode::Observe => is_limited,
            Mode::Takeover => is_limited && !is_ordered_by_pac(run),
            Mode::Gate => false,
        }
}

/// Whether something on a run says that it was put into the queue of a controller in this mode.
pub(super) fn bears_marks(run: &RunView, mode: Mode) -> bool {
    let is_queued = run.state() == Some(PacState::Queued);
    match mode {
        Mode::Alone | Mode::Observe => run.is_held_for_us() || run.has_order() || is_queued,
        Mode::Takeover => {
            run.annotation(vocabulary::OUR_EXECUTION_ORDER).is_some()
                || (run.is_of_pac() && is_queued && !is_ordered_by_pac(run))
        }
        Mode::Gate => run.is_held_for_us(),
    }
}

/// Whether the queue of Pipelines-as-Code sees a run.
fn is_ordered_by_pac(run: &RunView) -> bool {
    run.annotation(vocabulary::EXECUTION_ORDER).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Condition;

    fn held() -> RunView {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        run.spec_status = SpecStatus::Pending;
        run.annotations
            .insert(vocabulary::STATE.to_owned(), "queued".to_owned());
        run
    }

    fn with(change: impl FnOnce(&mut RunView)) -> Phase {
        let mut run = held();
        change(&mut run);
        Phase::of(&run, true)
    }

    #[test]
    fn a_run_held_for_us_wants_a_slot() {
        assert_eq!(with(|_| {}), Phase::Held);
        assert_eq!(Phase::of(&held(), false), Phase::Held);
        let by_pac = |run: &mut RunView| {
            run.annotations.clear();
            let manager = vocabulary::PAC_MANAGER.to_owned();
            run.labels
                .insert(vocabulary::MANAGED_BY.to_owned(), manager);
        };
        assert_eq!(with(by_pac), Phase::Held);
    }

    #[test]
    fn runs_of_users_kueue_and_other_controllers_are_left_alone() {
        assert_eq!(with(|run| run.annotations.clear()), Phase::HeldByUser);
        let queue = |run: &mut RunView| {
            run.labels
                .insert(vocabulary::KUEUE_QUEUE.to_owned(), "q".to_owned());
        };
        assert_eq!(with(queue), Phase::LeftAlone);
        assert_eq!(
            with(|run| run.managed_by = Some("x/y".to_owned())),
            Phase::LeftAlone
        );
        let unknown = SpecStatus::Unknown("Paused".to_owned());
        assert_eq!(with(|run| run.spec_status = unknown), Phase::LeftAlone);
    }

    #[test]
    fn a_mode_leaves_the_runs_of_other_queues_alone() {
        let run = |marks: &[(&str, &str)], by_pac: bool| {
            let mut run = held();
            run.annotations.clear();
            for (name, value) in marks {
                run.annotations
                    .insert((*name).to_owned(), (*value).to_owned());
            }
            if by_pac {
                let manager = vocabulary::PAC_MANAGER.to_owned();
                run.labels
                    .insert(vocabulary::MANAGED_BY.to_owned(), manager);
            }
            run
        };
        let state = (vocabulary::STATE, "queued");
        let ours = (vocabulary::OUR_EXECUTION_ORDER, "ci/a");
        let pacs = (vocabulary::EXECUTION_ORDER, "ci/a");
        let gate = (vocabulary::HELD, "true");
        for (run, limited, takes_over, gates) in [
            (run(&[state, ours], true), true, true, false),
            (run(&[state, ours], true), false, true, false),
            (run(&[], true), true, true, false),
            (run(&[], true), false, false, false),
            (run(&[state], true), false, true, false),
            (run(&[state, pacs], true), true, false, false),
            (run(&[gate], false), true, false, true),
            (run(&[gate, state, pacs], true), true, false, true),
            (run(&[], false), true, false, false),
        ] {
            for (mode, is_ours) in [(Mode::Takeover, takes_over), (Mode::Gate, gates)] {
                let expected = if is_ours {
                    Phase::Held
                } else {
                    Phase::HeldByUser
                };
                let phase = Phase::in_mode(&run, limited, mode);
                assert_eq!(phase, expected, "{mode:?} {limited} {run:?}");
            }
        }
    }

    #[test]
    fn every_cancel_form_ends_a_run_that_never_started() {
        for (status, graceful) in [
            (SpecStatus::Cancelled, false),
            (SpecStatus::CancelledRunFinally, true),
            (SpecStatus::StoppedRunFinally, true),
        ] {
            let phase = with(|run| run.spec_status = status.clone());
            assert_eq!(phase, Phase::Ending { graceful });
            // One that we started, or that runs, keeps its slot until it has ended.
            let token = |run: &mut RunView| {
                run.spec_status = status.clone();
                run.annotations
                    .insert(vocabulary::TOKEN.to_owned(), "3".to_owned());
            };
            assert_eq!(with(token), Phase::Running);
            let runs = |run: &mut RunView| {
                run.spec_status = status;
                run.started = Some(pac_core::Timestamp::from_unix_millis(0));
            };
            assert_eq!(with(runs), Phase::Running);
        }
        let deleted = Some(pac_core::Timestamp::from_unix_millis(0));
        assert_eq!(
            with(|run| run.deleted = deleted),
            Phase::Ending { graceful: false }
        );
    }

    #[test]
    fn the_end_is_read_from_the_condition_alone() {
        for (status, reason, outcome) in [
            (ConditionStatus::True, "Completed", RunOutcome::Completed),
            (ConditionStatus::False, "Failed", RunOutcome::Failed),
            (
                ConditionStatus::False,
                "PipelineRunTimeout",
                RunOutcome::Failed,
            ),
            (ConditionStatus::False, "Cancelled", RunOutcome::Cancelled),
        ] {
            let done = |run: &mut RunView| run.succeeded = Some(Condition::new(status, reason));
            assert_eq!(with(done), Phase::Done(outcome), "{reason}");
        }
        let waits = Condition::new(ConditionStatus::Unknown, "PipelineRunPending");
        assert_eq!(with(|run| run.succeeded = Some(waits)), Phase::Held);
    }
}
