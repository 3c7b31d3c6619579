//! `pac kubernetes` from a shell, against an API server for tests.

#![cfg(feature = "kubernetes")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::process::{Command, Output};

use pac_kubernetes_mock::ApiServer;
use serde_json::{Value, json};

const MANIFESTS: &str = include_str!("../../../docs/deploy/kubernetes.yaml");
const STEPS: &str = include_str!("../../../docs/deploy/stepactions.yaml");

fn pac(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
    command.arg("kubernetes").args(args);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_manifests_of_the_documents_are_printed_without_a_cluster() {
    let printed = pac(&["install"]);
    assert!(printed.status.success());
    assert_eq!(text(&printed.stdout), MANIFESTS);
    assert_eq!(text(&printed.stderr), "");
    let gate = text(
        &pac(&[
            "install",
            "--mode",
            "gate",
            "--exclude-namespace",
            "sandbox",
        ])
        .stdout,
    );
    assert!(gate.contains("name: gate.concurrency"), "{gate}");
    assert!(!gate.contains("name: takeover.concurrency"), "{gate}");
    assert!(gate.contains("--exclude-namespace=sandbox"), "{gate}");
}

#[test]
fn the_step_actions_of_the_documents_are_printed_without_a_cluster() {
    let printed = pac(&["steps", "--namespace", "ci"]);
    assert!(printed.status.success());
    assert_eq!(text(&printed.stdout), STEPS);
    let other = pac(&[
        "steps",
        "-n",
        "builds",
        "--service-account",
        "pipeline",
        "--image",
        "x:1",
    ]);
    let other = text(&other.stdout);
    assert!(
        other.contains("name: pipeline\n  namespace: builds"),
        "{other}"
    );
    assert!(other.contains("image: x:1"), "{other}");
    let none = pac(&["steps"]);
    assert_eq!(none.status.code(), Some(2));
}

/// What a pod would be given once Tekton has put the parameters in.
#[test]
fn the_steps_are_given_arguments_that_they_take() {
    let actions = STEPS
        .split("---\n")
        .filter(|one| one.contains("kind: StepAction"));
    let mut steps = 0;
    for action in actions {
        let arguments = action.lines().skip_while(|line| *line != "  args:").skip(1);
        let arguments = arguments.map_while(|line| line.strip_prefix("  - "));
        let arguments = arguments.map(|argument| {
            let argument = argument.replace("$(params.section)", "gpu");
            let argument = argument.replace("$(params.holder)", "run");
            let argument = argument.replace("$(params.timeout)", "1h");
            argument.replace("$(step.results.token.path)", "/tekton/token")
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
        let ended = command.args(arguments).output().unwrap();
        // The arguments are right, and this is no step.
        let said = text(&ended.stderr);
        assert!(said.contains("this is no step of a PipelineRun"), "{said}");
        steps += 1;
    }
    assert_eq!(steps, 2);
}

#[test]
fn the_controller_takes_the_arguments_that_its_pods_are_given() {
    for mode in ["takeover", "gate", "observe"] {
        let options = ["--queues", "--exclude-namespace", "sandbox"];
        let printed = pac(&[&["install", "--mode", mode], &options[..]].concat());
        let manifests = text(&printed.stdout);
        let arguments = manifests.lines().map(str::trim);
        let arguments = arguments
            .skip_while(|line| !line.ends_with("args:"))
            .skip(1);
        let arguments: Vec<_> = arguments
            .map_while(|line| line.strip_prefix("- "))
            .map(|argument| argument.trim_matches('"'))
            .collect();
        assert!(arguments.contains(&"controller"), "{manifests}");
        // What is not known to it is refused before the help is shown.
        let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
        let taken = command.args(&arguments).arg("--help").output().unwrap();
        assert!(taken.status.success(), "{}", text(&taken.stderr));
        assert!(arguments.contains(&"--exclude-namespace=sandbox"));
        // One that observes writes nothing.
        assert_eq!(arguments.contains(&"--queues"), mode != "observe");
    }
}

#[test]
fn a_cluster_that_is_not_there_has_an_exit_code_of_its_own() {
    let nowhere = ["--server", "http://127.0.0.1:1"];
    let checked = pac(&[&["check"], &nowhere[..]].concat());
    assert_eq!(checked.status.code(), Some(69));
    let lines = text(&checked.stdout);
    assert!(
        lines.starts_with("FAILED   server: API server: "),
        "{lines}"
    );
    assert_eq!(lines.matches("skipped ").count(), 9, "{lines}");
    for command in ["install", "uninstall", "onboard", "offboard"] {
        let failed = pac(&[&[command, "--apply"], &nowhere[..]].concat());
        assert_eq!(
            failed.status.code(),
            Some(69),
            "{command}: {}",
            text(&failed.stderr)
        );
    }
    let wrong = pac(&["install", "--namespace", "Not_A_Name"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_installed_checked_and_removed() {
    let server = ApiServer::start().await;
    let at = ["--server", server.url()];
    let on = |args: &[&str]| pac(&[args, &at[..]].concat());
    let result = |checked: &Output, check: &str| {
        let results: Vec<Value> = serde_json::from_slice(&checked.stdout).unwrap();
        let found = results.iter().find(|one| one["check"] == check);
        found.unwrap()["result"].as_str().unwrap().to_owned()
    };

    let installed = on(&["install", "--apply"]);
    assert!(installed.status.success(), "{}", text(&installed.stderr));
    let lines = text(&installed.stdout);
    assert_eq!(lines.lines().count(), 11, "{lines}");
    assert!(
        lines.lines().all(|line| line.starts_with("created    ")),
        "{lines}"
    );
    assert!(text(&installed.stderr).contains("kubectl create secret generic"));

    let checked = on(&["check", "-o", "json"]);
    assert_eq!(checked.status.code(), Some(1));
    assert_eq!(result(&checked, "definitions"), "ok");
    assert_eq!(result(&checked, "policies"), "ok");
    assert_eq!(result(&checked, "controller"), "failed");
    assert_eq!(result(&checked, "settings"), "failed");
    assert_eq!(result(&checked, "canary"), "skipped");

    let with_queues = ["check", "--queues", "-o", "json"];
    assert_eq!(result(&on(&with_queues), "definitions"), "failed");
    let installed = on(&["install", "--queues", "--apply"]);
    assert!(installed.status.success(), "{}", text(&installed.stderr));
    assert_eq!(result(&on(&with_queues), "definitions"), "ok");
    let definitions = || {
        let all = server.handle().list("customresourcedefinitions", "", "");
        all.unwrap().len()
    };
    assert_eq!(definitions(), 1);

    let would = on(&["uninstall"]);
    assert!(would.status.success());
    assert!(text(&would.stdout).starts_with("would      remove Deployment "));
    let removed = on(&["uninstall", "--apply"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    let left = server.handle().list("deployments", "", "").unwrap();
    assert_eq!(left, [] as [Value; 0]);
    // Though it was not said that queues are shown.
    assert_eq!(definitions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_says_what_to_do() {
    let server = ApiServer::start().await;
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    let run = json!({
        "metadata": {
            "namespace": "ci", "name": "a",
            "labels": {"app.kubernetes.io/managed-by": "pipelinesascode.tekton.dev"},
            "annotations": {"pipelinesascode.tekton.dev/execution-order": "ci/a"},
        },
        "spec": {"status": "PipelineRunPending"},
    });
    objects.create("pipelineruns", run).unwrap();
    let refused = pac(&["install", "--apply", "--server", server.url()]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("ci/a") && said.contains("pac kubernetes onboard"),
        "{said}"
    );
    let refused = pac(&["onboard", "--apply", "--server", server.url()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--pac-namespace"));
}

/// What is printed for servers without the policies, and that the webhook takes the arguments that its
/// pods are given.
#[test]
fn a_webhook_is_installed_in_place_of_the_policies() {
    let printed = pac(&["install", "--admission", "webhook", "--mode", "gate"]);
    assert!(printed.status.success());
    let manifests = text(&printed.stdout);
    assert!(manifests.contains("kind: MutatingWebhookConfiguration"));
    assert!(!manifests.contains("kind: MutatingAdmissionPolicy"));
    let mut lines = manifests.lines().map(str::trim);
    let arguments: Vec<_> = lines
        .by_ref()
        .skip_while(|line| *line != "- webhook")
        .map_while(|line| line.strip_prefix("- "))
        .map(|argument| argument.trim_matches('"'))
        .collect();
    assert_eq!(arguments[0], "webhook");
    assert!(arguments.len() > 1, "{arguments:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
    let taken = command.args(&arguments).arg("--help").output().unwrap();
    assert!(taken.status.success(), "{}", text(&taken.stderr));
}
