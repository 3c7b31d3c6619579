//! `pac replay` as a process: arguments, bad traces, and files that cannot be read or written.

use crate::common;

use common::{RUN, pac, pac_with_stdin};

#[test]
fn wrong_arguments_are_usage_errors() {
    for (args, fragment) in [
        (&[][..], "<TRACE.jsonl>"),
        (&["t", "--speed", "2"], "--speed needs --clock real"),
        (
            &["t", "--clock", "virtual", "--speed", "2"],
            "--speed needs --clock real",
        ),
        (
            &["t", "--clock", "real", "--speed", "0"],
            "must be a number above 0",
        ),
        (
            &["t", "--clock", "real", "--speed", "-3"],
            "must be a number above 0",
        ),
        (
            &["t", "--clock", "real", "--speed", "inf"],
            "must be a number above 0",
        ),
        (
            &["t", "--clock", "real", "--speed", "NaN"],
            "must be a number above 0",
        ),
        (
            &["t", "--clock", "real", "--speed", "fast"],
            "must be a number above 0",
        ),
        (
            &["t", "--clock", "sundial"],
            "[possible values: virtual, real]",
        ),
        (&["t", "--controllers", "0"], "1..=64"),
        (&["t", "--controllers", "65"], "1..=64"),
        (&["t", "--controllers", "-1"], "1..=64"),
        (&["t", "--output", "xml"], "[possible values: table, json]"),
        (&["t", "--contollers", "2"], "'--controllers'"),
        (&["t", "u"], "unexpected argument 'u'"),
    ] {
        let ended = pac(&[&["replay"], args].concat());
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(fragment),
            "{args:?}: {}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(pac(&[]).code, 2);
    assert_eq!(pac(&["rplay"]).code, 2);
}

#[test]
fn help_tells_units_defaults_and_exit_codes() {
    let ended = pac(&["replay", "--help"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    for fragment in [
        "[default: virtual]",
        "[default: 1]",
        "[default: table]",
        "duration_s",
        "  65  bad trace",
        "  74  output cannot be written",
    ] {
        assert!(
            ended.stdout.contains(fragment),
            "{fragment}: {}",
            ended.stdout
        );
    }
}

#[test]
fn each_way_to_get_a_line_wrong_is_named_with_its_line_and_rule() {
    let common = r#""at":"2026-06-01T10:00:00Z","repository":"ns/r""#;
    let with = |fields: &str| format!("{{{common},{fields}}}").into_bytes();
    let limit = |limit: &str| with(&format!(r#""set_limit":{limit}"#));
    for (line, fragment) in [
        (b"[]".to_vec(), "a row must be a JSON object"),
        (b"nonsense".to_vec(), "a row must be a JSON object"),
        (b"{}".to_vec(), "\"at\" is missing"),
        (with(r#""limit":1"#), "must have exactly one of \"run\""),
        (
            with(r#""run":"ns/a","duration_s":1"#),
            "\"limit\" is missing",
        ),
        (
            with(r#""set_limit":1,"cancel":"ns/a""#),
            "in one row; a row has exactly one of",
        ),
        (
            with(r#""set_limit":1,"set_limit":2"#),
            "\"set_limit\" is there twice",
        ),
        (
            with(r#""setlimit":1"#),
            "the nearest known one is \"set_limit\"",
        ),
        (
            with(r#""cancel":"NS/a""#),
            "the namespace must be 1 to 63 lower-case letters",
        ),
        (
            limit("-1"),
            "a whole number from 0 (no limit) to 4294967295, not -1",
        ),
        (
            limit("4294967296"),
            "a whole number from 0 (no limit) to 4294967295",
        ),
        (
            limit("\"3\""),
            "a whole number from 0 (no limit) to 4294967295, not \"3\"",
        ),
        (limit("NaN"), "not valid JSON"),
        (limit("1e999"), "not valid JSON: number out of range"),
        (
            with(r#""set_limit":1"#)[..60].to_vec(),
            "the line ends before its JSON object does",
        ),
        (b"{\"at\":\"\xff\"}".to_vec(), "byte 8 is not UTF-8"),
        (vec![b' '; (1 << 20) + 1], "longer than 1048576 bytes"),
        (RUN.as_bytes().to_vec(), "was already in line 1"),
        (
            br#"{"at":"2026-06-01 10:00","repository":"ns/r","set_limit":1}"#.to_vec(),
            "must be an RFC 3339 date and time",
        ),
        (
            with(r#""limit":1,"run":"ns/b","duration_s":31622401"#),
            "from 0 to 31622400 (366 days), not 31622401",
        ),
    ] {
        let trace = [RUN.as_bytes(), &line].join(b"\n\n".as_slice());
        let ended = pac_with_stdin(&["replay", "-"], &trace);
        assert_eq!(ended.code, 65, "{fragment}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{fragment}");
        let message = ended
            .stderr
            .lines()
            .find(|line| line.starts_with("stdin:3: "));
        assert!(
            message.is_some_and(|m| m.contains(fragment)),
            "{fragment}: {}",
            ended.stderr
        );
    }
}

#[test]
fn all_bad_lines_of_a_file_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    std::fs::write(&file, format!("{RUN}\n{}", "{}\n".repeat(22))).unwrap();
    let name = file.to_str().unwrap();
    let ended = pac(&["replay", name, "--output", "json"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (65, ""));
    for line in 2..=21 {
        let place = format!("{name}:{line}: \"at\" is missing");
        assert!(ended.stderr.contains(&place), "{}", ended.stderr);
    }
    assert!(ended.stderr.ends_with("\nand 2 more\n"), "{}", ended.stderr);
}

#[test]
fn a_trace_that_cannot_be_read_is_a_bad_trace() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.jsonl");
    for path in [folder.path(), &missing] {
        let ended = pac(&["replay", path.to_str().unwrap()]);
        assert_eq!(ended.code, 65, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("cannot read the trace"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(path.to_str().unwrap()),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_timeline_that_cannot_be_written_is_known_before_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none").join("t.svg");
    let name = file.to_str().unwrap();
    let ended = pac_with_stdin(&["replay", "-", "--timeline", name], RUN.as_bytes());
    assert_eq!((ended.code, ended.stdout.as_str()), (74, ""));
    assert!(ended.stderr.contains(name), "{}", ended.stderr);
}

/// Idle times are left out: a thousand years of them took minutes.
#[test]
fn a_thousand_years_without_a_run_take_no_time() {
    let row = |year: u32, run: &str, seconds: u32| {
        format!(
            "{{\"at\":\"{year}-06-01T10:00:00Z\",\"repository\":\"ns/r\",\"limit\":1,\"run\":\"ns/{run}\",\
             \"duration_s\":{seconds}}}\n"
        )
    };
    let rows = [row(1_970, "a", 60), row(2_970, "b", 60), row(2_970, "c", 1)];
    let ended = pac_with_stdin(
        &["replay", "-", "--output", "json"],
        rows.concat().as_bytes(),
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for (run, field, time) in [
        ("a", "completed_at", "1970-06-01T10:01:00.000Z"),
        ("b", "started_at", "2970-06-01T10:00:00.000Z"),
        ("b", "completed_at", "2970-06-01T10:01:00.000Z"),
        ("c", "queued_at", "2970-06-01T10:00:00.000Z"),
        ("c", "started_at", "2970-06-01T10:01:00.000Z"),
        ("c", "completed_at", "2970-06-01T10:01:01.000Z"),
    ] {
        let line = ended
            .stdout
            .lines()
            .find(|line| line.contains(&format!("ns/{run}")));
        let expected = format!("\"{field}\":\"{time}\"");
        assert!(
            line.unwrap().contains(&expected),
            "{expected}: {}",
            ended.stdout
        );
    }
}

#[test]
fn groups_weights_and_pauses_are_replayed_whoever_asks() {
    let trace = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/groups-and-pauses.jsonl"
    );
    let mut first = None;
    for controllers in ["1", "3"] {
        let args = [
            "replay",
            trace,
            "--output",
            "json",
            "--controllers",
            controllers,
        ];
        let ended = pac(&args);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(
            ended.stderr,
            "limit never exceeded (8 starts checked)\nsuperseded: 1\nstill waiting at the end: 1\n"
        );
        let runs = ended.stdout.lines().map(|line| {
            let run: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| run[field].as_str().unwrap_or("never").to_owned();
            let started = text("started_at");
            let time = started.get(11..19).unwrap_or("never").to_owned();
            format!("{} {time} {}", text("run"), text("outcome"))
        });
        let runs: Vec<_> = runs.collect();
        let expected = [
            "ci/main-1 10:00:00 completed",
            "ci/train 10:00:00 completed",
            // In the place of the first push, before the other pull request.
            "ci/pr-7-b 10:01:00 cancelled",
            "ci/pr-8 10:01:30 completed",
            "ci/tune 10:01:40 completed",
            // It fits all the time, and overtakes nobody.
            "ci/light 10:01:40 completed",
            "ci/pr-7-c 10:02:30 completed",
            "ci/main-2 12:00:00 completed",
            "ci/pr-7-a never superseded",
            "ci/late never waiting",
        ];
        assert_eq!(runs, expected);
        assert_eq!(
            first.get_or_insert_with(|| ended.stdout.clone()),
            &ended.stdout
        );
    }
    let table = pac(&["replay", trace]);
    assert!(
        table
            .stdout
            .ends_with("superseded: 1\nstill waiting at the end: 1\n")
    );
}

#[test]
fn a_run_supersedes_thousands_and_the_rest_goes_on() {
    use std::fmt::Write;

    const MANY: usize = 6_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let mut trace = String::new();
    let mut row = |run: &str, group: &str, wish: &str| {
        writeln!(
            trace,
            r#"{{"at":"2026-06-01T10:00:00Z","repository":"ci/web","run":"ci/{run}","limit":1,"duration_s":60,"group":"{group}"{wish}}}"#
        )
        .unwrap();
    };
    row("first", "main", "");
    for at in 0..MANY {
        row(&format!("old-{at}"), "pr-7", "");
    }
    row("last", "main", "");
    row("new", "pr-7", r#","supersede":"waiting""#);
    std::fs::write(&path, trace).unwrap();
    for controllers in ["1", "3"] {
        let path = path.to_str().unwrap();
        let ended = pac(&[
            "replay",
            path,
            "--output",
            "json",
            "--controllers",
            controllers,
        ]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(
            ended.stderr,
            format!("limit never exceeded (3 starts checked)\nsuperseded: {MANY}\n")
        );
    }
}
