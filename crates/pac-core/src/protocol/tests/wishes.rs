//! What few runs ask for: several slots, a group, their numbers, a time.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::name::Group;
use crate::state::{Moment, RulesChange, Terms, Weight};

fn weighing(slots: u16) -> impl FnOnce(RunRequest) -> RunRequest {
    move |request| request.with_weight(Weight::new(slots).unwrap())
}

fn group(name: &str) -> Group {
    name.parse().unwrap()
}

fn in_group(name: &str, supersedes: Supersedes) -> impl FnOnce(RunRequest) -> RunRequest {
    let group = group(name);
    move |request| request.in_group(group).superseding(supersedes)
}

impl Book {
    fn terms(&self, name: &str) -> &Terms {
        self.state.entry(&run(name)).unwrap().terms()
    }

    fn needs(&self) -> u32 {
        self.state.head().policy.as_ref().map_or(0, |p| p.needs)
    }
}

#[test]
fn a_heavy_run_is_waited_for_and_gets_all_its_slots_at_once() {
    let mut book = Book::with_limit(4);
    book.wish("a", weighing(3));
    book.wish("b", weighing(2));
    book.admit(A, "c");
    assert_eq!(
        (book.running(), book.waiting()),
        (vec!["a".into()], vec!["b".into(), "c".into()])
    );
    assert_eq!((book.state.head().slots(), book.needs()), (3, 1));
    assert!(
        !book.state.head().could_start(),
        "one slot is left, and two are needed"
    );
    let (_, promoted) = book.release(A, "a", None);
    assert_eq!(promoted, ["b", "c"]);
    assert_eq!((book.state.head().slots(), book.needs()), (3, 0));
}

#[test]
fn a_run_heavier_than_the_limit_is_refused_and_one_that_became_so_is_passed_over() {
    let mut book = Book::with_limit(4);
    let refused = book.wish("x", weighing(5));
    let (weight, limit) = (Weight::new(5).unwrap(), Limit::new(4));
    assert_eq!(refused, Admitted::TooHeavy { weight, limit });
    assert!(book.state.entry(&run("x")).is_none());
    book.wish("a", weighing(4));
    book.wish("b", weighing(4));
    book.admit(A, "c");
    book.apply(A, &Command::limit(Limit::new(2), None));
    book.release(A, "a", None);
    assert_eq!(
        (book.running(), book.waiting()),
        (vec!["c".into()], vec!["b".into()])
    );
    assert!(!book.state.head().could_start());
    book.apply(A, &Command::limit(Limit::new(5), None));
    assert_eq!(book.running(), ["c", "b"], "it has kept its place");
}

#[test]
fn slots_are_counted_through_requeue_death_and_removal_from_the_queue() {
    let mut book = Book::with_limit(3);
    book.wish("a", weighing(2));
    let token = book.token("a");
    book.admit(A, "b");
    book.apply(
        A,
        &Command::Requeue {
            run: run("a"),
            uid: "uid-a".parse().unwrap(),
            token,
        },
    );
    assert_eq!(
        (book.running(), book.state.head().slots()),
        (vec!["b".into(), "a".into()], 3)
    );
    let death = Command::Expire {
        session: SessionId::new(A),
        death: Death::Lease,
    };
    book.apply(B, &death);
    assert_eq!(
        (book.state.head().started, book.state.head().slots()),
        (0, 0)
    );
    let mut again = Book::with_limit(1);
    again.admit(A, "a");
    again.apply(A, &Command::limit(Limit::new(2), None));
    again.wish("b", weighing(2));
    again.apply(A, &Command::cancel(run("b"), None));
    assert_eq!(again.needs(), 0);
}

#[test]
fn a_run_that_waits_may_ask_for_another_weight_and_keeps_its_place() {
    let mut book = Book::with_limit(2);
    book.admit(A, "a");
    book.wish("b", weighing(2));
    book.admit(A, "c");
    book.wish("b", weighing(1));
    assert_eq!(book.running(), ["a", "b"]);
    assert_eq!(book.state.head().slots(), 2);
}

#[test]
fn slots_that_an_adoption_leaves_over_go_to_those_that_wait() {
    let mut book = Book::with_limit(2);
    book.wish("a", weighing(2));
    book.admit(A, "b");
    let mut other = request("a", RunKind::Durable);
    other.uid = "uid-of-another-a".parse().unwrap();
    book.admitted(A, &Command::Adopt(other));
    assert_eq!(book.running(), ["a", "b"]);
}

#[test]
fn a_run_that_waits_and_is_asked_for_as_before_costs_no_commit() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    let skips = |request: RunRequest| request.skip_if(SkipIf::Waiting);
    book.wish("b", skips);
    book.admit(A, "c");
    let (run, uid, to) = (run("c"), None, Bump::First);
    book.apply(A, &Command::Bump { run, uid, to });
    let at = book.state.head().revision;
    book.wish("b", skips);
    book.admit(A, "c");
    assert_eq!(book.state.head().revision, at);
    assert_eq!(book.waiting(), ["c", "b"]);
}

#[test]
fn a_lighter_run_may_go_before_one_that_does_not_fit_so_many_times() {
    let mut book = Book::with_limit(2);
    let rules = RulesChange::default().with_backfill(NonZeroU32::new(2));
    let claim = Claim::Pin;
    book.apply(A, &Command::SetLimit { rules, claim });
    book.admit(A, "a");
    book.wish("heavy", weighing(2));
    for (name, starts) in [("b", true), ("c", true), ("d", false)] {
        let admitted = book.admit(A, name);
        assert_eq!(
            matches!(admitted, Admitted::Started { .. }),
            starts,
            "{name}"
        );
        if starts {
            book.release(A, name, None);
        }
    }
    assert_eq!(book.terms("heavy").passed, 2);
    let (_, promoted) = book.release(A, "a", None);
    assert_eq!(promoted, ["heavy"]);
    assert_eq!(book.terms("heavy").passed, 2);
    let (_, promoted) = book.release(A, "heavy", None);
    assert_eq!(
        (promoted, book.terms("heavy").passed),
        (vec!["d".to_owned()], 0)
    );
}

#[test]
fn without_leave_nobody_goes_before_a_heavy_run() {
    let mut book = Book::with_limit(2);
    book.admit(A, "a");
    book.wish("heavy", weighing(2));
    assert!(matches!(book.admit(A, "b"), Admitted::Queued { .. }));
}

#[test]
fn a_newer_run_of_a_group_gets_the_place_of_the_first_that_it_supersedes() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.wish("one", in_group("main", Supersedes::None));
    book.wish("other", in_group("dev", Supersedes::None));
    book.wish("two", in_group("main", Supersedes::None));
    let place = book.state.entry(&run("one")).unwrap().ticket;
    let admitted = book.wish("three", in_group("main", Supersedes::Waiting));
    assert_eq!(admitted, Admitted::Queued { ticket: place });
    assert_eq!(book.waiting(), ["three", "other"]);
    for name in ["one", "two"] {
        assert_eq!(book.outcome(name), Some(RunOutcome::Superseded));
    }
    // Asked for again, it ends nobody.
    book.wish("four", in_group("main", Supersedes::None));
    book.wish("three", in_group("main", Supersedes::Waiting));
    assert_eq!(book.waiting(), ["three", "other", "four"]);
}

#[test]
fn to_supersede_all_asks_the_running_ones_to_end_and_waits_for_that() {
    let mut book = Book::with_limit(1);
    book.wish("one", in_group("main", Supersedes::None));
    book.now = 7;
    book.wish("two", in_group("main", Supersedes::All));
    let asked = Moment::of(Timestamp::from_unix_millis(7));
    assert_eq!(
        (book.running(), book.terms("one").asked),
        (vec!["one".into()], asked)
    );
    book.now = 9;
    book.wish("three", in_group("main", Supersedes::All));
    assert_eq!(book.terms("one").asked, asked, "it is asked once");
    assert_eq!(
        (book.outcome("two"), book.waiting()),
        (Some(RunOutcome::Superseded), vec!["three".into()])
    );
    let (_, promoted) = book.release(A, "one", None);
    assert_eq!(
        (promoted, book.terms("one").asked),
        (vec!["three".to_owned()], asked)
    );
}

#[test]
fn runs_without_a_group_supersede_nobody() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.admit(A, "b");
    book.wish("c", |request| request.superseding(Supersedes::All));
    assert_eq!(
        (book.running(), book.waiting()),
        (vec!["a".into()], vec!["b".into(), "c".into()])
    );
    assert_eq!(book.terms("a").asked, Moment::NEVER);
}

#[test]
fn a_bounded_queue_refuses_what_would_wait_beyond_it_and_remembers_that_once() {
    let mut book = Book::with_limit(1);
    let rules = RulesChange::default().with_max_queued(Some(1));
    let claim = Claim::Set;
    book.apply(A, &Command::SetLimit { rules, claim });
    book.admit(A, "a");
    book.wish("b", in_group("main", Supersedes::None));
    assert_eq!(book.admit(A, "c"), Admitted::QueueFull { queued: 1 });
    assert_eq!(book.outcome("c"), Some(RunOutcome::QueueFull));
    let at = book.state.head().revision;
    assert_eq!(book.admit(A, "c"), Admitted::QueueFull { queued: 1 });
    assert_eq!(
        book.state.head().revision,
        at,
        "no commit for each refusal of one run"
    );
    // Who takes the place of another one needs none.
    book.wish("d", in_group("main", Supersedes::Waiting));
    assert_eq!(book.waiting(), ["d"]);
    book.release(A, "a", None);
    assert!(
        matches!(book.admit(A, "c"), Admitted::Queued { .. }),
        "there is room again"
    );
}

#[test]
fn a_full_queue_keeps_nobody_from_a_slot_that_is_free() {
    let mut book = Book::with_limit(1);
    let rules = RulesChange::default().with_max_queued(Some(0));
    let claim = Claim::Set;
    book.apply(A, &Command::SetLimit { rules, claim });
    assert!(matches!(book.admit(A, "a"), Admitted::Started { .. }));
    assert_eq!(book.admit(A, "b"), Admitted::QueueFull { queued: 0 });
}

#[test]
fn a_request_may_be_dropped_where_others_wait_or_run() {
    let mut book = Book::with_limit(1);
    let skip = |condition| move |request: RunRequest| request.skip_if(condition);
    assert!(matches!(
        book.wish("a", skip(SkipIf::Running)),
        Admitted::Started { .. }
    ));
    let (queued, started) = (0, 1);
    assert_eq!(
        book.wish("b", skip(SkipIf::Running)),
        Admitted::Skipped { queued, started }
    );
    assert!(matches!(
        book.wish("b", skip(SkipIf::Waiting)),
        Admitted::Queued { .. }
    ));
    let (queued, started) = (1, 1);
    assert_eq!(
        book.wish("c", skip(SkipIf::Waiting)),
        Admitted::Skipped { queued, started }
    );
    // A run that has its place already is no newcomer.
    assert!(matches!(
        book.wish("b", skip(SkipIf::Waiting)),
        Admitted::Queued { .. }
    ));
    assert!(book.state.entry(&run("c")).is_none());
}

#[test]
fn slots_have_the_smallest_numbers_that_are_free() {
    let mut book = Book::with_limit(4);
    for name in ["a", "b", "c"] {
        book.wish(name, RunRequest::numbered);
    }
    book.release(A, "b", None);
    book.wish("d", |request| weighing(2)(request).numbered());
    let slots = |book: &Book, name: &str| book.terms(name).slots.clone();
    assert_eq!(
        (slots(&book, "a"), slots(&book, "c"), slots(&book, "d")),
        (vec![0], vec![2], vec![1, 3])
    );
    assert!(slots(&book, "b").is_empty(), "it has none any more");
    book.wish("e", RunRequest::numbered);
    let (_, promoted) = book.release(A, "a", None);
    assert_eq!(
        (promoted, slots(&book, "e")),
        (vec!["e".to_owned()], vec![0])
    );
}

#[test]
fn an_orphan_keeps_the_numbers_of_its_slots() {
    let mut book = Book::with_limit(2);
    book.admit(A, "a");
    book.wish("b", RunRequest::numbered);
    book.wish("c", RunRequest::numbered);
    book.release(A, "b", None);
    let death = Command::Expire {
        session: SessionId::new(A),
        death: Death::Session,
    };
    book.apply(B, &death);
    book.admitted(
        B,
        &Command::Admit(request("c", RunKind::Durable).numbered()),
    );
    assert_eq!(
        (book.owner("c"), book.terms("c").slots.clone()),
        (Some(B), vec![0])
    );
}

#[test]
fn times_are_kept_by_the_clock_of_the_store() {
    let mut book = Book::with_limit(1);
    let seconds = Duration::from_secs;
    book.wish("a", |request| request.with_max_hold(seconds(10)));
    book.wish("b", |request| request.with_max_wait(seconds(5)));
    book.admit(A, "c");
    let at = |millis| Command::TimeOut {
        now: Timestamp::from_unix_millis(millis),
    };
    assert_eq!(book.state.head().policy.as_ref().unwrap().timed, 2);
    assert_eq!(book.swept(A, &at(4_999)), (vec![], vec![]));
    assert_eq!(book.swept(A, &at(5_000)), (vec!["b".into()], vec![]));
    assert_eq!(book.outcome("b"), Some(RunOutcome::TimedOut));
    book.now = 10_000;
    assert_eq!(book.swept(A, &at(10_000)), (vec!["a".into()], vec![]));
    assert_eq!(
        book.running(),
        ["a"],
        "it was asked, and has some time left"
    );
    assert_eq!(book.swept(A, &at(39_999)), (vec![], vec![]));
    assert_eq!(
        book.swept(A, &at(40_000)),
        (vec!["a".into()], vec!["c".into()])
    );
    assert_eq!(book.outcome("a"), Some(RunOutcome::TimedOut));
    assert_eq!(book.state.head().policy.as_ref().unwrap().timed, 0);
}

#[test]
fn whoever_supersedes_goes_before_nobody_that_it_would_have_come_after() {
    let mut book = Book::with_limit(1);
    let at = |priority| move |request: RunRequest| request.with_priority(Priority::new(priority));
    let main = |supersedes| in_group("main", supersedes);
    book.admit(A, "a");
    book.wish("low", main(Supersedes::None));
    book.wish("urgent", at(10));
    let newer = |request| at(10)(main(Supersedes::Waiting)(request));
    book.wish("newer", newer);
    assert_eq!(
        book.waiting(),
        ["urgent", "newer"],
        "a low place is none among the urgent"
    );
    // The place that an operator gave to another one is not handed on, its place of arrival is.
    book.wish("one", main(Supersedes::None));
    book.admit(A, "between");
    book.wish("two", main(Supersedes::None));
    let to = Bump::To(Priority::new(99));
    let (run, uid) = (run("two"), None);
    book.apply(A, &Command::Bump { run, uid, to });
    book.wish("three", main(Supersedes::Waiting));
    assert_eq!(book.waiting(), ["urgent", "three", "between"]);
}

#[test]
fn a_full_queue_of_runs_that_nobody_can_start_keeps_no_other_from_a_slot() {
    let mut book = Book::with_limit(4);
    let rules = RulesChange::default().with_max_queued(Some(1));
    let claim = Claim::Set;
    book.apply(A, &Command::SetLimit { rules, claim });
    book.wish("a", weighing(4));
    book.wish("heavy", weighing(4));
    book.apply(A, &Command::limit(Limit::new(2), None));
    book.release(A, "a", None);
    assert!(matches!(book.admit(A, "b"), Admitted::Started { .. }));
}

#[test]
fn a_waiting_run_cannot_become_heavier_than_the_limit() {
    let mut book = Book::with_limit(2);
    book.admit(A, "a");
    book.wish("b", weighing(2));
    let refused = book.wish("b", weighing(3));
    assert!(matches!(refused, Admitted::TooHeavy { .. }), "{refused:?}");
    assert_eq!(book.waiting(), ["b"]);
    assert_eq!(book.terms("b").weight, Weight::new(2).unwrap());
}

#[test]
fn where_lighter_runs_may_go_before_it_says_so_in_the_list_of_what_could_start() {
    let mut book = Book::with_limit(2);
    let rules = RulesChange::default().with_backfill(NonZeroU32::new(1));
    let claim = Claim::Pin;
    book.apply(A, &Command::SetLimit { rules, claim });
    book.admit(A, "a");
    book.wish("heavy", weighing(2));
    assert!(!book.state.head().could_start());
    // It waits for a process that takes it.
    book.takes_ownerless = false;
    let death = Command::Expire {
        session: SessionId::new(B),
        death: Death::Session,
    };
    book.apply(A, &PAUSE);
    book.apply(B, &Command::Admit(request("light", RunKind::Durable)));
    book.apply(A, &death);
    book.apply(A, &RESUME);
    assert!(book.state.head().could_start());
    book.takes_ownerless = true;
    assert_eq!(book.swept(A, &Command::Promote).1, ["light"]);
}

#[test]
fn a_round_of_superseding_leaves_one_so_that_a_full_queue_still_lets_the_newcomer_in() {
    let mut book = Book::with_limit(1);
    for name in ["runs", "old-1", "old-2", "old-3"] {
        book.wish(name, in_group("main", Supersedes::None));
    }
    book.apply(A, &Command::limit(Limit::new(1), None));
    // More urgent than they are: it takes the place of none.
    let urgent = in_group("main", Supersedes::Waiting)(request("new", RunKind::Durable));
    let urgent = urgent.with_priority(Priority::new(5));
    let round = book.swept(A, &Command::MakeWay(urgent.clone()));
    assert_eq!(
        round,
        (vec!["old-2".to_owned(), "old-3".to_owned()], Vec::new())
    );
    let rules = RulesChange::default().with_max_queued(Some(1));
    let claim = Claim::Set;
    book.apply(A, &Command::SetLimit { rules, claim });
    let admitted = book.admitted(A, &Command::Admit(urgent));
    assert!(matches!(admitted, Admitted::Queued { .. }), "{admitted:?}");
    assert_eq!(book.outcome("old-1"), Some(RunOutcome::Superseded));
}
