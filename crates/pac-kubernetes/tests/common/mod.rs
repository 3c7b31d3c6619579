//! A server, and a cluster that is connected to it through a kubeconfig.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::Write;
use std::time::Duration;

use pac_kubernetes::{KubernetesCluster, KubernetesOptions};
use pac_kubernetes_mock::{ApiServer, Handle, kubeconfig};
use pac_pipelines::{ClusterEvent, ClusterWatch, vocabulary};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::timeout;

/// How long a test waits for what has to come.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Options of most tests: short deadlines.
pub(crate) fn options() -> KubernetesOptions {
    KubernetesOptions::default().with_request_timeout(Duration::from_secs(3))
}

/// A kubeconfig for a server.
pub(crate) fn kubeconfig_file(server: &ApiServer) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(kubeconfig(server.url()).as_bytes()).unwrap();
    file
}

/// A cluster at a server.
pub(crate) async fn cluster(server: &ApiServer, options: KubernetesOptions) -> KubernetesCluster {
    let file = kubeconfig_file(server);
    let options = options.with_kubeconfig(file.path());
    KubernetesCluster::connect(&options).await.unwrap()
}

/// A server with the namespace `ci`, and a way to its objects.
pub(crate) async fn server() -> (ApiServer, Handle) {
    let server = ApiServer::start().await;
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    (server, objects)
}

/// A run of Pipelines-as-Code that is held back.
pub(crate) fn held(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "ci",
            "labels": {vocabulary::MANAGED_BY: vocabulary::PAC_MANAGER, "x/y": "z"},
            "annotations": {
                vocabulary::REPOSITORY: "website", vocabulary::STATE: "queued", "x/y": "z"
            },
        },
        "spec": {"status": "PipelineRunPending", "pipelineSpec": {"tasks": []}},
    })
}

/// A Repository with a limit.
pub(crate) fn repository(name: &str, limit: i64) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ci"},
        "spec": {"url": format!("https://example.org/{name}"), "concurrency_limit": limit},
    })
}

/// The condition of a run that has ended.
pub(crate) fn ended(status: &str) -> Value {
    json!({"status": {"startTime": "2026-11-29T08:00:02Z", "conditions": [
        {"type": "Succeeded", "status": status, "reason": "Completed"}]}})
}

/// The next event.
pub(crate) async fn next(watch: &mut Box<dyn ClusterWatch>) -> ClusterEvent {
    let event = timeout(LONG, watch.next()).await;
    event.expect("an event is due").expect("the watch goes on")
}

/// An event in short: what it is about and what has happened.
pub(crate) fn short(event: &ClusterEvent) -> String {
    match event {
        ClusterEvent::RunApplied(run) => format!("run {} applied", run.key.name()),
        ClusterEvent::RunDeleted(run) => format!("run {} deleted", run.key.name()),
        ClusterEvent::RepositoryApplied(one) => format!("repository {} applied", one.key.name()),
        ClusterEvent::RepositoryDeleted(one) => format!("repository {} deleted", one.key.name()),
        ClusterEvent::Unreadable(unreadable) => format!("unreadable {:?}", unreadable.object),
        ClusterEvent::Missed => "missed".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Waits for an event, past others.
pub(crate) async fn until(watch: &mut Box<dyn ClusterWatch>, expected: &str) -> ClusterEvent {
    loop {
        let event = next(watch).await;
        if short(&event) == expected {
            return event;
        }
    }
}
