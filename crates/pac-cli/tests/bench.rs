//! `pac bench` on the memory driver, which needs no server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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
