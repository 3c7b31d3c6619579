//! What Tekton was seen to do with pending and with cancelled runs, its stand-in does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common::replay;

use std::time::Duration;

use pac_kubernetes_mock::{ApiServer, Ending, Handle, Tekton};
use replay::{expect, prepare, python, set_spec_status};
use serde_json::{Value, json};

const RECORDED: &str = include_str!("data/pending-and-cancel.txt");

#[tokio::test]
async fn pending_runs_wait_and_graceful_cancels_run_the_finally_tasks() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[]);
    let _tekton = Tekton::start(&server, Ending::FailAfter(Duration::from_millis(10)));
    for name in ["m", "p1", "p2", "p3", "p4"] {
        let pipeline = json!({"tasks": [{"name": "a"}], "finally": [{"name": "z"}]});
        let spec = if name == "m" {
            json!({"pipelineSpec": pipeline, "managedBy": "example.dev/elsewhere"})
        } else {
            json!({"pipelineSpec": pipeline, "status": "PipelineRunPending"})
        };
        let run = json!({"metadata": {"name": name, "namespace": "ci"}, "spec": spec});
        objects.create("pipelineruns", run).unwrap();
    }
    let now = || runs_and_tasks(&objects);
    expect(RECORDED, "T1", None, now).await;

    let start = json!([{"op": "remove", "path": "/spec/status"}]);
    objects.patch("pipelineruns", "ci", "p1", start).unwrap();
    for (name, status) in [
        ("p2", "Cancelled"),
        ("p3", "CancelledRunFinally"),
        ("p4", "StoppedRunFinally"),
    ] {
        set_spec_status(&objects, name, status);
    }
    expect(RECORDED, "T2", None, now).await;

    set_spec_status(&objects, "p1", "PipelineRunPending");
    expect(RECORDED, "T3", None, now).await;
}

fn runs_and_tasks(objects: &Handle) -> String {
    let runs = objects.list("pipelineruns", "ci", "").unwrap();
    let mut lines: Vec<String> = runs.iter().map(run_line).collect();
    let tasks = objects.list("taskruns", "ci", "").unwrap();
    let tasks = tasks.iter().map(|task| {
        format!(
            "taskrun.tekton.dev/{}",
            task["metadata"]["name"].as_str().unwrap()
        )
    });
    let tasks = tasks.collect::<Vec<_>>().join(" ");
    lines.push(format!("  taskruns: {tasks}").trim_end().to_owned());
    lines.join("\n")
}

fn run_line(run: &Value) -> String {
    let condition = &run["status"]["conditions"][0];
    let text = |value: &Value| value.as_str().unwrap_or("None").to_owned();
    let children = run["status"]["childReferences"]
        .as_array()
        .into_iter()
        .flatten();
    let children: Vec<Value> = children
        .map(|child| child["pipelineTaskName"].clone())
        .collect();
    let started = !run["status"]["startTime"].is_null();
    let done = !run["status"]["completionTime"].is_null();
    format!(
        "  {:<10} spec.status={:<22} start={:<5} done={:<5} Succeeded={} reason={} children={}",
        text(&run["metadata"]["name"]),
        python(&run["spec"]["status"]),
        python(&json!(started)),
        python(&json!(done)),
        text(&condition["status"]),
        text(&condition["reason"]),
        python(&Value::Array(children)),
    )
}
