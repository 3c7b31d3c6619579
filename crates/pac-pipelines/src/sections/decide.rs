//! What is to be done about one run and one section, given what the run's object says and what the
//! store knows. Pure.

use pac_core::state::RunOutcome;
use pac_core::{FencingToken, Timestamp, Uid};

use super::name::SectionName;
use super::request::{SectionAnswer, SectionRequest};
use crate::integration::{Holder, Known, Phase};
use crate::model::RunView;

/// What a run's object says about a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It asks, and has no answer yet.
    Asks {
        /// Which run of its name the request is in the store.
        uid: Uid,
        /// When it asked.
        asked: Timestamp,
    },
    /// It was told that it is in the section.
    Holds {
        /// Which run of its name the request is in the store.
        uid: Uid,
        /// The token that it was told.
        told: FencingToken,
    },
    /// It does not ask, does not any more, or was told that its request is cancelled. What it has
    /// in the store ends like this.
    Nothing(RunOutcome),
}

impl Wish {
    /// Reads it off a run. Only a run that has started asks: one that waits for its own slot would
    /// keep the section from runs that could go on.
    pub(crate) fn of(run: &RunView, section: &SectionName) -> Self {
        if let Phase::Done(outcome) = Phase::of(run, false) {
            return Self::Nothing(outcome);
        }
        if run.is_done() {
            return Self::Nothing(RunOutcome::Completed);
        }
        let Some(request) = request_of(run, section) else {
            return Self::Nothing(RunOutcome::Completed);
        };
        let Some(uid) = request.uid(&run.uid).filter(|_| run.has_started()) else {
            return Self::Nothing(RunOutcome::Cancelled);
        };
        let answer = run.annotation(&section.answer_annotation());
        let answer = answer.and_then(|text| SectionAnswer::parse(text).ok());
        match answer.filter(|answer| answer.answers(&request)) {
            Some(answer) => match answer.token() {
                Some(told) => Self::Holds { uid, told },
                None => Self::Nothing(RunOutcome::Cancelled),
            },
            // Its pods are about to go: nothing of it is let in any more.
            None if run.deleted.is_some() => Self::Nothing(RunOutcome::Cancelled),
            None => Self::Asks {
                uid,
                asked: request.asked(),
            },
        }
    }

    /// Which run of its name it is in the store.
    pub(crate) fn uid(&self) -> Option<&Uid> {
        match self {
            Self::Asks { uid, .. } | Self::Holds { uid, .. } => Some(uid),
            Self::Nothing(_) => None,
        }
    }
}

/// The request of a run for a section.
pub(crate) fn request_of(run: &RunView, section: &SectionName) -> Option<SectionRequest> {
    let text = run.annotation(&section.request_annotation())?;
    SectionRequest::parse(text).ok()
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Read the object past all caches, and decide again: what was seen may be older than what the
    /// store has.
    Verify,
    /// It asks for the first time: queue it.
    AdmitNew,
    /// Ask for the slot or the place that it has; if that is a slot, tell it.
    Admit,
    /// Its slot was given up before it was told of it: record it, and queue it in its old place.
    Readmit,
    /// It is in the section, as far as it was told: record that, also beyond the limit. With
    /// `lost`, its slot had been free for others meanwhile.
    Adopt {
        /// Whether the slot was lost.
        lost: bool,
    },
    /// Its request was ended in the store: tell it.
    Refuse,
    /// Another request of the run has a slot or a place: end that, then decide as if the store had
    /// nothing.
    Replace,
    /// It asks no longer: end what it has.
    Release(RunOutcome),
}

/// Decides about one run. `in_store` is the token of its slot in the store. `certain` says that the
/// object was read past all caches after the store was; only then is anything ended, or counted
/// beyond the limit.
pub(crate) fn decide(
    wish: &Wish,
    known: &Known,
    in_store: Option<FencingToken>,
    certain: bool,
) -> Step {
    let if_certain = |step| if certain { step } else { Step::Verify };
    let (uid, told) = match wish {
        Wish::Nothing(outcome) if known.is_live() => return if_certain(Step::Release(*outcome)),
        Wish::Nothing(_) => return Step::Nothing,
        Wish::Asks { uid, .. } => (uid, None),
        Wish::Holds { uid, told } => (uid, Some(*told)),
    };
    if known.uid().is_some_and(|other| other != uid) {
        if known.is_live() {
            return if_certain(Step::Replace);
        }
        return if_certain(match told {
            None => Step::AdmitNew,
            Some(_) => Step::Adopt { lost: true },
        });
    }
    match (told, known) {
        (None, Known::Unknown) => Step::AdmitNew,
        (None, Known::Queued { holder, .. }) => match holder {
            Holder::Us | Holder::Other => Step::Nothing,
            Holder::Nobody => Step::Admit,
        },
        (None, Known::Started { holder, .. }) => match holder {
            Holder::Us | Holder::Nobody => Step::Admit,
            Holder::Other => Step::Nothing,
        },
        (None, Known::Finished { outcome, .. }) => if_certain(match outcome {
            RunOutcome::LeaseLost => Step::Readmit,
            _ => Step::Refuse,
        }),
        (Some(_), Known::Unknown | Known::Queued { .. }) => if_certain(Step::Adopt { lost: true }),
        (Some(told), Known::Started { holder, .. }) => match holder {
            // What its object shows is the token that the store has.
            Holder::Us if in_store != Some(told) => Step::Admit,
            Holder::Us | Holder::Other => Step::Nothing,
            Holder::Nobody => Step::Adopt { lost: false },
        },
        (Some(_), Known::Finished { outcome, .. }) => match outcome {
            RunOutcome::LeaseLost => if_certain(Step::Adopt { lost: true }),
            // An operator has freed the slot: no other step may take the answer for one.
            _ => if_certain(Step::Refuse),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Condition, ConditionStatus};

    fn gpu() -> SectionName {
        "gpu".parse().unwrap()
    }

    fn run(request: &str, answer: &str) -> RunView {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        run.started = Some(Timestamp::from_unix_millis(0));
        for (name, value) in [
            (gpu().request_annotation(), request),
            (gpu().answer_annotation(), answer),
        ] {
            if !value.is_empty() {
                run.annotations.insert(name, value.to_owned());
            }
        }
        run
    }

    fn asks() -> Wish {
        Wish::of(&run("5-a run", ""), &gpu())
    }

    fn holds() -> Wish {
        Wish::of(&run("5-a run", "5-a 41"), &gpu())
    }

    fn started(uid: &str, holder: Holder) -> Known {
        let uid = uid.parse().unwrap();
        Known::Started {
            uid,
            holder,
            asked: false,
        }
    }

    fn queued(uid: &str, holder: Holder) -> Known {
        let uid = uid.parse().unwrap();
        Known::Queued { uid, holder }
    }

    fn finished(uid: &str, outcome: RunOutcome) -> Known {
        let uid = uid.parse().unwrap();
        Known::Finished { uid, outcome }
    }

    fn table(wish: &Wish, rows: &[(Known, Step, Step)]) {
        let token = Some(FencingToken::new(41));
        for (known, seen, certain) in rows {
            assert_eq!(
                decide(wish, known, token, false),
                *seen,
                "{wish:?} {known:?}"
            );
            assert_eq!(
                decide(wish, known, token, true),
                *certain,
                "{wish:?} {known:?}"
            );
        }
    }

    #[test]
    fn what_a_run_says_is_read_off_its_object() {
        use RunOutcome::{Cancelled, Completed, Failed};
        assert!(matches!(asks(), Wish::Asks { .. }));
        assert!(matches!(holds(), Wish::Holds { told, .. } if told.get() == 41));
        // An answer to an earlier request is none.
        assert!(matches!(
            Wish::of(&run("6-a run", "5-a 41"), &gpu()),
            Wish::Asks { .. }
        ));
        let nothing = |run: &RunView| match Wish::of(run, &gpu()) {
            Wish::Nothing(outcome) => outcome,
            wish => panic!("{wish:?}"),
        };
        assert_eq!(nothing(&run("", "5-a 41")), Completed);
        assert_eq!(nothing(&run("by hand", "")), Completed);
        assert_eq!(nothing(&run("5-a run", "5-a cancelled")), Cancelled);
        let mut pending = run("5-a run", "");
        pending.started = None;
        assert_eq!(nothing(&pending), Cancelled);
        let mut going = run("5-a run", "");
        going.deleted = Some(Timestamp::from_unix_millis(1));
        assert_eq!(nothing(&going), Cancelled);
        // Its pods may still be there.
        let mut going = run("5-a run", "5-a 41");
        going.deleted = Some(Timestamp::from_unix_millis(1));
        assert_eq!(Wish::of(&going, &gpu()), holds());
        let mut ended = run("5-a run", "5-a 41");
        ended.succeeded = Some(Condition::new(ConditionStatus::False, "Failed"));
        assert_eq!(nothing(&ended), Failed);
    }

    #[test]
    fn a_run_that_asks_gets_its_slot_and_its_place_once() {
        use Holder::{Nobody, Other, Us};
        use Step::{Admit, AdmitNew, Nothing, Readmit, Refuse, Replace, Verify};
        let uid = "u:5-a";
        table(
            &asks(),
            &[
                (Known::Unknown, AdmitNew, AdmitNew),
                (queued(uid, Us), Nothing, Nothing),
                (queued(uid, Other), Nothing, Nothing),
                (queued(uid, Nobody), Admit, Admit),
                (started(uid, Us), Admit, Admit),
                (started(uid, Other), Nothing, Nothing),
                (started(uid, Nobody), Admit, Admit),
                (finished(uid, RunOutcome::LeaseLost), Verify, Readmit),
                (finished(uid, RunOutcome::Cancelled), Verify, Refuse),
                (finished(uid, RunOutcome::Completed), Verify, Refuse),
                // Another request of the run: which of the two is the later one, a read shows.
                (started("u:4-a", Us), Verify, Replace),
                (queued("u:4-a", Other), Verify, Replace),
                (finished("u:4-a", RunOutcome::Completed), Verify, AdmitNew),
            ],
        );
    }

    #[test]
    fn a_run_that_is_in_the_section_is_counted_there() {
        use Holder::{Nobody, Other, Us};
        use Step::{Adopt, Nothing, Refuse, Replace, Verify};
        let (uid, lost) = ("u:5-a", Adopt { lost: true });
        table(
            &holds(),
            &[
                (Known::Unknown, Verify, lost),
                (queued(uid, Us), Verify, lost),
                (started(uid, Us), Nothing, Nothing),
                (started(uid, Other), Nothing, Nothing),
                (
                    started(uid, Nobody),
                    Adopt { lost: false },
                    Adopt { lost: false },
                ),
                (finished(uid, RunOutcome::LeaseLost), Verify, lost),
                (finished(uid, RunOutcome::Completed), Verify, Refuse),
                (finished(uid, RunOutcome::Cancelled), Verify, Refuse),
                (started("u:6-a", Us), Verify, Replace),
                (finished("u:4-a", RunOutcome::Completed), Verify, lost),
            ],
        );
        let newer = Some(FencingToken::new(47));
        assert_eq!(
            decide(&holds(), &started(uid, Us), newer, false),
            Step::Admit
        );
    }

    #[test]
    fn what_nobody_asks_for_ends_when_that_is_certain() {
        use Step::{Nothing, Release, Verify};
        let outcome = RunOutcome::Failed;
        table(
            &Wish::Nothing(outcome),
            &[
                (Known::Unknown, Nothing, Nothing),
                (started("u:5-a", Holder::Us), Verify, Release(outcome)),
                (queued("u:5-a", Holder::Other), Verify, Release(outcome)),
                (queued("u:5-a", Holder::Nobody), Verify, Release(outcome)),
                (finished("u:5-a", RunOutcome::Completed), Nothing, Nothing),
            ],
        );
    }
}
