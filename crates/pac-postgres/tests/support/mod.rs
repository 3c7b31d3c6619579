//! Servers for tests: those that `cargo xtask test` has started, and those that a test starts
//! itself.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

pub(crate) mod impostor;
pub(crate) mod own;
pub(crate) mod proxy;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pac_core::driver::{Driver, Finding, Level, RepositoryCommit, SessionTtl};
use pac_core::protocol::{Command, Issuer, Outcome, RunRequest, apply};
use pac_core::state::RepositoryState;
use pac_core::{Limit, RepositoryKey, SessionId, SessionIdentity};
use pac_postgres::{PostgresOptions, SslMode};
use tokio_postgres::NoTls;

/// The system's PostgreSQL.
pub(crate) const SYSTEM: &str = "PAC_TEST_POSTGRES";
/// The newest PostgreSQL.
pub(crate) const NEWEST: &str = "PAC_TEST_POSTGRES_NEWEST";

/// A part of the statement that commits to one repository whose head was seen before. All other commits
/// are calls of `commit_batch`.
pub(crate) const COMMIT: &str = "WITH living AS";

/// The value of a variable that `cargo xtask test` sets.
#[track_caller]
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests need servers, which `cargo xtask test --driver \
             postgres` starts (and what follows a further `--` selects tests)"
        )
    })
}

/// The port of a server that trusts everybody on this machine.
#[track_caller]
pub(crate) fn port(server: &str) -> u16 {
    variable(server).parse().unwrap()
}

/// A name that no other test has.
pub(crate) fn unique(prefix: &str) -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let last = LAST.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}_{}_{last}", std::process::id())
}

/// Settings for a schema of its own, as the superuser.
pub(crate) fn options(port: u16) -> PostgresOptions {
    let mut options = PostgresOptions::default();
    options.hosts = vec![("127.0.0.1".to_owned(), port)];
    options.database = "postgres".to_owned();
    options.username = "postgres".to_owned();
    options.ssl_mode = SslMode::Disable;
    options.schema = unique("test");
    options.application_name = Some("pac-concurrency".to_owned());
    options
}

/// A connection that does not go through the driver.
pub(crate) async fn raw(port: u16) -> tokio_postgres::Client {
    let config = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// One value of one row.
pub(crate) async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    client: &tokio_postgres::Client,
    sql: &str,
) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What does not work, by the driver's own account. The database of the servers for tests is open to
/// every role, of which it warns.
pub(crate) async fn failures(driver: &dyn Driver) -> Vec<Finding> {
    let mut found = driver.diagnose().await.unwrap();
    found.retain(|finding| finding.level() != Level::Warning);
    found
}

pub(crate) const TTL: SessionTtl =
    SessionTtl::new(Duration::from_secs(15), Duration::from_secs(60));

/// Who opens sessions here.
pub(crate) fn me() -> SessionIdentity {
    SessionIdentity::of_this_process()
}

pub(crate) fn key(name: &str) -> RepositoryKey {
    format!("ns/{name}").parse().unwrap()
}

pub(crate) fn durable(name: &str) -> RunRequest {
    RunRequest::durable(format!("ns/{name}").parse().unwrap(), name.parse().unwrap())
}

/// Applies a command as a manager would, until it is committed.
pub(crate) async fn command(
    driver: &dyn Driver,
    session: SessionId,
    repository: &RepositoryKey,
    command: &Command,
) -> Outcome {
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    for _ in 0..100 {
        let snapshot = driver.load(repository, None).await.unwrap();
        let state = RepositoryState::from_snapshot(&snapshot).unwrap();
        let (outcome, Some(changes)) = apply(&state, issuer, command) else {
            return apply(&state, issuer, command).0;
        };
        let commit = RepositoryCommit {
            repository: repository.clone(),
            changes,
        };
        if committed(driver, session, vec![commit]).await[0] {
            return outcome;
        }
    }
    panic!("{command:?} met a conflict each time");
}

/// Commits a batch, and says for each repository whether that was done.
pub(crate) async fn committed(
    driver: &dyn Driver,
    session: SessionId,
    batch: Vec<RepositoryCommit>,
) -> Vec<bool> {
    use pac_core::driver::{Commit, CommitOutcome};
    let Commit::Pending(answer) = driver.commit(session, batch) else {
        panic!("a server answers later");
    };
    let outcomes = answer.await.unwrap();
    outcomes
        .iter()
        .map(|outcome| matches!(outcome, CommitOutcome::Committed(_)))
        .collect()
}

pub(crate) async fn set_limit(
    driver: &dyn Driver,
    session: SessionId,
    key: &RepositoryKey,
    limit: u32,
) {
    let limit = Command::limit(Limit::new(limit), None);
    command(driver, session, key, &limit).await;
}
