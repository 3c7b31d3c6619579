//! `pac controller`, from its start to its end.

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
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::cluster::{free_address, kubeconfig, probe};
use common::{command, pac};
use pac_kubernetes_mock::{ApiServer, Ending, Handle, Requests, Tekton, Verb};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
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

const ALONE: [&str; 5] = [
    "--alone",
    "--set",
    "concurrency-driver=memory",
    "--log-level",
    "debug",
];

/// A server with the Repository `ci/website`, whose limit is 1.
async fn server() -> (ApiServer, Handle) {
    let server = ApiServer::start().await;
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    let limited = json!({"metadata": {"name": "website", "namespace": "ci"},
        "spec": {"url": "https://example.org/x", "concurrency_limit": 1}});
    objects.create("repositories", limited).unwrap();
    (server, objects)
}

/// Creates a run that is held back.
fn hold(objects: &Handle, name: &str, order: &str) {
    let prefix = "pipelinesascode.tekton.dev";
    let held = json!({
        "metadata": {"name": name, "namespace": "ci",
            "labels": {"app.kubernetes.io/managed-by": prefix},
            "annotations": {format!("{prefix}/repository"): "website",
                format!("{prefix}/state"): "queued",
                format!("concurrency.{prefix}/execution-order"): order}},
        "spec": {"status": "PipelineRunPending"},
    });
    objects.create("pipelineruns", held).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_starts_runs_and_ends_in_order() {
    let (server, objects) = server().await;
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(Duration::from_millis(20)));
    hold(&objects, "a", "ci/a");
    let file = kubeconfig(server.url());
    let controller = Controller::start(&file, &ALONE);
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

/// Whatever the settings name is not needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_observes_opens_no_store() {
    let (server, objects) = server().await;
    hold(&objects, "a", "ci/a");
    let file = kubeconfig(server.url());
    let away = [
        "--mode=observe",
        "--set",
        "concurrency-driver=etcd",
        "--set",
        "etcd-endpoints=http://127.0.0.1:1",
    ];
    let controller = Controller::start(&file, &away);
    tokio::task::block_in_place(|| controller.wait_for("/readyz", "200 OK"));
    let (code, log) = tokio::task::block_in_place(|| controller.end());
    assert_eq!(code, 0, "{log}");
    assert_eq!(server.count(&Requests::writes()), 0);
    let run = objects.get("pipelineruns", "ci", "a").unwrap();
    assert_eq!(run["spec"]["status"], "PipelineRunPending");
}

/// What is written of two runs of which one waits until the other has ended.
struct Reported {
    events: usize,
    /// The run that waits has borne its position.
    position: bool,
    queue: Option<Value>,
    /// Requests to change runs: each start is one.
    patches: usize,
}

/// Runs two runs under a controller with these flags; each of `awaited` is waited for while the
/// second one waits.
async fn reported(flags: &[&str], awaited: &[&dyn Fn(&Handle) -> bool]) -> Reported {
    let (server, objects) = server().await;
    let manifests = pac(&["kubernetes", "install", "--queues"]).stdout;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&manifests).unwrap();
    let mut documents = documents.into_iter();
    let definition = documents.find(|one| one["kind"] == "CustomResourceDefinition");
    objects
        .create("customresourcedefinitions", definition.unwrap())
        .unwrap();
    let tekton = Tekton::start(&server, Ending::WhenTold);
    for run in ["a", "b"] {
        hold(&objects, run, "ci/a,ci/b");
    }
    let file = kubeconfig(server.url());
    let controller = Controller::start(&file, &[&ALONE[..], flags].concat());
    let eventually = async |what: &str, holds: &dyn Fn(&Handle) -> bool| {
        let begun = Instant::now();
        while !holds(&objects) {
            assert!(begun.elapsed() < LONG, "{flags:?}: {what} does not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let runs = |objects: &Handle, run: &str| {
        let run = objects.get("pipelineruns", "ci", run).unwrap();
        run.pointer("/status/startTime").is_some()
    };
    eventually("the first run", &|objects| runs(objects, "a")).await;
    for holds in awaited {
        eventually("what is awaited", *holds).await;
    }
    // What is not turned off has come by now: positions are written a moment after a change.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let position = has_position(&objects);
    let queue = objects.get("concurrencyqueues", "ci", "website").ok();
    tekton.finish("ci", "a", true).unwrap();
    eventually("the second run", &|objects| runs(objects, "b")).await;
    let (code, log) = tokio::task::block_in_place(|| controller.end());
    assert_eq!(code, 0, "{log}");
    let count = |verb, resource| server.count(&Requests::any().verb(verb).resource(resource));
    Reported {
        events: count(Verb::Create, "events"),
        position,
        queue,
        patches: count(Verb::Patch, "pipelineruns"),
    }
}

fn has_position(objects: &Handle) -> bool {
    let run = objects.get("pipelineruns", "ci", "b").unwrap();
    let annotations = &run.pointer("/metadata/annotations");
    let position = "concurrency.pipelinesascode.tekton.dev/queue-position";
    annotations.is_some_and(|all| all.get(position).is_some())
}

fn has_event(objects: &Handle) -> bool {
    let events = objects.list("events", "ci", "").unwrap();
    events.iter().any(|event| event["reason"] == "Queued")
}

fn has_queue(objects: &Handle) -> bool {
    let queue = objects.get("concurrencyqueues", "ci", "website");
    queue.is_ok_and(|queue| queue["status"]["waiting"] == 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_positions_are_written_unless_they_are_turned_off() {
    let all = reported(&[], &[&has_event, &has_position]).await;
    assert!(all.position && all.events >= 2 && all.patches > 2);
    assert_eq!(all.queue, None, "no queue is shown by itself");
    let no_events = reported(&["--no-events"], &[&has_position]).await;
    assert_eq!((no_events.events, no_events.position), (0, true));
    let no_positions = reported(&["--no-positions"], &[&has_event]).await;
    assert_eq!((no_positions.position, no_positions.patches), (false, 2));
    let neither = reported(&["--no-events", "--no-positions"], &[]).await;
    assert_eq!((neither.events, neither.patches), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_shown_where_it_is_asked_for() {
    let flags = ["--queues", "--no-events", "--no-positions"];
    let shown = reported(&flags, &[&has_queue]).await;
    let status = &shown.queue.unwrap()["status"];
    assert_eq!(
        [&status["limit"], &status["running"], &status["waiting"]],
        [1, 1, 1]
    );
    assert_eq!((shown.events, shown.patches), (0, 2));
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
        (vec!["--start-wait", "31s"], 2, "from 0s to 30 s"),
    ] {
        let args = [&["controller", probes][..], &args].concat();
        let ended = pac(&args);
        assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(text), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("s3cr3t"), "{}", ended.stderr);
    }
}
