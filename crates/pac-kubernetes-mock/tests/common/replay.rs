//! Recorded steps: what was there after each, and how this compares.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::time::Duration;

use pac_kubernetes_mock::{ApiServer, Effect, Handle, PacWatcher, Policy};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub(crate) const ORDER: &str = "pipelinesascode.tekton.dev/execution-order";
pub(crate) const OUR_ORDER: &str = "example.dev/execution-order";
pub(crate) const LIMIT: &str = "example.dev/limit";

/// Waits until the text is the recorded one of this step, and fails if it does not become that,
/// or does not stay so.
pub(crate) async fn expect(
    recorded: &str,
    step: &str,
    watcher: Option<&PacWatcher>,
    now: impl Fn() -> String,
) {
    let expected = section(recorded, step);
    let deadline = Instant::now() + Duration::from_secs(5);
    while now() != expected && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(now(), expected, "{step}");
    if let Some(watcher) = watcher {
        watcher.settled().await;
    }
    assert_eq!(now(), expected, "{step}, a moment later");
}

/// The lines of a step.
pub(crate) fn section(recorded: &str, step: &str) -> String {
    let begins = |line: &&str| {
        let title = line.strip_prefix("--- ");
        title.and_then(|title| title.split(' ').next()) == Some(step)
    };
    let lines = recorded.lines().skip_while(|line| !begins(line));
    let lines = lines.skip(1).take_while(|line| line.starts_with("  "));
    let lines: Vec<&str> = lines.map(str::trim_end).collect();
    assert!(!lines.is_empty(), "no step {step} was recorded");
    lines.join("\n")
}

/// The runs and the queue as the recordings of the watcher have them.
pub(crate) fn runs_and_queue(objects: &Handle, watcher: &PacWatcher, runs: bool) -> String {
    let mut lines = Vec::new();
    for run in objects.list("pipelineruns", "ci", "").unwrap() {
        if runs {
            lines.push(run_line(&run));
        }
    }
    lines.push(format!("  queue: {}", queue_text(&watcher.queue())));
    lines.join("\n")
}

fn run_line(run: &Value) -> String {
    let annotation = |key: &str| run["metadata"]["annotations"][key].as_str();
    let order = if annotation(ORDER).is_some() {
        "pac"
    } else if annotation(OUR_ORDER).is_some() {
        "ours"
    } else {
        "-"
    };
    format!(
        "  {:<4} spec.status={:<22} state={:<10} scm={:<5} order={order} finalizers={}",
        run["metadata"]["name"].as_str().unwrap(),
        python(&run["spec"]["status"]),
        annotation("pipelinesascode.tekton.dev/state").unwrap_or("None"),
        annotation("pipelinesascode.tekton.dev/scm-reporting-plr-started").unwrap_or("None"),
        python(&run["metadata"]["finalizers"]),
    )
}

/// A value as Python prints it, which made the recordings.
pub(crate) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(python).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string().replace('"', "'"),
    }
}

/// The fields in the order in which Go writes them.
fn queue_text(queue: &Value) -> String {
    let queues = queue
        .as_object()
        .unwrap()
        .iter()
        .map(|(repository, queue)| {
            format!(
                "\"{repository}\":{{\"limit\":{},\"running\":{},\"pending\":{}}}",
                queue["limit"], queue["running"], queue["pending"]
            )
        });
    format!("{{{}}}", queues.collect::<Vec<_>>().join(","))
}

/// The Repositories of the recordings; `gated` has its limit in an annotation.
pub(crate) fn prepare(server: &ApiServer, repositories: &[(&str, Option<i64>)]) -> Handle {
    let objects = server.handle();
    for namespace in ["pipelines-as-code", "ci"] {
        objects.create_namespace(namespace).unwrap();
    }
    for (name, limit) in repositories {
        let mut repository = json!({
            "metadata": {"name": name, "namespace": "ci", "annotations": {LIMIT: "1"}},
            "spec": {"url": format!("https://example.com/{name}")},
        });
        if let Some(limit) = limit {
            repository["spec"]["concurrency_limit"] = json!(limit);
        }
        objects.create("repositories", repository).unwrap();
    }
    let order = OUR_ORDER.to_owned();
    server.recognise(Policy::new(
        "takeover",
        "takeover",
        Effect::Takeover { order },
    ));
    let (limit, held) = (LIMIT.to_owned(), "example.dev/held".to_owned());
    server.recognise(Policy::new("gate", "gate", Effect::Gate { limit, held }));
    objects
}

pub(crate) fn install(objects: &Handle, policy: &str) {
    let object = json!({"metadata": {"name": policy}, "spec": {}});
    objects.create("mutatingadmissionpolicies", object).unwrap();
    let binding = json!({"metadata": {"name": policy}, "spec": {"policyName": policy}});
    objects
        .create("mutatingadmissionpolicybindings", binding)
        .unwrap();
}

pub(crate) fn uninstall(objects: &Handle, policy: &str) {
    objects
        .delete("mutatingadmissionpolicybindings", "", policy)
        .unwrap();
    objects
        .delete("mutatingadmissionpolicies", "", policy)
        .unwrap();
}

pub(crate) fn set_spec_status(objects: &Handle, name: &str, status: &str) {
    let patch = json!({"spec": {"status": status}});
    objects.merge("pipelineruns", "ci", name, patch).unwrap();
}

/// Says what Tekton would say.
pub(crate) fn set_condition(objects: &Handle, name: &str, status: &str, reason: &str) {
    let condition = json!([{"type": "Succeeded", "status": status, "reason": reason}]);
    let patch = json!({"status": {"conditions": condition}});
    objects
        .merge_status("pipelineruns", "ci", name, patch)
        .unwrap();
}

/// Deletes runs, and waits until they are gone.
pub(crate) async fn delete_runs(objects: &Handle, names: &[&str]) {
    for name in names {
        objects.delete("pipelineruns", "ci", name).unwrap();
    }
    let gone = |name: &&str| objects.get("pipelineruns", "ci", name).is_err();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !names.iter().all(gone) {
        assert!(Instant::now() < deadline, "{names:?} are still there");
        sleep(Duration::from_millis(5)).await;
    }
}
