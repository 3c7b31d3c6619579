//! Records that nobody counted or wrote by this software: one repository never harms another, and
//! nobody waits for what cannot come.

use pac_core::driver::{Commit, CommitOutcome, RepositoryCommit, SessionTtl};
use pac_core::protocol::{Changes, Command, Issuer, apply};
use pac_core::state::{Head, RepositoryState, RunOutcome};
use pac_core::{
    Error, ErrorKind, FencingToken, Limit, MAX_COUNTER, MAX_FLOOR, SessionId, SessionIdentity,
    Ticket,
};

use crate::faults::{Faults, Ruin};
use crate::{Fixture, durable, queued, repository, started};

/// A counter near the end of what the store can hold is written by no commit, and no removal
/// carries it to the other repositories: these go on to count from where they were.
pub async fn counters_at_their_end_stay_in_their_repository(fixture: &Fixture) {
    let (poisoned, later) = (repository("poisoned"), repository("later"));
    let options = fixture.options();
    let lease = options.lease_ttl.unwrap_or(options.session_ttl);
    let ttl = SessionTtl::new(options.session_ttl, lease);
    let session = fixture
        .driver()
        .open_session(ttl, &SessionIdentity::of_this_process())
        .await
        .unwrap();
    let admit = Command::Admit(durable("a"));
    let sound = changes(fixture, &admit, session).await;
    let outcome = commit(fixture, session, sound).await.unwrap();
    assert!(
        matches!(outcome, CommitOutcome::Committed(_)),
        "{outcome:?}"
    );

    let ends: [fn(u64) -> Head; 2] = [
        |at| Head {
            last_token: FencingToken::new(at),
            ..Head::absent(0)
        },
        |at| Head {
            last_ticket: Ticket::new(at),
            ..Head::absent(0)
        },
    ];
    for end in ends {
        for (command, at) in [
            (Command::Admit(durable("b")), MAX_COUNTER + 1),
            (Command::Admit(durable("b")), u64::MAX >> 1),
            (Command::RemoveRepository, MAX_FLOOR + 1),
            (Command::RemoveRepository, u64::MAX >> 1),
        ] {
            let mut planned = changes(fixture, &command, session).await;
            let counters = end(at);
            let head = &mut planned.head;
            head.last_token = head.last_token.max(counters.last_token);
            head.last_ticket = head.last_ticket.max(counters.last_ticket);
            let reason = planned.check_counters().unwrap_err();
            assert!(reason.contains("backup"), "{reason}");
            match commit(fixture, session, planned).await {
                Ok(CommitOutcome::Refused(error)) | Err(error) => {
                    assert!(!error.is_retryable(), "{error}");
                }
                other => panic!("{at}: {other:?}"),
            }
        }
    }
    let view = fixture.view(&poisoned).await;
    assert!(view.exists && view.head.last_token.get() < MAX_FLOOR);

    // A manager that reads such a counter removes nothing, and the next repository counts on from
    // where the store was.
    let ruins = Faults::none();
    ruins.ruin(&poisoned, Ruin::CounterAtItsEnd);
    let manager = fixture.manager_behind(&ruins).await;
    let refused = manager.remove_repository(&poisoned).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    for part in ["ci/poisoned", "last fencing token", "2^62", "backup"] {
        let told = refused.to_string();
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    // One number further, and it would have to give out a token that no store may hold.
    ruins.ruin(&poisoned, Ruin::LastToken);
    let commits = ruins.traffic(&poisoned).commits;
    let refused = manager.admit(&poisoned, durable("beyond")).await;
    let refused = refused.map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(
        refused.to_string().contains("last fencing token"),
        "{refused}"
    );
    assert_eq!(ruins.traffic(&poisoned).commits, commits, "it was written");

    manager
        .set_limit(&later, Limit::new(1), None)
        .await
        .unwrap();
    let first = started(&manager, &later, durable("first")).await;
    let token = first.token();
    manager.release(first, RunOutcome::Completed).await.unwrap();
    let second = started(&manager, &later, durable("second")).await;
    assert!(second.token() > token && second.token().get() < MAX_FLOOR);
    manager
        .release(second, RunOutcome::Completed)
        .await
        .unwrap();
}

/// As soon as a manager finds that it cannot understand a repository, all who wait there or follow
/// it are told so; the others are not disturbed, and it can be used again once it was repaired.
pub async fn waiters_and_watches_of_a_corrupt_repository_are_told(fixture: &Fixture) {
    let (web, api) = (repository("web"), repository("api"));
    let ruins = Faults::none();
    let (manager, other) = (
        fixture.manager_behind(&ruins).await,
        fixture.manager().await,
    );
    for key in [&web, &api] {
        manager.set_limit(key, Limit::new(1), None).await.unwrap();
    }
    let held = started(&other, &web, durable("held")).await;
    let of_api = started(&other, &api, durable("held")).await;
    let waits = queued(&manager, &web, durable("waits")).await;
    let undisturbed = queued(&manager, &api, durable("waits")).await;
    let mut watch = manager.watch(&web).await.unwrap();
    watch.next().await.unwrap();
    assert!(watch.failure().is_none());

    ruins.ruin(&web, Ruin::CounterAtItsEnd);
    // Whatever has the manager read it.
    let read = manager.cancel(&web, &crate::run("nobody"), None).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt);
    other.release(held, RunOutcome::Completed).await.unwrap();
    let told = fixture.soon("the end of waiting", waits).await;
    let told = told.map(drop).unwrap_err();
    let of = (told.kind(), told.is_retryable(), told.repository());
    assert_eq!(of, (ErrorKind::Corrupt, false, Some(&web)), "{told}");
    let over = async { while watch.next().await.is_some() {} };
    fixture.soon("the end of the watch", over).await;
    let why = watch.failure().unwrap();
    assert_eq!(why.kind(), ErrorKind::Corrupt, "{why}");

    other.release(of_api, RunOutcome::Completed).await.unwrap();
    let lease = fixture.turn(undisturbed).await;
    manager.release(lease, RunOutcome::Completed).await.unwrap();
    ruins.mend(&web);
    let waits = started(&manager, &web, durable("waits")).await;
    manager.release(waits, RunOutcome::Completed).await.unwrap();
}

/// The changes of a command at the repository as it is.
async fn changes(fixture: &Fixture, command: &Command, session: SessionId) -> Changes {
    let snapshot = fixture.driver().load(&repository("poisoned"), None).await;
    let state = RepositoryState::from_snapshot(&snapshot.unwrap()).unwrap();
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    apply(&state, issuer, command).1.unwrap()
}

async fn commit(
    fixture: &Fixture,
    session: SessionId,
    changes: Changes,
) -> Result<CommitOutcome, Error> {
    let batch = vec![RepositoryCommit {
        repository: repository("poisoned"),
        changes,
    }];
    let mut outcomes = match fixture.driver().commit(session, batch) {
        Commit::Done(outcome) => outcome?,
        Commit::Pending(answer) => answer.await?,
    };
    Ok(outcomes.pop().unwrap())
}
