//! What a server, an operator and a network do to a driver, played by the mock etcd in paused time.
//! `tests/faults.rs` has the same from a real server.

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{durable, ephemeral, queued, repository, run, started};
use pac_core::driver::{CommitOutcome, Driver, SessionTtl, WatchEvent};
use pac_core::manager::{
    Admission, ConcurrencyManager, KeepAliveOn, ManagerOptions, RunStatus, Turn,
};
use pac_core::state::RunOutcome;
use pac_core::{Error, ErrorKind, Limit, SessionId};
use pac_etcd::{EtcdDriver, EtcdOptions};
use pac_etcd_mock::{Fault, MockEtcd, Operation};
use tokio::time::sleep;

use crate::support::planned;

async fn mock() -> MockEtcd {
    MockEtcd::builder().start().await.unwrap()
}

async fn driver(etcd: &MockEtcd) -> Arc<EtcdDriver> {
    let driver = EtcdDriver::connect_over(&EtcdOptions::default(), etcd.channel()).await;
    Arc::new(driver.unwrap())
}

async fn manager(etcd: &MockEtcd) -> ConcurrencyManager {
    let options = ManagerOptions::default().with_keep_alive_on(KeepAliveOn::Task);
    let manager = ConcurrencyManager::open(driver(etcd).await, options).await;
    manager.unwrap()
}

/// (40) The commit is durable, and its answer is lost: with its connection, or without.
#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_recognised() {
    let etcd = mock().await;
    let manager = manager(&etcd).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    for (n, fault) in [Fault::TimedOut, Fault::CutAfter, Fault::CutBefore]
        .into_iter()
        .enumerate()
    {
        let lost = etcd.faults().inject([Operation::Txn], 1, fault);
        let admission = manager.admit(&web, durable(&format!("run-{n}"))).await;
        let Admission::Started(lease) = admission.unwrap() else {
            panic!("the slot is free");
        };
        assert_eq!(lost.hits(), 1);
        let status = manager.status(&web).await.unwrap();
        assert_eq!((status.running.len(), status.queued.len()), (1, 0));
        assert_eq!(status.running.first().unwrap().token, lease.token());
        manager.release(lease, RunOutcome::Completed).await.unwrap();
    }
}

/// A batch loses one of its repositories to another commit, and the answer to the request that tells
/// which is lost: what is in it may be written, and no more is claimed. What was written is there.
#[tokio::test(start_paused = true)]
async fn the_lost_answer_to_a_second_request_leaves_its_commits_unknown() {
    let etcd = mock().await;
    let (driver, others) = (driver(&etcd).await, manager(&etcd).await);
    let minute = Duration::from_secs(60);
    let session = driver
        .open_session(SessionTtl::new(minute, minute), &crate::support::me())
        .await;
    let session = session.unwrap();
    let keys = ["a", "b", "c"].map(repository);
    for (name, fault, is_done) in [
        ("before", Fault::CutBefore, false),
        ("after", Fault::CutAfter, true),
    ] {
        let mut batch = Vec::new();
        for key in &keys {
            let known = driver.load(key, None).await.unwrap();
            batch.push(planned::admission(session, key, &known, name));
        }
        let limit = Limit::new(if is_done { 8 } else { 9 });
        // Where it lost before, a commit is sent by itself at once.
        let lost = &keys[usize::from(is_done)];
        others.set_limit(lost, limit, None).await.unwrap();
        let first = Fault::Delayed(Duration::ZERO);
        etcd.faults().inject([Operation::Txn], 1, first);
        let cut = etcd.faults().inject([Operation::Txn], 1, fault);
        let outcomes = match planned::commit(&driver, session, batch).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let failed = || Error::new(error.kind(), "commit", "as all of them");
                keys.iter()
                    .map(|_| CommitOutcome::Failed(failed()))
                    .collect()
            }
        };
        assert_eq!((cut.hits(), outcomes.len()), (1, 3), "{name}");
        for (key, outcome) in keys.iter().zip(outcomes) {
            let now = driver.load(key, None).await.unwrap();
            let is_here = now.entries.iter().any(|entry| entry.run == run(name));
            match outcome {
                CommitOutcome::Failed(error) => {
                    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
                    assert_eq!(is_here, is_done && key != lost, "{name} {key}");
                }
                CommitOutcome::Committed(_) => assert!(is_here, "{name} {key}"),
                other => panic!("{name} {key}: {other:?}"),
            }
        }
    }
}

/// (27) The revision from which a watch has to continue was compacted away meanwhile.
#[tokio::test(start_paused = true)]
async fn a_watch_that_was_away_over_a_compaction_says_that_it_missed_something() {
    let etcd = mock().await;
    let (driver, manager) = (driver(&etcd).await, manager(&etcd).await);
    let web = repository("web");
    let mut watch = driver.watch(SessionId::new(1)).await.unwrap();
    let set_limit = async |limit| {
        let set = manager.set_limit(&web, Limit::new(limit), None).await;
        set.unwrap();
        manager.status(&web).await.unwrap().revision
    };
    set_limit(1).await;
    let event = watch.next().await.unwrap();
    assert!(matches!(event, WatchEvent::Changed { .. }), "{event:?}");
    // No watch is created for a while.
    let refusal = Fault::Refused("away".to_owned());
    etcd.faults().inject([Operation::WatchCreate], 4, refusal);
    etcd.faults().cut_connections();
    let mut last = 0;
    for limit in 2..10 {
        last = set_limit(limit).await.get();
    }
    let mut client = etcd.client().await.unwrap();
    let last = i64::try_from(last).unwrap();
    client.compact(last, None).await.unwrap();
    while watch.next().await.unwrap() != WatchEvent::Missed {}
    let after = set_limit(20).await;
    loop {
        if let WatchEvent::Changed { revision, .. } = watch.next().await.unwrap()
            && revision >= after
        {
            return;
        }
    }
}

/// When the lease of a session is over, the session learns of it, its ephemeral runs end, and the
/// next run starts.
#[tokio::test(start_paused = true)]
async fn a_session_whose_lease_was_ended_knows_that_it_is_over() {
    let etcd = mock().await;
    let (manager, other) = (manager(&etcd).await, manager(&etcd).await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, ephemeral("a")).await;
    let b = queued(&other, &web, durable("b")).await;
    let session = manager.session();
    let lease = i64::try_from(session.get()).unwrap();
    assert!(etcd.faults().expire_lease(lease));
    let turn = b.await.unwrap();
    assert!(matches!(turn, Turn::Started(_)), "{turn:?}");
    while manager.holds(&a) || manager.session() == session {
        sleep(Duration::from_millis(50)).await;
    }
    let status = manager.run_status(&web, &run("a")).await.unwrap();
    assert!(matches!(status, RunStatus::Finished(a) if a.outcome == RunOutcome::LeaseLost));
}

/// A cluster without a leader is named; its sessions outlive that for as long as their holders may
/// believe in them, since a new leader lets all leases last for their whole TTL again.
#[tokio::test(start_paused = true)]
async fn sessions_outlive_a_cluster_without_a_leader() {
    let etcd = mock().await;
    let manager = manager(&etcd).await;
    let web = repository("web");
    let a = started(&manager, &web, ephemeral("a")).await;
    let session = manager.session();
    etcd.faults().lose_leader();
    let driver = EtcdDriver::connect_over(&EtcdOptions::default(), etcd.channel()).await;
    assert_eq!(driver.unwrap_err().kind(), ErrorKind::Unavailable);
    // More than half of the session TTL.
    sleep(Duration::from_secs(8)).await;
    etcd.faults().elect_leader();
    sleep(Duration::from_secs(60)).await;
    assert!(manager.session() == session && manager.holds(&a));
    manager.release(a, RunOutcome::Completed).await.unwrap();
}

/// The database is full: nothing is written, the error says what to do, and reading goes on.
#[tokio::test(start_paused = true)]
async fn a_full_database_is_named_with_its_cure() {
    let etcd = mock().await;
    let manager = manager(&etcd).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    etcd.faults().exceed_quota(true);
    let error = manager.admit(&web, durable("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("NOSPACE"), "{error}");
    assert_eq!(manager.status(&web).await.unwrap().running.len(), 0);
    etcd.faults().exceed_quota(false);
    drop(started(&manager, &web, durable("a")).await);
}

/// A token that ends, and users that change while a request is under way, cost one more request.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_renewed() {
    let etcd = MockEtcd::builder().root_password("hidden");
    let etcd = etcd.start().await.unwrap();
    let mut options = EtcdOptions::default();
    options.username = Some("root".to_owned());
    let wrong = options.clone().with_password("guessed");
    let refused = EtcdDriver::connect_over(&wrong, etcd.channel()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unauthorised);
    let options = options.with_password("hidden");
    let driver = EtcdDriver::connect_over(&options, etcd.channel()).await;
    let driver = driver.unwrap();
    let web = repository("web");
    let renewals = || etcd.counts().get(&Operation::Authenticate).copied();
    let before = renewals();
    // Longer than a token lasts that is not used.
    sleep(Duration::from_secs(600)).await;
    driver.load(&web, None).await.unwrap();
    assert_eq!(renewals(), before.map(|n| n + 1));
    let reads = [Operation::Range, Operation::Txn];
    let overtaken = etcd.faults().inject(reads, 1, Fault::AuthStoreOld);
    driver.load(&web, None).await.unwrap();
    assert_eq!(overtaken.hits(), 1);
    assert_eq!(renewals(), before.map(|n| n + 2));
}
