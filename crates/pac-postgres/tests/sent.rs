//! What commits send: nothing of what a repository or a run does not use, or what stays as it was.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use pac_core::Limit;
use pac_core::driver::{Driver, RepositoryCommit};
use pac_core::protocol::{Claim, Command, Issuer, apply};
use pac_core::state::{Owner, RepositoryState, RulesChange, RunOutcome, Weight};
use pac_postgres::PostgresDriver;
use support::proxy::Proxy;
use support::{COMMIT, SYSTEM, TTL, command, durable, key, options, port, set_limit};

/// A commit that asks for nothing but slots sends no more than before; the others are plain statements,
/// too, and what they wrote is there for a driver that connects anew.
#[tokio::test]
async fn terms_are_sent_where_there_are_some_and_outlive_their_driver() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let options = options(proxy.port);
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    let web = key("web");
    set_limit(&driver, session, &web, 2).await;
    command(&driver, session, &web, &Command::Admit(durable("first"))).await;
    proxy.clear();
    command(&driver, session, &web, &Command::Admit(durable("plain"))).await;
    assert_eq!(
        (
            proxy.requests_with(COMMIT),
            proxy.requests_with("at_moment")
        ),
        (1, 0)
    );
    let heavy = durable("heavy").with_weight(Weight::new(2).unwrap());
    command(&driver, session, &web, &Command::Admit(heavy)).await;
    assert_eq!(
        (
            proxy.requests_with(COMMIT),
            proxy.requests_with("at_moment")
        ),
        (2, 1)
    );
    // One run ends that has none, and gives its slot to one that has some.
    for name in ["first", "plain"] {
        let end = Command::Release {
            run: durable(name).run,
            uid: durable(name).uid,
            token: None,
            outcome: RunOutcome::Completed,
        };
        command(&driver, session, &web, &end).await;
    }
    assert_eq!(
        (
            proxy.requests_with(COMMIT),
            proxy.requests_with("at_moment")
        ),
        (4, 2)
    );
    assert_eq!(proxy.requests_with("commit_batch"), 0);
    let known = driver.load(&web, None).await.unwrap();
    drop(driver);
    let other = PostgresDriver::connect(options).await.unwrap();
    let found = other.load(&web, None).await.unwrap();
    assert_eq!(found, known);
    assert!(found.head.policy.is_some());
    let (ended, runs): (Vec<_>, Vec<_>) = found.entries.iter().partition(|e| e.is_finished());
    assert_eq!((ended.len(), runs.len()), (2, 1));
    assert!(ended.iter().all(|entry| entry.terms.is_none()));
    assert_eq!((runs[0].is_started(), runs[0].weight().get()), (true, 2));
}

/// A repository whose limit is pinned costs no more with each commit than one whose limit was set.
#[tokio::test]
async fn a_policy_is_sent_by_the_commit_that_changes_it_and_stays_until_the_next() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let driver = PostgresDriver::connect(options(proxy.port)).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    let web = key("web");
    let pin = Command::SetLimit {
        rules: RulesChange::limit(Limit::new(2)).with_max_queued(Some(7)),
        claim: Claim::Pin,
    };
    command(&driver, session, &web, &pin).await;
    command(&driver, session, &web, &Command::Admit(durable("first"))).await;
    proxy.clear();
    for name in ["a", "b", "c"] {
        command(&driver, session, &web, &Command::Admit(durable(name))).await;
    }
    let sent = || {
        let commits = proxy.requests_with(COMMIT);
        (commits, proxy.requests_with("at_moment"))
    };
    assert_eq!(sent(), (3, 0));
    let reason = Some("maintenance".parse().unwrap());
    command(&driver, session, &web, &Command::Pause { reason }).await;
    assert_eq!(sent(), (4, 1));
    let cancel = |name: &str| Command::cancel(durable(name).run, None);
    command(&driver, session, &web, &cancel("b")).await;
    // The same by the function for several repositories.
    let state = |snapshot| RepositoryState::from_snapshot(&snapshot).unwrap();
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    let other = key("other");
    let batch = [(&web, cancel("c")), (&other, pin)].map(|(key, command)| (key.clone(), command));
    let mut commits = Vec::new();
    for (repository, command) in batch {
        let before = state(driver.load(&repository, None).await.unwrap());
        let changes = apply(&before, issuer, &command).1.unwrap();
        commits.push(RepositoryCommit {
            repository,
            changes,
        });
    }
    assert_eq!(
        support::committed(&driver, session, commits).await,
        [true, true]
    );
    assert_eq!(proxy.requests_with("commit_batch"), 1);
    for (key, is_paused) in [(&web, true), (&other, false)] {
        let head = driver.load(key, None).await.unwrap().head;
        let policy = head.policy.as_ref().unwrap();
        assert_eq!(policy.rules.max_queued, Some(7));
        assert_eq!(policy.owner, Some(Owner::Pinned));
        assert_eq!(head.pause().is_some(), is_paused);
    }
}
