//! The rules of a repository, who has set them, and pauses.

use super::*;
use crate::name::Reason;
use crate::state::{Owner, RulesChange};

const PIN: Claim = Claim::Pin;

impl Book {
    fn set(&mut self, limit: u32, claim: Claim) -> (u32, Option<Owner>, bool) {
        let rules = RulesChange::limit(Limit::new(limit));
        self.limit_set(&Command::SetLimit { rules, claim })
    }

    fn limit_set(&mut self, command: &Command) -> (u32, Option<Owner>, bool) {
        match self.apply(A, command) {
            Outcome::LimitSet {
                limit,
                owner,
                accepted,
                ..
            } => {
                assert_eq!(
                    (limit, owner),
                    (self.state.head().limit, self.state.head().owner())
                );
                (limit.get().unwrap_or(0), owner, accepted)
            }
            other => panic!("{other:?}"),
        }
    }

    fn paused(&mut self, command: &Command) -> (bool, Vec<String>) {
        match self.apply(A, command) {
            Outcome::Paused {
                before,
                accepted: true,
                promoted,
            } => (before, names(&promoted)),
            other => panic!("{other:?}"),
        }
    }
}

fn announced(version: u64) -> Claim {
    Claim::Announce(LimitVersion::new(version))
}

#[test]
fn a_pin_holds_against_everybody_until_it_is_taken_back() {
    let (announce, pinned) = (Some(Owner::Announced), Some(Owner::Pinned));
    let mut book = Book::with_limit(0);
    assert_eq!(book.set(2, announced(1)), (2, announce, true));
    assert_eq!(book.set(5, PIN), (5, pinned, true));
    for claim in [announced(2), Claim::Set, Claim::Propose] {
        assert_eq!(book.set(3, claim), (5, pinned, false), "{claim:?}");
    }
    assert_eq!(book.set(6, PIN), (6, pinned, true));
    // What was announced meanwhile is in force again, and older announcements are not.
    assert_eq!(book.limit_set(&Command::Unpin), (3, announce, true));
    assert_eq!(book.set(9, announced(2)), (3, announce, false));
    assert_eq!(book.limit_set(&Command::Unpin), (3, announce, false));
}

#[test]
fn what_was_there_before_a_pin_comes_back() {
    let mut book = Book::with_limit(0);
    book.set(5, PIN);
    assert_eq!(book.limit_set(&Command::Unpin), (0, None, true));
    book.set(4, Claim::Set);
    book.set(5, PIN);
    assert_eq!(book.limit_set(&Command::Unpin), (4, Some(Owner::Set), true));
}

#[test]
fn proposals_count_only_where_nobody_else_has_set_a_limit() {
    let proposed = Some(Owner::Proposed);
    let mut book = Book::with_limit(0);
    assert_eq!(book.set(2, Claim::Propose), (2, proposed, true));
    book.admit(A, "a");
    assert_eq!(
        book.set(7, Claim::Propose),
        (2, proposed, false),
        "runs count on the other one"
    );
    book.release(A, "a", None);
    assert_eq!(book.set(7, Claim::Propose), (7, proposed, true));
    assert_eq!(book.set(3, Claim::Set), (3, Some(Owner::Set), true));
    assert_eq!(book.set(7, Claim::Propose), (3, Some(Owner::Set), false));
    assert_eq!(book.set(4, announced(1)), (4, Some(Owner::Announced), true));
    assert_eq!(
        book.set(7, Claim::Propose),
        (4, Some(Owner::Announced), false)
    );
    assert_eq!(book.set(6, Claim::Set), (6, Some(Owner::Set), true));
    assert_eq!(book.set(4, announced(2)), (4, Some(Owner::Announced), true));
}

#[test]
fn rules_change_one_by_one_and_are_pinned_together() {
    let mut book = Book::with_limit(3);
    let claim = PIN;
    let rules = RulesChange::default().with_max_queued(Some(9));
    book.limit_set(&Command::SetLimit { rules, claim });
    let rules = book.state.head().rules();
    assert_eq!((rules.limit, rules.max_queued), (Limit::new(3), Some(9)));
    book.set(4, PIN);
    assert_eq!(book.state.head().rules().max_queued, Some(9));
    book.limit_set(&Command::Unpin);
    let rules = book.state.head().rules();
    assert_eq!((rules.limit, rules.max_queued), (Limit::new(3), None));
}

#[test]
fn a_repository_without_any_of_it_has_no_policy() {
    let mut book = Book::with_limit(2);
    for name in ["a", "b", "c"] {
        book.admit(A, name);
    }
    book.set(3, announced(4));
    book.release(A, "a", None);
    book.apply(A, &Command::cancel(run("b"), None));
    book.limit_set(&Command::Unpin);
    assert_eq!(book.paused(&RESUME), (false, vec![]));
    assert_eq!(book.state.head().policy, None);
    assert!(book.state.entries().all(|entry| entry.terms.is_none()));
}

#[test]
fn nothing_starts_during_a_pause_and_what_waits_starts_after_it() {
    let mut book = Book::with_limit(2);
    book.admit(A, "a");
    book.now = 5;
    let reason = Some("the store moves".parse().unwrap());
    let pause = Command::Pause {
        reason,
        only_if: PauseCondition::Always,
    };
    assert_eq!(book.paused(&pause), (false, vec![]));
    assert!(matches!(book.admit(A, "b"), Admitted::Queued { .. }));
    book.apply(A, &Command::limit(Limit::new(9), None));
    book.apply(A, &Command::Promote);
    assert_eq!(book.running(), ["a"], "whatever the limit");
    assert!(!book.state.head().could_start());
    book.release(A, "a", None);
    book.now = 8;
    assert_eq!(book.paused(&PAUSE), (true, vec![]));
    let pause = book.state.head().pause().unwrap();
    assert_eq!(
        (pause.since.at(), &pause.reason),
        (Some(Timestamp::from_unix_millis(5)), &None)
    );
    assert_eq!(book.paused(&RESUME), (true, vec!["b".to_owned()]));
    assert_eq!(book.running(), ["b"]);
}

#[test]
fn a_run_that_runs_already_is_adopted_during_a_pause() {
    let mut book = Book::with_limit(1);
    book.apply(A, &PAUSE);
    let adopt = Command::Adopt(request("a", RunKind::Durable));
    assert!(matches!(book.admitted(A, &adopt), Admitted::Started { .. }));
}

#[test]
fn what_somebody_else_has_paused_since_the_look_stays_as_it_is() {
    let reason = |text: &str| Some(text.parse::<Reason>().unwrap());
    let (mine, theirs) = (reason("mine"), reason("theirs"));
    let (not_paused, of_mine) = (
        PauseCondition::NotPaused,
        PauseCondition::PausedFor(mine.clone()),
    );
    let mut book = Book::with_limit(1);
    let mut ask = |command: Command, accepted: bool, now: Option<&Option<Reason>>| {
        let before = book.state.head().clone();
        let outcome = book.apply(A, &command);
        let expected = Outcome::Paused {
            before: before.pause().is_some(),
            accepted,
            promoted: Vec::new(),
        };
        assert_eq!(outcome, expected, "{command:?}");
        let pause = book.state.head().pause();
        assert_eq!(pause.map(|pause| &pause.reason), now, "{command:?}");
        assert!(
            accepted || *book.state.head() == before,
            "nothing is written"
        );
    };
    let pause = |reason: &Option<Reason>, only_if: &PauseCondition| Command::Pause {
        reason: reason.clone(),
        only_if: only_if.clone(),
    };
    let resume = |only_if: &PauseCondition| Command::Resume {
        only_if: only_if.clone(),
    };
    ask(resume(&of_mine), false, None);
    ask(pause(&mine, &of_mine), false, None);
    ask(pause(&mine, &not_paused), true, Some(&mine));
    ask(resume(&not_paused), false, Some(&mine));
    ask(pause(&theirs, &of_mine), true, Some(&theirs));
    ask(pause(&mine, &not_paused), false, Some(&theirs));
    ask(resume(&of_mine), false, Some(&theirs));
    ask(
        resume(&PauseCondition::PausedFor(None)),
        false,
        Some(&theirs),
    );
    ask(pause(&None, &PauseCondition::Always), true, Some(&None));
    ask(resume(&PauseCondition::PausedFor(None)), true, None);
}
