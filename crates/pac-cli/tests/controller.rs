//! `pac controller`, from its start to its end.

#![cfg(all(unix, feature = "kubernetes"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::cluster::{free_address, kubeconfig, probe};
use common::{command, pac};
use pac_kubernetes_mock::{ApiServer, Ending, Tekton};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::NamedTempFile;

const LONG: Duration = Duration::from_secs(30);

/// A controller that runs, and where its probes are.
struct Controller {
    child: Child,
    probes: SocketAddr,
}

impl Controller {
    fn start(kubeconfig: &NamedTempFile, args: &[&str]) -> Self {
        let probes = free_address();
        let mut command: Command = command(&["controller", "--kubeconfig"]);
        command.arg(kubeconfig.path()).args(args);
        command.arg("--health-address").arg(probes.to_string());
        let child = command.spawn().unwrap();
        Self { child, probes }
    }

    /// Waits until a probe's answer has this text.
    fn wait_for(&self, path: &str, expected: &str) {
        let begun = Instant::now();
        loop {
            let answer = probe(self.probes, path);
            if answer.as_ref().is_some_and(|text| text.contains(expected)) {
                return;
            }
            assert!(begun.elapsed() < LONG, "{path}: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks for the end; returns the exit code and what was logged.
    fn end(mut self) -> (i32, String) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code().unwrap(), log)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_starts_runs_and_ends_in_order() {
    let server = ApiServer::start().await;
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    let limited = json!({"metadata": {"name": "website", "namespace": "ci"},
        "spec": {"url": "https://example.org/x", "concurrency_limit": 1}});
    objects.create("repositories", limited).unwrap();
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(Duration::from_millis(20)));
    let prefix = "pipelinesascode.tekton.dev";
    let held = json!({
        "metadata": {"name": "a", "namespace": "ci",
            "labels": {"app.kubernetes.io/managed-by": prefix},
            "annotations": {format!("{prefix}/repository"): "website",
                format!("concurrency.{prefix}/execution-order"): "ci/a"}},
        "spec": {"status": "PipelineRunPending"},
    });
    objects.create("pipelineruns", held).unwrap();
    let file = kubeconfig(server.url());
    let args = [
        "--alone",
        "--set",
        "concurrency-driver=memory",
        "--log-level",
        "debug",
    ];
    let controller = Controller::start(&file, &args);
    tokio::task::block_in_place(|| controller.wait_for("/readyz", "200 OK"));
    tokio::task::block_in_place(|| controller.wait_for("/healthz", "200 OK"));
    let begun = Instant::now();
    loop {
        let run = objects.get("pipelineruns", "ci", "a").unwrap();
        let reason = run.pointer("/status/conditions/0/status");
        if reason.is_some_and(|status| status == "True") {
            break;
        }
        assert!(begun.elapsed() < LONG, "{run:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (code, log) = tokio::task::block_in_place(|| controller.end());
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("the store was told of the end"), "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_limits_are_waited_for_or_kept_without_a_store() {
    let server = ApiServer::start().await;
    let file = kubeconfig(server.url());
    let off = ["--set", "concurrency-enabled=false"];
    let waiting = Controller::start(&file, &off);
    let keeping = Controller::start(
        &file,
        &[&off[..], &["--without-store", "annotations"]].concat(),
    );
    tokio::task::block_in_place(|| {
        waiting.wait_for("/readyz", "concurrency-enabled is false");
        waiting.wait_for("/healthz", "200 OK");
        keeping.wait_for("/readyz", "without a store");
        for controller in [waiting, keeping] {
            let (code, log) = controller.end();
            assert_eq!(code, 0, "{log}");
            assert!(log.contains("limits are "), "{log}");
        }
    });
}

#[test]
fn what_cannot_be_used_is_named() {
    let file = kubeconfig("http://127.0.0.1:1");
    let path = file.path().to_str().unwrap();
    let probes = "--health-address=127.0.0.1:0";
    let memory = "--set=concurrency-driver=memory";
    for (args, code, text) in [
        (vec!["--kubeconfig", "/absent"], 78, "kubeconfig: /absent"),
        (vec!["--kubeconfig", path, "--context", "x"], 78, "context"),
        (
            vec!["--kubeconfig", path, memory],
            78,
            "the driver is memory",
        ),
        (vec!["--mode", "other"], 2, "takeover, gate, observe"),
    ] {
        let args = [&["controller", probes][..], &args].concat();
        let ended = pac(&args);
        assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(text), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("s3cr3t"), "{}", ended.stderr);
    }
}
