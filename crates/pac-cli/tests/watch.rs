//! What `pac watch` tells of a queue.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::io::{BufRead, BufReader};

use serde_json::Value;
use servers::{Running, Store, WEB, on_every_store, wait_for_text};

on_every_store! {
    the_owner_of_a_limit_and_a_run_that_is_moved_are_told,
    a_run_is_started_before_it_is_asked_to_end,
}

fn a_run_is_started_before_it_is_asked_to_end(store: &Store) {
    assert_eq!(store.run(&["limit", WEB, "1"]).code, 0);
    let mut watch = Running::start(store.pac_itself(&["watch", "--output", "json"]));
    let lines = BufReader::new(watch.child().stdout.take().unwrap()).lines();
    std::thread::sleep(std::time::Duration::from_secs(1));
    // Both happen between two of its looks.
    watch.signal("STOP");
    let up = store.file("up");
    let script = format!(
        "trap '' TERM; echo up > {}; while :; do sleep 0.1; done",
        up.display()
    );
    let args = ["--run", "ci/a", "--ttl", "60s", "--kill-grace", "15s"];
    let mut holder = store.exec(&args, &script);
    wait_for_text(&up, "up");
    assert_eq!(store.run(&["cancel", WEB, "ci/a", "--ask"]).code, 0);
    watch.signal("CONT");
    let events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let two: Vec<_> = events
        .filter(|event| event["run"] == "ci/a")
        .take(2)
        .collect();
    assert_eq!(
        (&two[0]["event"], &two[1]["event"]),
        (&"started".into(), &"asked-to-end".into())
    );
    assert_eq!(two[0]["token"], two[1]["token"]);
    assert!(
        two[0]["asked_at"].is_null() && two[1]["asked_at"].is_string(),
        "{two:?}"
    );
    holder.child().kill().unwrap();
    watch.signal("INT");
}

fn the_owner_of_a_limit_and_a_run_that_is_moved_are_told(store: &Store) {
    let mut watch = Running::start(store.pac_itself(&["watch", "--output", "json"]));
    let lines = BufReader::new(watch.child().stdout.take().unwrap()).lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    // Until the watch listens, nothing is told: the first event comes with the first change after that.
    let mut until = |is_it: &dyn Fn(&Value) -> bool| events.find(is_it).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));

    let mut holder = store.exec(&["-l", "1"], "sleep 300");
    let proposed = until(&|event| event["event"] == "limit");
    assert_eq!(
        (&proposed["limit"], &proposed["owner"]),
        (&1.into(), &"proposed".into())
    );
    store.wait_for_counts(1, 0);
    assert_eq!(store.run(&["limit", WEB, "1"]).code, 0);
    let pinned = until(&|event| event["event"] == "limit");
    assert_eq!(
        (&pinned["limit"], &pinned["owner"]),
        (&1.into(), &"pinned".into())
    );

    let mut waiter = store.exec(&["--run", "ci/waits"], "true");
    let queued = until(&|event| event["event"] == "queued");
    assert_eq!(
        (&queued["run"], &queued["priority"]),
        (&"ci/waits".into(), &0.into())
    );
    let moved = store.run(&["bump", WEB, "ci/waits", "--priority", "7"]);
    assert_eq!(moved.code, 0, "{moved:?}");
    let moved = until(&|event| event["event"] == "queued" && event["run"] == "ci/waits");
    assert_eq!(moved["priority"], 7);
    for running in [&mut waiter, &mut holder, &mut watch] {
        running.signal("INT");
    }
}
