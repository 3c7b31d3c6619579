//! What policies and webhooks do to PipelineRuns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;
use crate::common::replay;

use common::{Client, MERGE, RUNS, run};
use pac_kubernetes_mock::{ApiServer, Effect, Failure, Policy, tekton_rules};
use replay::{install, prepare, set_condition, set_spec_status, uninstall};
use serde_json::{Value, json};

const REPOSITORY: &str = "pipelinesascode.tekton.dev/repository";
const PENDING: &str = "PipelineRunPending";

fn of_repository(name: &str, repository: &str, status: Option<&str>) -> Value {
    let mut run = run(name, status);
    run["metadata"]["annotations"] = json!({REPOSITORY: repository});
    run
}

#[tokio::test]
async fn the_gate_holds_runs_of_repositories_with_a_limit_and_no_others() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("gated", None)]);
    let free = json!({"metadata": {"name": "free", "namespace": "ci"}, "spec": {}});
    objects.create("repositories", free).unwrap();
    let make = |name: &str, repository: &str, status: Option<&str>| {
        let run = objects
            .create("pipelineruns", of_repository(name, repository, status))
            .unwrap();
        let held = run["metadata"]["annotations"]["example.dev/held"] == "true";
        (run["spec"]["status"].as_str().map(str::to_owned), held)
    };
    assert_eq!(make("before", "gated", None), (None, false));
    install(&objects, "gate");
    assert_eq!(make("a", "gated", None), (Some(PENDING.to_owned()), true));
    assert_eq!(make("b", "free", None), (None, false));
    assert_eq!(make("c", "absent", None), (None, false));
    // A run that its user holds is not marked as held by the gate.
    assert_eq!(
        make("d", "gated", Some(PENDING)),
        (Some(PENDING.to_owned()), false)
    );
    uninstall(&objects, "gate");
    assert_eq!(make("after", "gated", None), (None, false));
}

/// Whatever made the run, and whether it has annotations or not.
#[tokio::test]
async fn the_gate_of_a_namespace_holds_all_runs_but_those_of_others() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[]);
    let limits = vec![
        "example.dev/limit".to_owned(),
        "example.dev/lanes".to_owned(),
    ];
    let held = "example.dev/held".to_owned();
    let effect = Effect::GateNamespace { limits, held };
    server.recognise(Policy::new("namespace", "namespace", effect));
    install(&objects, "namespace");
    let make = |new: Value| {
        let run = objects.create("pipelineruns", new).unwrap();
        let held = run["metadata"]["annotations"]["example.dev/held"] == "true";
        (run["spec"]["status"] == PENDING, held)
    };
    assert_eq!(make(run("before", None)), (false, false));
    let limit = json!({"metadata": {"annotations": {"example.dev/lanes": "2"}}});
    objects.merge("namespaces", "", "ci", limit).unwrap();
    assert_eq!(make(run("a", None)), (true, true));
    assert_eq!(make(of_repository("b", "any", None)), (true, true));
    assert_eq!(make(run("of-its-user", Some(PENDING))), (true, false));
    let mut of_kueue = run("of-kueue", None);
    of_kueue["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = json!("q");
    assert_eq!(make(of_kueue), (false, false));
    let mut child = run("child", None);
    child["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "name": "a", "uid": "u"}]);
    assert_eq!(make(child), (false, false));
}

#[tokio::test]
async fn a_binding_to_another_policy_does_nothing() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("gated", None)]);
    let policy = json!({"metadata": {"name": "gate"}, "spec": {}});
    objects.create("mutatingadmissionpolicies", policy).unwrap();
    let binding = json!({"metadata": {"name": "gate"}, "spec": {"policyName": "other"}});
    objects
        .create("mutatingadmissionpolicybindings", binding)
        .unwrap();
    let made = objects
        .create("pipelineruns", of_repository("a", "gated", None))
        .unwrap();
    assert_eq!(made["spec"]["status"], Value::Null);
}

#[tokio::test]
async fn a_held_run_that_is_cancelled_gracefully_is_cancelled() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[]);
    server.recognise(Policy::new("cancel", "cancel", Effect::CancelHeld));
    install(&objects, "cancel");
    for (name, status, expected) in [
        ("held", Some(PENDING), "Cancelled"),
        ("running", None, "CancelledRunFinally"),
    ] {
        objects.create("pipelineruns", run(name, status)).unwrap();
        set_spec_status(&objects, name, "CancelledRunFinally");
        let run = objects.get("pipelineruns", "ci", name).unwrap();
        assert_eq!(run["spec"]["status"], expected);
    }
}

#[tokio::test]
async fn the_rules_of_tekton_refuse_what_its_webhook_refuses() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[]);
    server.install_mutator("tekton", tekton_rules());
    let client = Client::new(server.url());
    client.post(RUNS, run("a", Some(PENDING))).await;
    let path = format!("{RUNS}/a");
    let pipeline = json!({"spec": {"pipelineRef": {"name": "other"}}});
    let refused = client.patch(&path, MERGE, pipeline).await;
    assert_eq!(refused.code, 400);
    assert!(
        refused
            .at("/message")
            .contains("only status updates are allowed")
    );
    set_spec_status(&objects, "a", "");
    let started = json!({"status": {"startTime": "2026-11-29T00:00:00Z"}});
    objects
        .merge_status("pipelineruns", "ci", "a", started)
        .unwrap();
    let status = |status: &str| json!({"spec": {"status": status}});
    assert_eq!(client.patch(&path, MERGE, status(PENDING)).await.code, 400);
    assert_eq!(client.patch(&path, MERGE, status("Paused")).await.code, 400);
    assert_eq!(
        client
            .patch(&path, MERGE, status("StoppedRunFinally"))
            .await
            .code,
        200
    );
    set_condition(&objects, "a", "False", "Cancelled");
    assert_eq!(
        client.patch(&path, MERGE, status("Cancelled")).await.code,
        400
    );
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(client.patch(&path, MERGE, label).await.code, 200);
}

#[tokio::test]
async fn a_mutator_that_refuses_is_the_answer() {
    let server = ApiServer::start().await;
    server.handle().create_namespace("ci").unwrap();
    let refuse = |_: &pac_kubernetes_mock::Review<'_>, _: &mut Value| {
        Err(Failure::new(403, "Forbidden", "no more runs today"))
    };
    server.install_mutator("refuse", std::sync::Arc::new(refuse));
    let refused = Client::new(server.url()).post(RUNS, run("a", None)).await;
    assert_eq!(
        (refused.code, refused.at("/message")),
        (403, "no more runs today")
    );
}

/// Which requests a webhook is asked about shows in which are refused, since it is not there.
#[tokio::test]
async fn a_webhook_that_cannot_be_called_refuses_what_it_is_asked_about_or_is_passed_over() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("website", None)]);
    objects.create_namespace("left-alone").unwrap();
    let client = Client::new(server.url());
    client.post(RUNS, run("before", None)).await;
    let configuration = |policy: &str| {
        json!({"metadata": {"name": "held"}, "webhooks": [{
            "name": "held.example.dev",
            "clientConfig": {"service": {"namespace": "ci", "name": "absent", "path": "/"}},
            "failurePolicy": policy,
            "rules": [{
                "apiGroups": ["tekton.dev"], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pipelineruns"],
            }],
            "namespaceSelector": {"matchExpressions": [{
                "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["left-alone"],
            }]},
            "objectSelector": {"matchExpressions": [
                {"key": "kueue.x-k8s.io/queue-name", "operator": "DoesNotExist"},
            ]},
        }]})
    };
    let kind = "mutatingwebhookconfigurations";
    objects.create(kind, configuration("Fail")).unwrap();
    let refused = client.post(RUNS, run("a", None)).await;
    assert_eq!(
        (refused.code, refused.at("/reason")),
        (500, "InternalError")
    );
    let expected = "failed calling webhook \"held.example.dev\": failed to call webhook: service \
                    \"absent\" not found";
    assert!(refused.at("/message").contains(expected));
    assert!(objects.get("pipelineruns", "ci", "a").is_err());

    // Neither a change, nor what selectors and rules leave out.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(
        client
            .patch(&format!("{RUNS}/before"), MERGE, label)
            .await
            .code,
        200
    );
    let mut of_kueue = run("b", None);
    of_kueue["metadata"]["labels"] = json!({"kueue.x-k8s.io/queue-name": "q"});
    assert_eq!(client.post(RUNS, of_kueue).await.code, 201);
    let mut elsewhere = run("c", None);
    elsewhere["metadata"]["namespace"] = json!("left-alone");
    let others = RUNS.replace("/ci/", "/left-alone/");
    assert_eq!(client.post(&others, elsewhere).await.code, 201);

    objects
        .merge(kind, "", "held", configuration("Ignore"))
        .unwrap();
    assert_eq!(client.post(RUNS, run("a", None)).await.code, 201);
}

#[tokio::test]
async fn events_must_be_complete() {
    let server = ApiServer::start().await;
    server.handle().create_namespace("ci").unwrap();
    let client = Client::new(server.url());
    let path = "/apis/events.k8s.io/v1/namespaces/ci/events";
    let event = json!({
        "metadata": {"generateName": "a-"},
        "eventTime": "2026-11-29T00:00:00.000000Z",
        "reportingController": "example.dev/pac",
        "reportingInstance": "pac-0",
        "action": "Start",
        "reason": "Started",
        "type": "Normal",
        "note": "started with token 41",
        "regarding": {"kind": "PipelineRun", "namespace": "ci", "name": "a"},
    });
    assert_eq!(client.post(path, event.clone()).await.code, 201);
    for (field, value) in [
        ("eventTime", Value::Null),
        ("reportingInstance", json!("")),
        ("type", json!("Error")),
        ("note", json!("x".repeat(1025))),
        ("regarding", json!({"namespace": "other"})),
    ] {
        let mut incomplete = event.clone();
        incomplete[field] = value;
        let refused = client.post(path, incomplete).await;
        assert_eq!(
            (refused.code, refused.at("/reason")),
            (422, "Invalid"),
            "{field}"
        );
    }
}
