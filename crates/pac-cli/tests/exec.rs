//! `pac exec` when at most the command fails.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use servers::{HOST, Running, Store, WEB, on_every_store, read};

on_every_store! {
    a_crowd_never_exceeds_the_limit_and_starts_in_order,
    the_command_gets_its_own_streams_environment_and_exit_code,
    who_does_not_want_to_wait_is_told_so,
    a_wait_timeout_may_be_as_long_as_a_year,
    a_higher_priority_goes_first,
    a_name_is_taken_while_its_run_lives,
    the_limit_in_force_is_used_kept_or_set,
}

const CROWD: usize = 24;

fn a_crowd_never_exceeds_the_limit_and_starts_in_order(store: &Store) {
    let log = store.file("log");
    let crowd: Vec<Running> = (0..CROWD)
        .map(|i| {
            let script = format!(
                "echo start $PAC_RUN $PAC_FENCING_TOKEN >> {log}; sleep 0.2; \
                 echo end $PAC_RUN >> {log}; exit {code}",
                log = log.display(),
                code = i % 7
            );
            store.exec(&["--limit", "3", "--run", &format!("ci/r{i}")], &script)
        })
        .collect();
    for (i, running) in crowd.into_iter().enumerate() {
        let finished = running.wait();
        assert_eq!(finished.code, i32::try_from(i % 7).unwrap(), "{finished:?}");
    }

    // Appended lines are in the order of writing: a record kept by the commands themselves.
    let (mut at_once, mut most, mut tokens) = (0_usize, 0, BTreeMap::new());
    for line in read(&log).lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["start", run, token] => {
                at_once += 1;
                most = most.max(at_once);
                tokens.insert(token.parse::<u64>().unwrap(), run.to_owned());
            }
            ["end", _] => at_once -= 1,
            _ => panic!("{line}"),
        }
    }
    assert_eq!((at_once, tokens.len()), (0, CROWD));
    assert_eq!(most, 3, "the limit is used up and not exceeded");

    let history = store.json(&["history", WEB]);
    let queued_at: BTreeMap<_, _> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (text(&run["run"]), text(&run["queued_at"])))
        .collect();
    let in_order: Vec<_> = tokens.values().map(|run| &queued_at[run]).collect();
    assert!(
        in_order.is_sorted(),
        "first come, first served: {in_order:?}"
    );
    assert_eq!(store.counts(), (0, 0));
}

fn the_command_gets_its_own_streams_environment_and_exit_code(store: &Store) {
    let script =
        "env | grep ^PAC_ | grep -v ^PAC_TEST_ | LC_ALL=C sort; cat; echo to stderr >&2; exit 42";
    let exec = [
        "exec",
        "--repository",
        WEB,
        "--limit",
        "1",
        "--run",
        "ci/one",
        "--",
    ];
    let mut command = store.pac(&[&exec[..], &["sh", "-c", script]].concat());
    command.stdin(std::process::Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.child().stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"from stdin\n").unwrap();
    drop(stdin);
    let finished = running.wait();
    assert_eq!(finished.code, 42);
    assert_eq!(finished.stderr, "to stderr\n");
    let lines: Vec<_> = finished.stdout.lines().collect();
    let [token, held, lease, repository, run, slot, stdin] = lines[..] else {
        panic!("{finished:?}");
    };
    assert_eq!(slot, "PAC_SLOT=0");
    let shown = token.replace("PAC_FENCING_TOKEN=", "PAC_HELD=ci/web=ci/one#");
    assert_eq!(held, shown);
    assert!(number(token, "PAC_FENCING_TOKEN=") > 0 && number(lease, "PAC_LEASE=") > 0);
    assert_eq!(
        [repository, run, stdin],
        ["PAC_REPOSITORY=ci/web", "PAC_RUN=ci/one", "from stdin"]
    );

    for (command, code) in [
        ("kill -KILL $$", 128 + 9),
        ("kill -TERM $$", 128 + 15),
        ("exit 0", 0),
        ("exit 255", 255),
    ] {
        assert_eq!(store.exec(&[], command).wait().code, code, "{command}");
    }
    let exec = ["exec", "--repository", WEB, "--"];
    for (program, code) in [("/nowhere/at/all", 127), ("/etc", 126)] {
        let finished = store.run(&[&exec[..], &[program]].concat());
        assert_eq!(finished.code, code);
        assert!(finished.stderr.contains(program), "{finished:?}");
    }
    assert_eq!(store.counts(), (0, 0));
}

fn who_does_not_want_to_wait_is_told_so(store: &Store) {
    let ran = store.file("ran");
    let mut holder = store.exec(&["--limit", "1"], "sleep 300");
    store.wait_for_counts(1, 0);
    let script = format!("echo ran >> {}", ran.display());
    let refused = store.exec(&["--no-wait"], &script).wait();
    assert_eq!(refused.code, 75);
    assert!(refused.stderr.contains("--no-wait"), "{refused:?}");

    let start = Instant::now();
    let refused = store.exec(&["--wait-timeout", "3s"], &script).wait();
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(refused.code, 75);
    assert!(refused.stderr.contains("at position 1"), "{refused:?}");
    assert_eq!(store.counts(), (1, 0), "it has left the queue");
    assert_eq!(read(&ran), "");

    holder.signal("TERM");
    assert_eq!(holder.wait().code, 128 + 15);
    assert_eq!(store.exec(&["--no-wait"], &script).wait().code, 0);
    assert_eq!(
        store.exec(&["--wait-timeout", "1m"], &script).wait().code,
        0
    );
    assert_eq!(read(&ran), "ran\nran\n");
}

fn a_wait_timeout_may_be_as_long_as_a_year(store: &Store) {
    let go = store.file("go");
    let script = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let holder = store.exec(&["--limit", "1"], &script);
    store.wait_for_counts(1, 0);
    let patient = store.exec(&["--wait-timeout", "8784h"], "exit 6");
    store.wait_for_counts(1, 1);
    std::fs::write(&go, "").unwrap();
    assert_eq!(holder.wait().code, 0);
    assert_eq!(patient.wait().code, 6);
}

fn a_higher_priority_goes_first(store: &Store) {
    let order = store.file("order");
    let mut holder = store.exec(&["--limit", "1"], "sleep 300");
    store.wait_for_counts(1, 0);
    let mut waiting = Vec::new();
    for (at, priority) in ["0", "-3", "7"].into_iter().enumerate() {
        let script = format!("echo {priority} >> {}", order.display());
        waiting.push(store.exec(&["--priority", priority], &script));
        store.wait_for_counts(1, at + 1);
    }
    holder.signal("TERM");
    for running in waiting {
        assert_eq!(running.wait().code, 0);
    }
    assert_eq!(read(&order), "7\n0\n-3\n");
}

fn a_name_is_taken_while_its_run_lives(store: &Store) {
    let mut holder = store.exec(&["--limit", "2", "--run", "ci/deploy"], "sleep 300");
    store.wait_for_counts(1, 0);
    let refused = store.exec(&["--run", "ci/deploy"], "true").wait();
    assert_eq!(refused.code, 73);
    let whose = format!("by pac@{HOST}#{}", holder.child().id());
    assert!(refused.stderr.contains(&whose), "{refused:?}");
    assert_eq!(store.counts(), (1, 0));
    holder.signal("TERM");
    holder.wait();
    // The name is free again once the run has ended, repeatedly.
    for _ in 0..2 {
        let again = store.exec(&["--run", "ci/deploy"], "true").wait();
        assert_eq!(again.code, 0, "{again:?}");
    }
}

fn the_limit_in_force_is_used_kept_or_set(store: &Store) {
    let limit = || store.json(&["status", WEB])[0]["limit"].as_u64().unwrap();
    let without = store.exec(&[], "true").wait();
    assert_eq!(without.code, 2);
    assert!(without.stderr.contains("pac limit ci/web"), "{without:?}");

    assert_eq!(store.exec(&["--limit", "2"], "true").wait().stderr, "");
    assert_eq!(limit(), 2);
    let other = store.exec(&["--limit", "3"], "true").wait();
    assert!(other.stderr.contains("was 2 and is 3 now"), "{other:?}");
    assert_eq!((other.code, limit()), (0, 3));
    assert_eq!(store.exec(&[], "true").wait().stderr, "");
}

#[test]
fn memory_is_refused_with_the_reason() {
    for command in [
        &["exec", "-r", "a/b", "-l", "1", "--", "true"][..],
        &["status"],
    ] {
        let mut pac = std::process::Command::new(env!("CARGO_BIN_EXE_pac"));
        pac.args(["--set", "concurrency-driver=memory"])
            .args(command);
        let output = pac.output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("the driver is memory"), "{stderr}");
        assert!(
            stderr.contains("concurrency-driver to etcd or postgresql"),
            "{stderr}"
        );
    }
}

#[test]
fn wrong_arguments_are_named() {
    for (args, part) in [
        (
            &["--repository", "web", "--", "true"][..],
            "<namespace>/<name>",
        ),
        (
            &["--repository", "ci/web", "--limit", "0", "--", "true"],
            "1..",
        ),
        (
            &["--repository", "ci/web", "--ttl", "5", "--", "true"],
            "from 100ms to 24h, such as 15s",
        ),
        (
            &[
                "-r",
                "ci/web",
                "--kill-grace",
                "6s",
                "--ttl",
                "15s",
                "--",
                "true",
            ],
            "--kill-grace 6.0s is more than a quarter",
        ),
        (&["--repository", "ci/web"], "COMMAND"),
        (
            &[
                "--repository",
                "ci/web",
                "--no-wait",
                "--wait-timeout",
                "1s",
                "--",
                "true",
            ],
            "cannot be used with",
        ),
    ] {
        let mut pac = std::process::Command::new(env!("CARGO_BIN_EXE_pac"));
        let output = pac.arg("exec").args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr.contains(part), "{args:?}: {stderr}");
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number(line: &str, prefix: &str) -> u64 {
    line.strip_prefix(prefix).unwrap().parse().unwrap()
}
