//! How many requests operations cost, as the server counts them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{durable, queued, repository, started};
use pac_core::driver::{CommitOutcome, Driver, SessionTtl};
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_core::state::{RunOutcome, Snapshot};
use pac_core::{Limit, RepositoryKey, SessionId};
use pac_etcd::{EtcdDriver, EtcdOptions};
use support::own::Member;
use support::planned;
use tokio::time::sleep;

const DONE: RunOutcome = RunOutcome::Completed;

/// A manager that neither sweeps nor polls while requests are counted.
async fn quiet_manager(member: &Member, session_ttl: Duration) -> ConcurrencyManager {
    quiet_manager_on(&support::options([member.endpoint()]), session_ttl).await
}

async fn quiet_manager_on(options: &EtcdOptions, session_ttl: Duration) -> ConcurrencyManager {
    let driver = support::driver(options).await;
    let options = ManagerOptions::default()
        .with_session_ttl(session_ttl)
        .with_poll_interval(Duration::from_secs(3_600))
        .with_sweep_interval(Duration::from_secs(3_600));
    let manager = ConcurrencyManager::open(driver, options).await.unwrap();
    // The manager begins with a sweep.
    sleep(Duration::from_millis(500)).await;
    manager
}

/// Counts transactions and ranges since it was last asked.
struct Counter<'a> {
    member: &'a Member,
    last: (u64, u64),
}

impl<'a> Counter<'a> {
    fn of(member: &'a Member) -> Self {
        let mut counter = Self {
            member,
            last: (0, 0),
        };
        counter.since();
        counter
    }

    fn since(&mut self) -> (u64, u64) {
        let now = (self.member.answered("Txn"), self.member.answered("Range"));
        let since = (now.0 - self.last.0, now.1 - self.last.1);
        self.last = now;
        since
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_one_transaction_and_no_more() {
    let member = Member::single(&[]);
    let manager = quiet_manager(&member, Duration::from_secs(60)).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    // The lease for runs that end is granted with the first one.
    let first = started(&manager, &web, durable("first")).await;
    manager.release(first, DONE).await.unwrap();

    let mut counter = Counter::of(&member);
    let a = started(&manager, &web, durable("a")).await;
    assert_eq!(counter.since(), (1, 0), "an admission that starts");
    let b = queued(&manager, &web, durable("b")).await;
    assert_eq!(counter.since(), (1, 0), "an admission that waits");
    manager.release(a, DONE).await.unwrap();
    assert_eq!(counter.since(), (1, 0), "a release that starts the next");
    let turn = b.await.unwrap();
    let pac_core::manager::Turn::Started(b) = turn else {
        panic!("{turn:?}");
    };
    assert_eq!(counter.since(), (0, 0), "hearing of it");
    manager.release(b, DONE).await.unwrap();
    assert_eq!(counter.since(), (1, 0), "a release");
    let _ = manager.status(&web).await.unwrap();
    assert_eq!(counter.since(), (0, 1), "a read of what has not changed");
}

/// To read what changed, etcd would look at every entry of the repository.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_have_changed_is_told_by_the_stream_of_changes() {
    let member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let others = quiet_manager_on(&options, Duration::from_secs(60)).await;
    let driver = support::driver(&options).await;
    let minute = Duration::from_secs(60);
    let ttl = SessionTtl::new(minute, minute);
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    let web = repository("web");
    others.set_limit(&web, Limit::new(9), None).await.unwrap();
    let old = driver.load(&web, None).await.unwrap();
    drop(started(&others, &web, durable("first")).await);

    let mut counter = Counter::of(&member);
    // Without a stream the driver knows that there is a conflict, but not what changed.
    let outcome = admit_at(&driver, session, &web, &old).await;
    assert!(matches!(outcome, CommitOutcome::Conflict(None)));
    assert_eq!(counter.since(), (1, 0), "a refused commit, and the reason");
    let known = driver.load(&web, Some(old.head.version())).await.unwrap();
    assert_eq!(known.entries.len(), 1);
    assert_eq!(counter.since(), (1, 1), "the head, then all");

    let watch = driver.watch(session).await.unwrap();
    for name in ["second", "third"] {
        drop(started(&others, &web, durable(name)).await);
    }
    counter.since();
    let known_at = known.head.version();
    let read = driver.load(&web, Some(known_at)).await.unwrap();
    assert_eq!((read.since, read.entries.len()), (Some(known_at), 2));
    assert_eq!(counter.since(), (0, 1), "the head alone");
    let again = driver.load(&web, Some(read.head.version())).await.unwrap();
    assert_eq!((&again.head, again.entries.len()), (&read.head, 0));
    assert_eq!(counter.since(), (0, 1), "the head alone");
    // What it conflicts with comes with the answer, and what that changed by the stream.
    match admit_at(&driver, session, &web, &known).await {
        CommitOutcome::Conflict(Some(told)) => assert_eq!(told, read),
        other => panic!("{other:?}"),
    }
    assert_eq!(counter.since(), (1, 0), "a refused commit");
    drop(watch);
}

/// Commits an admission that was planned at a state.
async fn admit_at(
    driver: &EtcdDriver,
    session: SessionId,
    repository: &RepositoryKey,
    at: &Snapshot,
) -> CommitOutcome {
    let admission = planned::admission(session, repository, at, "ours");
    let outcomes = planned::commit(driver, session, vec![admission]).await;
    outcomes.unwrap().pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_repositories_share_transactions() {
    let member = Member::single(&[]);
    let manager = quiet_manager(&member, Duration::from_secs(60)).await;
    let repositories = 200;
    let keys = (0..repositories).map(|n| repository(&format!("repository-{n}")));
    let keys: Arc<[_]> = keys.collect();
    for key in keys.iter() {
        // The manager knows the repository from now on, and has nothing to read below.
        manager.set_limit(key, Limit::new(1), None).await.unwrap();
    }
    let mut counter = Counter::of(&member);
    let admissions = (0..repositories).map(|n| {
        let (manager, keys) = (manager.clone(), Arc::clone(&keys));
        tokio::spawn(async move {
            let request = durable("a");
            drop(manager.admit(keys.get(n).unwrap(), request).await.unwrap());
        })
    });
    for admission in admissions.collect::<Vec<_>>() {
        admission.await.unwrap();
    }
    let (transactions, ranges) = counter.since();
    assert!(
        transactions <= repositories as u64 / 4 && ranges == 0,
        "{transactions} transactions for {repositories} admissions"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeping_a_session_costs_the_same_however_many_runs_it_holds() {
    let member = Member::single(&[]);
    let manager = quiet_manager(&member, Duration::from_secs(3)).await;
    let web = repository("web");
    let mut sent = Vec::new();
    for runs in [0, 100] {
        let batch = (0..runs).map(|n| durable(&format!("run-{n}")));
        for request in batch {
            drop(started(&manager, &web, request).await);
        }
        let before = member.received("LeaseKeepAlive");
        let transactions = member.answered("Txn");
        sleep(Duration::from_secs(6)).await;
        sent.push(member.received("LeaseKeepAlive") - before);
        let signs = member.answered("Txn") - transactions;
        // The sign of the session is written once per session TTL.
        assert!((1..=3).contains(&signs), "{signs} writes with {runs} runs");
    }
    // Two leases are renewed every second.
    for sent in sent {
        assert!((10..=14).contains(&sent), "{sent} messages in 6 s");
    }
    assert_eq!(member.answered("LeaseGrant"), 2);
}
