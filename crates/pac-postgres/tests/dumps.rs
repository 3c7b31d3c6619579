//! A dump that is restored into another database, and one that is being taken.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;

use pac_core::driver::{Driver, Finding, Level};
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, Turn};
use pac_core::state::RunOutcome;
use pac_core::{FencingToken, Limit};
use pac_postgres::{PostgresDriver, PostgresOptions};
use support::own::OwnServer;
use support::{NEWEST, SYSTEM, durable, key, options, raw, value};

async fn manager(options: &PostgresOptions) -> ConcurrencyManager {
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    ConcurrencyManager::open(Arc::new(driver), ManagerOptions::default())
        .await
        .unwrap()
}

/// Dumps the schema with `pg_dump`, and restores it into the new database `copy`.
async fn copy(server: &OwnServer, schema: &str) {
    let at = |program: &str| {
        let mut command = server.program(program);
        command.args(["--host=127.0.0.1", "--username=postgres"]);
        command.arg(format!("--port={}", server.port));
        command
    };
    let mut dump = at("pg_dump");
    dump.args(["--format=custom", "--dbname=postgres"]);
    let file = server.data().join("pac.dump");
    dump.arg(format!("--schema={schema}"))
        .arg("--file")
        .arg(&file);
    let output = dump.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let client = raw(server.port).await;
    client.batch_execute("CREATE DATABASE copy").await.unwrap();
    let mut restore = at("pg_restore");
    restore
        .args(["--dbname=copy", "--exit-on-error"])
        .arg(&file);
    let output = restore.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The copy has all that was there: limits, the order of those that wait, tickets and tokens, and
/// the guards. It goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_goes_on_where_it_was() {
    for which in [SYSTEM, NEWEST] {
        let server = OwnServer::start(which, "", "");
        let mut options = options(server.port);
        let first = manager(&options).await;
        let web = key("web");
        first.set_limit(&web, Limit::new(1), None).await.unwrap();
        let Admission::Started(lease) = first.admit(&web, durable("held")).await.unwrap() else {
            panic!("the slot is free");
        };
        let mut waiters = Vec::new();
        for name in ["b", "a", "c"] {
            waiters.push(first.admit(&web, durable(name)).await.unwrap());
        }
        let token = lease.token();
        copy(&server, &options.schema).await;
        drop(waiters);

        options.database = "copy".to_owned();
        let second = manager(&options).await;
        let status = second.status(&web).await.unwrap();
        let queued = status.queued.iter();
        let queued: Vec<_> = queued.map(|run| run.run.to_string()).collect();
        assert_eq!(queued, ["ns/b", "ns/a", "ns/c"]);
        let (held, uid) = (lease.run(), lease.uid());
        second
            .release_run(&web, held, uid, None, RunOutcome::Completed)
            .await
            .unwrap();
        let next = match second.admit(&web, durable("b")).await.unwrap() {
            Admission::Started(lease) => lease,
            // Its process, which nobody hears of here, has one TTL more.
            Admission::Queued(waiter) => match waiter.await.unwrap() {
                Turn::Started(lease) => lease,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert!(next.token() > token, "{:?} after {token:?}", next.token());
        assert!(token > FencingToken::default());
        let driver = PostgresDriver::connect(options).await.unwrap();
        let findings = driver.diagnose().await.unwrap();
        let fails = |finding: &Finding| finding.level() != Level::Warning;
        assert!(!findings.iter().any(fails), "{findings:?}");
    }
}

/// A snapshot that is older than five minutes, as a dump of a large database keeps one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_kept_for_long_is_named_with_its_backend() {
    let server = OwnServer::start_with_a_clock(SYSTEM);
    let driver = PostgresDriver::connect(options(server.port)).await.unwrap();
    let dump = raw(server.port).await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1";
    dump.batch_execute(begin).await.unwrap();
    let backend: i32 = value(&dump, "SELECT pg_backend_pid()").await;
    let named = async || {
        let findings = driver.diagnose().await.unwrap();
        let of_backend = format!("of backend {backend} ");
        findings
            .iter()
            .any(|finding| finding.text().contains(&of_backend))
    };
    server.set_clock(4 * 60);
    assert!(!named().await, "not yet old");
    server.set_clock(6 * 60);
    assert!(named().await);
    dump.batch_execute("COMMIT").await.unwrap();
    assert!(!named().await, "it has ended");
}
