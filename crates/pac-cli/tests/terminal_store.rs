//! Nothing that a store or its server says moves a cursor, forges a line or fills a screen.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use pac_concurrency::text::is_plain;
use servers::{Finished, Running, Store, WEB, eventually};

/// Every command that reads or changes the store, and ends.
const COMMANDS: [&[&str]; 14] = [
    &["status"],
    &["status", WEB],
    &["status", "--output", "json"],
    &["status", "--output", "yaml"],
    &["history"],
    &["history", "--output", "yaml"],
    &["top", "--count", "1"],
    &["limit", WEB, "3"],
    &["cancel", WEB, "ci/waits"],
    &["release", WEB, "ci/runs", "--yes"],
    &["doctor"],
    &["doctor", "--output", "json"],
    &["exec", "--repository", WEB, "--no-wait", "--", "true"],
    &["cleanup", WEB, "--yes"],
];

/// Fails unless all that was printed is plain, and not much.
#[track_caller]
fn plain(command: &[&str], finished: &Finished) {
    for text in [&finished.stdout, &finished.stderr] {
        for line in text.lines() {
            assert!(line.chars().all(is_plain), "{command:?}: {line:?}");
            assert!(!line.starts_with("forged"), "{command:?}: {text}");
        }
        assert!(text.len() < 50_000, "{command:?}: {} bytes", text.len());
    }
}

/// Runs every command, and `pac watch` for a moment. Returns all that was printed.
fn run_all(store: &Store) -> String {
    let mut said = String::new();
    for command in COMMANDS {
        let finished = store.run(command);
        plain(command, &finished);
        said.push_str(&finished.stdout);
        said.push_str(&finished.stderr);
    }
    let mut watch = Running::start(store.pac_itself(&["watch"]));
    std::thread::sleep(std::time::Duration::from_millis(500));
    if !watch.has_ended() {
        watch.signal("INT");
    }
    eventually("the end of the watch", || watch.has_ended());
    let finished = watch.wait();
    plain(&["watch"], &finished);
    said + &finished.stdout + &finished.stderr
}

#[cfg(feature = "postgres")]
mod postgres {
    use servers::psql;

    use super::*;

    /// Escape sequences, a line break, a mark that turns letters round, and a megabyte.
    const HOSTILE: &str = "E'x\\x1b[2J\\x1b]0;t\\x07\\nforged\\r' || chr(155) || chr(8238) || \
                           chr(8232) || chr(8294) || repeat('m', 1048576)";

    fn sql(statements: &str) -> (bool, String) {
        let output = psql(&["-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statements]).output();
        let output = output.unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }

    fn schema(store: &Store) -> String {
        let settings = store.settings().iter();
        let schema = settings.clone().find(|(key, _)| key == "postgresql-schema");
        schema.unwrap().1.clone()
    }

    /// A store with a run that runs and one that waits.
    fn busy() -> (Store, [Running; 2]) {
        let store = Store::postgres();
        let runs = store.exec(&["--limit", "1", "--run", "ci/runs"], "sleep 300");
        store.wait_for_counts(1, 0);
        let waits = store.exec(&["--run", "ci/waits"], "true");
        store.wait_for_counts(1, 1);
        (store, [runs, waits])
    }

    #[test]
    fn what_the_server_says_is_escaped() {
        let (store, _runs) = busy();
        let schema = schema(&store);
        // Whoever reads or writes what is in a table is answered by this.
        let (made, said) = sql(&format!(
            "CREATE FUNCTION {schema}.boom() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION USING MESSAGE = {HOSTILE}, DETAIL = {HOSTILE}, HINT = {HOSTILE}; \
             END $$"
        ));
        assert!(made, "{said}");
        let (_, tables) = sql(&format!(
            "SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' ORDER BY 1"
        ));
        let mut said = String::new();
        for table in tables.lines() {
            let (made, why) = sql(&format!(
                "BEGIN; ALTER TABLE {schema}.{table} RENAME TO real_{table}; \
                 CREATE VIEW {schema}.{table} AS SELECT * FROM {schema}.real_{table} \
                 WHERE {schema}.boom(); COMMIT"
            ));
            assert!(made, "{table}: {why}");
            said.push_str(&run_all(&store));
            let (made, why) = sql(&format!(
                "BEGIN; DROP VIEW {schema}.{table}; \
                 ALTER TABLE {schema}.real_{table} RENAME TO {table}; COMMIT"
            ));
            assert!(made, "{table}: {why}");
        }
        assert!(
            said.contains("\\u{1b}[2J"),
            "the message was never told: {said}"
        );
        assert!(said.contains("more bytes)"), "{said}");
    }

    #[test]
    fn what_stands_in_records_is_escaped() {
        let (store, _runs) = busy();
        let schema = schema(&store);
        let (_, columns) = sql(&format!(
            "SELECT table_name, column_name FROM information_schema.columns \
             WHERE table_schema = '{schema}' AND data_type IN ('text', 'character varying') \
             ORDER BY 1, 2"
        ));
        for column in columns.lines() {
            let (table, column) = column.split_once('|').unwrap();
            // What the schema itself refuses is no danger. A megabyte does not fit into an index.
            let short = HOSTILE.replace("1048576", "64");
            for value in [HOSTILE, &short] {
                let (done, _) = sql(&format!("UPDATE {schema}.{table} SET {column} = {value}"));
                if done {
                    run_all(&store);
                    break;
                }
            }
        }
        assert!(!columns.is_empty(), "no column of text was found");
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use servers::variable;

    use super::*;

    fn etcdctl(arguments: &[&str], input: &str) -> String {
        let endpoint = variable("PAC_TEST_ETCD");
        let mut etcdctl = Command::new(variable("PAC_TEST_ETCDCTL"))
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoint.as_str()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A value is longer than an argument may be.
        let mut stdin = etcdctl.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = etcdctl.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn what_stands_in_records_is_escaped() {
        let store = Store::etcd();
        let _runs = store.exec(&["--limit", "1", "--run", "ci/runs"], "sleep 300");
        store.wait_for_counts(1, 0);
        let _waits = store.exec(&["--run", "ci/waits"], "true");
        store.wait_for_counts(1, 1);
        let settings = store.settings().iter();
        let prefix = settings.clone().find(|(key, _)| key == "etcd-prefix");
        let prefix = prefix.unwrap().1.clone();
        let hostile = "x\u{1b}[2J\u{1b}]0;t\u{7}\nforged\r\u{9b}\u{202e}\u{2028}\u{2066}";
        let keys = etcdctl(&["get", "--prefix", &prefix, "--keys-only"], "");
        let keys: Vec<_> = keys.lines().filter(|line| !line.is_empty()).collect();
        assert!(keys.len() > 2, "{keys:?}");
        let long = format!("{hostile}{}", "m".repeat(100_000));
        let quoted = serde_json::to_string(&long).unwrap();
        for key in keys {
            for value in [long.as_str(), &quoted, &format!("{{{quoted}:{quoted}}}")] {
                etcdctl(&["put", key], value);
            }
            run_all(&store);
            // Beside it: a key that is no name.
            etcdctl(&["put", &format!("{key}{hostile}")], "x");
        }
        run_all(&store);
    }
}
