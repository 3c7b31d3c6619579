//! What a run means for the queue of its Repository, by its object alone.

use crate::integration::Phase;
use crate::model::{PacState, RunView};

/// What one run means for its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Nothing: it has ended, will never start, or belongs to its user or another controller.
    Nothing,
    /// It waits for a slot.
    Waits,
    /// It has a slot.
    Runs,
    /// It never started and would still run its `finally` tasks: it is to be ended at once.
    EndsAtOnce,
}

/// What one run means for its queue, and the state that is to be written on it where its
/// annotation says another one.
///
/// What runs has a slot, whatever the annotation says; what has ended has none. The annotation
/// decides in one case alone: a run that is held back and whose annotation says that it has ended
/// is left as it is.
#[must_use]
pub fn decide(run: &RunView, limited: bool) -> (Standing, Option<PacState>) {
    let state = run.state();
    match Phase::of(run, limited) {
        Phase::Held => match state {
            Some(PacState::Completed | PacState::Failed) => (Standing::Nothing, None),
            Some(_) => (Standing::Waits, None),
            None => (Standing::Waits, Some(PacState::Queued)),
        },
        Phase::Running => match state {
            None | Some(PacState::Queued) => (Standing::Runs, Some(PacState::Started)),
            Some(_) => (Standing::Runs, None),
        },
        Phase::Ending { graceful: true } if state.is_some() || run.has_order() => {
            (Standing::EndsAtOnce, None)
        }
        _ => (Standing::Nothing, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Condition, ConditionStatus, SpecStatus};
    use crate::vocabulary;

    fn run(state: &str, status: SpecStatus, ended: bool) -> RunView {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        if !state.is_empty() {
            run.annotations
                .insert(vocabulary::STATE.to_owned(), state.to_owned());
        }
        run.annotations
            .insert(vocabulary::EXECUTION_ORDER.to_owned(), "ci/a".to_owned());
        run.spec_status = status;
        run.succeeded =
            ended.then(|| Condition::new(ConditionStatus::False, vocabulary::REASON_CANCELLED));
        run
    }

    #[test]
    fn the_object_decides_and_not_its_annotation() {
        use PacState::{Queued, Started};
        use SpecStatus::{Cancelled, CancelledRunFinally, None as Runs, Pending};
        for (state, status, ended, expected) in [
            ("queued", Pending, false, (Standing::Waits, None)),
            ("started", Pending, false, (Standing::Waits, None)),
            ("", Pending, false, (Standing::Waits, Some(Queued))),
            ("completed", Pending, false, (Standing::Nothing, None)),
            ("started", Runs, false, (Standing::Runs, None)),
            ("queued", Runs, false, (Standing::Runs, Some(Started))),
            ("", Runs, false, (Standing::Runs, Some(Started))),
            // Its end was reported while it still winds down.
            ("completed", Runs, false, (Standing::Runs, None)),
            ("started", Runs, true, (Standing::Nothing, None)),
            ("queued", Pending, true, (Standing::Nothing, None)),
            ("queued", Cancelled, false, (Standing::Nothing, None)),
            (
                "queued",
                CancelledRunFinally,
                false,
                (Standing::EndsAtOnce, None),
            ),
        ] {
            let run = run(state, status, ended);
            assert_eq!(decide(&run, true), expected, "{run:?}");
        }
    }
}
