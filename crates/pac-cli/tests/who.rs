//! Who holds a slot: what the commands show of the process behind a session, alive and dead.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};
use servers::{HOST, Running, Store, WEB, eventually, on_every_store, signal};

on_every_store! {
    every_command_says_who_holds_what,
    a_process_that_was_killed_is_still_told,
    a_name_of_ones_own_stands_for_all_of_it,
    an_identity_that_cannot_be_shown_is_refused,
}

/// Waits for its turn in the repository, or works there, until it is killed.
fn holder(store: &Store, run: &str) -> Running {
    store.exec(&["--ttl", "3s", "--limit", "1", "--run", run], "sleep 60")
}

/// The process that holds the only slot.
fn process(store: &Store) -> Value {
    store.json(&["status", WEB])[0]["running"][0]["process"].clone()
}

fn every_command_says_who_holds_what(store: &Store) {
    let mut watch = Running::start(store.pac_itself(&["watch", "--output", "json"]));
    let mut lines = BufReader::new(watch.child().stdout.take().unwrap()).lines();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut first = holder(store, "ci/first");
    store.wait_for_counts(1, 0);
    let mut second = holder(store, "ci/second");
    store.wait_for_counts(1, 1);

    let status = store.json(&["status", WEB]);
    let holds = &status[0]["running"][0]["process"];
    let since = holds["since"].as_str().unwrap();
    assert!(since.len() == 24 && since.ends_with('Z'), "{since}");
    let expected = |pid, since: &str| {
        json!({
            "program": "pac", "version": env!("CARGO_PKG_VERSION"), "host": HOST, "pid": pid,
            "since": since,
        })
    };
    assert_eq!(*holds, expected(first.child().id(), since));
    let waits = &status[0]["queued"][0]["process"];
    assert_eq!(waits["pid"], second.child().id());

    let (one, other) = (first.child().id(), second.child().id());
    let table = store.run(&["status"]).stdout;
    for pid in [one, other] {
        assert!(table.contains(&format!(" pac@{HOST}#{pid} ")), "{table}");
    }
    assert!(!table.contains("session"), "{table}");

    let session = status[0]["running"][0]["session"].clone();
    let top = store.json(&["top", "--count", "1"]);
    let held_by = json!([{"session": session, "process": holds}]);
    assert_eq!(top["repositories"][0]["held_by"], held_by);
    let top = store.run(&["top", "--count", "1"]).stdout;
    assert!(top.contains(&format!(" pac@{HOST}#{one} ")), "{top}");

    let started = lines.find_map(|line| {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        (event["event"] == "started").then_some(event)
    });
    assert_eq!(started.unwrap()["process"], *holds);
    for running in [&mut first, &mut second, &mut watch] {
        running.signal("INT");
    }
}

fn a_process_that_was_killed_is_still_told(store: &Store) {
    let mut killed = holder(store, "ci/killed");
    store.wait_for_counts(1, 0);
    let alive = process(store);
    signal("KILL", killed.child().id());
    // No other process sees to the run of a session that is dead, but for those that only look.
    let dead = || store.json(&["status", WEB])[0]["running"][0]["dead"] == true;
    eventually("the death", dead);
    assert_eq!(process(store), alive);
    let table = store.run(&["status"]).stdout;
    let line = table.lines().find(|line| line.contains("process dead"));
    let name = format!("pac@{HOST}#{}", alive["pid"]);
    assert!(line.is_some_and(|line| line.contains(&name)), "{table}");
}

fn a_name_of_ones_own_stands_for_all_of_it(store: &Store) {
    let args = ["--set", "concurrency-identity=night-batch", "exec"];
    let exec = ["-r", WEB, "--limit", "1", "--", "sleep", "60"];
    let mut named = Running::start(store.pac_itself(&[&args[..], &exec].concat()));
    store.wait_for_counts(1, 0);
    let told = process(store);
    let expected = json!({
        "program": "night-batch", "version": null, "host": null, "pid": null,
        "since": told["since"],
    });
    assert_eq!(told, expected);
    let table = store.run(&["status"]).stdout;
    assert!(table.contains(" night-batch "), "{table}");
    named.signal("INT");
}

fn an_identity_that_cannot_be_shown_is_refused(store: &Store) {
    for (identity, rule) in [
        ("a b", "must be 1 to 63 ASCII letters"),
        ("\u{1b}[2J", "must be 1 to 63 ASCII letters"),
        ("postgres://pac:hunter2@db", "must be a name, and not a URL"),
    ] {
        let setting = format!("concurrency-identity={identity}");
        let refused = store.run(&["--set", &setting, "status"]);
        assert_eq!(refused.code, 78, "{refused:?}");
        assert!(refused.stderr.contains(rule), "{refused:?}");
        assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    }
}

/// How many connections are called so.
#[cfg(feature = "postgres")]
fn connections(name: &str) -> u32 {
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    let output = servers::psql(&["-d", "postgres", "-c", &count]).output();
    let count = String::from_utf8(output.unwrap().stdout).unwrap();
    count.trim().parse().unwrap()
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_connections_are_called_after_the_process_or_as_is_set() {
    let unique = format!("night-{}", std::process::id());
    for key in [
        None,
        Some("concurrency-identity"),
        Some("postgresql-application-name"),
    ] {
        let mut store = Store::postgres();
        let name = key.map(|key| format!("{key}-{unique}"));
        if let (Some(key), Some(name)) = (key, &name) {
            store.set(key, name);
        }
        let mut holder = holder(&store, "ci/run");
        store.wait_for_counts(1, 0);
        let own = format!("pac@{HOST}#{}", holder.child().id());
        let named = name.as_deref().unwrap_or(&own);
        assert!(connections(named) >= 2, "{named}");
        assert_eq!(connections(&own) > 0, key.is_none(), "{own}");
        holder.signal("INT");
    }
}
