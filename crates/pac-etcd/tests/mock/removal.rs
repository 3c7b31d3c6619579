//! Removals of repositories with many runs: the others of a batch do not wait for them, and the runs
//! are deleted afterwards, in small steps, without ever being seen again.

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{durable, queued, repository, run, started};
use pac_core::driver::{CommitOutcome, Driver, SessionTtl};
use pac_core::manager::{ConcurrencyManager, KeepAliveOn, ManagerOptions, RunStatus};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, RepositoryKey, SessionId};
use pac_etcd::{EtcdDriver, EtcdOptions};
use pac_etcd_mock::{Fault, MockEtcd, Operation};
use tokio::time::{Instant, sleep};

use crate::support::planned;

const MINUTE: Duration = Duration::from_secs(60);

/// More than are deleted at once, of each kind.
const MANY: usize = 300;

async fn mock() -> MockEtcd {
    MockEtcd::builder().start().await.unwrap()
}

async fn driver(etcd: &MockEtcd) -> Arc<EtcdDriver> {
    let driver = EtcdDriver::connect_over(&EtcdOptions::default(), etcd.channel()).await;
    Arc::new(driver.unwrap())
}

/// A manager that never sweeps by itself.
async fn manager(driver: Arc<EtcdDriver>) -> ConcurrencyManager {
    let options = ManagerOptions::default()
        .with_keep_alive_on(KeepAliveOn::Task)
        .with_sweep_interval(100 * 60 * MINUTE);
    ConcurrencyManager::open(driver, options).await.unwrap()
}

/// Some runs end in a repository, and others wait there.
async fn fill(manager: &ConcurrencyManager, key: &RepositoryKey, ended: usize, waiting: usize) {
    manager.set_limit(key, Limit::new(1), None).await.unwrap();
    for n in 0..ended {
        let lease = started(manager, key, durable(&format!("run-{n}"))).await;
        manager.release(lease, RunOutcome::Completed).await.unwrap();
    }
    if waiting > 0 {
        drop(started(manager, key, durable("running")).await);
    }
    for n in 0..waiting {
        let waiter = queued(manager, key, durable(&format!("waiting-{n}"))).await;
        // It keeps its place.
        waiter.detach();
    }
}

async fn session(driver: &EtcdDriver) -> SessionId {
    let ttl = SessionTtl::new(60 * MINUTE, 60 * MINUTE);
    driver
        .open_session(ttl, &crate::support::me())
        .await
        .unwrap()
}

/// The number of keys under this one, after the prefix of all.
async fn count(etcd: &MockEtcd, under: &str) -> usize {
    let mut client = etcd.client().await.unwrap();
    let prefix = etcd_client::GetOptions::new().with_prefix();
    let found = client.get(format!("/pac/v1/{under}"), Some(prefix)).await;
    usize::try_from(found.unwrap().count()).unwrap()
}

fn asked(etcd: &MockEtcd) -> u64 {
    etcd.counts().get(&Operation::Txn).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_removal_of_many_runs_holds_up_no_commit_beside_it() {
    let etcd = mock().await;
    let driver = driver(&etcd).await;
    let (web, api) = (repository("web"), repository("api"));
    fill(&manager(Arc::clone(&driver)).await, &web, MANY, MANY).await;
    let session = session(&driver).await;
    let known = driver.load(&web, None).await.unwrap();
    let none = driver.load(&api, None).await.unwrap();
    let batch = vec![
        planned::removal(session, &web, &known),
        planned::admission(session, &api, &none, "run"),
    ];
    let (begun, before) = (Instant::now(), asked(&etcd));
    let outcomes = planned::commit(&driver, session, batch).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "it waits for nothing");
    assert_eq!(asked(&etcd) - before, 3, "two requests, and one beside");
    assert!(matches!(
        outcomes.as_slice(),
        [CommitOutcome::Committed(_), CommitOutcome::Committed(_)]
    ));
    assert!(!driver.load(&web, None).await.unwrap().exists);
    assert_eq!(count(&etcd, "entries/ci/web/").await, 2 * MANY + 1);
}

/// A store that does not answer the removal has answered the others.
#[tokio::test(start_paused = true)]
async fn a_removal_that_is_not_answered_leaves_the_others_their_outcomes() {
    let etcd = mock().await;
    let driver = driver(&etcd).await;
    let (web, api) = (repository("web"), repository("api"));
    fill(&manager(Arc::clone(&driver)).await, &web, 1, 0).await;
    let session = session(&driver).await;
    for (answered, kind) in [(1, ErrorKind::Unavailable), (2, ErrorKind::Indeterminate)] {
        let known = driver.load(&web, None).await.unwrap();
        let none = driver.load(&api, None).await.unwrap();
        let batch = vec![
            planned::removal(session, &web, &known),
            planned::admission(session, &api, &none, &format!("run-{answered}")),
        ];
        let (passed, late) = (
            Fault::Delayed(Duration::ZERO),
            Fault::Delayed(Duration::from_secs(60)),
        );
        etcd.faults().inject([Operation::Txn], answered, passed);
        etcd.faults().inject([Operation::Txn], 1, late);
        let begun = Instant::now();
        let outcomes = planned::commit(&driver, session, batch).await.unwrap();
        assert!(begun.elapsed() < EtcdOptions::default().request_timeout);
        let [CommitOutcome::Failed(error), CommitOutcome::Committed(_)] = outcomes.as_slice()
        else {
            panic!("{outcomes:?}");
        };
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_known_is_not_lost_with_the_answer_for_another() {
    let etcd = mock().await;
    let driver = driver(&etcd).await;
    let session = session(&driver).await;
    let keys = ["a", "b"].map(repository);
    let mut batch = Vec::new();
    for key in &keys {
        let none = driver.load(key, None).await.unwrap();
        batch.push(planned::admission(session, key, &none, "run"));
    }
    let [refused, _] = batch.as_mut_slice() else {
        panic!("two");
    };
    refused.changes.head.last_ticket = pac_core::Ticket::new(u64::MAX);
    etcd.faults().inject([Operation::Txn], 1, Fault::CutAfter);
    let outcomes = planned::commit(&driver, session, batch).await.unwrap();
    let [
        CommitOutcome::Refused(refused),
        CommitOutcome::Failed(failed),
    ] = outcomes.as_slice()
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert_eq!(failed.kind(), ErrorKind::Indeterminate, "{failed}");
}

/// A removal whose first read is not answered has certainly not happened.
#[tokio::test(start_paused = true)]
async fn a_removal_that_was_not_begun_is_known_not_to_have_happened() {
    let etcd = mock().await;
    let driver = driver(&etcd).await;
    let web = repository("web");
    fill(&manager(Arc::clone(&driver)).await, &web, 1, 0).await;
    let session = session(&driver).await;
    let known = driver.load(&web, None).await.unwrap();
    let batch = vec![planned::removal(session, &web, &known)];
    etcd.faults().inject([Operation::Txn], 1, Fault::TimedOut);
    let error = planned::commit(&driver, session, batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(driver.load(&web, None).await.unwrap().exists);
}

/// One that may not remove has deleted nothing.
#[tokio::test(start_paused = true)]
async fn a_dead_session_deletes_no_history() {
    let etcd = mock().await;
    let driver = driver(&etcd).await;
    let web = repository("web");
    fill(&manager(Arc::clone(&driver)).await, &web, MANY, 0).await;
    let session = session(&driver).await;
    let known = driver.load(&web, None).await.unwrap();
    let batch = vec![planned::removal(session, &web, &known)];
    driver.close_session(session).await.unwrap();
    let error = planned::commit(&driver, session, batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionLost, "{error}");
    assert_eq!(driver.load(&web, None).await.unwrap(), known);
    assert_eq!(count(&etcd, "entries/ci/web/").await, MANY);
}

/// While they are there and after they are deleted, by a process that comes later, runs of the same
/// names are new ones.
#[tokio::test(start_paused = true)]
async fn what_a_removal_has_left_behind_is_not_seen_again() {
    let etcd = mock().await;
    let web = repository("web");
    let first = manager(driver(&etcd).await).await;
    fill(&first, &web, MANY, MANY).await;
    first.remove_repository(&web).await.unwrap();
    first.close().await.unwrap();
    assert_eq!(count(&etcd, "entries/ci/web/").await, 2 * MANY + 1);
    assert_eq!(count(&etcd, "removed/ci/web").await, 1);

    let sweeper = driver(&etcd).await;
    let second = manager(Arc::clone(&sweeper)).await;
    assert!(!second.status(&web).await.unwrap().exists);
    let lease = started(&second, &web, durable("run-3")).await;
    let waiting = started(&second, &web, durable("waiting-3")).await;
    second.release(lease, RunOutcome::Failed).await.unwrap();
    let read = async || {
        // By one that knows nothing yet.
        let state = driver(&etcd).await.load(&web, None).await.unwrap();
        let mut runs: Vec<_> = state.entries.iter().map(|entry| &entry.run).collect();
        runs.sort();
        assert_eq!(runs, [&run("run-3"), &run("waiting-3")]);
    };
    read().await;
    let status = second.run_status(&web, &run("run-4")).await.unwrap();
    assert!(matches!(status, RunStatus::Unknown), "{status:?}");

    for _ in 0..12 {
        sweeper.dead_sessions().await.unwrap();
        sleep(MINUTE).await;
    }
    read().await;
    assert_eq!(count(&etcd, "entries/ci/web/").await, 2);
    assert_eq!(count(&etcd, "removed/").await, 0);
    second.release(waiting, RunOutcome::Failed).await.unwrap();
    // And once more, with what is left of the first time.
    second.remove_repository(&web).await.unwrap();
    assert_eq!(count(&etcd, "entries/ci/web/").await, 0);
}

/// A repository that is removed again before what was left behind is deleted leaves that, too.
#[tokio::test(start_paused = true)]
async fn a_repository_that_is_removed_twice_is_deleted_as_a_whole() {
    let etcd = mock().await;
    let web = repository("web");
    let driver = driver(&etcd).await;
    let manager = manager(Arc::clone(&driver)).await;
    fill(&manager, &web, MANY, 0).await;
    manager.remove_repository(&web).await.unwrap();
    fill(&manager, &web, 2, 1).await;
    manager.remove_repository(&web).await.unwrap();
    assert!(!driver.load(&web, None).await.unwrap().exists);
    driver.dead_sessions().await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(count(&etcd, "entries/").await, 0);
    assert_eq!(count(&etcd, "removed/").await, 0);
}

/// What is done in the background ends with the driver.
#[tokio::test(start_paused = true)]
async fn deletions_end_with_their_driver() {
    let etcd = mock().await;
    let web = repository("web");
    let driver = driver(&etcd).await;
    let manager = manager(Arc::clone(&driver)).await;
    fill(&manager, &web, MANY, 0).await;
    manager.remove_repository(&web).await.unwrap();
    manager.close().await.unwrap();
    driver.dead_sessions().await.unwrap();
    sleep(Duration::from_millis(15)).await;
    drop((driver, manager));
    sleep(MINUTE).await;
    let left = count(&etcd, "entries/").await;
    assert!(0 < left && left < MANY, "{left}");
}
