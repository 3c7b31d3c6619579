//! What the database itself lets no program write.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use pac_core::ErrorKind;
use pac_core::driver::{Driver, SessionTtl};
use pac_core::protocol::Command;
use pac_postgres::PostgresDriver;
use support::{SYSTEM, TTL, command, durable, key, options, port, raw, set_limit, value};

/// Terms with weights that no run has, and what is no object.
const NO_TERMS: [&str; 9] = [
    "'[]'",
    "'7'",
    r#"'{"weight": 0}'"#,
    r#"'{"weight": 65536}'"#,
    r#"'{"weight": 1.5}'"#,
    r#"'{"weight": 2.0}'"#,
    r#"'{"weight": 2e0}'"#,
    r#"'{"weight": "2"}'"#,
    r#"'{"weight": null}'"#,
];

const MOST: &str = "9223372036854775807";

async fn store() -> (PostgresDriver, String) {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    (PostgresDriver::connect(options).await.unwrap(), schema)
}

#[tokio::test]
async fn the_database_takes_no_value_that_no_commit_makes() {
    let (driver, schema) = store().await;
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    set_limit(&driver, session, &key("web"), 1).await;
    for name in ["ended", "a", "b"] {
        let admit = Command::Admit(durable(name));
        command(&driver, session, &key("web"), &admit).await;
        if name == "ended" {
            let run = durable(name).run;
            let cancel = Command::cancel(run, None);
            command(&driver, session, &key("web"), &cancel).await;
        }
    }
    let client = raw(port(SYSTEM)).await;
    let long = format!("'{}'", "x".repeat(400));
    let beyond = (1_i64 << 62) + 1;
    let beyond = beyond.to_string();
    for (table, column, values) in [
        ("floor", "value", vec!["-1", &beyond, MOST]),
        ("server", "gap", vec!["0", "-1", MOST]),
        ("server", "seen", vec!["-1", MOST]),
        ("server", "late", vec!["-1", "9"]),
        ("server", "timeline", vec![&long]),
        ("meta", "version", vec!["-1"]),
        ("secrets", "hints", vec!["''", "'short'"]),
        ("repositories", "repository", vec!["''", &long]),
        ("repositories", "format", vec!["0", "-1"]),
        ("repositories", "revision", vec!["-1", &beyond, MOST]),
        ("repositories", "stamp", vec!["-1"]),
        ("repositories", "purged", vec!["-1", &beyond]),
        ("repositories", "run_limit", vec!["-1", "4294967296"]),
        ("repositories", "last_ticket", vec!["-1", &beyond]),
        ("repositories", "last_token", vec!["-1", MOST]),
        ("repositories", "queued", vec!["-1", "4294967296"]),
        ("repositories", "started", vec!["-1", "4294967296"]),
        ("repositories", "slots_from", vec!["-1", MOST]),
        ("queue", "repository", vec!["''", &long]),
        ("queue", "run", vec!["''", &long]),
        ("queue", "uid", vec!["''", &long]),
        ("queue", "format", vec!["0"]),
        ("queue", "kind", vec!["-1", "2"]),
        ("queue", "ticket", vec!["-1", &beyond]),
        ("queue", "revision", vec!["-1", &beyond]),
        ("queue", "queued_at", vec!["-1", MOST]),
        ("queue", "session", vec!["-1", "0"]),
        ("slots", "repository", vec!["''", &long]),
        ("slots", "run", vec!["''", &long]),
        ("slots", "uid", vec!["''", &long]),
        ("slots", "format", vec!["0"]),
        ("slots", "kind", vec!["-1", "2"]),
        ("slots", "ticket", vec!["-1", &beyond]),
        ("slots", "revision", vec!["-1", &beyond]),
        ("slots", "queued_at", vec!["-1", MOST]),
        ("slots", "token", vec!["-1", &beyond]),
        ("slots", "session", vec!["-1", "0"]),
        ("slots", "started_at", vec!["-1", MOST]),
        ("history", "repository", vec!["''", &long]),
        ("history", "run", vec!["''", &long]),
        ("history", "uid", vec!["''", &long]),
        ("history", "format", vec!["0"]),
        ("history", "kind", vec!["-1", "2"]),
        ("history", "ticket", vec!["-1", &beyond]),
        ("history", "revision", vec!["-1", &beyond]),
        ("history", "queued_at", vec!["-1", MOST]),
        ("history", "token", vec!["-1", &beyond]),
        ("history", "outcome", vec!["-1", "7"]),
        ("history", "started_at", vec!["-1", MOST]),
        ("history", "finished_at", vec!["-1", MOST]),
        ("queue", "terms", NO_TERMS.to_vec()),
        ("slots", "terms", NO_TERMS.to_vec()),
        ("history", "terms", NO_TERMS.to_vec()),
        (
            "repositories",
            "policy",
            vec![
                "'[]'",
                "'7'",
                r#"'{"surplus": "2"}'"#,
                r#"'{"surplus": 2.0}'"#,
                r#"'{"needs": null}'"#,
                r#"'{"needs": 4294967296}'"#,
                r#"'{"timed": -1}'"#,
            ],
        ),
        ("sessions", "id", vec!["-1", "0"]),
        (
            "sessions",
            "session_ttl",
            vec!["-1", "0", "31622400001", MOST],
        ),
        (
            "sessions",
            "lease_ttl",
            vec!["-1", "0", "31622400001", MOST],
        ),
        ("sessions", "opened_at", vec!["-1", MOST]),
        ("sessions", "pid", vec!["-1", "4294967296"]),
        ("sessions", "program", vec!["''", &long]),
        ("sessions", "version", vec!["''", &long]),
        ("sessions", "host", vec!["''", &long]),
        ("sessions", "deadline", vec!["-1", MOST]),
        ("sessions", "lease_deadline", vec!["-1", MOST]),
    ] {
        for value in values {
            let sql = format!("UPDATE {schema}.{table} SET {column} = {value}");
            let error = client.batch_execute(&sql).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "23514", "{sql}: {error:?}");
        }
    }
    let domains = format!(
        "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
         JOIN pg_type t ON t.oid = a.atttypid \
         WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 \
           AND t.typtype = 'b' AND a.atttypid IN ('bigint'::regtype, 'smallint'::regtype) \
           AND a.attname NOT IN ('limit_version', 'late')"
    );
    assert_eq!(
        value::<i64>(&client, &domains).await,
        0,
        "columns without a rule"
    );
}

#[tokio::test]
async fn a_ttl_that_no_store_keeps_is_refused_with_its_rule() {
    let (driver, _schema) = store().await;
    let longest = Duration::from_secs(366 * 24 * 3_600);
    for ttl in [
        SessionTtl::new(Duration::MAX, Duration::MAX),
        SessionTtl::new(Duration::from_secs(15), longest + Duration::from_secs(1)),
        SessionTtl::new(Duration::ZERO, Duration::from_secs(1)),
    ] {
        let error = driver.open_session(ttl, &support::me()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let ttl = SessionTtl::new(longest, longest);
    driver.open_session(ttl, &support::me()).await.unwrap();
}
