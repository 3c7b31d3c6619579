//! `pac schema`, and what other commands do about a schema that is missing or of another version.

#![cfg(all(unix, feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use serde_json::json;
use servers::{Store, WEB, psql};

fn schema(store: &Store) -> &str {
    let mut settings = store.settings().iter();
    let schema = settings.find(|(key, _)| key == "postgresql-schema");
    &schema.unwrap().1
}

fn sql(text: &str) -> String {
    let output = psql(&["-v", "ON_ERROR_STOP=1", "-c", text])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn is_there(store: &Store) -> bool {
    let schema = schema(store);
    sql(&format!(
        "SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'"
    )) == "1"
}

/// Every command that is no controller's and no job's, and that leaves a schema of another version
/// alone.
const LOOKS: [&[&str]; 8] = [
    &["status"],
    &["top", "--count", "1"],
    &["history"],
    &["watch"],
    &["limit", WEB, "1"],
    &["cancel", WEB, "ci/a"],
    &["release", WEB, "ci/a", "--token", "1"],
    &["cleanup", WEB, "--yes"],
];

#[test]
fn postgres_commands_that_only_look_create_no_schema() {
    let store = Store::unprepared_postgres();
    for command in LOOKS {
        let finished = store.run(command);
        assert_eq!(finished.code, 78, "{command:?} {finished:?}");
        for word in [schema(&store), "postgresql-database", "`pac schema apply`"] {
            assert!(finished.stderr.contains(word), "{command:?} {finished:?}");
        }
    }
    assert!(!is_there(&store));
    // Nor does a job that may not.
    let job = ["exec", "-r", WEB, "-l", "1", "--", "true"];
    let never = [&["--set", "postgresql-migrate=never"], &job[..]].concat();
    let refused = store.run(&never);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(refused.stderr.contains("pac schema apply"), "{refused:?}");
    assert!(!is_there(&store));
    // One that may creates it, and then nobody needs to.
    assert_eq!(store.run(&job).code, 0);
    assert_eq!(store.run(&never).code, 0);
    for command in [&["status"][..], &["limit", WEB, "2"]] {
        assert_eq!(store.run(command).code, 0);
    }
}

#[test]
fn postgres_a_schema_is_shown_printed_and_applied() {
    let store = Store::unprepared_postgres();
    let status = store.run(&["schema", "status", "--output", "json"]);
    assert_eq!(status.code, 1, "{status:?}");
    let shape = |found: Option<u32>, todo: &str| {
        json!({"database": "postgres", "schema": schema(&store), "found": found, "needed": 1,
            "todo": todo})
    };
    let shown: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(shown, shape(None, "create"));
    let printed = store.run(&["schema", "apply", "--print"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert_eq!(
        printed.stdout,
        store.run(&["schema", "status", "--print"]).stdout
    );
    assert!(!is_there(&store));
    // The script can be run by other hands.
    sql(&printed.stdout);
    assert_eq!(store.json(&["schema", "status"]), shape(Some(1), "nothing"));
    assert_eq!(store.run(&["schema", "status", "--print"]).stdout, "");
    let again = store.run(&["schema", "apply"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stdout.contains("version 1, as needed"), "{again:?}");
    assert_eq!(store.json(&["status"]), json!([]));
    let new = Store::unprepared_postgres();
    let applied = new.run(&["schema", "apply"]);
    assert!(applied.stdout.contains("was created"), "{applied:?}");
    assert!(is_there(&new));
    let other = store.run(&["--set", "concurrency-driver=memory", "schema", "status"]);
    assert_eq!(other.code, 78, "{other:?}");
}

#[test]
fn postgres_versions_that_do_not_fit_are_refused_clearly() {
    let store = Store::postgres();
    for (version, word, todo) in [
        (2, "use a newer version", "update-software"),
        (0, "`pac schema apply`", "upgrade"),
    ] {
        sql(&format!(
            "UPDATE {}.meta SET version = {version}",
            schema(&store)
        ));
        let job: &[&str] = &["exec", "-r", WEB, "-l", "1", "--", "true"];
        for command in LOOKS.into_iter().chain([job]) {
            let finished = store.run(command);
            assert_eq!(finished.code, 69, "{command:?} {finished:?}");
            for word in [word, &format!("version {version}")] {
                assert!(finished.stderr.contains(word), "{command:?} {finished:?}");
            }
        }
        let doctor = store.run(&["doctor"]);
        assert_eq!(doctor.code, 69, "{doctor:?}");
        assert!(doctor.stdout.contains("FAILED   schema: "), "{doctor:?}");
        let status = store.run(&["schema", "status", "--output", "json"]);
        assert_eq!(status.code, 1, "{status:?}");
        assert!(status.stdout.contains(todo), "{status:?}");
    }
    sql(&format!("UPDATE {}.meta SET version = 1", schema(&store)));
    assert_eq!(store.run(&["status"]).code, 0);
}
