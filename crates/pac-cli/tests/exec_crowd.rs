//! Many `pac exec` at once on one server that has room for fewer connections.

#![cfg(all(unix, feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use servers::own::OwnServer;
use servers::{Finished, Running, Store, eventually, read, wait_for_text};

const SYSTEM: &str = "PAC_TEST_POSTGRES";

/// `psql` as the superuser. A server lets a client say who it is before it knows that there is no room
/// for it: for that long, the room that is kept for superusers is taken, too.
fn asked(server: &OwnServer, sql: &str) -> String {
    let mut answer = None;
    eventually("a connection of the superuser", || {
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-p", &server.port.to_string()]);
        psql.args(["-U", "postgres", "-qtA", "-c", sql]);
        let output = psql.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() && error.contains("too many clients already") {
            return false;
        }
        assert!(output.status.success(), "{sql}: {error}");
        answer = Some(String::from_utf8(output.stdout).unwrap());
        true
    });
    answer.unwrap().trim().to_owned()
}

/// A database that an ordinary role owns.
fn ordinary(server: &OwnServer) -> Store {
    asked(server, "CREATE ROLE ordinary LOGIN");
    asked(server, "CREATE DATABASE ordinary OWNER ordinary");
    let mut store = Store::at_postgres(&server.port.to_string());
    store.set("postgresql-database", "ordinary");
    store.set("postgresql-username", "ordinary");
    store.prepared()
}

fn connections(server: &OwnServer) -> usize {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'ordinary'";
    asked(server, count).parse().unwrap()
}

/// More processes than the server has room for: each waits for its connection, then for its slot,
/// and runs. Nobody is sent away, and a superuser gets in meanwhile.
#[test]
fn postgres_a_hundred_at_once_on_a_small_server_all_run() {
    let server = OwnServer::start(SYSTEM, "max_connections = 40\n", "");
    let store = ordinary(&server);
    let log = store.file("log");
    // So that the first ones do not race to make the tables.
    assert_eq!(store.exec(&["--limit", "25"], "true").wait().code, 0);
    let script = format!("echo ran >> {}; sleep 0.1", log.display());
    let all: Vec<_> = (0..100)
        .map(|_| store.exec(&["--limit", "25"], &script))
        .collect();
    while read(&log).lines().count() < 90 {
        connections(&server);
        sleep(Duration::from_millis(100));
    }
    let finished: Vec<_> = all.into_iter().map(Running::wait).collect();
    for one in &finished {
        assert_eq!(one.code, 0, "{}", one.stderr);
    }
    assert_eq!(read(&log).lines().count(), 100);
    let waited = |one: &&Finished| one.stderr.contains("no connection left");
    let waited = finished.iter().filter(waited).count();
    assert!(waited > 0, "the server was never full");
}

/// What it takes while it waits, while it runs, and at most in between.
#[test]
fn postgres_one_that_waits_or_runs_takes_two_connections_at_most() {
    let server = OwnServer::start(SYSTEM, "", "");
    let store = ordinary(&server);
    let log = store.file("log");
    let go_on = store.file("go-on");
    let script = format!(
        "echo up >> {}; while ! test -e {}; do sleep 0.05; done",
        log.display(),
        go_on.display()
    );
    let holder = store.exec(&["--limit", "1"], &script);
    wait_for_text(&log, "up");
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(connections(&server));
        sleep(Duration::from_millis(20));
    }
    assert!((1..=2).contains(&most), "{most} while it runs");
    let waiters: Vec<_> = (0..5).map(|_| store.exec(&[], "true")).collect();
    eventually("five that wait", || store.counts() == (1, 5));
    // Those of `pac status` are closed by now, or will be soon.
    eventually("two connections each", || connections(&server) <= 12);
    std::fs::write(&go_on, "").unwrap();
    for running in waiters.into_iter().chain([holder]) {
        assert_eq!(running.wait().code, 0);
    }
}

/// `--wait-timeout` also ends the waiting for a connection, and says what was waited for.
#[test]
fn postgres_a_full_server_is_waited_for_as_long_as_a_slot() {
    let server = OwnServer::start(SYSTEM, "max_connections = 10\n", "");
    let mut store = ordinary(&server);
    assert_eq!(store.exec(&["--limit", "1"], "true").wait().code, 0);
    eventually("no connection left over", || connections(&server) == 0);
    asked(&server, "ALTER ROLE ordinary CONNECTION LIMIT 0");
    let late = store.exec(&["--wait-timeout", "1s"], "true").wait();
    assert_eq!(late.code, 75, "{}", late.stderr);
    assert!(
        late.stderr.contains("no connection left"),
        "{}",
        late.stderr
    );
    let waiting = store.exec(&[], "true");
    sleep(Duration::from_secs(1));
    asked(&server, "ALTER ROLE ordinary CONNECTION LIMIT -1");
    let finished = waiting.wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    asked(&server, "ALTER ROLE ordinary CONNECTION LIMIT 0");
    store.set("postgresql-connection-timeout", "500ms");
    let refused = store.exec(&["--no-wait"], "true").wait();
    assert_eq!(refused.code, 69, "{}", refused.stderr);
}
