//! The driver's contract, tested directly: situations that managers avoid while nothing fails.

use std::time::Duration;

use pac_core::driver::{Commit, CommitOutcome, RepositoryCommit, SessionTtl};
use pac_core::protocol::{Command, Issuer, apply};
use pac_core::state::RepositoryState;
use pac_core::{Error, ErrorKind, RepositoryKey, SessionId, SessionIdentity, Stamp, Version};
use tokio::time::{Instant, sleep};

use crate::{Fixture, durable, repository};

/// A session that is over cannot commit, and cannot be renewed.
pub async fn a_dead_session_does_nothing_more(fixture: &Fixture) {
    let repository = repository("contract");
    let session = died(fixture).await;
    for _ in 0..2 {
        let renewed = fixture.driver().keep_alive(session).await;
        assert_eq!(renewed.unwrap_err().kind(), ErrorKind::SessionLost);
        let admit = Command::Admit(durable("a"));
        let answer = commits(fixture, &repository, session, &admit, &[]).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::SessionLost);
    }
    assert!(!fixture.view(&repository).await.exists);
}

/// A commit that depends on a session which is over is not written.
pub async fn nothing_is_granted_to_the_dead(fixture: &Fixture) {
    let repository = repository("contract");
    let (dead, session) = (died(fixture).await, lives(fixture).await);
    let admit = Command::Admit(durable("a"));
    let outcome = commits(fixture, &repository, session, &admit, &[dead]).await;
    let outcome = outcome.unwrap();
    assert!(
        matches!(outcome, CommitOutcome::SessionDead(which) if which == dead),
        "{outcome:?}"
    );
    assert!(!fixture.view(&repository).await.exists);
}

/// Of two commits planned at the same revision, only one is written.
pub async fn a_commit_is_of_its_revision(fixture: &Fixture) {
    let repository = repository("contract");
    let session = lives(fixture).await;
    let state = state(fixture, &repository).await;
    let batch = |name| planned(&state, &repository, session, &Command::Admit(durable(name)));
    for (name, written) in [("a", true), ("b", false)] {
        let outcome = commit(fixture, session, batch(name)).await.unwrap();
        let is_written = matches!(outcome, CommitOutcome::Committed(_));
        assert_eq!(is_written, written, "{outcome:?}");
    }
    fixture.view(&repository).await.assert(&["a"], &[]);
}

/// A version is a revision and a stamp, and both are compared: what a store that has gone back in
/// time has at a revision is not what was planned on, and what changed since is not told.
pub async fn a_version_is_compared_as_a_whole(fixture: &Fixture) {
    let repository = repository("contract");
    let session = lives(fixture).await;
    for name in ["a", "b", "c"] {
        let admit = Command::Admit(durable(name));
        let admitted = commits(fixture, &repository, session, &admit, &[]).await;
        assert!(matches!(admitted, Ok(CommitOutcome::Committed(_))));
    }
    let driver = fixture.driver();
    let known = driver.load(&repository, None).await.unwrap();
    let before = known.head.version();
    let part = driver.load(&repository, Some(before)).await.unwrap();
    assert_eq!((part.since, part.entries.len()), (Some(before), 0));
    let other = Stamp::new(before.stamp.get() ^ (1 << 40 | 1));
    let other = Version::new(before.revision, other);
    let all = driver.load(&repository, Some(other)).await.unwrap();
    assert_eq!((all.since, all.entries.len()), (None, 3), "{all:?}");
    let now = state(fixture, &repository).await;
    for command in [Command::Admit(durable("d")), Command::RemoveRepository] {
        let mut batch = planned(&now, &repository, session, &command);
        for commit in &mut batch {
            commit.changes.expected = other;
        }
        let outcome = commit(fixture, session, batch).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Conflict(_)), "{outcome:?}");
    }
    let admit = Command::Admit(durable("d"));
    let admitted = commits(fixture, &repository, session, &admit, &[]).await;
    let Ok(CommitOutcome::Committed(written)) = admitted else {
        panic!("{admitted:?}");
    };
    let head = written.head;
    assert!(head.revision > before.revision && head.stamp != before.stamp);
    // Of a version that was there once, and of one that never was.
    let part = driver.load(&repository, Some(before)).await.unwrap();
    assert!(part.since.is_none_or(|since| since == before), "{part:?}");
    let all = driver.load(&repository, Some(other)).await.unwrap();
    assert_eq!((all.since, all.entries.len()), (None, 4), "{all:?}");
    fixture
        .view(&repository)
        .await
        .assert(&["a", "b", "c", "d"], &[]);
}

/// A removal answers with the whole state after it, in which nothing is left; and the numbers go
/// on from there.
pub async fn a_removal_answers_with_what_is_left(fixture: &Fixture) {
    let repository = repository("contract");
    let session = lives(fixture).await;
    let admit = Command::Admit(durable("a"));
    let admitted = commits(fixture, &repository, session, &admit, &[]).await;
    assert!(matches!(admitted, Ok(CommitOutcome::Committed(_))));
    let before = state(fixture, &repository).await.head().clone();
    let removal = Command::RemoveRepository;
    let removed = commits(fixture, &repository, session, &removal, &[]).await;
    let Ok(CommitOutcome::Committed(left)) = removed else {
        panic!("{removed:?}");
    };
    assert_eq!((left.since, left.exists), (None, false), "{left:?}");
    assert!(left.entries.is_empty() && left.head.revision > before.revision);
    assert!(left.head.last_token >= before.last_token, "{left:?}");
    assert_eq!(&left.head, state(fixture, &repository).await.head());
}

async fn lives(fixture: &Fixture) -> SessionId {
    let options = fixture.options();
    let ttl = SessionTtl::new(
        options.session_ttl,
        options.lease_ttl.unwrap_or(options.session_ttl),
    );
    fixture
        .driver()
        .open_session(ttl, &SessionIdentity::of_this_process())
        .await
        .unwrap()
}

/// Opens a session and lets it die unrenewed. Looks for dead sessions meanwhile, as managers do: a
/// store that nobody uses for that long may take itself to have stalled.
async fn died(fixture: &Fixture) -> SessionId {
    let session = lives(fixture).await;
    let options = fixture.options();
    let dead_by = Instant::now() + options.session_ttl + Duration::from_secs(2);
    while Instant::now() < dead_by {
        sleep(options.sweep_interval).await;
        fixture.driver().dead_sessions().await.unwrap();
    }
    session
}

/// Commits the changes of a command, on condition that the sessions in `alive` live.
async fn commits(
    fixture: &Fixture,
    repository: &RepositoryKey,
    session: SessionId,
    command: &Command,
    alive: &[SessionId],
) -> Result<CommitOutcome, Error> {
    let state = state(fixture, repository).await;
    let mut batch = planned(&state, repository, session, command);
    for commit in &mut batch {
        commit.changes.alive.extend(alive);
    }
    commit(fixture, session, batch).await
}

async fn state(fixture: &Fixture, repository: &RepositoryKey) -> RepositoryState {
    let snapshot = fixture.driver().load(repository, None).await.unwrap();
    RepositoryState::from_snapshot(&snapshot).unwrap()
}

fn planned(
    state: &RepositoryState,
    repository: &RepositoryKey,
    session: SessionId,
    command: &Command,
) -> Vec<RepositoryCommit> {
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    let changes = apply(state, issuer, command).1.unwrap();
    let repository = repository.clone();
    vec![RepositoryCommit {
        repository,
        changes,
    }]
}

async fn commit(
    fixture: &Fixture,
    session: SessionId,
    batch: Vec<RepositoryCommit>,
) -> Result<CommitOutcome, Error> {
    let mut outcomes = match fixture.driver().commit(session, batch) {
        Commit::Done(outcome) => outcome?,
        Commit::Pending(answer) => answer.await?,
    };
    Ok(outcomes.pop().unwrap())
}
