//! The results that `pac replay` prints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::{Ended, RUN, command, pac, pac_with_stdin};
use serde_json::Value;

const MONTH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/pipelineruns-2026-06.jsonl"
);

/// Limit 1: `a` runs for a minute, `b` and the urgent `c` wait, `d` is cancelled while it
/// waits, `c` while it runs; then the limit goes up, and `e` and `f` run beside `b`.
const TRACE: &str = r#"
{"at":"2026-06-01T10:00:00Z","repository":"ns/r","limit":1,"run":"ns/a","duration_s":60}
{"at":"2026-06-01T10:00:10Z","repository":"ns/r","limit":1,"run":"ns/b","duration_s":100}
{"at":"2026-06-01T10:00:20Z","repository":"ns/r","limit":1,"run":"ns/c","duration_s":500,"priority":1}
{"at":"2026-06-01T10:00:30Z","repository":"ns/r","limit":1,"run":"ns/d","duration_s":1}
{"at":"2026-06-01T10:00:40Z","repository":"ns/r","cancel":"ns/d"}
{"at":"2026-06-01T10:01:30.250Z","repository":"ns/r","cancel":"ns/c"}
{"at":"2026-06-01T10:01:40Z","repository":"ns/r","limit":1,"run":"ns/e","duration_s":5.5}
{"at":"2026-06-01T10:01:50Z","repository":"ns/r","set_limit":3}
{"at":"2026-06-01T10:01:54Z","repository":"ns/r","limit":3,"run":"ns/f","duration_s":0}
"#;

fn replay(args: &[&str]) -> Ended {
    let ended = pac_with_stdin(&[&["replay", "-"], args].concat(), TRACE.as_bytes());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended
}

fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn starts_ends_and_waits_are_exact() {
    let ended = replay(&["--output", "json"]);
    let expected = [
        (
            "a",
            "10:00:00.000",
            Some("10:00:00.000"),
            "10:01:00.000",
            "completed",
        ),
        (
            "c",
            "10:00:20.000",
            Some("10:01:00.000"),
            "10:01:30.250",
            "cancelled",
        ),
        (
            "b",
            "10:00:10.000",
            Some("10:01:30.250"),
            "10:03:10.250",
            "completed",
        ),
        (
            "e",
            "10:01:40.000",
            Some("10:01:50.000"),
            "10:01:55.500",
            "completed",
        ),
        (
            "f",
            "10:01:54.000",
            Some("10:01:54.000"),
            "10:01:54.000",
            "completed",
        ),
        ("d", "10:00:30.000", None, "10:00:40.000", "cancelled"),
    ];
    let lines = json_lines(&ended.stdout);
    assert_eq!(lines.len(), expected.len(), "{}", ended.stdout);
    for (line, (run, queued, started, completed, outcome)) in lines.iter().zip(expected) {
        let at = |time: &str| Value::from(format!("2026-06-01T{time}Z"));
        assert_eq!(line["run"], format!("ns/{run}"), "{line}");
        assert_eq!(line["repository"], "ns/r", "{line}");
        assert_eq!(line["queued_at"], at(queued), "{line}");
        assert_eq!(
            line["started_at"],
            started.map_or(Value::Null, at),
            "{line}"
        );
        assert_eq!(line["completed_at"], at(completed), "{line}");
        assert_eq!(line["outcome"], outcome, "{line}");
    }
    let waits: Vec<_> = lines.iter().map(|line| line["wait_s"].as_f64()).collect();
    let expected = [
        Some(0.0),
        Some(40.0),
        Some(80.25),
        Some(10.0),
        Some(0.0),
        None,
    ];
    assert_eq!(waits, expected);
    assert_eq!(ended.stderr, "limit never exceeded (5 starts checked)\n");
}

#[test]
fn the_table_has_the_figures() {
    let ended = replay(&[]);
    let row = ended
        .stdout
        .lines()
        .find(|line| line.contains("ns/r"))
        .unwrap();
    let cells: Vec<_> = row.trim_matches('│').split("  ").map(str::trim).collect();
    let cells: Vec<_> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        [
            "ns/r", "6", "1→3", "3", "3", "26.0s", "1m 20s", "1m 20s", "2"
        ],
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stdout
            .ends_with("\nlimit never exceeded (5 starts checked)\n")
    );
    assert_eq!(ended.stderr, "");
}

#[test]
fn more_controllers_change_nothing() {
    let args = ["replay", MONTH, "--output", "json", "--controllers"];
    let one = pac(&[&args[..], &["1"]].concat());
    assert_eq!(one.code, 0, "{}", one.stderr);
    assert_eq!(json_lines(&one.stdout).len(), 727);
    assert_eq!(one.stderr, "limit never exceeded (727 starts checked)\n");
    for controllers in ["2", "4", "64"] {
        let many = pac(&[&args[..], &[controllers]].concat());
        assert!(
            one.stdout == many.stdout,
            "{controllers} controllers differ from one"
        );
        assert_eq!(one.stderr, many.stderr);
    }
}

#[test]
fn a_cancel_that_meets_no_run_is_warned_of() {
    let cancel = r#"{"at":"2026-06-01T10:00:00Z","repository":"ns/r","cancel":"ns/never"}"#;
    let ended = pac_with_stdin(&["replay", "-"], format!("{RUN}\n{cancel}").as_bytes());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(
        ended.stderr,
        "stdin:2: warning: no effect: ns/never was neither queued nor running\n"
    );
}

#[test]
fn an_empty_trace_is_replayed_to_nothing() {
    let ended = pac_with_stdin(&["replay", "-", "--output", "json"], b"");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
    assert_eq!(ended.stderr, "limit never exceeded (0 starts checked)\n");
    assert_eq!(pac(&["replay", "-"]).code, 0);
}

#[test]
fn the_real_clock_takes_its_time_and_the_same_turns() {
    let ended = replay(&["--clock", "real", "--speed", "60", "--output", "json"]);
    let lines = json_lines(&ended.stdout);
    let runs: Vec<_> = lines
        .iter()
        .map(|line| line["run"].as_str().unwrap())
        .collect();
    assert_eq!(runs, ["ns/a", "ns/c", "ns/b", "ns/e", "ns/f", "ns/d"]);
}

#[test]
fn the_timeline_is_written_whole_beside_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.svg");
    replay(&["--timeline", file.to_str().unwrap()]);
    let picture = fs::read_to_string(&file).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    assert!(picture.contains("cancelled while it waited"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for output in ["table", "json"] {
        let mut child = command(&["replay", "-", "--output", output])
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(TRACE.as_bytes()).unwrap();
        drop(stdin);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0));
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert!(!stderr.contains("ipe"), "{stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    for output in ["table", "json"] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let ended = command(&["replay", MONTH, "--output", output])
            .stdout(Stdio::from(full))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(74));
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert!(stderr.contains("standard output: cannot write"), "{stderr}");
    }
}
