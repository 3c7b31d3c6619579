//! `pac section`, as the StepActions run it, against an API server for tests.

#![cfg(all(unix, feature = "kubernetes"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;

use std::process::Child;
use std::time::{Duration, Instant};

use common::cluster::kubeconfig;
use common::{Ended, command, pac};
use pac_kubernetes_mock::{ApiServer, Handle};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::NamedTempFile;

const LONG: Duration = Duration::from_secs(30);
const REQUEST: &str = "concurrency.pipelinesascode.tekton.dev/section.gpu";
const ANSWER: &str = "concurrency.pipelinesascode.tekton.dev/section-token.gpu";

/// A server with the run `ci/a`, which runs.
async fn server() -> (ApiServer, Handle, NamedTempFile) {
    let server = ApiServer::start().await;
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    let run = json!({"metadata": {"name": "a", "namespace": "ci"}, "spec": {}});
    objects.create("pipelineruns", run).unwrap();
    let file = kubeconfig(server.url());
    (server, objects, file)
}

fn annotation(objects: &Handle, name: &str) -> Option<String> {
    let run = objects.get("pipelineruns", "ci", "a").unwrap();
    let value = run["metadata"]["annotations"][name].as_str();
    value.map(str::to_owned)
}

/// Waits until the run asks, and answers with the request.
fn asked(objects: &Handle) -> String {
    let begun = Instant::now();
    loop {
        if let Some(request) = annotation(objects, REQUEST) {
            return request;
        }
        assert!(begun.elapsed() < LONG, "it does not ask");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_asks_prints_its_token_and_leaves() {
    let (_server, objects, file) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    let kubeconfig = file.path().to_str().unwrap();
    let uid = objects.get("pipelineruns", "ci", "a").unwrap()["metadata"]["uid"].clone();
    tokio::task::block_in_place(|| {
        let mut acquire = command(&["section", "acquire", "gpu", "--kubeconfig", kubeconfig]);
        acquire
            .arg("--token-file")
            .arg(&token)
            .env("PAC_STEP_NAMESPACE", "ci")
            .env("PAC_STEP_RUN", "a")
            .env("PAC_STEP_RUN_UID", uid.as_str().unwrap());
        let child = acquire.spawn().unwrap();
        let request = asked(&objects);
        let (id, holder) = request.split_once(' ').unwrap();
        assert_eq!(holder, "run");
        let answer = json!({"metadata": {"annotations": {ANSWER: format!("{id} 41")}}});
        objects.merge("pipelineruns", "ci", "a", answer).unwrap();
        let entered = ended(child);
        assert_eq!(
            (entered.code, entered.stdout.as_str()),
            (0, "41\n"),
            "{entered:?}"
        );
        assert_eq!(std::fs::read_to_string(&token).unwrap(), "41");
        let release = [
            "section",
            "release",
            "gpu",
            "--run=ci/a",
            "--kubeconfig",
            kubeconfig,
        ];
        let other = pac(&[&release[..], &["--holder=other"]].concat());
        assert_eq!(other.code, 0);
        assert!(
            other.stderr.contains("held by run: say --holder"),
            "{other:?}"
        );
        for said in ["left", "the run is not in it"] {
            let left = pac(&release);
            assert_eq!(left.code, 0);
            assert!(left.stderr.contains(said), "{left:?}");
        }
    });
    assert_eq!(annotation(&objects, REQUEST), None);
    assert_eq!(annotation(&objects, ANSWER), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_stopped_or_out_of_patience_takes_its_request_back() {
    let (_server, objects, file) = server().await;
    let kubeconfig = file.path().to_str().unwrap();
    let acquire = [
        "section",
        "acquire",
        "gpu",
        "--run=ci/a",
        "--kubeconfig",
        kubeconfig,
    ];
    tokio::task::block_in_place(|| {
        let child = command(&acquire).spawn().unwrap();
        asked(&objects);
        let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let stopped = ended(child);
        assert_eq!(stopped.code, 75, "{stopped:?}");
        assert!(
            stopped.stderr.contains("the request was taken back"),
            "{stopped:?}"
        );
        assert_eq!(annotation(&objects, REQUEST), None);
        let impatient = pac(&[&acquire[..], &["--timeout=100ms"]].concat());
        assert_eq!(impatient.code, 75, "{impatient:?}");
        assert!(
            impatient.stderr.contains("its turn did not come"),
            "{impatient:?}"
        );
        assert_eq!(annotation(&objects, REQUEST), None);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named() {
    let (_server, _objects, file) = server().await;
    let kubeconfig = file.path().to_str().unwrap();
    tokio::task::block_in_place(|| {
        for (args, code, text) in [
            (
                vec!["acquire", "gpu"],
                2,
                "this is no step of a PipelineRun",
            ),
            (vec!["acquire", "G.pu", "--run=ci/a"], 2, "must be 1 to 49"),
            (
                vec!["acquire", "gpu", "--run=ci/b", "--kubeconfig", kubeconfig],
                1,
                "the PipelineRun is gone",
            ),
            (
                vec!["release", "gpu", "--run=ci/b", "--kubeconfig", kubeconfig],
                0,
                "the run is gone",
            ),
            (
                vec!["release", "gpu", "--run=ci/b", "--kubeconfig", "/absent"],
                78,
                "kubeconfig: /absent",
            ),
        ] {
            let args = [&["section"][..], &args].concat();
            let ended = pac(&args);
            assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
            assert!(ended.stderr.contains(text), "{args:?}: {}", ended.stderr);
            assert!(!ended.stderr.contains("s3cr3t"), "{}", ended.stderr);
        }
    });
}
