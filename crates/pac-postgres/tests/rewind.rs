//! A server that is restored from an older copy of its data.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use pac_core::driver::{Commit, CommitOutcome, Driver, RepositoryCommit};
use pac_core::manager::{Admission, ConcurrencyManager, Event, Heard, ManagerOptions, Turn};
use pac_core::protocol::{Command, Issuer, apply};
use pac_core::state::{RepositoryState, RunOutcome};
use pac_core::{FencingToken, Limit, SessionId};
use pac_postgres::{PostgresDriver, PostgresOptions};
use support::own::OwnServer;
use support::{SYSTEM, TTL, command, durable, key, options, port, raw, set_limit, value};
use tokio::time::{Instant, sleep, timeout};

async fn manager(options: &PostgresOptions) -> ConcurrencyManager {
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    let patient = ManagerOptions::default()
        .with_session_ttl(Duration::from_secs(10))
        .with_command_timeout(Duration::from_secs(30))
        // A poll forgets the repositories that are not in use, and their counters with them.
        .with_poll_interval(Duration::from_secs(600))
        .with_sweep_interval(Duration::from_millis(500));
    ConcurrencyManager::open(Arc::new(driver), patient)
        .await
        .unwrap()
}

/// Admits and releases a run; returns its token.
async fn cycle(manager: &ConcurrencyManager, name: &str) -> FencingToken {
    match manager.admit(&key("web"), durable(name)).await.unwrap() {
        Admission::Started(lease) => {
            let token = lease.token();
            manager.release(lease, RunOutcome::Completed).await.unwrap();
            token
        }
        other => panic!("{other:?}"),
    }
}

/// The manager says so once, opens another session, and goes on at once; a run that waits keeps
/// its place, and no token that it knew of is given out twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_server_is_told_as_such_and_work_goes_on() {
    let mut server = OwnServer::start(SYSTEM, "", "");
    let options = options(server.port);
    let manager = manager(&options).await;
    let web = key("web");
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    // A repository that is in use: of others the counters are not remembered through an outage.
    let _kept = match manager.admit(&web, durable("kept")).await.unwrap() {
        Admission::Started(lease) => lease,
        other => panic!("{other:?}"),
    };
    cycle(&manager, "a").await;
    let busy = key("busy");
    manager.set_limit(&busy, Limit::new(1), None).await.unwrap();
    let held = match manager.admit(&busy, durable("held")).await.unwrap() {
        Admission::Started(lease) => lease,
        other => panic!("{other:?}"),
    };
    let waiter = match manager.admit(&busy, durable("waits")).await.unwrap() {
        Admission::Queued(waiter) => waiter,
        other => panic!("{other:?}"),
    };
    server.stop();
    let copy = server.copy_of_data();
    server.start_again();
    let mut newest = FencingToken::default();
    for name in ["b", "c", "d"] {
        newest = cycle(&manager, name).await;
    }
    let before = manager.health();
    let mut events = manager.events();
    server.stop();
    server.put_back(&copy);
    server.start_again();

    let restored = Instant::now();
    let token = cycle(&manager, "e").await;
    assert!(
        restored.elapsed() < Duration::from_secs(25),
        "not by a time-out"
    );
    assert!(token > newest, "{token} after {newest}");
    let told = async {
        loop {
            if let Some(Heard::Event(Event::StoreRewound { repository, .. })) = events.next().await
            {
                break repository;
            }
        }
    };
    timeout(Duration::from_secs(10), told).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while manager.health().session == before.session || !manager.health().is_ready() {
        assert!(Instant::now() < deadline, "no other session");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(manager.health().rewinds, 1);
    assert!(held.lost().reason().is_some());
    manager
        .release_run(&busy, held.run(), held.uid(), None, RunOutcome::Completed)
        .await
        .unwrap();
    let turn = timeout(Duration::from_secs(20), waiter).await.unwrap();
    assert!(matches!(turn, Ok(Turn::Started(_))), "{turn:?}");
}

/// A repository that has come back to a revision that was known, with other content, is neither
/// taken for what was known nor changed as if it were; and no session has the number of one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_head_at_a_known_revision_is_another() {
    let mut server = OwnServer::start(SYSTEM, "", "");
    let options = options(server.port);
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    let web = key("web");
    let mut sessions = vec![driver.open_session(TTL, &support::me()).await.unwrap()];
    set_limit(&driver, sessions[0], &web, 5).await;
    server.stop();
    let copy = server.copy_of_data();
    server.start_again();
    let again = |options: PostgresOptions| async move {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match PostgresDriver::connect(options.clone()).await {
                Ok(driver) => break driver,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    };
    let driver = again(options.clone()).await;
    sessions.push(driver.open_session(TTL, &support::me()).await.unwrap());
    for name in ["x", "y"] {
        command(&driver, sessions[1], &web, &Command::Admit(durable(name))).await;
    }
    let known = driver.load(&web, None).await.unwrap();
    server.stop();
    server.put_back(&copy);
    server.start_again();

    let driver = again(options).await;
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    assert!(!sessions.contains(&session), "{session} came twice");
    for name in ["p", "q"] {
        command(&driver, session, &web, &Command::Admit(durable(name))).await;
    }
    let now = driver.load(&web, None).await.unwrap();
    assert_eq!(now.head.revision, known.head.revision);
    assert_ne!(now.head.stamp, known.head.stamp);
    let since = Some(known.head.version());
    assert_eq!(driver.load(&web, since).await.unwrap(), now, "all of it");
    let outcome = planned_on(&driver, session, &known).await;
    assert!(matches!(outcome, CommitOutcome::Conflict(_)), "{outcome:?}");
    // Nor is what changed told once it has gone on from there.
    command(&driver, session, &web, &Command::Admit(durable("r"))).await;
    let all = driver.load(&web, since).await.unwrap();
    assert_eq!((all.since, all.entries.len()), (None, 3), "{all:?}");
    let part = driver.load(&web, Some(now.head.version())).await.unwrap();
    assert_eq!(
        (part.since, part.entries.len()),
        (Some(now.head.version()), 1)
    );
}

/// The outcome of a commit that was planned on what a snapshot shows.
async fn planned_on(
    driver: &PostgresDriver,
    session: SessionId,
    snapshot: &pac_core::state::Snapshot,
) -> CommitOutcome {
    let state = RepositoryState::from_snapshot(snapshot).unwrap();
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    let (_, changes) = apply(&state, issuer, &Command::Admit(durable("z")));
    let commit = RepositoryCommit {
        repository: key("web"),
        changes: changes.unwrap(),
    };
    match driver.commit(session, vec![commit]) {
        Commit::Done(outcome) => outcome,
        Commit::Pending(answer) => answer.await,
    }
    .unwrap()
    .remove(0)
}

/// While a transaction keeps an old snapshot, no old version of a head can go, and a commit does not
/// look at them all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_makes_no_commit_look_at_old_versions() {
    const CYCLES: i64 = 300;
    let port = port(SYSTEM);
    let options = options(port);
    let schema = options.schema.clone();
    let manager = manager(&options).await;
    let web = key("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    cycle(&manager, "first").await;
    let long = raw(port).await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()";
    long.batch_execute(begin).await.unwrap();
    let client = raw(port).await;
    // Rows that searches by key have found, visible or not, and pages of the heads that were looked
    // at, in the statistics that all backends have sent by now.
    let touched = format!(
        "SELECT (SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables \
           WHERE schemaname = '{schema}' AND relname = 'repositories') \
         + (SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes \
           WHERE schemaname = '{schema}' AND relname IN ('repositories', 'queue', 'slots', 'history'))"
    );
    let touches = || async {
        // A backend sends its statistics at most once a second, when it next ends a transaction.
        sleep(Duration::from_millis(1_500)).await;
        manager.status(&web).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        value::<i64>(&client, &touched).await
    };
    let mut counts = Vec::new();
    for part in 0..3 {
        let before = touches().await;
        for n in 0..CYCLES {
            cycle(&manager, &format!("run-{part}-{n}")).await;
        }
        counts.push((touches().await - before) / CYCLES);
    }
    // By key, each cycle would look at some hundred versions in the first part, and at more than a
    // thousand in the last.
    assert!(
        counts.iter().all(|each| (1..250).contains(each)),
        "{counts:?} a cycle"
    );
    long.batch_execute("COMMIT").await.unwrap();
}
