//! The protocol, command by command, on a state that is committed after each.

use super::*;
use crate::name::PipelineRunKey;
use crate::state::{Absorb, EntryState, RunKind, RunOutcome, Snapshot};
use crate::value::{
    FencingToken, Limit, LimitVersion, Priority, SessionId, Stamp, Ticket, Timestamp, Version,
};

mod deaths;
mod operators;
mod rules;
mod wishes;

const A: u64 = 1;
const B: u64 = 2;
const PAUSE: Command = Command::Pause {
    reason: None,
    only_if: PauseCondition::Always,
};
const RESUME: Command = Command::Resume {
    only_if: PauseCondition::Always,
};

/// A repository to which each command is committed at once.
struct Book {
    state: RepositoryState,
    last_token: FencingToken,
    takes_ownerless: bool,
    /// What the store's clock shows, in milliseconds.
    now: i64,
}

fn run(name: &str) -> PipelineRunKey {
    PipelineRunKey::new("ns", name).unwrap()
}

fn request(name: &str, kind: RunKind) -> RunRequest {
    let durable = RunRequest::durable(run(name), format!("uid-{name}").parse().unwrap());
    RunRequest { kind, ..durable }
}

impl Book {
    fn with_limit(limit: u32) -> Self {
        let mut book = Self {
            state: RepositoryState::absent(0),
            last_token: FencingToken::default(),
            takes_ownerless: true,
            now: 0,
        };
        let limit = Limit::new(limit);
        book.apply(A, &Command::limit(limit, None));
        book
    }

    /// Applies and commits a command, and checks what must hold after every commit.
    fn apply(&mut self, session: u64, command: &Command) -> Outcome {
        let issuer = Issuer {
            session: SessionId::new(session),
            takes_ownerless: self.takes_ownerless,
        };
        let (outcome, changes) = apply(&self.state, issuer, command);
        let Some(changes) = changes else {
            return outcome;
        };
        assert_eq!(changes.expected, self.state.head().version());
        let slots_before = self.state.head().slots();
        if changes.remove {
            let floor = self.state.head().floor_after_removal();
            self.state
                .absorb(&Snapshot::absent(floor), |_, _| ())
                .unwrap();
            return outcome;
        }
        let version = Version::new(changes.expected.revision.next(), Stamp::default());
        let snapshot = changes.written(version, Timestamp::from_unix_millis(self.now));
        let head = snapshot.head.clone();
        assert_eq!(self.state.absorb(&snapshot, |_, _| ()), Ok(Absorb::Applied));
        assert!(head.last_token >= self.last_token, "tokens never go back");
        self.last_token = head.last_token;
        let adopts = matches!(command, Command::Adopt(_));
        let more = head.slots() > slots_before;
        let within = head.limit.get().is_none_or(|limit| head.slots() <= limit);
        assert!(adopts || !more || within, "{command:?} exceeded the limit");
        outcome
    }

    fn admit(&mut self, session: u64, name: &str) -> Admitted {
        self.admitted(session, &Command::Admit(request(name, RunKind::Durable)))
    }

    fn admitted(&mut self, session: u64, command: &Command) -> Admitted {
        match self.apply(session, command) {
            Outcome::Admitted { admitted, .. } => admitted,
            other => panic!("{other:?}"),
        }
    }

    fn token(&self, name: &str) -> FencingToken {
        self.state.entry(&run(name)).unwrap().token().unwrap()
    }

    fn release(
        &mut self,
        session: u64,
        name: &str,
        token: Option<FencingToken>,
    ) -> (Ended, Vec<String>) {
        let uid = format!("uid-{name}").parse().unwrap();
        let outcome = RunOutcome::Completed;
        self.ended(
            session,
            &Command::Release {
                run: run(name),
                uid,
                token,
                outcome,
            },
        )
    }

    fn ended(&mut self, session: u64, command: &Command) -> (Ended, Vec<String>) {
        match self.apply(session, command) {
            Outcome::Ended { ended, promoted } => (ended, names(&promoted)),
            other => panic!("{other:?}"),
        }
    }

    fn swept(&mut self, session: u64, command: &Command) -> (Vec<String>, Vec<String>) {
        match self.apply(session, command) {
            Outcome::Swept { affected, promoted } => (names(&affected), names(&promoted)),
            other => panic!("{other:?}"),
        }
    }

    /// Admits a durable run with wishes.
    fn wish(&mut self, name: &str, wish: impl FnOnce(RunRequest) -> RunRequest) -> Admitted {
        self.admitted(A, &Command::Admit(wish(request(name, RunKind::Durable))))
    }

    fn outcome(&self, name: &str) -> Option<RunOutcome> {
        match self.state.entry(&run(name))?.state {
            EntryState::Finished { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    fn running(&self) -> Vec<String> {
        let mut running: Vec<_> = self.state.entries().filter(|e| e.is_started()).collect();
        running.sort_by_key(|entry| entry.token());
        running
            .iter()
            .map(|entry| entry.run.name().to_owned())
            .collect()
    }

    fn waiting(&self) -> Vec<String> {
        self.state
            .queue()
            .map(|entry| entry.run.name().to_owned())
            .collect()
    }

    fn owner(&self, name: &str) -> Option<u64> {
        self.state
            .entry(&run(name))
            .unwrap()
            .owner()
            .map(SessionId::get)
    }
}

fn names(runs: &[PipelineRunKey]) -> Vec<String> {
    runs.iter().map(|run| run.name().to_owned()).collect()
}

fn death(session: u64, death: Death) -> Command {
    let session = SessionId::new(session);
    Command::Expire { session, death }
}

#[test]
fn runs_start_in_order_and_hand_their_slot_over() {
    let mut book = Book::with_limit(1);
    assert!(matches!(book.admit(A, "a"), Admitted::Started { .. }));
    assert!(matches!(book.admit(B, "b"), Admitted::Queued { .. }));
    assert!(matches!(book.admit(A, "c"), Admitted::Queued { .. }));
    let token = book.token("a");
    assert_eq!(
        book.release(A, "a", Some(token)),
        (Ended::Done, vec!["b".into()])
    );
    assert_eq!(book.owner("b"), Some(B));
    assert!(book.token("b") > token);
    assert_eq!(
        (book.running(), book.waiting()),
        (vec!["b".into()], vec!["c".into()])
    );
}

#[test]
fn a_grant_for_another_session_depends_on_its_life() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.admit(B, "b");
    let issuer = Issuer {
        session: SessionId::new(A),
        takes_ownerless: false,
    };
    let cancel = Command::cancel(run("a"), None);
    let (_, changes) = apply(&book.state, issuer, &cancel);
    assert_eq!(changes.unwrap().alive, [SessionId::new(B)]);
}

#[test]
fn asking_again_changes_nothing_unless_the_owner_or_priority_does() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.admit(A, "b");
    book.admit(A, "c");
    let revision = book.state.head().revision;
    assert!(matches!(book.admit(A, "a"), Admitted::Started { .. }));
    assert!(matches!(book.admit(A, "b"), Admitted::Queued { .. }));
    assert_eq!(book.state.head().revision, revision, "nothing was written");
    assert!(matches!(book.admit(B, "b"), Admitted::Queued { .. }));
    assert_eq!(
        (book.owner("b"), book.waiting()),
        (Some(B), vec!["b".into(), "c".into()])
    );
    let urgent = request("c", RunKind::Durable).with_priority(Priority::new(i32::MAX));
    book.apply(A, &Command::Admit(urgent));
    assert_eq!(book.waiting(), ["c", "b"]);
    let late = request("c", RunKind::Durable).with_priority(Priority::new(i32::MIN));
    book.apply(A, &Command::Admit(late));
    assert_eq!(book.waiting(), ["b", "c"]);
}

#[test]
fn old_tokens_and_other_uids_change_nothing() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    let old = book.token("a");
    book.apply(
        A,
        &Command::Requeue {
            run: run("a"),
            uid: request("a", RunKind::Durable).uid,
            token: old,
        },
    );
    assert!(
        book.token("a") > old,
        "first in the queue, it has a slot again"
    );
    assert!(matches!(book.release(A, "a", Some(old)).0, Ended::Stale(_)));
    let again = Command::Requeue {
        run: run("a"),
        uid: request("a", RunKind::Durable).uid,
        token: old,
    };
    assert_eq!(book.admitted(A, &again), Admitted::NotHeld);
    assert_eq!(book.release(A, "nobody", None).0, Ended::Unknown);
    book.admit(A, "b");
    assert_eq!(book.release(A, "b", None).0, Ended::NotStarted);
    assert_eq!(book.release(B, "a", None).0, Ended::Done, "by force");
    assert_eq!(
        book.release(B, "a", None).0,
        Ended::Before(RunOutcome::Completed)
    );
    assert_eq!(
        book.admit(A, "a"),
        Admitted::Finished(RunOutcome::Completed)
    );
}

#[test]
fn a_new_run_of_a_name_ends_the_old_one() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.admit(A, "b");
    let old = book.token("a");
    let new = RunRequest {
        uid: "other".parse().unwrap(),
        ..request("a", RunKind::Durable)
    };
    assert!(matches!(
        book.admitted(A, &Command::Admit(new)),
        Admitted::Queued { .. }
    ));
    assert_eq!(
        (book.running(), book.waiting()),
        (vec!["b".into()], vec!["a".into()])
    );
    assert_eq!(book.release(A, "a", Some(old)).0, Ended::Unknown);
}

/// Whatever has come since is newer than what was known.
#[test]
fn a_request_ends_no_run_of_its_name_but_the_one_that_it_knows() {
    let with = |uid: &str, known: Option<&str>| {
        let uid = uid.parse().unwrap();
        let known = known.map(|known| known.parse().unwrap());
        let request = RunRequest::durable(run("a"), uid);
        request.replacing(known)
    };
    let mut book = Book::with_limit(1);
    book.apply(A, &Command::Admit(with("2", None)));
    let refused = Admitted::HeldElsewhere(SessionId::new(A));
    for command in [Command::Admit, Command::Adopt] {
        for known in [None, Some("0")] {
            assert_eq!(book.admitted(B, &command(with("1", known))), refused);
        }
    }
    let running = |book: &Book| book.running().len();
    assert_eq!(running(&book), 1);
    assert!(matches!(
        book.admitted(A, &Command::Admit(with("2", Some("1")))),
        Admitted::Started { .. }
    ));
    // The one that it knows, it replaces; and what has ended keeps no name.
    let third = Command::Adopt(with("3", Some("2")));
    assert!(book.admitted(B, &third).has_a_place());
    let cancel = Command::cancel(run("a"), None);
    book.apply(A, &cancel);
    let fourth = Command::Admit(with("4", None));
    assert!(book.admitted(B, &fourth).has_a_place());
    assert_eq!(running(&book), 1);
}

#[test]
fn a_requeued_run_takes_its_old_place() {
    let mut book = Book::with_limit(2);
    for name in ["a", "b", "c", "d"] {
        book.admit(A, name);
    }
    book.apply(A, &Command::limit(Limit::new(1), None));
    let token = book.token("a");
    let requeue = Command::Requeue {
        run: run("a"),
        uid: request("a", RunKind::Durable).uid,
        token,
    };
    assert!(matches!(
        book.admitted(A, &requeue),
        Admitted::Queued { .. }
    ));
    assert_eq!(
        (book.running(), book.waiting()),
        (vec!["b".into()], vec!["a".into(), "c".into(), "d".into()])
    );
}

#[test]
fn adopted_runs_count_beyond_the_limit_and_nothing_starts_until_below() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.admit(A, "b");
    for name in ["x", "b"] {
        book.apply(B, &Command::Adopt(request(name, RunKind::Durable)));
    }
    book.admit(A, "c");
    assert_eq!(book.running(), ["a", "x", "b"]);
    assert_eq!(book.release(A, "a", None).1, Vec::<String>::new());
    assert_eq!(book.release(A, "x", None).1, Vec::<String>::new());
    assert_eq!(book.release(A, "b", None).1, ["c"]);
}

#[test]
fn limits_start_waiters_in_order_and_older_announcements_are_ignored() {
    let mut book = Book::with_limit(1);
    for name in ["a", "b", "c", "d", "e", "f"] {
        book.admit(A, name);
    }
    let announce =
        |limit, version| Command::limit(Limit::new(limit), Some(LimitVersion::new(version)));
    let set = |book: &mut Book, command| match book.apply(B, &command) {
        Outcome::LimitSet {
            accepted, promoted, ..
        } => (accepted, names(&promoted)),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        set(&mut book, announce(3, 0)),
        (true, vec!["b".into(), "c".into()])
    );
    assert_eq!(set(&mut book, announce(2, 7)), (true, vec![]));
    assert_eq!(set(&mut book, announce(5, 6)), (false, vec![]));
    assert_eq!(book.release(A, "a", None).1, Vec::<String>::new());
    let rest = vec!["d".into(), "e".into(), "f".into()];
    assert_eq!(set(&mut book, announce(0, 8)), (true, rest));
}

#[test]
fn a_removed_repository_goes_on_counting() {
    let mut book = Book::with_limit(1);
    book.admit(A, "a");
    book.admit(A, "b");
    let (token, revision) = (book.token("a"), book.state.head().revision);
    let Outcome::Removed(ended) = book.apply(A, &Command::RemoveRepository) else {
        panic!("not removed");
    };
    assert_eq!(names(&ended), ["a", "b"]);
    assert!(!book.state.exists() && book.state.head().revision > revision);
    let ticket = book.state.head().last_ticket;
    book.admit(A, "a");
    assert!(book.token("a") > token);
    assert!(ticket >= Ticket::new(2) && book.state.head().last_ticket > ticket);
}

#[test]
fn a_plan_stops_at_its_budget_and_says_so() {
    let mut book = Book::with_limit(1);
    for n in 0..10 {
        book.admit(A, &format!("r{n}"));
    }
    let issuer = Issuer {
        session: SessionId::new(A),
        takes_ownerless: true,
    };
    let mut plan = Plan::new(&book.state, issuer, 4);
    plan.apply(&Command::limit(Limit::UNLIMITED, None));
    assert!(plan.has_more());
    assert_eq!(plan.finish().unwrap().entries.len(), 4);
    let mut plan = Plan::new(&book.state, issuer, 4);
    plan.apply(&death(A, Death::Lease));
    assert!(plan.has_more());
    assert_eq!(plan.finish().unwrap().entries.len(), 4);
}

#[test]
fn commands_of_one_plan_see_what_those_before_them_did() {
    let mut book = Book::with_limit(2);
    book.admit(A, "a");
    let issuer = Issuer {
        session: SessionId::new(A),
        takes_ownerless: true,
    };
    let mut plan = Plan::new(&book.state, issuer, usize::MAX);
    for name in ["b", "c", "d"] {
        plan.apply(&Command::Admit(request(name, RunKind::Durable)));
    }
    plan.apply(&Command::cancel(run("c"), None));
    let Outcome::Ended { promoted, .. } = plan.apply(&Command::cancel(run("a"), None)) else {
        panic!("not ended");
    };
    assert_eq!(names(&promoted), ["d"]);
    let changes = plan.finish().unwrap();
    assert_eq!((changes.head.started, changes.head.queued), (2, 0));
    let states: Vec<_> = changes
        .entries
        .iter()
        .map(|e| (e.run.name(), e.state))
        .collect();
    assert_eq!(states.len(), 4);
    assert!(states.iter().all(|(name, state)| match state {
        EntryState::Started { .. } => ["b", "d"].contains(name),
        EntryState::Finished { outcome, .. } => *outcome == RunOutcome::Cancelled,
        EntryState::Queued { .. } => false,
    }));
}
