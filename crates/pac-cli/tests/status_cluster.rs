//! `pac status --cluster`: what the runs were made for.

#![cfg(all(
    unix,
    feature = "kubernetes",
    any(feature = "etcd", feature = "postgres")
))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::path::PathBuf;

use pac_concurrency::{Limit, RunRequest, SettingsLoader};
use pac_kubernetes_mock::{ApiServer, Fault, Requests, kubeconfig};
use serde_json::json;
use servers::{Store, WEB, on_every_store};

on_every_store! {
    what_a_run_was_made_for_is_read_from_the_cluster,
}

fn what_a_run_was_made_for_is_read_from_the_cluster(store: &Store) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(ApiServer::start());
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    let prefix = "pipelinesascode.tekton.dev";
    let create = |name: &str, annotations: serde_json::Value| {
        let labels = json!({"app.kubernetes.io/managed-by": prefix});
        let run = json!({"metadata": {"namespace": "ci", "name": name, "labels": labels,
            "annotations": annotations}, "spec": {"status": "PipelineRunPending"}});
        let run = objects.create("pipelineruns", run).unwrap();
        run["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let mark = |name: &str| format!("{prefix}/{name}");
    let pull_request = json!({
        mark("event-type"): "pull_request", mark("pull-request"): "12", mark("branch"): "main",
        mark("source-branch"): "fix/door", mark("sha"): "4f1e2ab9c0d1",
    });
    let push = json!({mark("event-type"): "push", mark("branch"): "refs/heads/main"});
    let runs = [
        ("a", create("a", pull_request)),
        ("b", create("b", push)),
        // One of the same name that the cluster has had before.
        ("c", "gone".to_owned()),
    ];
    create("c", json!({mark("event-type"): "incoming"}));

    let mut loader = SettingsLoader::new();
    for (key, value) in store.settings() {
        loader = loader.set(key, value);
    }
    let settings = loader.load().unwrap().settings();
    let manager = runtime
        .block_on(pac_concurrency::connect(&settings))
        .unwrap();
    let repository = WEB.parse().unwrap();
    let set = manager.set_limit(&repository, Limit::new(1), None);
    runtime.block_on(set).unwrap();
    let requests = runs.map(|(name, uid)| {
        RunRequest::durable(format!("ci/{name}").parse().unwrap(), uid.parse().unwrap())
    });
    let admitted = manager.admit_all(&repository, None, requests.to_vec());
    let _admitted = runtime.block_on(admitted).unwrap();

    let kubeconfig = kubeconfig_file(store, server.url());
    let cluster = [
        "status",
        "--cluster",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
    ];
    let status = store.json(&cluster);
    assert_eq!(
        status[0]["running"][0]["event"],
        json!({"type": "pull_request", "branch": "main", "source_branch": "fix/door",
            "pull_request": "12", "sha": "4f1e2ab9c0d1"})
    );
    let queued = &status[0]["queued"];
    assert_eq!(
        queued[0]["event"],
        json!({"type": "push", "branch": "refs/heads/main"})
    );
    assert!(queued[1].get("event").is_none(), "{status}");
    let table = store.run(&cluster).stdout;
    for part in ["pull_request 12, fix/door → main, 4f1e2ab", "push, main"] {
        assert!(table.contains(part), "{table}");
    }
    let without = store.json(&["status"]);
    assert!(without[0]["running"][0].get("event").is_none(), "{without}");

    // What the store knows is shown whatever becomes of the cluster.
    let lists = Requests::any().resource("pipelineruns");
    let forbidden = Fault::forbidden("pipelineruns is forbidden");
    server.faults().inject(lists, 1, forbidden);
    let refused = store.run(&[&cluster[..], &["-o", "json"]].concat());
    assert_eq!(refused.code, 69, "{}", refused.stderr);
    assert!(refused.stderr.contains("forbidden"), "{}", refused.stderr);
    let shown: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(shown, without);
}

fn kubeconfig_file(store: &Store, url: &str) -> PathBuf {
    let path = store.file("kubeconfig");
    std::fs::write(&path, kubeconfig(url)).unwrap();
    path
}
