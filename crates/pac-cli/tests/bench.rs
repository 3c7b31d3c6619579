//! `pac bench`: on the memory driver, and what it measures of servers alone.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;

use common::pac;
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn a_line_of_json_comes_with_every_measurement() {
    let measured = pac(&[
        "bench",
        "--driver",
        "memory",
        "--quick",
        "--output",
        "json",
        "--only",
        "hot",
        "--only",
        "sequential",
    ]);
    assert_eq!(measured.code, 0, "{}", measured.stderr);
    let lines = lines(&measured.stdout);
    let names: Vec<_> = lines.iter().map(|line| line["name"].as_str()).collect();
    assert_eq!(names, [Some("sequential"), Some("hot")]);
    for line in lines {
        assert_eq!(line["driver"], "memory");
        assert!(line["value"].as_f64().unwrap() > 0.0);
        assert!(line["raw"].is_null() && line["violations"].is_null());
    }
}

#[test]
fn what_needs_other_processes_is_left_out_of_memory_aloud() {
    let measured = pac(&["bench", "--driver", "memory", "--quick", "--only", "wakeup"]);
    assert_eq!(measured.code, 0);
    assert!(
        measured.stderr.contains("wakeup: left out"),
        "{}",
        measured.stderr
    );
}

#[test]
fn peers_and_bytes_of_servers_are_left_out_of_memory_aloud() {
    let names = ["peers", "wal", "stored", "flat", "cleanup"];
    let only: Vec<_> = names.iter().flat_map(|name| ["--only", name]).collect();
    let arguments = ["bench", "--driver", "memory", "--quick", "--output", "json"];
    let measured = pac(&[&arguments[..], &only[..]].concat());
    assert_eq!((measured.code, measured.stdout.as_str()), (0, ""));
    for name in names {
        let words = format!("{name}: left out");
        assert!(measured.stderr.contains(&words), "{}", measured.stderr);
    }
}

#[test]
fn a_measurement_that_does_not_exist_is_refused_with_those_that_do() {
    let refused = pac(&["bench", "--only", "speed"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("deep_queue"), "{}", refused.stderr);
}

#[test]
fn a_queue_whose_waiters_nobody_awaits_moves_on() {
    let measured = pac(&[
        "bench",
        "--driver",
        "memory",
        "--quick",
        "--output",
        "json",
        "--only",
        "deep_queue",
    ]);
    assert_eq!(measured.code, 0, "{}", measured.stderr);
    assert_eq!(lines(&measured.stdout)[0]["name"], "deep_queue");
}

#[cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
mod on_servers {
    #![allow(clippy::panic, reason = "a test fails by panicking")]

    use serde_json::Value;

    use super::lines;
    use crate::servers::{Finished, Store, on_every_store};

    on_every_store! {
        a_limit_of_ours_stands_beside_what_people_use_instead,
        bytes_have_the_stores_own_beside_them,
        a_server_is_measured_after_the_clean_up_too,
    }

    fn bench(store: &Store, only: &[&str]) -> (Finished, Vec<Value>) {
        let only = only.iter().flat_map(|name| ["--only", name]);
        let arguments = ["bench", "--quick", "--output", "json"];
        let arguments: Vec<_> = arguments.into_iter().chain(only).collect();
        let finished = store.run(&arguments);
        assert_eq!(finished.code, 0, "{finished:?}");
        let measured = lines(&finished.stdout);
        (finished, measured)
    }

    fn named<'a>(measured: &'a [Value], name: &str) -> &'a Value {
        let found = measured.iter().find(|line| line["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {measured:?}"))
    }

    fn a_limit_of_ours_stands_beside_what_people_use_instead(store: &Store) {
        let (_, rows) = bench(store, &["peers"]);
        for limit in [1, 5] {
            let of_limit: Vec<_> = rows
                .iter()
                .filter(|row| row["peer"]["limit"] == limit)
                .collect();
            let ours = of_limit.first().unwrap();
            assert_eq!(ours["peer"]["by"], "pac");
            assert_eq!(ours["violations"], 0);
            assert_eq!(ours["ratio"].is_number(), of_limit.len() > 1, "{ours}");
            for row in of_limit {
                assert!(row["value"].as_f64().unwrap() > 0.0, "{row}");
                assert_eq!(row["violations"], 0, "{row}");
                // These do not depend on the limit.
                assert_eq!(row["p50_us"].is_number(), limit == 1, "{row}");
                assert_eq!(row["peer"]["leaked"].is_boolean(), limit == 1, "{row}");
            }
        }
        // A counter that a dead holder has left above zero is the one that stays so.
        for row in rows.iter().filter(|row| row["peer"]["limit"] == 1) {
            let leaks = row["peer"]["by"] == "row counter";
            assert_eq!(row["peer"]["leaked"], leaks, "{row}");
            assert_eq!(row["peer"]["after_kill_s"].is_null(), leaks, "{row}");
        }
    }

    fn bytes_have_the_stores_own_beside_them(store: &Store) {
        let (finished, measured) = bench(store, &["wal", "stored"]);
        let stored = named(&measured, "stored");
        // A run is written twice at least, and a raw write has some 200 bytes.
        assert!(stored["raw"].as_f64().unwrap() > 200.0, "{stored}");
        assert!(stored["value"].as_f64().unwrap() > 200.0, "{stored}");
        if stored["driver"] == "etcd" {
            assert!(finished.stderr.contains("wal: left out"), "{finished:?}");
            assert_eq!(stored["goal_of"], "value");
            return;
        }
        for name in ["wal", "wal_batched"] {
            let wal = named(&measured, name);
            assert!(wal["raw"].as_f64().unwrap() > 200.0, "{wal}");
            assert_eq!(
                (&wal["goal"], &wal["goal_of"]),
                (&600.0.into(), &"value".into())
            );
        }
    }

    fn a_server_is_measured_after_the_clean_up_too(store: &Store) {
        let (_, measured) = bench(store, &["sequential", "cleanup"]);
        let last = measured.last().unwrap();
        assert_eq!(last["name"], "cleanup");
        assert!(last["ratio"].as_f64().unwrap() > 0.0, "{last}");
    }

    #[cfg(feature = "postgres")]
    mod postgres_alone {
        use super::{bench, named};
        use crate::servers::Store;
        use crate::servers::own::OwnServer;

        #[test]
        fn versions_and_sizes_are_told_after_many_cycles() {
            let (_, measured) = bench(&Store::postgres(), &["flat"]);
            for name in ["flat", "flat_versions", "flat_rate"] {
                assert!(named(&measured, name)["ratio"].is_number(), "{name}");
            }
        }

        #[test]
        fn a_log_that_the_role_may_not_read_about_is_left_out_aloud() {
            let server = OwnServer::start("PAC_TEST_POSTGRES", "", "");
            for statement in [
                "CREATE ROLE ordinary LOGIN",
                "GRANT CREATE ON DATABASE postgres TO ordinary",
                "REVOKE SELECT ON pg_catalog.pg_stat_wal FROM PUBLIC",
            ] {
                let mut psql = server.program("psql");
                psql.args(["-h", "127.0.0.1", "-p", &server.port.to_string()]);
                psql.args(["-U", "postgres", "-qc", statement]);
                assert!(psql.status().unwrap().success(), "{statement}");
            }
            let mut store = Store::at_postgres(&server.port.to_string());
            store.set("postgresql-username", "ordinary");
            let (finished, measured) = bench(&store, &["wal", "sequential"]);
            assert!(finished.stderr.contains("wal: left out"), "{finished:?}");
            assert_eq!(measured.len(), 1, "{measured:?}");
        }
    }
}
