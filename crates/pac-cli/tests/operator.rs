//! The operator's commands, which know only the store.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::io::{BufRead, BufReader};
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, Limit, RunRequest, SessionIdentity, SettingsLoader,
};
use serde_json::{Value, json};
use servers::{Running, Store, WEB, on_every_store};

on_every_store! {
    status_shows_who_runs_and_who_waits_in_the_shape_that_is_documented,
    a_thousand_that_wait_are_shown_in_part_or_in_whole,
    all_repositories_are_listed_page_by_page,
    a_limit_that_is_raised_starts_who_waits,
    a_slot_is_released_with_its_token_or_by_force,
    what_is_cleaned_up_is_gone,
    history_tells_how_long_runs_waited_and_ran,
    top_shows_the_busiest_first,
    a_reader_that_has_seen_enough_is_no_error,
}

/// A controller in this process that holds slots and waits for them.
struct Controller {
    runtime: tokio::runtime::Runtime,
    manager: ConcurrencyManager,
    admitted: Vec<Admission>,
}

impl Controller {
    fn at(store: &Store) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut loader = SettingsLoader::new();
        for (key, value) in store.settings() {
            loader = loader.set(key, value);
        }
        let settings = loader.load().unwrap().settings();
        let manager = runtime
            .block_on(pac_concurrency::connect(&settings))
            .unwrap();
        Self {
            runtime,
            manager,
            admitted: Vec::new(),
        }
    }

    fn limit(&self, repository: &str, limit: u32) {
        let (repository, limit) = (repository.parse().unwrap(), Limit::new(limit));
        let set = self.manager.set_limit(&repository, limit, None);
        self.runtime.block_on(set).unwrap();
    }

    /// Admits runs `ci/PREFIX0`, `ci/PREFIX1` and so on.
    fn admit(&mut self, repository: &str, prefix: &str, count: usize) {
        let repository = repository.parse().unwrap();
        let request = |i| {
            let name = format!("{prefix}{i}");
            RunRequest::durable(format!("ci/{name}").parse().unwrap(), name.parse().unwrap())
        };
        let requests: Vec<_> = (0..count).map(request).collect();
        for some in requests.chunks(50) {
            let admitted = self.manager.admit_all(&repository, None, some.to_vec());
            self.admitted
                .extend(self.runtime.block_on(admitted).unwrap());
        }
    }
}

/// The process of this test, since then.
fn this_process(since: &Value) -> Value {
    assert!(is_time(since), "{since}");
    let here = SessionIdentity::of_this_process();
    json!({
        "program": here.program(),
        "version": here.version(),
        "host": here.host(),
        "pid": here.pid(),
        "since": since,
    })
}

fn is_time(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.ends_with('Z') && text.len() == 24)
}

fn status_shows_who_runs_and_who_waits_in_the_shape_that_is_documented(store: &Store) {
    assert_eq!(store.json(&["status"]), json!([]));
    let mut controller = Controller::at(store);
    controller.limit(WEB, 1);
    controller.admit(WEB, "r", 3);
    let session = controller.manager.session().to_string();
    let status = store.json(&["status", WEB]);
    let process = this_process(&status[0]["running"][0]["process"]["since"]);
    let (running, queued) = (&status[0]["running"][0], &status[0]["queued"]);
    assert!(
        is_time(&running["started_at"]) && is_time(&queued[1]["queued_at"]),
        "{status}"
    );
    let expected = json!([{
        "repository": WEB,
        "limit": 1,
        "owner": "set",
        "slots_taken": 1,
        "running": [{
            "run": "ci/r0",
            "token": running["token"].as_u64().unwrap(),
            "session": session,
            "process": process,
            "started_at": running["started_at"],
        }],
        "queued": [
            {"run": "ci/r1", "position": 1, "priority": 0, "queued_at": queued[0]["queued_at"], "owner": session, "process": process, "reason": "limit-reached"},
            {"run": "ci/r2", "position": 2, "priority": 0, "queued_at": queued[1]["queued_at"], "owner": session, "process": process, "reason": "behind"},
        ],
    }]);
    assert_eq!(status, expected);
    assert_eq!(store.json(&["status"]), expected);

    let table = store.run(&["status"]).stdout;
    for part in [
        "limit 1, 1 running, 2 queued",
        "next; 1 running of at most 1",
        "1 ahead",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let yaml = store.run(&["status", WEB, "--output", "yaml"]).stdout;
    assert!(
        yaml.starts_with(
            "- repository: ci/web\n  limit: 1\n  owner: set\n  slots_taken: 1\n  running:\n"
        ),
        "{yaml}"
    );

    let unknown = store.run(&["status", "ci/nothing"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    assert!(
        unknown.stderr.contains("knows nothing of ci/nothing"),
        "{unknown:?}"
    );

    // The controller goes away; its state can still be read.
    drop(controller);
    assert_eq!(store.json(&["status"])[0]["queued"][1]["run"], "ci/r2");
}

fn a_thousand_that_wait_are_shown_in_part_or_in_whole(store: &Store) {
    let mut controller = Controller::at(store);
    controller.limit(WEB, 1);
    controller.admit(WEB, "r", 1_001);
    let status = store.json(&["status", WEB]);
    let queued = status[0]["queued"].as_array().unwrap();
    assert_eq!(queued.len(), 1_000);
    for (at, run) in queued.iter().enumerate() {
        assert_eq!(run["position"], at + 1);
        assert_eq!(run["run"], format!("ci/r{}", at + 1));
    }
    let part = store.run(&["status"]).stdout;
    assert!(
        part.contains("and 980 more that wait") && part.lines().count() < 30,
        "{part}"
    );
    let whole = store.run(&["status", "--all"]).stdout;
    assert!(
        whole.contains("queued at 1000") && !whole.contains("--all"),
        "{whole}"
    );
}

fn all_repositories_are_listed_page_by_page(store: &Store) {
    let controller = Controller::at(store);
    // One more than one page of the store.
    let count = 501;
    let limits: Vec<_> = (0..count).map(|i| format!("ci/r{i:03}")).collect();
    for repository in &limits {
        controller.limit(repository, 2);
    }
    let status = store.json(&["status"]);
    let listed: Vec<_> = status
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["repository"].clone())
        .collect();
    assert_eq!(listed, limits);
    let part = store.run(&["status"]).stdout;
    assert!(
        part.contains("more repositories: --all shows them"),
        "{part}"
    );
    assert_eq!(part.lines().count(), 51);
    assert_eq!(
        store.run(&["status", "--all"]).stdout.lines().count(),
        count
    );
}

fn a_limit_that_is_raised_starts_who_waits(store: &Store) {
    let mut controller = Controller::at(store);
    controller.limit(WEB, 1);
    controller.admit(WEB, "r", 3);
    let set = store.json(&["limit", WEB, "2"]);
    assert_eq!(
        set,
        json!({
            "repository": WEB, "limit": 2, "owner": "pinned", "max_queued": null, "backfill": null,
            "slots": null, "promoted": ["ci/r1"],
        })
    );
    let shown = store.run(&["limit", WEB]);
    assert_eq!(
        shown.stdout,
        "the limit of ci/web is 2, pinned by an operator\nbeneath the pin: limit 1, set by a program\n"
    );
    let nothing = json!({
        "limit": 1, "owner": "set", "max_queued": null, "backfill": null, "slots": null,
    });
    assert_eq!(
        store.json(&["limit", WEB]),
        json!({
            "repository": WEB, "limit": 2, "owner": "pinned", "max_queued": null,
            "backfill": null, "slots": null, "beneath": nothing,
        })
    );
    let unknown = store.run(&["limit", "ci/wep"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    let asked = store.run(&["limit", WEB, "0"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(
        asked
            .stderr
            .contains("0 is no limit: start what waits in ci/web (1)"),
        "{asked:?}"
    );
    assert_eq!(
        store.json(&["limit", WEB])["limit"],
        2,
        "nothing was changed"
    );
    let set = store.run(&["limit", WEB, "0", "--yes"]);
    assert_eq!(
        set.stdout,
        "the limit of ci/web is none (pinned); started: ci/r2\n"
    );

    // What was pinned to hold everything back is taken back, and nothing is beneath.
    controller.limit("ci/other", 0);
    store.run(&["limit", "ci/other", "1"]);
    controller.admit("ci/other", "o", 2);
    let asked = store.run(&["limit", "ci/other", "--unpin"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    let question = "no limit beneath the pin: start what waits in ci/other (1)";
    assert!(asked.stderr.contains(question), "{asked:?}");
    store.run(&["pause", "ci/other"]);
    let paused = store.run(&["limit", "ci/other", "--unpin"]);
    assert_eq!(paused.code, 0, "nothing starts: {paused:?}");
}

fn a_slot_is_released_with_its_token_or_by_force(store: &Store) {
    let mut controller = Controller::at(store);
    controller.limit(WEB, 1);
    controller.admit(WEB, "r", 4);
    let token = store.json(&["status", WEB])[0]["running"][0]["token"].to_string();
    let release = |args: &[&str]| store.run(&[&["release", WEB], args].concat());

    assert_eq!(release(&["ci/r0"]).code, 2, "neither token nor force");
    let stale = release(&["ci/r0", "--token", "0"]);
    assert_eq!(stale.code, 1);
    assert!(
        stale
            .stdout
            .contains(&format!("holds its slot with {token}")),
        "{stale:?}"
    );
    let done = release(&["ci/r0", "--token", &token]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, "ci/r0 has ended; started: ci/r1\n")
    );
    let again = release(&["ci/r0", "--token", &token]);
    assert_eq!(
        (again.code, again.stdout.as_str()),
        (0, "ci/r0 had ended before: completed\n")
    );

    let asked = release(&["ci/r1", "--force"]);
    assert_eq!(asked.code, 2, "nobody is there to be asked");
    assert!(asked.stderr.contains("say --yes"), "{asked:?}");
    let this = format!("#{} holds with token", std::process::id());
    assert!(asked.stderr.contains(&this), "by its process: {asked:?}");
    let forced = store.json(&[
        "release",
        WEB,
        "ci/r1",
        "--force",
        "--yes",
        "--outcome",
        "failed",
    ]);
    assert_eq!(
        forced,
        json!({"repository": WEB, "run": "ci/r1", "result": "ended", "outcome": "failed", "promoted": ["ci/r2"]})
    );
    assert_eq!(release(&["ci/r3", "--force", "--yes"]).code, 1, "it waits");
    assert_eq!(release(&["ci/nobody", "--force", "--yes"]).code, 1);

    let cancelled = store.run(&["cancel", WEB, "ci/r3"]);
    assert_eq!(
        (cancelled.code, cancelled.stdout.as_str()),
        (0, "ci/r3 has ended\n")
    );
    assert_eq!(store.run(&["cancel", WEB, "ci/nobody"]).code, 1);
    assert_eq!(store.counts(), (1, 0));
}

fn what_is_cleaned_up_is_gone(store: &Store) {
    let mut controller = Controller::at(store);
    controller.limit(WEB, 1);
    controller.admit(WEB, "r", 2);
    let asked = store.run(&["cleanup", WEB]);
    assert_eq!(asked.code, 2);
    assert!(
        asked
            .stderr
            .contains("with 1 running run and 1 queued run?"),
        "{asked:?}"
    );
    let removed = store.json(&["cleanup", WEB, "--yes"]);
    assert_eq!(
        removed,
        json!({"repository": WEB, "existed": true, "ended": ["ci/r0", "ci/r1"]})
    );
    assert_eq!(store.json(&["status"]), json!([]));
    let again = store.run(&["cleanup", WEB]);
    assert_eq!(
        (again.code, again.stdout.as_str()),
        (0, "the store knows nothing of ci/web\n")
    );
}

fn history_tells_how_long_runs_waited_and_ran(store: &Store) {
    let done = store
        .exec(&["--limit", "1", "--run", "ci/a"], "sleep 0.3; exit 1")
        .wait();
    assert_eq!(done.code, 1);
    let history = store.json(&["history"]);
    let run = &history[0];
    assert!(
        ["queued_at", "started_at", "finished_at"]
            .iter()
            .all(|at| is_time(&run[at]))
    );
    assert_eq!(
        (&run["repository"], &run["run"], &run["outcome"]),
        (&json!(WEB), &json!("ci/a"), &json!("failed"))
    );
    assert!(
        run["wait_s"].as_f64().unwrap() >= 0.0 && run["run_s"].as_f64().unwrap() >= 0.3,
        "{run}"
    );
    let table = store.run(&["history", WEB]).stdout;
    assert!(
        table.contains("ci/a") && table.contains("failed"),
        "{table}"
    );
}

fn top_shows_the_busiest_first(store: &Store) {
    let mut controller = Controller::at(store);
    for (repository, count) in [("ci/calm", 1), ("ci/busy", 3)] {
        controller.limit(repository, 1);
        controller.admit(repository, repository.trim_start_matches("ci/"), count);
    }
    let top = store.run(&["top", "--count", "2", "--every", "10ms", "--output", "json"]);
    let views: Vec<Value> = top
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(views.len(), 2);
    let shown = &views[1]["repositories"][0]["held_by"][0];
    let held_by = json!([{
        "session": controller.manager.session().to_string(),
        "process": this_process(&shown["process"]["since"]),
    }]);
    assert_eq!(
        views[1]["repositories"],
        json!([
            {"repository": "ci/busy", "limit": 1, "running": 1, "queued": 2, "slots_taken": 1, "owner": "set", "held_by": held_by},
            {"repository": "ci/calm", "limit": 1, "running": 1, "queued": 0, "slots_taken": 1, "owner": "set", "held_by": held_by},
        ])
    );
    let top = store.run(&["top", "--count", "1"]).stdout;
    assert!(top.contains("2 repositories, 2 running, 2 queued"), "{top}");
}

fn a_reader_that_has_seen_enough_is_no_error(store: &Store) {
    let mut controller = Controller::at(store);
    controller.limit(WEB, 1);
    controller.admit(WEB, "r", 1_001);
    for command in [
        &["status", "--all"][..],
        &["status", "--output", "json"],
        &["status", "--output", "yaml"],
        &["top", "--every", "10ms"],
        &["top", "--every", "10ms", "--output", "json"],
        &["watch"],
    ] {
        let mut running = Running::start(store.pac_itself(command));
        let stdout = running.child().stdout.take().unwrap();
        if command == ["watch"] {
            std::thread::sleep(Duration::from_secs(1));
            controller.admit(WEB, "more", 1);
        }
        let mut line = String::new();
        BufReader::with_capacity(16, stdout)
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty(), "{command:?}");
        if command == ["watch"] {
            controller.admit(WEB, "another", 2);
        }
        let finished = running.wait();
        assert_eq!(
            (finished.code, finished.stderr.as_str()),
            (0, ""),
            "{command:?}"
        );
    }
}
