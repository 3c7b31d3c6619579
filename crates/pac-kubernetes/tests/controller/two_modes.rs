//! A Repository with our annotation under the global `concurrency_limit` of Pipelines-as-Code.

use std::time::Duration;

use pac_kubernetes::{ReportOptions, Reporter};
use pac_kubernetes_mock::{Ending, Tekton};
use pac_pipelines::{Mode, vocabulary};
use serde_json::json;
use tokio::time::sleep;

use crate::common::{self, cluster, held, options};
use crate::setting::{RUNS, Working, has_slot, store, until};

/// Pipelines-as-Code has its queue for it too, as for one with a `concurrency_limit` of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_refuses_a_repository_that_the_global_limit_holds_for() {
    let (server, objects) = common::server().await;
    objects.create_namespace("pipelines-as-code").unwrap();
    let _tekton = Tekton::start(&server, Ending::WhenTold);
    let website = json!({
        "metadata": {"name": "website", "namespace": "ci", "annotations": {vocabulary::LIMIT: "2"}},
        "spec": {"url": "https://example.org/website"},
    });
    let global = json!({
        "metadata": {"name": "pipelines-as-code", "namespace": "pipelines-as-code"},
        "spec": {"concurrency_limit": 1},
    });
    for repository in [website, global] {
        objects.create("repositories", repository).unwrap();
    }
    let working = Working::start(&server, &store(), Mode::Gate).await;
    let reporter = Reporter::new(&cluster(&server, options()).await, ReportOptions::default());
    let controller = working.controller.clone();
    let reports = tokio::spawn(async move { reporter.run(&controller).await });
    let mut run = held("a");
    run["metadata"]["annotations"][vocabulary::HELD] = "true".into();
    objects.create(RUNS, run).unwrap();
    let is_told = || {
        let events = objects.list("events", "ci", "").unwrap_or_default();
        events.iter().any(|event| {
            let note = event["note"].as_str().unwrap_or_default();
            let names_both = note.contains("pipelines-as-code/pipelines-as-code")
                && note.contains(vocabulary::LIMIT);
            event["reason"] == "NotManaged" && names_both
        })
    };
    until("it is told", is_told).await;
    sleep(Duration::from_millis(300)).await;
    assert!(!has_slot(&objects.get(RUNS, "ci", "a").unwrap()));
    // In one mode it is managed again, at once.
    let none = json!({"spec": {"concurrency_limit": null}});
    let name = "pipelines-as-code";
    objects.merge("repositories", name, name, none).unwrap();
    until("it starts", || {
        has_slot(&objects.get(RUNS, "ci", "a").unwrap())
    })
    .await;
    reports.abort();
}
