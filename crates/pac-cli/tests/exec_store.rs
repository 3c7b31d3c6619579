//! `pac exec` when the store goes away, comes back, or refuses access.

#![cfg(all(unix, feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::thread::sleep;
use std::time::{Duration, Instant};

use servers::own::OwnServer;
use servers::{Running, Store, WEB, eventually, read, wait_for_text};

const SYSTEM: &str = "PAC_TEST_POSTGRES";

fn own_postgres() -> (OwnServer, Store) {
    let server = OwnServer::start(SYSTEM, "", "");
    let store = Store::at_postgres(&server.port.to_string()).prepared();
    (server, store)
}

#[test]
fn postgres_a_store_that_is_restarted_is_not_noticed_by_commands_and_waiters() {
    let (mut server, store) = own_postgres();
    let log = store.file("log");
    let script = |name: &str, seconds: f32| {
        let log = log.display();
        format!("echo start {name} >> {log}; sleep {seconds}; echo end {name} >> {log}; exit 6")
    };
    let exec =
        |name: &str, seconds| store.exec(&["--limit", "1", "--ttl", "15s"], &script(name, seconds));
    let holder = exec("a", 4.0);
    wait_for_text(&log, "start a");
    let waiters = [exec("b", 0.1), exec("c", 0.1)];
    store.wait_for_counts(1, 2);
    server.kill_9();
    sleep(Duration::from_secs(1));
    server.start_again();
    assert_eq!(holder.wait().code, 6);
    for waiter in waiters {
        assert_eq!(waiter.wait().code, 6);
    }
    let text = read(&log);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    for pair in lines.chunks(2) {
        assert_eq!(
            pair[0].replace("start", "end"),
            pair[1],
            "one at a time: {text}"
        );
    }
    assert_eq!(store.counts(), (0, 0));
}

#[test]
fn postgres_a_store_that_is_away_for_longer_than_the_ttl_costs_the_lease() {
    let (mut server, store) = own_postgres();
    let (said, deaf) = (store.file("said"), store.file("deaf"));
    let polite = format!(
        "trap 'echo TERM >> {said}; exit 0' TERM; echo up >> {said}; sleep 300 & wait",
        said = said.display()
    );
    // The shell ignores SIGTERM, and so do the commands that it starts.
    let stubborn = format!("trap '' TERM; echo up >> {}; sleep 300", deaf.display());
    let polite = store.exec(&["--limit", "2", "--ttl", "3s"], &polite);
    let stubborn = store.exec(&["--limit", "2", "--ttl", "3s"], &stubborn);
    wait_for_text(&said, "up");
    wait_for_text(&deaf, "up");
    server.kill_9();
    let at = Instant::now();
    wait_for_text(&said, "TERM");
    let told = at.elapsed();
    assert!(
        told <= Duration::from_secs(3),
        "before anybody else may start: {told:?}"
    );
    ended(stubborn);
    server.start_again();
    assert_eq!(polite.wait().code, 71);
    // The next `pac` expires the runs left behind; until then they are marked as dead.
    eventually("the marks", || {
        store.json(&["status", WEB])[0]["running"][1]["dead"] == true
    });
    let table = store.run(&["status"]).stdout;
    assert!(table.contains("running, process dead"), "{table}");
    assert_eq!(store.exec(&["--limit", "1"], "true").wait().code, 0);
    assert_eq!(store.counts(), (0, 0));
}

/// SIGTERM came before the TTL was over, and SIGKILL too.
fn ended(running: Running) {
    let finished = running.wait();
    assert_eq!(finished.code, 71, "{finished:?}");
    for said in ["before anybody else may start", "did not end within 600ms"] {
        assert!(finished.stderr.contains(said), "{said}: {finished:?}");
    }
}

#[test]
fn postgres_who_may_not_in_is_told_so_and_who_finds_nobody_too() {
    let hba = "host all all 127.0.0.1/32 scram-sha-256\n";
    let mut server = OwnServer::start(SYSTEM, "", hba);
    let store = Store::at_postgres(&server.port.to_string());
    let mut refused = store.pac(&["exec", "-r", "ci/web", "-l", "1", "--", "true"]);
    refused.env("PAC_POSTGRESQL_PASSWORD", "hunter2");
    let refused = Running::start(refused).wait();
    assert_eq!(refused.code, 77, "{refused:?}");
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    server.stop();
    for command in [
        &["exec", "-r", "ci/web", "-l", "1", "--", "true"][..],
        &["status"],
    ] {
        let finished = store.run(command);
        assert_eq!(finished.code, 69, "{finished:?}");
        assert!(finished.stderr.contains("127.0.0.1"), "{finished:?}");
    }
}

#[test]
fn postgres_a_watch_goes_on_when_the_store_is_back() {
    let (mut server, store) = own_postgres();
    assert_eq!(
        store
            .exec(&["--limit", "1", "--run", "ci/a"], "true")
            .wait()
            .code,
        0
    );
    let mut watch = Running::start(store.pac_itself(&["watch", "--output", "json"]));
    let (seen, complaints) = (store.file("seen"), store.file("complaints"));
    let (stdout, stderr) = (watch.child().stdout.take(), watch.child().stderr.take());
    for (mut from, to) in [
        (
            Box::new(stdout.unwrap()) as Box<dyn std::io::Read + Send>,
            seen.clone(),
        ),
        (Box::new(stderr.unwrap()), complaints.clone()),
    ] {
        let mut to = std::fs::File::create(to).unwrap();
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    let exec = |run: &str| {
        let finished = store.exec(&["--run", run], "true").wait();
        assert_eq!(finished.code, 0, "{finished:?}");
    };
    eventually("the watch", || {
        exec("ci/b");
        read(&seen).contains("ci/b")
    });
    server.kill_9();
    wait_for_text(&complaints, "going on when the store is back");
    server.start_again();
    // A run before the watch has noticed the outage is reported too.
    exec("ci/c");
    wait_for_text(&seen, "ci/c");
    wait_for_text(&complaints, "the store is back");
    exec("ci/d");
    wait_for_text(&seen, "ci/d");
    assert!(
        !read(&seen).contains("ci/a"),
        "only what happens from the start on"
    );
    watch.signal("INT");
}
