//! Runs that others end, ask to end, or move.

use super::*;
use crate::state::Moment;

fn cancel(name: &str, how: Cancellation) -> Command {
    Command::Cancel {
        run: run(name),
        uid: None,
        how,
    }
}

#[test]
fn how_a_run_is_cancelled_depends_on_whether_it_has_started() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.admit(A, "b");
    let token = book.token("a");
    let waiting = cancel("a", Cancellation::IfWaiting);
    assert_eq!(book.ended(A, &waiting), (Ended::Started(token), vec![]));
    book.now = 3;
    for _ in 0..2 {
        let ask = cancel("a", Cancellation::Ask);
        assert_eq!(book.ended(A, &ask), (Ended::Asked(token), vec![]));
    }
    let asked = book.state.entry(&run("a")).unwrap().terms().asked;
    assert_eq!(asked, Moment::of(Timestamp::from_unix_millis(3)));
    assert_eq!(
        book.running(),
        ["a"],
        "its slot is taken until it is released"
    );
    let ask = cancel("b", Cancellation::Ask);
    assert_eq!(book.ended(A, &ask), (Ended::Done, vec![]));
    let at_once = cancel("a", Cancellation::AtOnce);
    assert_eq!(book.ended(A, &at_once), (Ended::Done, vec![]));
}

#[test]
fn a_run_that_was_asked_to_end_ends_where_it_would_wait_again() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.apply(A, &cancel("a", Cancellation::Ask));
    let token = book.token("a");
    book.apply(A, &PAUSE);
    book.apply(
        A,
        &Command::Requeue {
            run: run("a"),
            uid: "uid-a".parse().unwrap(),
            token,
        },
    );
    assert_eq!(book.outcome("a"), Some(RunOutcome::Cancelled));
}

#[test]
fn many_are_ended_in_one_commit_in_the_order_of_their_arrival() {
    let mut book = Book::with_limit(2);
    for (at, name, group) in [
        (1, "a", "x"),
        (2, "b", "y"),
        (3, "c", "x"),
        (4, "d", "y"),
        (5, "e", "x"),
    ] {
        book.now = at;
        book.wish(name, |request| request.in_group(group.parse().unwrap()));
    }
    let all = |which: Which, how| Command::CancelAll { which, how };
    let of_x = Which::all().of_group("x".parse().unwrap());
    let early = of_x.clone().queued_before(Timestamp::from_unix_millis(5));
    let waiting = Cancellation::IfWaiting;
    assert_eq!(
        book.swept(A, &all(early, waiting)),
        (vec!["c".into()], vec![])
    );
    let ask = Cancellation::Ask;
    let asked = book.swept(A, &all(of_x.clone(), ask));
    assert_eq!(asked, (vec!["a".into(), "e".into()], vec![]));
    assert_eq!(
        book.swept(A, &all(of_x, ask)),
        (vec![], vec![]),
        "asked once"
    );
    let at_once = Cancellation::AtOnce;
    let ended = book.swept(A, &all(Which::all(), at_once));
    assert_eq!(ended, (vec!["a".into(), "b".into(), "d".into()], vec![]));
}

#[test]
fn a_bumped_run_stays_where_it_was_put_and_goes_back_when_told() {
    let mut book = Book::with_limit(1);
    for name in ["a", "b", "c", "d"] {
        book.admit(A, name);
    }
    let bump = |name: &str, to| Command::Bump {
        run: run(name),
        uid: None,
        to,
    };
    book.apply(A, &bump("d", Bump::First));
    assert_eq!(book.waiting(), ["d", "b", "c"]);
    book.apply(A, &bump("c", Bump::First));
    assert_eq!(book.waiting(), ["c", "d", "b"]);
    let again = book.admitted(A, &Command::Admit(request("d", RunKind::Durable)));
    assert!(matches!(again, Admitted::Queued { .. }));
    assert_eq!(book.waiting(), ["c", "d", "b"], "its owner asks as before");
    book.apply(A, &bump("c", Bump::To(Priority::new(-1))));
    assert_eq!(book.waiting(), ["d", "b", "c"]);
    // Its owner wants another priority: that is where it goes back to.
    let urgent = request("c", RunKind::Durable).with_priority(Priority::new(7));
    book.admitted(A, &Command::Admit(urgent));
    assert_eq!(book.waiting(), ["d", "b", "c"]);
    for name in ["c", "d"] {
        book.apply(A, &bump(name, Bump::Back));
    }
    assert_eq!(book.waiting(), ["c", "b", "d"]);
    assert!(book.state.entries().all(|entry| entry.terms.is_none()));
    let running = book.apply(A, &bump("a", Bump::First));
    let standing = Admitted::NotHeld;
    let promoted = vec![];
    assert_eq!(running, Outcome::Moved { standing, promoted });
}
