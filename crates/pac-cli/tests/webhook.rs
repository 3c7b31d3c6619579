//! `pac webhook`, from its start to its end.

#![cfg(all(unix, feature = "kubernetes"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Child;
use std::time::{Duration, Instant};

use common::{command, pac};
use pac_kubernetes_mock::{ApiServer, Deployments, Handle};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "pac-concurrency";
const CONFIGURATION: &str = "concurrency.pipelinesascode.tekton.dev";

fn start(server: &ApiServer) -> (Child, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let address_text = address.to_string();
    let args = [
        "webhook",
        "--server",
        server.url(),
        "--address",
        &address_text,
    ];
    let child = command(&args).args(["--linger", "100ms"]).spawn().unwrap();
    (child, address)
}

/// Asks for the end; returns the exit code and what was logged.
fn end(mut child: Child) -> (i32, String) {
    let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    (child.wait().unwrap().code().unwrap(), log)
}

fn is_trusted(objects: &Handle) -> bool {
    let found = objects.get("mutatingwebhookconfigurations", "", CONFIGURATION);
    found.is_ok_and(|found| found["webhooks"][0]["clientConfig"]["caBundle"].is_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_installed_answers_and_ends_in_order() {
    let server = ApiServer::start().await;
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    let _deployments = Deployments::start(&server);
    let install = ["kubernetes", "install", "--admission=webhook", "--apply"];
    let installed = pac(&[&install[..], &["--server", server.url()]].concat());
    assert_eq!(installed.code, 0, "{}", installed.stderr);
    let (child, address) = start(&server);
    server.serve_service(NAMESPACE, "pac-concurrency-webhook", Some(address));
    let begun = Instant::now();
    while !is_trusted(&objects) {
        if begun.elapsed() > LONG {
            panic!("the API server trusts no webhook: {}", end(child).1);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let prefix = "pipelinesascode.tekton.dev";
    let run = json!({
        "metadata": {
            "namespace": "ci", "name": "a",
            "labels": {"app.kubernetes.io/managed-by": prefix},
            "annotations": {format!("{prefix}/execution-order"): "ci/a"},
        },
        "spec": {"status": "PipelineRunPending"},
    });
    let created: Value = objects.create("pipelineruns", run).unwrap();
    let moved = json!({format!("concurrency.{prefix}/execution-order"): "ci/a"});
    assert_eq!(created["metadata"]["annotations"], moved);

    let (code, log) = tokio::task::block_in_place(|| end(child));
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("answering admission reviews"), "{log}");
    assert!(!log.contains("PRIVATE"), "{log}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let nowhere = ["webhook", "--server", "http://127.0.0.1:1"];
    let ended = pac(&[&nowhere[..], &["--address", &address]].concat());
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("name a free address"),
        "{}",
        ended.stderr
    );
}
