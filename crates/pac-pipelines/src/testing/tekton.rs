//! What Tekton's controller does with a run, as it was recorded beside a real one.

use pac_core::Timestamp;

use crate::model::{Condition, ConditionStatus, RunView, SpecStatus};
use crate::vocabulary;

/// When Tekton acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TektonMode {
    /// After every change, at once.
    #[default]
    Immediate,
    /// When the test says so.
    Manual,
}

/// One thing that Tekton did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    /// Wrote into the status that the run is held back.
    Noted,
    /// Began with the run's tasks.
    Began,
    /// Began with its `finally` tasks.
    RanFinally,
    /// Recorded its end.
    Ended,
}

/// The next thing that Tekton does with a run; `None` when there is nothing to do.
pub(super) fn step(run: &mut RunView, now: Timestamp) -> Option<Did> {
    if run.is_done() || !is_for_tekton(run) {
        return None;
    }
    match &run.spec_status {
        SpecStatus::Pending if run.started.is_some() => None,
        SpecStatus::Pending => {
            let noted = run.succeeded.is_some();
            run.succeeded = Some(running(vocabulary::PENDING));
            (!noted).then_some(Did::Noted)
        }
        // Its webhook lets no such value through.
        SpecStatus::Unknown(_) => None,
        SpecStatus::None => {
            if run.started.is_some() {
                return None;
            }
            run.started = Some(now);
            run.succeeded = Some(running("Running"));
            Some(Did::Began)
        }
        // With start and completion time, and no task, even if it never ran.
        SpecStatus::Cancelled => {
            run.started.get_or_insert(now);
            end(
                run,
                ConditionStatus::False,
                vocabulary::REASON_CANCELLED,
                now,
            );
            Some(Did::Ended)
        }
        graceful @ (SpecStatus::CancelledRunFinally | SpecStatus::StoppedRunFinally) => {
            let winding_down = match graceful {
                SpecStatus::CancelledRunFinally => "CancelledRunningFinally",
                _ => "StoppedRunningFinally",
            };
            let reason = run
                .succeeded
                .as_ref()
                .map(|condition| condition.reason.as_str());
            if reason == Some(winding_down) {
                end(
                    run,
                    ConditionStatus::False,
                    vocabulary::REASON_CANCELLED,
                    now,
                );
                return Some(Did::Ended);
            }
            // A run that never started is started for its `finally` tasks.
            run.started.get_or_insert(now);
            run.succeeded = Some(running(winding_down));
            Some(Did::RanFinally)
        }
    }
}

/// Records the end of a run.
pub(super) fn end(run: &mut RunView, status: ConditionStatus, reason: &str, now: Timestamp) {
    run.succeeded = Some(Condition::new(status, reason));
    run.completed = Some(now);
}

fn running(reason: &str) -> Condition {
    Condition::new(ConditionStatus::Unknown, reason)
}

/// Tekton ignores a run that `spec.managedBy` gives to somebody else.
fn is_for_tekton(run: &RunView) -> bool {
    let manager = run
        .managed_by
        .as_deref()
        .unwrap_or(vocabulary::TEKTON_MANAGER);
    manager == vocabulary::TEKTON_MANAGER
}
