//! The stand-ins for Pipelines-as-Code and Tekton together: the queue that the project takes over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common::replay;

use std::time::Duration;

use pac_kubernetes_mock::{
    ApiServer, Ending, Handle, Mishap, PacController, PacWatcher, Tekton, Template,
};
use replay::prepare;
use serde_json::{Value, json};

#[tokio::test]
async fn ten_runs_with_limit_1_run_one_by_one_in_order() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("website", Some(1))]);
    let _watcher = PacWatcher::start(&server);
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let templates: Vec<Template> = (1..=10)
        .map(|n| Template::exact(&format!("pr{n}")))
        .collect();
    let names = PacController::new(&server)
        .event("ci", "website", &templates)
        .unwrap();
    assert_eq!(names.last().map(String::as_str), Some("pr10"));
    for name in names {
        let running = loop {
            let running = with_reason(&objects, "Running");
            if !running.is_empty() {
                break running;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_eq!(running, [name.as_str()]);
        tekton.finish("ci", &name, true).unwrap();
    }
}

#[tokio::test]
async fn a_comment_cancels_a_waiting_run_once_and_the_run_before_it_goes_on() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("website", Some(1))]);
    let watcher = PacWatcher::start(&server);
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let controller = PacController::new(&server);
    controller
        .event("ci", "website", &["a", "b"].map(Template::exact))
        .unwrap();
    settle(&watcher, &tekton).await;
    assert_eq!(with_reason(&objects, "Running"), ["a"]);
    assert_eq!(with_reason(&objects, "PipelineRunPending"), ["b"]);
    assert!(controller.cancel("ci", "b").unwrap());
    tekton.settled().await;
    assert_eq!(with_reason(&objects, "Cancelled"), ["b"]);
    assert!(!controller.cancel("ci", "b").unwrap());
    assert_eq!(with_reason(&objects, "Running"), ["a"]);
}

#[tokio::test]
async fn a_changed_limit_acts_at_once_and_one_that_is_removed_starts_all() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("website", Some(1))]);
    let watcher = PacWatcher::start(&server);
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let names = ["a", "b", "c", "d"];
    PacController::new(&server)
        .event("ci", "website", &names.map(Template::exact))
        .unwrap();
    for (limit, running) in [
        (json!(1), &["a"] as &[&str]),
        (json!(3), &["a", "b", "c"]),
        (json!(2), &["a", "b", "c"]),
        (Value::Null, &names),
    ] {
        let patch = json!({"spec": {"concurrency_limit": limit}});
        objects
            .merge("repositories", "ci", "website", patch)
            .unwrap();
        settle(&watcher, &tekton).await;
        assert_eq!(with_reason(&objects, "Running"), running, "{limit}");
    }
}

#[tokio::test]
async fn the_global_limit_holds_where_there_is_no_other() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("website", None), ("second", Some(2))]);
    let global = json!({
        "metadata": {"name": "pipelines-as-code", "namespace": "pipelines-as-code"},
        "spec": {"concurrency_limit": 1},
    });
    objects.create("repositories", global).unwrap();
    let watcher = PacWatcher::start(&server);
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let controller = PacController::new(&server);
    controller
        .event("ci", "website", &["w1", "w2"].map(Template::exact))
        .unwrap();
    controller
        .event("ci", "second", &["s1", "s2"].map(Template::exact))
        .unwrap();
    settle(&watcher, &tekton).await;
    assert_eq!(with_reason(&objects, "Running"), ["s1", "s2", "w1"]);
}

#[tokio::test]
async fn without_a_limit_all_start_and_without_state_or_order_none_ever_does() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("free", None), ("website", Some(5))]);
    let watcher = PacWatcher::start(&server);
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let controller = PacController::new(&server);
    controller
        .event("ci", "free", &["f1", "f2"].map(Template::exact))
        .unwrap();
    for (name, mishap) in [("w1", Mishap::NoState), ("w2", Mishap::NoOrder)] {
        let template = [Template::exact(name)];
        controller
            .event_with("ci", "website", &template, Some(mishap))
            .unwrap();
    }
    settle(&watcher, &tekton).await;
    assert_eq!(with_reason(&objects, "Running"), ["f1", "f2"]);
    assert_eq!(with_reason(&objects, "PipelineRunPending"), ["w1", "w2"]);
}

#[tokio::test]
async fn the_stand_ins_go_on_after_the_server_was_away() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("website", Some(1))]);
    let watcher = PacWatcher::start(&server);
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let controller = PacController::new(&server);
    server.leave();
    let away = controller
        .event("ci", "website", &[Template::new("build")])
        .unwrap_err();
    assert_eq!(away.code, 503);
    server.come_back();
    let names = controller
        .event("ci", "website", &[Template::new("build")])
        .unwrap();
    settle(&watcher, &tekton).await;
    assert_eq!(with_reason(&objects, "Running"), names);
}

/// Waits until neither has anything to do: each may write what the other has to deal with.
async fn settle(watcher: &PacWatcher, tekton: &Tekton) {
    for _ in 0..10 {
        watcher.settled().await;
        tekton.settled().await;
    }
}

fn with_reason(objects: &Handle, reason: &str) -> Vec<String> {
    let runs = objects.list("pipelineruns", "ci", "").unwrap();
    let runs = runs
        .iter()
        .filter(|run| run["status"]["conditions"][0]["reason"] == reason);
    runs.map(|run| run["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}
