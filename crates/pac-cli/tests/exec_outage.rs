//! `pac exec` when the store is away for longer than the TTL of those who wait, and has kept
//! their sessions: PostgreSQL gives every session a TTL from when its server came up, and etcd's
//! leases start anew with its leader.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use servers::{Running, Store, WEB, eventually, read, wait_for_text};

/// Of those who wait. The holder's is longer: it keeps its slot.
const TTL: Duration = Duration::from_secs(3);
const AWAY: Duration = Duration::from_secs(4);

const WAITERS: [&str; 6] = ["b", "c", "d", "e", "f", "g"];

#[cfg(feature = "postgres")]
#[test]
fn postgres_waiters_keep_their_places_through_an_outage_in_which_the_store_keeps_them() {
    let mut server = servers::own::OwnServer::start("PAC_TEST_POSTGRES", "", "");
    let store = Store::at_postgres(&server.port.to_string()).prepared();
    waiters_keep_their_places(&store, || {
        server.kill_9();
        sleep(AWAY);
        server.start_again();
    });
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_waiters_keep_their_places_through_an_outage_in_which_the_store_keeps_them() {
    let mut server = servers::etcd::OwnEtcd::start();
    let store = Store::at_etcd(&server.endpoint());
    waiters_keep_their_places(&store, || {
        server.kill_9();
        sleep(AWAY);
        server.start_again();
    });
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_a_renewal_that_fails_is_told_at_once_and_costs_nothing() {
    let mut server = servers::own::OwnServer::start("PAC_TEST_POSTGRES", "", "");
    let store = Store::at_postgres(&server.port.to_string());
    failed_renewals_are_told(&store, || {
        server.kill_9();
        sleep(TTL);
        server.start_again();
    });
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_a_renewal_that_fails_is_told_at_once_and_costs_nothing() {
    let mut server = servers::etcd::OwnEtcd::start();
    let store = Store::at_etcd(&server.endpoint());
    failed_renewals_are_told(&store, || {
        server.kill_9();
        sleep(TTL);
        server.start_again();
    });
}

/// The outage ends well before the TTL of the holder, which renews its session once a third.
fn failed_renewals_are_told(store: &Store, outage: impl FnOnce()) {
    let (up, go) = (store.file("up"), store.file("go"));
    let script = format!(
        "echo up > {}; until [ -e {} ]; do sleep 0.1; done; exit 6",
        up.display(),
        go.display()
    );
    // The grace must not end it: the outage may be over when two thirds of the TTL are.
    let args = ["--limit", "1", "--ttl", "9s", "--kill-grace", "100ms"];
    let holder = store.exec(&args, &script);
    wait_for_text(&up, "up");

    outage();

    // A renewal is due by then.
    sleep(TTL);
    fs::write(&go, "").unwrap();
    let holder = holder.wait();
    assert_eq!(holder.code, 6, "{holder:?}");
    for said in [
        "cannot be renewed, trying again: ",
        "slot is lost in",
        "renewed again",
    ] {
        assert!(holder.stderr.contains(said), "{said:?}: {holder:?}");
    }
}

fn waiters_keep_their_places(store: &Store, outage: impl FnOnce()) {
    let (up, go, log) = (store.file("up"), store.file("go"), store.file("log"));
    let script = format!(
        "echo up > {}; until [ -e {} ]; do sleep 0.1; done; exit 6",
        up.display(),
        go.display()
    );
    let holder = store.exec(&["--limit", "1", "--ttl", "60s"], &script);
    wait_for_text(&up, "up");
    let waiters: Vec<_> = (1..)
        .zip(WAITERS)
        .map(|(place, name)| waiter(store, name, place))
        .collect();
    let before = places(store);
    assert_eq!(before.len(), WAITERS.len(), "{before:?}");

    outage();

    // By then, places that the store does not keep have been lost.
    eventually("the store", || store.run(&["status", WEB]).code == 0);
    sleep(TTL * 3);
    assert_eq!(places(store), before, "(run, owner) of each, in order");
    assert_eq!(read(&log), "", "nobody has started");

    fs::write(&go, "").unwrap();
    assert_eq!(holder.wait().code, 6);
    for (name, waiter) in WAITERS.iter().zip(waiters) {
        let waiter = waiter.wait();
        assert_eq!(waiter.code, 0, "{name}: {waiter:?}");
        let said = &waiter.stderr;
        assert!(!said.contains("queueing again"), "{name}: {said}");
        assert!(said.contains("has kept the place"), "{name}: {said}");
    }
    assert_eq!(read(&log).split_whitespace().collect::<Vec<_>>(), WAITERS);
    assert_eq!(store.counts(), (0, 0));
}

fn waiter(store: &Store, name: &str, place: usize) -> Running {
    let script = format!("echo {name} >> {}", store.file("log").display());
    let run = format!("ci/{name}");
    let waiter = store.exec(&["--ttl", "3s", "--run", &run], &script);
    store.wait_for_counts(1, place);
    waiter
}

/// The runs that wait, in order, each with its session.
fn places(store: &Store) -> Vec<(String, String)> {
    let status = store.json(&["status", WEB]);
    let queued = status[0]["queued"].as_array().unwrap();
    let place = |run: &serde_json::Value| (run["run"].to_string(), run["owner"].to_string());
    queued.iter().map(place).collect()
}
