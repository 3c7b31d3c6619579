//! What a server, an operator and a network do to a driver.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{durable, ephemeral, queued, repository, run, started};
use pac_core::driver::{Driver, SessionTtl, WatchEvent};
use pac_core::manager::{Admission, RunStatus, Turn};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, SessionId};
use support::own::Member;
use support::proxy::{Line, Proxy};
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

/// (38) Nothing is lost when the store is killed, no run is admitted twice, and everything goes on
/// without a restart of the controllers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_comes_back_has_lost_nothing() {
    let mut member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let (manager, other) = (
        support::manager(&options).await,
        support::manager(&options).await,
    );
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let b = queued(&other, &web, ephemeral("b")).await;
    let c = queued(&manager, &web, durable("c")).await;
    for _ in 0..2 {
        member.kill();
        sleep(Duration::from_millis(500)).await;
        member.start();
        member.wait_until_healthy();
    }
    assert!(manager.holds(&a), "its session outlived that");
    let again = manager.admit(&web, durable("a")).await.unwrap();
    assert!(matches!(again, Admission::Started(again) if again.token() == a.token()));
    manager.release(a, DONE).await.unwrap();
    for (waiter, manager) in [(b, &other), (c, &manager)] {
        let turn = timeout(Duration::from_secs(15), waiter).await.unwrap();
        let Turn::Started(lease) = turn.unwrap() else {
            panic!("it is its turn");
        };
        manager.release(lease, DONE).await.unwrap();
    }
}

/// (44) A server that stands still for half a session TTL ends no session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_paused_has_ended_no_session() {
    let member = Member::single(&[]);
    let manager = support::manager(&support::options([member.endpoint()])).await;
    let web = repository("web");
    let a = started(&manager, &web, ephemeral("a")).await;
    let session = manager.session();
    for _ in 0..2 {
        member.pause();
        sleep(Duration::from_secs(3)).await;
        member.resume();
        sleep(Duration::from_secs(3)).await;
    }
    assert!(manager.session() == session && manager.holds(&a));
    assert_eq!(manager.status(&web).await.unwrap().running.len(), 1);
}

/// (39) Calls fail with a clear error while the store is away for longer than they wait, and work
/// again when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_named_and_taken_back() {
    let mut member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let driver = support::driver(&options).await;
    let web = repository("web");
    member.kill();
    // The first attempt may use the old connection, which is broken.
    for _ in 0..2 {
        let error = driver.load(&web, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let error = driver.load(&web, None).await.unwrap_err();
    assert!(error.to_string().contains("check the endpoints"), "{error}");
    let error = pac_etcd::EtcdDriver::connect(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    member.start();
    member.wait_until_healthy();
    assert!(!driver.load(&web, None).await.unwrap().exists);
}

/// (40) The commit is durable, and its answer is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_cut_off_is_recognised() {
    let member = Member::single(&[]);
    let proxy = Proxy::before(member.endpoint()).await;
    let mut options = support::options([&proxy.endpoint]);
    options.request_timeout = Duration::from_secs(1);
    let manager = support::manager(&options).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let mut lost = 0;
    for n in 0..3 {
        let name = format!("run-{n}");
        let before = member.answered("Txn");
        proxy.set(Line::AnswersLost);
        let admission = tokio::spawn({
            let (manager, web, request) = (manager.clone(), web.clone(), durable(&name));
            async move { manager.admit(&web, request).await }
        });
        sleep(Duration::from_millis(300)).await;
        lost += u64::from(member.answered("Txn") > before);
        proxy.set(Line::Sound);
        let admission = timeout(Duration::from_secs(20), admission).await;
        let Admission::Started(lease) = admission.unwrap().unwrap().unwrap() else {
            panic!("the slot is free");
        };
        let status = manager.status(&web).await.unwrap();
        assert_eq!((status.running.len(), status.queued.len()), (1, 0));
        assert_eq!(status.running.first().unwrap().token, lease.token());
        manager.release(lease, DONE).await.unwrap();
    }
    assert!(lost > 0, "no answer was ever lost");
}

/// (27) The revision from which a watch has to continue was compacted away meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_away_over_a_compaction_says_that_it_missed_something() {
    let member = Member::single(&[]);
    let proxy = Proxy::before(member.endpoint()).await;
    let options = support::options([&proxy.endpoint]);
    let mut direct = options.clone();
    direct.endpoints = vec![member.endpoint()];
    let (driver, manager) = (
        support::driver(&options).await,
        support::manager(&direct).await,
    );
    let web = repository("web");
    let mut watch = driver.watch(SessionId::new(1)).await.unwrap();
    let set_limit = async |limit| {
        manager
            .set_limit(&web, Limit::new(limit), None)
            .await
            .unwrap();
        driver_revision(&manager, &web).await
    };
    let first = set_limit(1).await;
    let event = timeout(Duration::from_secs(10), watch.next()).await;
    let WatchEvent::Changed { snapshot, .. } = event.unwrap().unwrap() else {
        panic!("the limit was set");
    };
    assert_eq!(snapshot.unwrap().head.revision, first);

    proxy.set(Line::Cut);
    let mut last = first;
    for limit in 2..10 {
        last = set_limit(limit).await;
    }
    let mut kv = support::raw(&member.endpoint()).await.kv_client();
    kv.compact(last.get() as i64, None).await.unwrap();
    proxy.set(Line::Sound);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20));
        match timeout(Duration::from_secs(20), watch.next())
            .await
            .unwrap()
        {
            Ok(WatchEvent::Missed) => break,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // The watch then tells what comes after that.
    let after = set_limit(20).await;
    loop {
        match timeout(Duration::from_secs(20), watch.next())
            .await
            .unwrap()
        {
            Ok(WatchEvent::Changed { revision, .. }) if revision >= after => break,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn driver_revision(
    manager: &pac_core::manager::ConcurrencyManager,
    web: &pac_core::RepositoryKey,
) -> pac_core::Revision {
    manager.status(web).await.unwrap().revision
}

/// When an operator revokes the lease of a session, the session learns of it, its ephemeral runs
/// end, and the next run starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_lease_was_revoked_knows_that_it_is_over() {
    let member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let (manager, other) = (
        support::manager(&options).await,
        support::manager(&options).await,
    );
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, ephemeral("a")).await;
    let b = queued(&other, &web, durable("b")).await;
    let session = manager.session();
    let mut leases = support::raw(&member.endpoint()).await.lease_client();
    leases.revoke(session.get() as i64).await.unwrap();
    let turn = timeout(Duration::from_secs(5), b).await.unwrap().unwrap();
    assert!(matches!(turn, Turn::Started(_)), "{turn:?}");
    let begun = Instant::now();
    while manager.holds(&a) || manager.session() == session {
        assert!(begun.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(50)).await;
    }
    let status = manager.run_status(&web, &run("a")).await.unwrap();
    assert!(matches!(status, RunStatus::Finished(a) if a.outcome == RunOutcome::LeaseLost));
}

/// The lease for the lease TTL is replaced when an operator revokes it while the session lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_the_lease_ttl_that_was_revoked_is_replaced() {
    let member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let manager = support::manager(&options).await;
    let mut client = support::raw(&member.endpoint()).await;
    let all = client.leases().await.unwrap();
    let session = manager.session().get() as i64;
    let other = all.leases().iter().find(|lease| lease.id() != session);
    client
        .lease_client()
        .revoke(other.unwrap().id())
        .await
        .unwrap();
    let key = format!("{}sessions/{session:016x}/lease", options.prefix);
    let gone = client.get(key.clone(), None).await.unwrap();
    assert!(gone.kvs().is_empty());
    let begun = Instant::now();
    while client
        .get(key.clone(), None)
        .await
        .unwrap()
        .kvs()
        .is_empty()
    {
        assert!(begun.elapsed() < Duration::from_secs(10), "it stays away");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(manager.session().get() as i64, session);
}

/// The database is full: nothing is written, the error says what to do, and reading goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_is_named_with_its_cure() {
    let member = Member::single(&["--quota-backend-bytes=1000000"]);
    let options = support::options([member.endpoint()]);
    let manager = support::manager(&options).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let mut kv = support::raw(&member.endpoint()).await.kv_client();
    for n in 0..100 {
        if kv
            .put(format!("/filler/{n}"), vec![0; 100_000], None)
            .await
            .is_err()
        {
            break;
        }
    }
    let error = manager.admit(&web, durable("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("NOSPACE"), "{error}");
    assert_eq!(manager.status(&web).await.unwrap().running.len(), 0);
    // A process that connects now can read, is told, and opens no session.
    let reads = support::driver(&options).await;
    assert!(reads.load(&web, None).await.unwrap().exists);
    let found = reads.diagnose().await.unwrap();
    assert!(
        found.iter().any(|f| f.text().contains("NOSPACE")),
        "{found:?}"
    );
    let ttl = SessionTtl::new(Duration::from_secs(10), Duration::from_secs(10));
    let error = reads.open_session(ttl, &support::me()).await.unwrap_err();
    assert!(error.to_string().contains("NOSPACE"), "{error}");
    reads.dead_sessions().await.unwrap();
}

/// The driver counts operations as the server does: the server accepts the largest commits that the
/// driver sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_commits_are_taken_by_the_server() {
    for max_txn_ops in [16, 128] {
        let member = Member::single(&["--max-txn-ops", &max_txn_ops.to_string()]);
        let mut options = support::options([member.endpoint()]);
        options.max_txn_ops = max_txn_ops;
        let driver = support::driver(&options).await;
        let most = driver.descriptor().entries_per_commit / 2;
        let manager = support::manager_on(driver).await;
        let web = repository("web");
        let batch = (0..most).map(|n| durable(&format!("run-{n}"))).collect();
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let admitted = manager.admit_all(&web, None, batch).await.unwrap();
        assert_eq!(admitted.len(), most);
        // All waiting runs start, in as many commits as it takes.
        manager
            .set_limit(&web, Limit::UNLIMITED, None)
            .await
            .unwrap();
        let begun = Instant::now();
        while manager.status(&web).await.unwrap().running.len() < most {
            assert!(begun.elapsed() < Duration::from_secs(10));
            sleep(Duration::from_millis(50)).await;
        }
        drop(admitted);
        // A commit with more operations than the server accepts fails with an error that names the
        // setting, and writes nothing.
        let mut options = support::options([member.endpoint()]);
        options.max_txn_ops = max_txn_ops * 4;
        let manager = support::manager(&options).await;
        let batch = (0..max_txn_ops)
            .map(|n| durable(&format!("run-{n}")))
            .collect();
        let error = manager.admit_all(&web, None, batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("--max-txn-ops"), "{error}");
        assert!(!manager.status(&web).await.unwrap().exists);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_named_with_its_cure() {
    let member = Member::single(&["--max-request-bytes=70000", "--max-txn-ops=2000"]);
    let web = repository("web");
    // With the server's limit set in the driver's options, and without.
    for max_request_bytes in [70_000, 1_500_000] {
        let mut options = support::options([member.endpoint()]);
        options.max_request_bytes = max_request_bytes;
        options.max_txn_ops = 2_000;
        let manager = support::manager(&options).await;
        let long = "x".repeat(60);
        let batch = (0..900).map(|n| durable(&format!("{long}-{n}")));
        let refused = manager.admit_all(&web, None, batch.collect()).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("--max-request-bytes"), "{error}");
        assert!(!manager.status(&web).await.unwrap().exists);
    }
}

/// The thread that keeps a session alive ends with its manager, and its runtime with it; the driver
/// may go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_another_runtime_was_first_to_use_outlive_it() {
    let member = Member::single(&[]);
    let lines = [
        Proxy::before(member.endpoint()).await,
        Proxy::before(member.endpoint()).await,
    ];
    let options = support::options(lines.iter().map(|line| &line.endpoint));
    let driver = support::driver(&options).await;
    let ttl = SessionTtl::new(Duration::from_secs(60), Duration::from_secs(60));
    for cut in &lines {
        cut.set(Line::Cut);
        let shared = Arc::clone(&driver);
        let opened = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let attempts = async {
                // The first attempt may use the old connection, which is broken.
                for _ in 0..3 {
                    if shared.open_session(ttl, &support::me()).await.is_ok() {
                        return true;
                    }
                }
                false
            };
            runtime.block_on(attempts)
        });
        let opened = tokio::task::spawn_blocking(|| opened.join().unwrap());
        assert!(opened.await.unwrap());
        driver.load(&repository("web"), None).await.unwrap();
        cut.set(Line::Sound);
    }
}
