//! What a role that may only connect to the database can do to a store: next to nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pac_core::driver::{Driver, Level, SessionTtl, WatchEvent};
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_core::protocol::{Command, Death};
use pac_core::{ErrorKind, SessionId};
use pac_postgres::PostgresDriver;
use support::proxy::Proxy;
use support::{SYSTEM, TTL, command, durable, key, options, port, raw, set_limit, unique, value};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls};

const SOON: Duration = Duration::from_secs(20);
const SHORT: SessionTtl = SessionTtl::new(Duration::from_secs(2), Duration::from_secs(60));

/// A connection of a role that has nothing but CONNECT, which PostgreSQL gives to all; and what it
/// hears.
async fn evil(port: u16) -> (Client, mpsc::UnboundedReceiver<String>) {
    let role = unique("evil");
    let create = format!("CREATE ROLE {role} LOGIN");
    raw(port).await.batch_execute(&create).await.unwrap();
    let config = format!("host=127.0.0.1 port={port} user={role} dbname=postgres");
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages =
            futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(told) = message {
                let _ = heard.send(told.payload().to_owned());
            }
        }
    });
    (client, hears)
}

/// For a manager that sends nothing of its own accord during a test.
fn quiet() -> ManagerOptions {
    ManagerOptions::default()
        .with_session_ttl(Duration::from_secs(600))
        .with_poll_interval(Duration::from_secs(600))
        .with_sweep_interval(Duration::from_secs(600))
}

/// Looks for dead sessions until there are some.
async fn dead(driver: &PostgresDriver) -> Vec<(SessionId, Death)> {
    let dies = async {
        loop {
            let dead = driver.dead_sessions().await.unwrap();
            if !dead.is_empty() {
                return dead;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, dies).await.unwrap()
}

/// With the numbers that a session's advisory lock could be known by.
#[tokio::test]
async fn locks_of_a_foreign_role_stop_no_commit_and_no_look_for_dead_sessions() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    set_limit(&driver, session, &key("web"), 1).await;
    let silent = driver.open_session(SHORT, &support::me()).await.unwrap();
    command(&driver, silent, &key("web"), &Command::Admit(durable("a"))).await;
    let (evil, _hears) = evil(port(SYSTEM)).await;
    for session in [session, silent] {
        let number = session.get() & 0x7fff_ffff;
        let lock = format!(
            "SELECT pg_advisory_lock((c.oid::bigint - 2147483648)::integer, {number}), \
               pg_advisory_lock(c.oid::integer, {number}), pg_advisory_lock({session}) \
             FROM pg_class c WHERE c.relname = 'sessions' \
               AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = '{schema}')"
        );
        assert_eq!(evil.query(&lock, &[]).await.unwrap().len(), 1);
    }
    let waits = Command::Admit(durable("b"));
    timeout(SOON, command(&driver, session, &key("web"), &waits))
        .await
        .unwrap();
    assert_eq!(dead(&driver).await, [(silent, Death::Session)]);
    timeout(SOON, driver.close_session(session))
        .await
        .unwrap()
        .unwrap();
    let refused = format!("SELECT FROM {schema}.sessions FOR KEY SHARE");
    let error = evil.query(&refused, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
}

/// What takes the place of those locks: rows of the schema.
#[tokio::test]
async fn a_session_dies_before_or_after_its_commits_and_never_between() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let session = driver.open_session(SHORT, &support::me()).await.unwrap();
    set_limit(&driver, session, &key("web"), 1).await;
    let client = raw(port(SYSTEM)).await;
    let lock = |strength: &str| {
        format!("BEGIN; SELECT FROM {schema}.sessions WHERE id = {session} FOR {strength}")
    };
    // A commit waits for whatever is about to declare its session dead,
    client.batch_execute(&lock("UPDATE")).await.unwrap();
    let admit = Command::Admit(durable("a"));
    let web = key("web");
    {
        let mut commit = std::pin::pin!(command(&driver, session, &web, &admit));
        let early = timeout(Duration::from_millis(500), &mut commit).await;
        assert!(early.is_err(), "the commit did not wait");
        client.batch_execute("COMMIT").await.unwrap();
        timeout(SOON, commit).await.unwrap();
    }
    // a renewal does not wait for a commit, and nothing dies during one: nor does the look wait.
    client.batch_execute(&lock("KEY SHARE")).await.unwrap();
    timeout(SOON, driver.keep_alive(session))
        .await
        .unwrap()
        .unwrap();
    let start = Instant::now();
    while start.elapsed() < SHORT.session * 3 {
        let look = timeout(SOON, driver.dead_sessions()).await.unwrap();
        assert_eq!(look.unwrap(), []);
        sleep(Duration::from_millis(100)).await;
    }
    let late = driver.keep_alive(session).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::SessionLost);
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(dead(&driver).await, [(session, Death::Session)]);
}

#[tokio::test]
async fn a_foreign_lock_on_the_schema_is_not_waited_for_long_and_is_named() {
    let options = options(port(SYSTEM));
    let (evil, _hears) = evil(port(SYSTEM)).await;
    let lock = format!(
        "SELECT pg_advisory_lock(hashtextextended('pac-concurrency schema {}', 0))",
        options.schema
    );
    evil.query(&lock, &[]).await.unwrap();
    let pid: i32 = value(&evil, "SELECT pg_backend_pid()").await;
    let error = timeout(SOON, PostgresDriver::connect(options.clone())).await;
    let error = error.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("backend {pid} of the role \"evil_")),
        "{text}"
    );
    evil.query("SELECT pg_advisory_unlock_all()", &[])
        .await
        .unwrap();
    PostgresDriver::connect(options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_notifications_cause_no_look_at_the_store() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let options = options(proxy.port);
    let schema = options.schema.clone();
    let driver = Arc::new(PostgresDriver::connect(options).await.unwrap());
    let manager = ConcurrencyManager::open(Arc::clone(&driver) as _, quiet())
        .await
        .unwrap();
    manager.status(&key("web")).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let (evil, _hears) = evil(port(SYSTEM)).await;
    // Beside this there is the warning that every role may connect to the database for tests.
    let foreign = async || {
        let mut found = driver.diagnose().await.unwrap();
        found.retain(|finding| finding.text().contains("notifications"));
        found
    };
    assert_eq!(foreign().await, []);
    proxy.clear();
    let mut ticks = interval(Duration::from_millis(10));
    for _ in 0..300 {
        ticks.tick().await;
        let forged = format!(
            "SELECT pg_notify('{schema}', 'm'), pg_notify('{schema}', 'd'), \
             pg_notify('{schema}', 's1:4611686018427387904:ns/web ' || random())"
        );
        evil.query(&forged, &[]).await.unwrap();
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.requests_with(""), 0, "statements for forged hints");
    let findings = foreign().await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].level(), Level::Warning);
    assert!(
        findings[0].text().starts_with("900 notifications"),
        "{findings:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_real_hints_causes_four_looks_a_second_at_most() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let own = options(proxy.port);
    let mut others = own.clone();
    others.hosts = vec![("127.0.0.1".to_owned(), port(SYSTEM))];
    let driver = Arc::new(PostgresDriver::connect(own).await.unwrap());
    let _manager = ConcurrencyManager::open(driver, quiet()).await.unwrap();
    let other = PostgresDriver::connect(others).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    proxy.clear();
    let start = Instant::now();
    for _ in 0..200 {
        let session = other.open_session(TTL, &support::me()).await.unwrap();
        // Sends a hint that a session died.
        other.close_session(session).await.unwrap();
    }
    sleep(Duration::from_millis(600)).await;
    let looks = proxy.requests_with("sweep_sessions");
    let most = usize::try_from(start.elapsed().as_millis() / 250).unwrap() + 2;
    assert!((1..=most).contains(&looks), "{looks} looks, {most} allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_show_no_names_and_copies_of_them_count_for_nothing() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let (evil, mut hears) = evil(port(SYSTEM)).await;
    evil.batch_execute(&format!("LISTEN {schema}"))
        .await
        .unwrap();
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    let other = PostgresDriver::connect(options).await.unwrap();
    let mut watch = other.watch(SessionId::new(0)).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    let secret = key("merger-with-acme");
    set_limit(&driver, session, &secret, 1).await;
    for name in ["one", "two"] {
        command(&driver, session, &secret, &Command::Admit(durable(name))).await;
    }
    let event = timeout(SOON, watch.next()).await.unwrap().unwrap();
    assert!(
        matches!(event, WatchEvent::Changed { ref repository, .. } if *repository == secret),
        "{event:?}"
    );
    // What else was on its way arrives.
    while timeout(Duration::from_millis(500), watch.next())
        .await
        .is_ok()
    {}
    let mut payloads = Vec::new();
    while let Ok(payload) = hears.try_recv() {
        assert!(
            !payload.contains("acme") && !payload.contains("ns/"),
            "{payload}"
        );
        payloads.push(payload);
    }
    // Those of the two self-tests, and at least one hint.
    assert!(payloads.len() >= 3, "{payloads:?}");
    for payload in &payloads {
        let copy = format!("SELECT pg_notify('{schema}', '{payload}')");
        evil.query(&copy, &[]).await.unwrap();
    }
    let copied = timeout(Duration::from_millis(1_500), watch.next()).await;
    assert!(copied.is_err(), "{copied:?}");
    let denied = format!("SELECT hints FROM {schema}.secrets");
    let error = evil.query(&denied, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
}
