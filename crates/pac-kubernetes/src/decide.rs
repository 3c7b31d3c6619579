//! What a read of a run says about a start that was not answered by "done". Pure.

use pac_core::Uid;
use pac_pipelines::StartOutcome;
use pac_pipelines::model::{RunView, SpecStatus};

/// What has become of a start. `found` is the run as it is now, if there is one of its name;
/// `certain` says that the patch was not applied and never will be.
pub(crate) fn start_outcome(found: Option<&RunView>, uid: &Uid, certain: bool) -> StartOutcome {
    let Some(run) = found.filter(|run| run.uid == *uid) else {
        return StartOutcome::Gone;
    };
    if run.spec_status == SpecStatus::Pending {
        return if certain {
            StartOutcome::StillPending
        } else {
            // The patch may still be on its way.
            StartOutcome::Unknown
        };
    }
    // Tekton gives a start time also to a run that was cancelled before it ever started.
    let is_unstarted = !run.has_started() || run.is_done();
    if run.spec_status.is_cancel() && run.token().is_none() && is_unstarted {
        StartOutcome::Cancelled
    } else {
        StartOutcome::AlreadyStarted
    }
}

#[cfg(test)]
mod tests {
    use pac_core::Timestamp;
    use pac_pipelines::model::{Condition, ConditionStatus};
    use pac_pipelines::vocabulary;

    use super::*;

    #[test]
    fn a_read_decides_and_what_is_not_sure_is_unknown() {
        let uid: Uid = "u".parse().unwrap();
        let run = || RunView::new("ci/a".parse().unwrap(), uid.clone());
        let with = |change: &dyn Fn(&mut RunView)| {
            let mut run = run();
            change(&mut run);
            run
        };
        let at = Some(Timestamp::from_unix_millis(0));
        let ended = || Some(Condition::new(ConditionStatus::False, "Cancelled"));
        let pending = with(&|run| run.spec_status = SpecStatus::Pending);
        let graceful = with(&|run| run.spec_status = SpecStatus::CancelledRunFinally);
        let ours = with(&|run| {
            run.spec_status = SpecStatus::Cancelled;
            let token = "7".to_owned();
            run.annotations.insert(vocabulary::TOKEN.to_owned(), token);
        });
        let runs_and_ends = with(&|run| {
            run.spec_status = SpecStatus::Cancelled;
            run.started = at;
        });
        let ended_unstarted = with(&|run| {
            run.spec_status = SpecStatus::Cancelled;
            (run.started, run.completed, run.succeeded) = (at, at, ended());
        });
        let other = "other".parse().unwrap();
        for (found, uid, certain, outcome) in [
            (None, &uid, true, StartOutcome::Gone),
            (None, &uid, false, StartOutcome::Gone),
            (Some(&pending), &other, true, StartOutcome::Gone),
            (Some(&pending), &uid, true, StartOutcome::StillPending),
            (Some(&pending), &uid, false, StartOutcome::Unknown),
            (Some(&run()), &uid, true, StartOutcome::AlreadyStarted),
            (Some(&run()), &uid, false, StartOutcome::AlreadyStarted),
            (Some(&graceful), &uid, false, StartOutcome::Cancelled),
            (Some(&ours), &uid, true, StartOutcome::AlreadyStarted),
            (
                Some(&runs_and_ends),
                &uid,
                true,
                StartOutcome::AlreadyStarted,
            ),
            (Some(&ended_unstarted), &uid, true, StartOutcome::Cancelled),
        ] {
            assert_eq!(
                start_outcome(found, uid, certain),
                outcome,
                "{found:?} {certain}"
            );
        }
    }
}
