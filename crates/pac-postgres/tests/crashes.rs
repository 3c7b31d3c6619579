//! Servers that die, connections that break, answers that are lost.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pac_conformance::{Fixture, Time, View};
use pac_core::driver::{Driver, WatchEvent};
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions};
use pac_core::protocol::{Command, Death};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit};
use pac_postgres::PostgresDriver;
use support::own::OwnServer;
use support::proxy::Proxy;
use support::{COMMIT, SYSTEM, TTL, command, durable, key, options, port, raw, set_limit, value};
use tokio::time::{Instant, sleep, timeout};

fn patient() -> ManagerOptions {
    ManagerOptions::default()
        .with_session_ttl(Duration::from_secs(20))
        .with_command_timeout(Duration::from_secs(30))
        .with_poll_interval(Duration::from_secs(2))
}

/// Reads a repository without a manager, as soon as the server answers.
async fn view(driver: &Arc<PostgresDriver>, name: &str) -> View {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = driver.load(&key(name), None).await {
        assert!(Instant::now() < deadline, "{error}");
        sleep(Duration::from_millis(100)).await;
    }
    let store = Fixture::over(Arc::clone(driver) as _, Time::Real);
    store.view(&key(name)).await
}

/// (38, 39) The server is killed, stays away, and comes back, several times, while tasks of two
/// managers admit and release.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_the_server_is_killed_under_load() {
    let mut server = OwnServer::start(SYSTEM, "", "");
    let options = options(server.port);
    let mut managers = Vec::new();
    for _ in 0..2 {
        let driver = PostgresDriver::connect(options.clone()).await.unwrap();
        managers.push(
            ConcurrencyManager::open(Arc::new(driver), patient())
                .await
                .unwrap(),
        );
    }
    let web = key("web");
    managers[0]
        .set_limit(&web, Limit::new(3), None)
        .await
        .unwrap();
    let holder = match managers[0].admit(&web, durable("holder")).await.unwrap() {
        Admission::Started(lease) => lease,
        other => panic!("{other:?}"),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (running, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for task in 0..12 {
        let manager = managers[task % 2].clone();
        let (stop, running, done) = (Arc::clone(&stop), Arc::clone(&running), Arc::clone(&done));
        let web = web.clone();
        tasks.push(tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                let request = durable(&format!("run-{task}-{n}"));
                let turn = match manager.admit(&web, request).await.unwrap() {
                    Admission::Started(lease) => lease,
                    Admission::Queued(waiter) => match waiter.await.unwrap() {
                        pac_core::manager::Turn::Started(lease) => lease,
                        other => panic!("{other:?}"),
                    },
                    other => panic!("{other:?}"),
                };
                // One of three slots is the holder's.
                assert!(running.fetch_add(1, Ordering::SeqCst) < 2, "over the limit");
                sleep(Duration::from_millis(3)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                manager.release(turn, RunOutcome::Completed).await.unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    for away in [0, 300, 2_000] {
        let before = done.load(Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < before + 20 {
            assert!(!tasks.iter().any(tokio::task::JoinHandle::is_finished));
            sleep(Duration::from_millis(20)).await;
        }
        server.kill_9();
        sleep(Duration::from_millis(away)).await;
        server.start_again();
    }
    let before = done.load(Ordering::SeqCst);
    while done.load(Ordering::SeqCst) < before + 20 {
        assert!(!tasks.iter().any(tokio::task::JoinHandle::is_finished));
        sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        timeout(Duration::from_secs(30), task)
            .await
            .unwrap()
            .unwrap();
    }
    let driver = Arc::new(PostgresDriver::connect(options).await.unwrap());
    view(&driver, "web").await.assert(&["holder"], &[]);
    assert!(managers.iter().all(|manager| manager.health().panics == 0));
    managers[0]
        .release(holder, RunOutcome::Completed)
        .await
        .unwrap();
}

/// (39) Calls fail with a clear error while the server is away, and work when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_fail_clearly_while_the_server_is_away() {
    let mut server = OwnServer::start(SYSTEM, "", "");
    let driver = PostgresDriver::connect(options(server.port)).await.unwrap();
    let manager = patient().with_command_timeout(Duration::from_secs(1));
    let manager = ConcurrencyManager::open(Arc::new(driver), manager)
        .await
        .unwrap();
    let web = key("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    server.stop();
    let error = manager
        .admit(&web, durable("a"))
        .await
        .map(drop)
        .unwrap_err();
    let kinds = [ErrorKind::Unavailable, ErrorKind::Indeterminate];
    assert!(kinds.contains(&error.kind()), "{error}");
    server.start_again();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = manager.admit(&web, durable("b")).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

/// (44) No session could be renewed while the server was away, so each has one TTL from the
/// server's start on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_gives_every_session_one_ttl_of_grace() {
    let mut server = OwnServer::start(SYSTEM, "", "");
    let driver = PostgresDriver::connect(options(server.port)).await.unwrap();
    let ttl = pac_core::driver::SessionTtl::new(Duration::from_secs(3), Duration::from_secs(4));
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    let silent = driver.open_session(ttl, &support::me()).await.unwrap();
    command(&driver, silent, &key("web"), &Command::Admit(durable("a"))).await;
    server.kill_9();
    sleep(Duration::from_secs(5)).await;
    server.start_again();
    let started = Instant::now();
    driver.keep_alive(session).await.unwrap();
    assert_eq!(driver.dead_sessions().await.unwrap(), []);
    while driver.dead_sessions().await.unwrap().is_empty() {
        driver.keep_alive(session).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let lived = started.elapsed();
    assert!(
        lived > Duration::from_secs(2) && lived < Duration::from_secs(5),
        "{lived:?}"
    );
    assert_eq!(
        driver.dead_sessions().await.unwrap(),
        [(silent, Death::Session)]
    );
    let lost = driver.keep_alive(silent).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::SessionLost);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(
        driver.dead_sessions().await.unwrap(),
        [(silent, Death::Lease)]
    );
}

/// A fail-over to a standby may take longer than a TTL, so each session has one TTL from then on.
#[tokio::test]
async fn a_fail_over_gives_every_session_one_ttl_of_grace() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let ttl = pac_core::driver::SessionTtl::new(Duration::from_secs(1), Duration::from_secs(1));
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    let client = raw(port(SYSTEM)).await;
    // A standby that has just been promoted finds another timeline in the table.
    let promoted = format!("UPDATE {schema}.server SET timeline = '00000000', since = 0");
    client.batch_execute(&promoted).await.unwrap();
    sleep(Duration::from_millis(1_200)).await;
    assert_eq!(driver.dead_sessions().await.unwrap(), []);
    let noted: bool = value(&client, &format!("SELECT since > 0 FROM {schema}.server")).await;
    assert!(noted);
    driver.keep_alive(session).await.unwrap();
    sleep(Duration::from_millis(1_200)).await;
    // The session is forgotten at once, because it has no entries.
    driver.dead_sessions().await.unwrap();
    let lost = driver.keep_alive(session).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::SessionLost);
}

/// Every connection of a process is cut, again and again, by its administrator.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_connections_of_every_kind_are_made_anew() {
    let server = OwnServer::start(SYSTEM, "", "");
    let options = options(server.port);
    let driver = Arc::new(PostgresDriver::connect(options.clone()).await.unwrap());
    let managers = [
        ConcurrencyManager::open(Arc::clone(&driver) as _, patient())
            .await
            .unwrap(),
        ConcurrencyManager::open(Arc::clone(&driver) as _, patient())
            .await
            .unwrap(),
    ];
    let ephemeral = driver.open_session(TTL, &support::me()).await.unwrap();
    let mut watch = driver.watch(ephemeral).await.unwrap();
    let web = key("web");
    managers[0]
        .set_limit(&web, Limit::new(1), None)
        .await
        .unwrap();
    let client = raw(server.port).await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = 'pac-concurrency' AND pid <> pg_backend_pid()";
    for n in 0..5 {
        let (first, second) = (format!("a-{n}"), format!("b-{n}"));
        let Admission::Started(lease) = managers[0].admit(&web, durable(&first)).await.unwrap()
        else {
            panic!("the slot is free");
        };
        let Admission::Queued(waiter) = managers[1].admit(&web, durable(&second)).await.unwrap()
        else {
            panic!("the slot is taken");
        };
        driver.keep_alive(ephemeral).await.unwrap();
        // Those of the pool, and the link.
        assert!(value::<i64>(&client, cut).await >= 2);
        driver.keep_alive(ephemeral).await.unwrap();
        managers[0]
            .release(lease, RunOutcome::Completed)
            .await
            .unwrap();
        let turn = timeout(Duration::from_secs(10), waiter)
            .await
            .unwrap()
            .unwrap();
        let pac_core::manager::Turn::Started(lease) = turn else {
            panic!("{turn:?}");
        };
        managers[1]
            .release(lease, RunOutcome::Completed)
            .await
            .unwrap();
        let missed = async { while watch.next().await.unwrap() != WatchEvent::Missed {} };
        timeout(Duration::from_secs(10), missed).await.unwrap();
    }
    assert!(managers.iter().all(|manager| manager.health().panics == 0));
    view(&driver, "web").await.assert(&[], &[]);
}

/// (40) The commit is durable, and its answer is lost with the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_recognised() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let driver = PostgresDriver::connect(options(proxy.port)).await.unwrap();
    let driver = Arc::new(driver);
    let manager = ConcurrencyManager::open(Arc::clone(&driver) as _, patient())
        .await
        .unwrap();
    let web = key("web");
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    for n in 0..5 {
        let run = format!("run-{n}");
        proxy.swallow_answer_to(COMMIT);
        let Admission::Started(lease) = manager.admit(&web, durable(&run)).await.unwrap() else {
            panic!("a second slot was taken for the same run");
        };
        assert_eq!(proxy.swallowed(), 2 * n + 1);
        view(&driver, "web").await.assert(&[&run], &[]);
        proxy.swallow_answer_to(COMMIT);
        manager.release(lease, RunOutcome::Completed).await.unwrap();
        assert_eq!(proxy.swallowed(), 2 * n + 2);
        view(&driver, "web").await.assert(&[], &[]);
    }
}

/// A waiter of another process learns of a commit although the answer to the commit was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_wakes_whom_it_started() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let mut options = options(proxy.port);
    let releasing = PostgresDriver::connect(options.clone()).await.unwrap();
    options.hosts[0].1 = port(SYSTEM);
    let waiting = PostgresDriver::connect(options).await.unwrap();
    let late = patient().with_poll_interval(Duration::from_secs(600));
    let releasing = ConcurrencyManager::open(Arc::new(releasing), late)
        .await
        .unwrap();
    let waiting = ConcurrencyManager::open(Arc::new(waiting), late)
        .await
        .unwrap();
    let web = key("web");
    releasing
        .set_limit(&web, Limit::new(1), None)
        .await
        .unwrap();
    for n in 0..3 {
        let holder = durable(&format!("holder-{n}"));
        let Admission::Started(lease) = releasing.admit(&web, holder).await.unwrap() else {
            panic!("the slot is free");
        };
        let next = durable(&format!("next-{n}"));
        let Admission::Queued(waiter) = waiting.admit(&web, next).await.unwrap() else {
            panic!("the slot is taken");
        };
        // Without this read the release would be a conflict first, and the answer to that would be
        // lost.
        releasing.status(&web).await.unwrap();
        proxy.swallow_answer_to(COMMIT);
        releasing
            .release(lease, RunOutcome::Completed)
            .await
            .unwrap();
        assert_eq!(proxy.swallowed(), n + 1);
        let turn = timeout(Duration::from_secs(20), waiter).await;
        let pac_core::manager::Turn::Started(lease) = turn.unwrap().unwrap() else {
            panic!("nobody has cancelled it");
        };
        waiting.release(lease, RunOutcome::Completed).await.unwrap();
    }
}

/// After a session was declared dead, no commit of it may appear.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_under_way_keeps_its_session_from_being_declared_dead() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let ttl = pac_core::driver::SessionTtl::new(Duration::from_secs(2), Duration::from_secs(60));
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    let other = driver.open_session(TTL, &support::me()).await.unwrap();
    set_limit(&driver, other, &key("web"), 5).await;
    let client = raw(port(SYSTEM)).await;
    // The row that a new repository begins with: a lock of it makes the commit wait after it has found
    // the session alive, and before it ends.
    let block = format!("BEGIN; SELECT FROM {schema}.floor FOR UPDATE");
    client.batch_execute(&block).await.unwrap();
    driver.keep_alive(session).await.unwrap();
    let driver = Arc::new(driver);
    let late = Arc::clone(&driver);
    let commit = tokio::spawn(async move {
        command(
            &*late,
            session,
            &key("new"),
            &Command::Admit(durable("late")),
        )
        .await
    });
    // Without these looks the server would seem to have stalled.
    for _ in 0..25 {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(driver.dead_sessions().await.unwrap(), []);
    }
    client.batch_execute("ROLLBACK").await.unwrap();
    commit.await.unwrap();
    assert_eq!(
        driver.dead_sessions().await.unwrap(),
        [(session, Death::Session)]
    );
    assert_eq!(driver.repositories_of(session).await.unwrap(), [key("new")]);
}
