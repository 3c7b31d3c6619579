//! The runs of a process that is gone.

use super::*;

#[test]
fn ephemeral_runs_belong_to_their_process() {
    let mut book = Book::with_limit(1);
    book.apply(A, &Command::Admit(request("a", RunKind::Ephemeral)));
    book.apply(A, &Command::Admit(request("b", RunKind::Ephemeral)));
    for name in ["a", "b"] {
        let other = Command::Admit(request(name, RunKind::Ephemeral));
        assert_eq!(
            book.admitted(B, &other),
            Admitted::HeldElsewhere(SessionId::new(A))
        );
    }
    book.admit(B, "c");
    let (affected, promoted) = book.swept(B, &death(A, Death::Session));
    assert_eq!(
        (affected, promoted),
        (vec!["a".into(), "b".into()], vec!["c".into()])
    );
}

#[test]
fn the_death_of_a_session_orphans_durable_runs_and_frees_them_in_a_second_step() {
    let mut book = Book::with_limit(1);
    book.takes_ownerless = false;
    book.admit(A, "a");
    book.admit(A, "b");
    book.admit(B, "c");
    let (affected, promoted) = book.swept(B, &death(A, Death::Session));
    assert_eq!((affected, promoted), (vec!["a".into(), "b".into()], vec![]));
    assert_eq!((book.owner("a"), book.owner("b")), (None, None));
    assert_eq!(book.swept(B, &death(A, Death::Session)), (vec![], vec![]));
    // B cannot start a run that it has not admitted, so `b` keeps its place.
    assert_eq!(
        book.swept(B, &death(A, Death::Lease)),
        (vec!["a".into()], vec!["c".into()])
    );
    assert_eq!(book.waiting(), ["b"]);
    book.takes_ownerless = true;
    assert_eq!(book.release(B, "c", None).1, ["b"]);
    assert_eq!(book.owner("b"), Some(B));
}

#[test]
fn an_orphan_is_taken_over_with_a_new_token_and_counted_once() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    let old = book.token("a");
    book.apply(B, &death(A, Death::Session));
    assert!(matches!(book.admit(B, "a"), Admitted::Started { .. }));
    assert!(book.token("a") > old && book.running() == ["a"]);
    assert!(matches!(book.release(A, "a", Some(old)).0, Ended::Stale(_)));
    // The run expires although it is still running, and is adopted.
    book.apply(A, &death(B, Death::Lease));
    assert_eq!(book.running(), Vec::<String>::new());
    book.apply(A, &Command::Adopt(request("a", RunKind::Durable)));
    assert_eq!(
        (book.running(), book.owner("a")),
        (vec!["a".into()], Some(A))
    );
}

fn abandon(ticket: u64, token: Option<FencingToken>) -> Command {
    Command::Abandon {
        run: run("a"),
        uid: "uid-a".parse().unwrap(),
        owner: SessionId::new(3),
        ticket: Ticket::new(ticket),
        token,
    }
}

#[test]
fn only_the_owner_abandons() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    let abandon = abandon(1, None);
    assert_eq!(book.ended(B, &abandon).0, Ended::Unknown);
    assert_eq!(book.ended(A, &abandon).0, Ended::Done);
    assert_eq!(
        book.ended(A, &abandon).0,
        Ended::Before(RunOutcome::Cancelled)
    );
}

#[test]
fn a_run_whose_session_was_over_ends_as_such_whoever_says_so_first() {
    let mut book = Book::with_limit(1);
    book.admit(3, "a");
    // The process has another session by now, and gives back what it had in the name of the old one.
    assert_eq!(book.ended(A, &abandon(1, None)).0, Ended::Done);
    assert_eq!(book.outcome("a"), Some(RunOutcome::LeaseLost));
    assert!(book.state.entry(&run("a")).unwrap().is_abandoned());
}

#[test]
fn what_is_abandoned_is_that_grant_of_that_life_of_the_run() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    let first = book.token("a");
    let requeue = Command::Requeue {
        run: run("a"),
        uid: request("a", RunKind::Durable).uid,
        token: first,
    };
    book.apply(A, &requeue);
    let second = book.token("a");
    assert_eq!(
        book.ended(A, &abandon(1, Some(first))).0,
        Ended::Stale(second)
    );
    assert_eq!(book.ended(A, &abandon(1, Some(second))).0, Ended::Done);
    // The run may come again, with a new ticket.
    book.admit(A, "a");
    assert_eq!(book.ended(A, &abandon(1, None)).0, Ended::Unknown);
    assert_eq!(book.running(), ["a"]);
    assert_eq!(book.ended(A, &abandon(2, None)).0, Ended::Done);
}

#[test]
fn an_ephemeral_request_ends_no_run_of_its_name_that_somebody_else_has() {
    let other = |name: &str, kind| {
        let uid = "another".parse().unwrap();
        Command::Admit(RunRequest {
            uid,
            ..request(name, kind)
        })
    };
    let mut book = Book::with_limit(1);
    book.apply(A, &Command::Admit(request("a", RunKind::Ephemeral)));
    book.admit(A, "b");
    let held = Admitted::HeldElsewhere(SessionId::new(A));
    for name in ["a", "b"] {
        assert_eq!(book.admitted(B, &other(name, RunKind::Ephemeral)), held);
    }
    // A process may replace its own ephemeral run; a durable run replaces any run of its name;
    // and a name is free again once its run has ended.
    let replaced = book.admitted(A, &other("a", RunKind::Ephemeral));
    assert!(replaced.has_a_place(), "{replaced:?}");
    assert!(
        book.admitted(B, &other("b", RunKind::Durable))
            .has_a_place()
    );
    book.apply(A, &Command::cancel(run("a"), None));
    let again = Command::Admit(request("a", RunKind::Ephemeral));
    assert!(book.admitted(B, &again).has_a_place());
}
