//! Servers that fall silent, that become read-only, and standbys that are promoted.

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
use pac_core::driver::{Driver, SessionTtl};
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, Turn};
use pac_core::state::RunOutcome;
use pac_postgres::PostgresDriver;
use support::own::OwnServer;
use support::{SYSTEM, durable, key, options, port, raw, value};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// A host that takes connections and says nothing.
async fn silent_host() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            all.push(connection);
        }
    });
    port
}

/// It costs its share of the patience, once, and no session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_first_host_is_passed_over() {
    let mut settings = options(port(SYSTEM));
    settings
        .hosts
        .insert(0, ("127.0.0.1".to_owned(), silent_host().await));
    let schema = settings.schema.clone();
    let connecting = PostgresDriver::connect(settings);
    let driver = timeout(Duration::from_secs(10), connecting).await;
    let driver = Arc::new(driver.unwrap().unwrap());
    let ttl = ManagerOptions::default().with_session_ttl(Duration::from_secs(2));
    let manager = ConcurrencyManager::open(Arc::clone(&driver) as _, ttl)
        .await
        .unwrap();
    let web = key("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let Admission::Started(lease) = manager.admit(&web, durable("a")).await.unwrap() else {
        panic!("the slot is free");
    };
    // Every connection is lost, and all are made anew within the TTL.
    let client = raw(port(SYSTEM)).await;
    let schema_of = "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a \
                     WHERE a.application_name = 'pac-concurrency' AND a.query LIKE $1";
    let pattern = format!("%{schema}%");
    for _ in 0..3 {
        let cut: i64 = client
            .query_one(schema_of, &[&pattern])
            .await
            .unwrap()
            .get(0);
        assert!(cut >= 1, "no connection of the driver was found");
        sleep(Duration::from_millis(700)).await;
    }
    let lost = timeout(Duration::from_secs(2), lease.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    manager.release(lease, RunOutcome::Completed).await.unwrap();
}

/// A primary and its standby, which follows it at once.
struct Pair {
    primary: OwnServer,
    standby: OwnServer,
}

impl Pair {
    fn start(synchronous: bool) -> Self {
        let wal = "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\n";
        let hba = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
        let mut primary = OwnServer::start(SYSTEM, wal, hba);
        let standby = primary.standby("standby");
        if synchronous {
            primary.stop();
            primary.start_again_with(&["-c", "synchronous_standby_names=standby"]);
        }
        Self { primary, standby }
    }

    /// The standby becomes the primary.
    async fn promote(&self) {
        let client = raw(self.standby.port).await;
        client.execute("SELECT pg_promote()", &[]).await.unwrap();
    }
}

/// Two managers hand one slot on while the primary is lost and its standby promoted: nobody is
/// admitted twice, sessions live on, and connections to the old primary are not used any more.
async fn survives(synchronous: bool, fall: impl AsyncFnOnce(&mut Pair)) {
    let mut pair = Pair::start(synchronous);
    let mut settings = options(pair.primary.port);
    settings
        .hosts
        .push(("127.0.0.1".to_owned(), pair.standby.port));
    let ttl = ManagerOptions::default().with_session_ttl(Duration::from_secs(8));
    let mut managers = Vec::new();
    for _ in 0..2 {
        let driver = PostgresDriver::connect(settings.clone()).await.unwrap();
        managers.push(
            ConcurrencyManager::open(Arc::new(driver), ttl)
                .await
                .unwrap(),
        );
    }
    let web = key("web");
    managers[0]
        .set_limit(&web, Limit::new(1), None)
        .await
        .unwrap();
    let Admission::Started(lease) = managers[0].admit(&web, durable("a")).await.unwrap() else {
        panic!("the slot is free");
    };
    let Admission::Queued(waiter) = managers[1].admit(&web, durable("b")).await.unwrap() else {
        panic!("the slot is taken");
    };
    let token = lease.token();
    if !synchronous {
        // What the standby has not received yet would be lost with the primary.
        caught_up(&pair).await;
    }
    fall(&mut pair).await;
    let released = managers[0].release(lease, RunOutcome::Completed).await;
    released.unwrap();
    let turn = timeout(Duration::from_secs(15), waiter).await.unwrap();
    let Turn::Started(lease) = turn.unwrap() else {
        panic!("the slot is free");
    };
    assert!(lease.token() > token);
    managers[1]
        .release(lease, RunOutcome::Completed)
        .await
        .unwrap();
    let client = raw(pair.standby.port).await;
    let here: i64 = value(
        &client,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pac-concurrency'",
    )
    .await;
    assert!(here >= 2, "{here} connections to the new primary");
}

async fn caught_up(pair: &Pair) {
    let client = raw(pair.primary.port).await;
    let behind = "SELECT count(*) FROM pg_stat_replication \
                  WHERE replay_lsn >= pg_current_wal_lsn()";
    let caught_up = async {
        while value::<i64>(&client, behind).await < 1 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), caught_up).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_promoted_goes_on_where_the_primary_was_lost() {
    survives(false, async |pair: &mut Pair| {
        pair.primary.kill_9();
        pair.promote().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_goes_on_too() {
    survives(true, async |pair: &mut Pair| {
        pair.primary.kill_9();
        pair.promote().await;
    })
    .await;
}

/// The old primary lives on, and takes no writes any more: no connection stays with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_became_read_only_is_left_at_once() {
    survives(false, async |pair: &mut Pair| {
        let client = raw(pair.primary.port).await;
        let sql = "ALTER SYSTEM SET default_transaction_read_only = on";
        client.execute(sql, &[]).await.unwrap();
        client
            .execute("SELECT pg_reload_conf()", &[])
            .await
            .unwrap();
        pair.promote().await;
    })
    .await;
}

/// While the server is stopped, a watch says that it is broken; when it is back, everything that
/// was missed is said to be missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_broken_while_the_server_is_stopped() {
    let mut server = OwnServer::start(SYSTEM, "", "");
    let driver = Arc::new(PostgresDriver::connect(options(server.port)).await.unwrap());
    let ttl = SessionTtl::new(Duration::from_secs(15), Duration::from_secs(60));
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    let mut watch = driver.watch(session).await.unwrap();
    let manager = ConcurrencyManager::open(Arc::clone(&driver) as _, ManagerOptions::default())
        .await
        .unwrap();
    assert_eq!(manager.health().watch_error, None);
    server.stop();
    let broken = async { while watch.next().await.is_ok() {} };
    timeout(Duration::from_secs(10), broken).await.unwrap();
    let unwell = async {
        while manager.health().watch_error.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), unwell).await.unwrap();
    server.start_again();
    let well = async {
        while manager.health().watch_error.is_some() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), well).await.unwrap();
    driver.watch(session).await.unwrap();
    manager.close().await.unwrap();
}
