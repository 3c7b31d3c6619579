//! How many connections a process needs, and what it does where there are not enough.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use pac_core::Limit;
use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, Turn};
use pac_core::state::RunOutcome;
use pac_postgres::{PostgresDriver, PostgresOptions};
use support::own::OwnServer;
use support::{SYSTEM, TTL, durable, key, options, raw, value};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;

const CONNECTIONS: usize = 12;

/// A server with few connections, none of which are for superusers alone.
fn small_server() -> OwnServer {
    let settings = format!("max_connections = {CONNECTIONS}\nsuperuser_reserved_connections = 0\n");
    OwnServer::start(SYSTEM, &settings, "")
}

/// Takes every connection that the server has left.
async fn fill(port: u16) -> Vec<tokio_postgres::Client> {
    let config = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let mut all = Vec::new();
    while let Ok((client, connection)) = tokio_postgres::connect(&config, NoTls).await {
        tokio::spawn(connection);
        all.push(client);
    }
    all
}

fn small(port: u16) -> PostgresOptions {
    let mut options = options(port);
    options.max_connections = 1;
    options
}

async fn connections(client: &tokio_postgres::Client) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pac-concurrency'";
    value(client, count).await
}

async fn open(options: PostgresOptions, ttl: Duration) -> ConcurrencyManager {
    let driver = PostgresDriver::connect(options).await.unwrap();
    let settings = ManagerOptions::default().with_session_ttl(ttl);
    ConcurrencyManager::open(Arc::new(driver), settings)
        .await
        .unwrap()
}

async fn started(manager: &ConcurrencyManager, name: &str) -> pac_core::manager::Lease {
    match manager.admit(&key("web"), durable(name)).await.unwrap() {
        Admission::Started(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// A lease is held through three TTLs in which nobody gets another connection, and given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_costs_no_lease() {
    let server = small_server();
    let mut settings = options(server.port);
    settings.connection_timeout = Duration::from_secs(1);
    let manager = open(settings, Duration::from_secs(2)).await;
    let web = key("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let lease = started(&manager, "held").await;
    let others = fill(server.port).await;
    assert!(others.len() >= 5, "{}", others.len());
    let lost = timeout(Duration::from_secs(6), lease.lost()).await;
    assert!(lost.is_err(), "lost: {lost:?}");
    manager.release(lease, RunOutcome::Completed).await.unwrap();
    drop(others);
    manager.close().await.unwrap();
}

/// Two processes hand a slot on to each other, each with the one connection that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_works_with_the_one_connection_that_it_has() {
    let server = small_server();
    let settings = small(server.port);
    // The tables are there, and all that follows is about a process that comes to a full server.
    drop(PostgresDriver::connect(settings.clone()).await.unwrap());
    let mut others = fill(server.port).await;
    let mut managers = Vec::new();
    for _ in 0..2 {
        // Whose connection is closed, the server finds out in its own time.
        drop(others.pop());
        managers.push(open(settings.clone(), Duration::from_secs(15)).await);
    }
    let web = key("web");
    managers[0]
        .set_limit(&web, Limit::new(1), None)
        .await
        .unwrap();
    let lease = started(&managers[0], "first").await;
    let Admission::Queued(waiter) = managers[1].admit(&web, durable("second")).await.unwrap()
    else {
        panic!("the slot is taken");
    };
    assert_eq!(connections(&others[0]).await, 2);
    managers[0]
        .release(lease, RunOutcome::Completed)
        .await
        .unwrap();
    let turn = timeout(Duration::from_secs(5), waiter).await.unwrap();
    let Turn::Started(lease) = turn.unwrap() else {
        panic!("the slot is free");
    };
    managers[1]
        .release(lease, RunOutcome::Completed)
        .await
        .unwrap();
    assert_eq!(connections(&others[0]).await, 2);
}

/// In every state a process with a pool of one has two connections at most, also where dead
/// sessions wait to be seen to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_are_enough_in_every_state() {
    let server = OwnServer::start(SYSTEM, "", "");
    let settings = small(server.port);
    let client = raw(server.port).await;
    let web = key("web");
    // Twelve sessions that die with a run each.
    let dying = PostgresDriver::connect(settings.clone()).await.unwrap();
    let short = pac_core::driver::SessionTtl::new(Duration::from_millis(500), TTL.lease);
    support::set_limit(
        &dying,
        dying.open_session(short, &support::me()).await.unwrap(),
        &web,
        20,
    )
    .await;
    for n in 0..12 {
        let session = dying.open_session(short, &support::me()).await.unwrap();
        let admit = pac_core::protocol::Command::Admit(durable(&format!("left-{n}")));
        support::command(&dying, session, &web, &admit).await;
    }
    drop(dying);
    let gone = async {
        while connections(&client).await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();

    let watcher = raw(server.port).await;
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let most = tokio::spawn(async move {
        let mut most = 0;
        let mut is_done = std::pin::pin!(is_done);
        loop {
            most = most.max(connections(&watcher).await);
            tokio::select! {
                _ = &mut is_done => return most,
                () = sleep(Duration::from_millis(3)) => {}
            }
        }
    });
    let manager = open(settings, Duration::from_secs(15)).await;
    manager.set_limit(&web, Limit::new(13), None).await.unwrap();
    let lease = started(&manager, "mine").await;
    let Admission::Queued(waiter) = manager.admit(&web, durable("next")).await.unwrap() else {
        panic!("all slots are taken");
    };
    sleep(Duration::from_secs(3)).await;
    manager.release(lease, RunOutcome::Completed).await.unwrap();
    let turn = timeout(Duration::from_secs(5), waiter).await.unwrap();
    assert!(matches!(turn.unwrap(), Turn::Started(_)));
    manager.close().await.unwrap();
    done.send(()).unwrap();
    let most = most.await.unwrap();
    assert!((1..=2).contains(&most), "{most} connections");
}

/// Who comes to a full server waits for it, and is told why it did not get in when it waited long
/// enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_waited_for() {
    let server = small_server();
    let mut settings = small(server.port);
    let mut others = fill(server.port).await;
    settings.full_server_timeout = Duration::from_millis(600);
    let start = Instant::now();
    let error = PostgresDriver::connect(settings.clone()).await.unwrap_err();
    assert!(error.to_string().contains("no connection left"), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(300));
    settings.full_server_timeout = Duration::from_secs(20);
    let connecting = tokio::spawn(PostgresDriver::connect(settings));
    sleep(Duration::from_millis(500)).await;
    assert!(!connecting.is_finished());
    others.truncate(CONNECTIONS - 3);
    let driver = timeout(Duration::from_secs(10), connecting).await.unwrap();
    driver
        .unwrap()
        .unwrap()
        .open_session(TTL, &support::me())
        .await
        .unwrap();
}

/// A connection that was lent to a request that came to nothing is not used again, and the pool
/// makes another one in its place; the one that was used last is used first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_that_was_used_last_is_used_first() {
    let server = OwnServer::start(SYSTEM, "", "");
    let settings = options(server.port);
    let schema = settings.schema.clone();
    let driver = Arc::new(PostgresDriver::connect(settings).await.unwrap());
    let client = raw(server.port).await;
    let web = key("web");
    // Six requests at once need six connections.
    let block = format!("BEGIN; LOCK TABLE {schema}.repositories IN ACCESS EXCLUSIVE MODE");
    client.batch_execute(&block).await.unwrap();
    let loads: Vec<_> = (0..6)
        .map(|_| {
            let (driver, web) = (Arc::clone(&driver), web.clone());
            tokio::spawn(async move { driver.load(&web, None).await.map(drop) })
        })
        .collect();
    // Within a transaction the view would show the same all the time.
    let watcher = raw(server.port).await;
    let blocked = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'pac-concurrency' AND wait_event_type = 'Lock'";
        while value::<i64>(&watcher, waiting).await < 6 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), blocked).await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    for load in loads {
        load.await.unwrap().unwrap();
    }
    let used = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pac-concurrency' \
                AND query LIKE '%load_repository%' AND query_start > now() - interval '200 ms'";
    sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        driver.load(&web, None).await.unwrap();
    }
    assert_eq!(value::<i64>(&client, used).await, 1);
}
