//! `pac migrate` from states written by the rules of the older layouts, and between stores.

#![cfg(all(unix, feature = "etcd", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "migrate/killed.rs"]
mod killed;
use crate::servers;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pac_concurrency::{
    Admission, ConcurrencyManager, Limit, RunOutcome, RunRequest, SettingsLoader,
};
use serde_json::{Value, json};
use servers::etcd::OwnEtcd;
use servers::{Finished, Store, WEB, psql};

/// A request to etcd's JSON gateway.
fn ask(endpoint: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(endpoint).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn put(endpoint: &str, key: &str, value: &str, lease: Option<&Value>) {
    let encoded = |text: &str| STANDARD.encode(text);
    let mut body = json!({"key": encoded(key), "value": encoded(value)});
    if let Some(lease) = lease {
        body["lease"] = lease.clone();
    }
    ask(endpoint, "/v3/kv/put", &body);
}

/// As the older systems write a running run: a key under a lease of its own, and its id beside it.
fn put_lease(endpoint: &str, repository: &str, run: &str) {
    let granted = ask(endpoint, "/v3/lease/grant", &json!({"TTL": 3600}));
    let key = format!("/pac/leases/{repository}/{run}");
    put(endpoint, &key, run, Some(&granted["ID"]));
    let id: i64 = granted["ID"].as_str().unwrap().parse().unwrap();
    put(endpoint, &format!("{key}/info"), &format!("{id:x}"), None);
}

/// How many keys there are under `/pac/leases/` and `/pac/concurrency/`.
fn old_keys(endpoint: &str) -> usize {
    let count = |prefix: &str, end: &str| {
        let range = json!({
            "key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end), "count_only": true
        });
        let answer = ask(endpoint, "/v3/kv/range", &range);
        answer["count"]
            .as_str()
            .map_or(0, |count| count.parse().unwrap())
    };
    count("/pac/leases/", "/pac/leases0") + count("/pac/concurrency/", "/pac/concurrency0")
}

/// The revision of the last write.
fn revision(endpoint: &str) -> Value {
    let range = json!({"key": STANDARD.encode("/"), "count_only": true});
    ask(endpoint, "/v3/kv/range", &range)["header"]["revision"].clone()
}

fn names(list: &Value) -> Vec<&str> {
    let runs = list.as_array().unwrap().iter();
    runs.map(|run| run["run"].as_str().unwrap()).collect()
}

/// The running and the waiting runs of the repository, and its limit.
fn assert_runs(store: &Store, running: &[&str], queued: &[&str], limit: u32) {
    let status = store.json(&["status", WEB]);
    assert_eq!(names(&status[0]["running"]), running, "{status}");
    assert_eq!(names(&status[0]["queued"]), queued, "{status}");
    assert_eq!(status[0]["limit"], limit);
}

fn succeeded(finished: &Finished) {
    assert_eq!(finished.code, 0, "{}{}", finished.stdout, finished.stderr);
}

/// A list of runs as `kubectl get -o json` prints it: name, state annotation, `spec.status`.
fn manifests(store: &Store, runs: &[(&str, &str, &str)]) -> String {
    let of_pac = |name: &str| format!("pipelinesascode.tekton.dev/{name}");
    let items = runs.iter().enumerate().map(|(at, (name, state, status))| {
        json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
            "metadata": {
                "namespace": "ci", "name": name, "uid": format!("uid-{name}"),
                "creationTimestamp": format!("2026-11-29T08:00:{at:02}Z"),
                "labels": {of_pac("state"): "started"},
                "annotations": {
                    of_pac("state"): state, of_pac("repository"): "web",
                    of_pac("execution-order"): format!("ci/{name}"),
                },
            },
            "spec": {"status": status},
        })
    });
    let mut items: Vec<_> = items.collect();
    items.push(json!({
        "kind": "Repository", "metadata": {"namespace": "ci", "name": "web"},
        "spec": {"concurrency_limit": 2},
    }));
    let path = store.file("cluster.json");
    fs::write(&path, json!({"kind": "List", "items": items}).to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn etcd_v1() {
    let etcd = OwnEtcd::start();
    let at = etcd.endpoint();
    put(&at, "/pac/concurrency/pr/ci/z/state", "queued", None);
    put(&at, "/pac/concurrency/pr/ci/r1/state", "started", None);
    put(&at, "/pac/concurrency/pr/ci/a/state", "queued", None);
    put(&at, "/pac/concurrency/pr/ci/old/state", "completed", None);
    put(&at, "/pac/concurrency/ci/web/state", "anything", None);
    put_lease(&at, WEB, "ci/r1");
    let store = Store::at_etcd(&at);

    // Nothing says whose runs wait: what is certain is brought along, and nothing is removed.
    let (keys, first) = (old_keys(&at), ["migrate", "--from", "etcd-v1", "--remove"]);
    let finished = store.run(&first);
    assert_eq!(finished.code, 1, "{}", finished.stdout);
    assert!(
        finished.stdout.contains("--manifests"),
        "{}",
        finished.stdout
    );
    assert_eq!(old_keys(&at), keys);
    assert_runs(&store, &["ci/r1"], &[], 0);

    let runs = [("r1", "started", ""), ("a", "queued", "PipelineRunPending")];
    let runs = [&runs[..], &[("z", "queued", "PipelineRunPending")]].concat();
    let cluster = manifests(&store, &runs);
    let finished = store.run(&[&first[..], &["--manifests", &cluster]].concat());
    succeeded(&finished);
    assert!(finished.stdout.contains("the old state is removed"));
    assert_eq!(old_keys(&at), 0);
    assert_runs(&store, &["ci/r1"], &["ci/z", "ci/a"], 2);
}

#[test]
fn etcd_v2() {
    let etcd = OwnEtcd::start();
    let at = etcd.endpoint();
    for run in ["done", "r2", "r1", "q2", "q10", "q1", "web"] {
        let run = format!("ci/{run}");
        put(
            &at,
            &format!("/pac/concurrency/{WEB}/queue/{run}"),
            &run,
            None,
        );
    }
    put_lease(&at, WEB, "ci/r2");
    put_lease(&at, WEB, "ci/r1");
    put(&at, "/pac/concurrency/ci/done/state", "released", None);
    put(&at, "/pac/concurrency/ci/web/state", "completed", None);
    let store = Store::at_etcd(&at);

    let (keys, before) = (old_keys(&at), revision(&at));
    let dry = store.json(&["migrate", "--from", "etcd-v2", "--dry-run"]);
    assert_eq!(
        (&dry["complete"], &dry["dry_run"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(dry["repositories"][0]["runs"][0]["action"], "adopt");
    assert_eq!(revision(&at), before, "a dry run writes nothing");

    let queued = ["ci/q2", "ci/q10", "ci/q1", "ci/web"];
    let done = store.json(&["migrate", "--from", "etcd-v2"]);
    assert_eq!(done["complete"], true);
    assert_eq!(done["repositories"][0]["limit_is_provisional"], true);
    assert_runs(&store, &["ci/r2", "ci/r1"], &queued, 2);
    assert_eq!(old_keys(&at), keys, "nothing is removed unless asked for");

    let again = store.json(&["migrate", "--from", "etcd-v2", "--remove"]);
    let runs = again["repositories"][0]["runs"].as_array().unwrap();
    assert!(runs.iter().all(|run| run["action"] == "present"), "{again}");
    assert_eq!((&again["removed"], old_keys(&at)), (&json!(true), 0));
    assert_runs(&store, &["ci/r2", "ci/r1"], &queued, 2);
}

/// Runs SQL on the server that `cargo xtask test` started.
fn sql(text: &str) -> String {
    sql_in("postgres", text)
}

/// The same in this database.
fn sql_in(database: &str, text: &str) -> String {
    let mut psql = psql(&["-d", database, "-v", "ON_ERROR_STOP=1", "-c", text]);
    let output = psql.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether the schema of a store is there.
fn has_schema(store: &Store) -> bool {
    let schema = &store.settings().last().unwrap().1;
    let found = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
    sql(&found) != "0"
}

/// The tables and rows of the older layout, in the schema that the search path names.
const OLD_TABLES: &str = "
         CREATE TABLE concurrency_slots (id serial PRIMARY KEY, repository_key varchar(255),
           pipeline_run_key varchar(255), state varchar(50) DEFAULT 'running',
           acquired_at timestamptz DEFAULT now(), expires_at timestamptz NOT NULL,
           created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
           UNIQUE (repository_key, pipeline_run_key));
         CREATE TABLE repository_states (id serial PRIMARY KEY, repository_key varchar(255) UNIQUE,
           state varchar(50), created_at timestamptz DEFAULT now(),
           updated_at timestamptz DEFAULT now());
         CREATE TABLE pipeline_run_states (id serial PRIMARY KEY,
           pipeline_run_key varchar(255) UNIQUE, state varchar(50),
           created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now());
         INSERT INTO concurrency_slots
           (repository_key, pipeline_run_key, state, expires_at, created_at) VALUES
           ('ci/web', 'ci/late', 'queued', now() + interval '1 hour', now() - interval '1 minute'),
           ('ci/web', 'ci/r2', 'running', now() - interval '1 day', now() - interval '2 hours'),
           ('ci/web', 'ci/r1', 'running', now() - interval '1 day', now() - interval '2 hours'),
           ('ci/web', 'ci/early', 'queued', now() - interval '1 hour', now() - interval '2 hours'),
           ('ci/web', 'ci/gone', 'released', now(), now()),
           ('ci/web', 'ci/ended', 'running', now(), now());
         INSERT INTO repository_states (repository_key, state) VALUES ('ci/web', 'x');
         INSERT INTO pipeline_run_states (pipeline_run_key, state) VALUES ('ci/ended', 'failed')";

#[test]
fn postgresql() {
    let old = format!("old_{}", std::process::id());
    sql(&format!(
        "CREATE SCHEMA {old}; SET search_path = {old}; {OLD_TABLES}"
    ));
    let store = Store::unprepared_postgres();
    let migrate = ["migrate", "--from", "postgresql", "--legacy-schema", &old];
    let shown = store.run(&[&migrate[..], &["--dry-run"]].concat());
    succeeded(&shown);
    assert!(shown.stdout.contains("never renewed"));
    assert!(
        shown
            .stdout
            .contains("2 runs would be adopted, 2 would be queued")
    );
    assert!(!has_schema(&store), "a dry run creates nothing");
    let done = store.json(&[&migrate[..], &["--remove"]].concat());
    assert_eq!(
        (&done["complete"], &done["removed"]),
        (&json!(true), &json!(true))
    );
    assert_runs(&store, &["ci/r2", "ci/r1"], &["ci/early", "ci/late"], 2);
    let left = sql(&format!("SELECT count(*) FROM {old}.concurrency_slots"));
    assert_eq!(left, "0");
    sql(&format!("DROP SCHEMA {old} CASCADE"));
}

/// What `pac` connects for does not matter. The layout is brought along unless that is switched
/// off, nothing is removed, and what is written there later is left to `pac migrate`.
#[test]
fn connecting_brings_the_layout_on_etcd_along_once() {
    let etcd = OwnEtcd::start();
    let at = etcd.endpoint();
    put(&at, "/pac/concurrency/ci/web/queue/ci/q1", "ci/q1", None);
    put_lease(&at, WEB, "ci/r1");
    let (store, keys) = (Store::at_etcd(&at), old_keys(&at));
    let off = ["--set", "concurrency-migrate-state=false"];
    succeeded(&store.run(&[&["limit", WEB, "2"][..], &off].concat()));
    assert_runs(&store, &[], &[], 2);
    let connected = store.run(&["limit", WEB, "1"]);
    succeeded(&connected);
    assert_runs(&store, &["ci/r1"], &["ci/q1"], 1);
    assert_eq!(old_keys(&at), keys);

    put_lease(&at, WEB, "ci/later");
    succeeded(&store.run(&["limit", WEB, "1"]));
    assert_runs(&store, &["ci/r1"], &["ci/q1"], 1);
    succeeded(&store.run(&["migrate", "--from", "etcd-v2", "--remove"]));
    assert_runs(&store, &["ci/r1", "ci/later"], &["ci/q1"], 1);
    assert_eq!(old_keys(&at), 0);
}

/// The same with tables in `public`; and a role that may not read them is no hindrance.
#[test]
fn connecting_brings_the_layout_on_postgresql_along_once() {
    let (database, role) = (
        format!("older_{}", std::process::id()),
        format!("reader_{}", std::process::id()),
    );
    sql(&format!("CREATE DATABASE {database}"));
    sql(&format!("CREATE ROLE {role} LOGIN"));
    let here = |text: &str| sql_in(&database, text);
    here(OLD_TABLES);
    let store = Store::unprepared_postgres();
    let schema = &store.settings().last().unwrap().1;
    let named = format!("postgresql-database={database}");
    let run = |more: &[&str]| {
        let finished = store.run(&[&["--set", &named][..], more].concat());
        succeeded(&finished);
        finished
    };
    let status = || {
        let shown = run(&["status", WEB, "--output", "json"]);
        let status: Value = serde_json::from_str(&shown.stdout).unwrap();
        let list = |key: &str| {
            let runs = names(&status[0][key]).into_iter();
            runs.map(str::to_owned).collect::<Vec<_>>()
        };
        (list("running"), list("queued"))
    };
    let both = |running: &[&str], queued: &[&str]| {
        let owned = |runs: &[&str]| runs.iter().map(ToString::to_string).collect::<Vec<_>>();
        (owned(running), owned(queued))
    };
    run(&["schema", "apply"]);
    let off = ["--set", "concurrency-migrate-state=false"];
    run(&[&["limit", WEB, "2"][..], &off].concat());
    assert_eq!(status(), both(&[], &[]));

    here(&format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"
    ));
    let as_role = format!("postgresql-username={role}");
    run(&["limit", WEB, "2", "--set", &as_role]);
    assert_eq!(status(), both(&[], &[]));

    run(&["limit", WEB, "2"]);
    let all = both(&["ci/r2", "ci/r1"], &["ci/early", "ci/late"]);
    assert_eq!(status(), all);
    here(
        "INSERT INTO concurrency_slots (repository_key, pipeline_run_key, expires_at)
         VALUES ('ci/web', 'ci/later', now())",
    );
    run(&["limit", WEB, "2"]);
    assert_eq!(status(), all);
    assert_eq!(here("SELECT count(*) FROM concurrency_slots"), "7");
    sql(&format!("DROP DATABASE {database} WITH (FORCE)"));
    sql(&format!("DROP ROLE {role}"));
}

#[test]
fn annotations() {
    let store = Store::postgres();
    let cluster = manifests(
        &store,
        &[
            ("first", "queued", "PipelineRunPending"),
            ("runs", "started", ""),
            ("second", "queued", "PipelineRunPending"),
        ],
    );
    let migrate = ["migrate", "--from", "annotations", "--manifests", &cluster];
    let refused = store.run(&[&migrate[..], &["--remove"]].concat());
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    succeeded(&store.run(&migrate));
    assert_runs(&store, &["ci/runs"], &["ci/first", "ci/second"], 2);
    succeeded(&store.run(&migrate));
    assert_runs(&store, &["ci/runs"], &["ci/first", "ci/second"], 2);
}

/// The settings of two stores, in one.
fn both<'a>(from: &'a Store, to: &'a Store) -> Vec<&'a str> {
    let mut set: Vec<&str> = Vec::new();
    // The last of two values holds; `--to` decides about the driver.
    for (key, value) in from.settings().iter().chain(to.settings()) {
        set.push("--set");
        set.push(format!("{key}={value}").leak());
    }
    set
}

#[test]
fn between_drivers_and_back_order_and_tokens_stay() {
    let (postgres, etcd) = (Store::postgres(), Store::etcd());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let manager = connect(&postgres).await;
        let web = WEB.parse().unwrap();
        manager.set_limit(&web, Limit::new(2), None).await.unwrap();
        let mut kept = Vec::new();
        for run in 0..150 {
            let run = format!("r{}", 1_000 - run);
            let request =
                RunRequest::durable(format!("ci/{run}").parse().unwrap(), run.parse().unwrap());
            kept.push(manager.admit(&web, request).await.unwrap());
        }
        let Admission::Started(lease) = kept.remove(0) else {
            panic!("the first one does not wait");
        };
        manager.release(lease, RunOutcome::Completed).await.unwrap();
        manager.close().await.unwrap();
    });
    let before = postgres.json(&["status", WEB]);
    let history = postgres.json(&["history", WEB]);
    let runs = |status: &Value| {
        let running = status[0]["running"].as_array().unwrap().iter();
        let running = running.map(|run| (run["run"].to_string(), run["token"].to_string()));
        let queued: Vec<_> = names(&status[0]["queued"])
            .iter()
            .map(ToString::to_string)
            .collect();
        (running.collect::<Vec<_>>(), queued)
    };

    let settings = both(&postgres, &etcd);
    let there = ["migrate", "--from", "postgresql", "--to", "etcd"];
    let dry = etcd.run(&[&settings[..], &there, &["--dry-run"]].concat());
    succeeded(&dry);
    assert_eq!(etcd.json(&["status"]), json!([]));
    succeeded(&etcd.run(&[&settings[..], &there].concat()));
    assert_eq!(runs(&etcd.json(&["status", WEB])), runs(&before));
    assert_eq!(etcd.json(&["history", WEB]), history);
    succeeded(&etcd.run(&[&settings[..], &there, &["--remove"]].concat()));
    assert_eq!(postgres.json(&["status"]), json!([]));

    let back = ["migrate", "--from", "etcd", "--to", "postgresql"];
    let elsewhere = Store::unprepared_postgres();
    let settings_of_it = both(&etcd, &elsewhere);
    let dry = etcd.run(&[&settings_of_it[..], &back, &["--dry-run"]].concat());
    succeeded(&dry);
    assert!(
        dry.stdout.contains("2 runs would be adopted"),
        "{}",
        dry.stdout
    );
    assert!(!has_schema(&elsewhere), "a dry run creates nothing");
    succeeded(&etcd.run(&[&settings[..], &back].concat()));
    assert_eq!(runs(&postgres.json(&["status", WEB])), runs(&before));
}

async fn connect(store: &Store) -> ConcurrencyManager {
    let mut loader = SettingsLoader::new();
    for (key, value) in store.settings() {
        loader = loader.set(key, value);
    }
    let settings = loader.load().unwrap().settings();
    pac_concurrency::connect(&settings).await.unwrap()
}
