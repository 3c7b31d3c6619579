//! The controller where the API server has no policies and asks the webhook.

use std::net::Ipv4Addr;
use std::time::Duration;

use pac_kubernetes::install::{Admission, ClusterAccess, Install, InstallMode, apply};
use pac_kubernetes::webhook::{WebhookOptions, WebhookServer};
use pac_kubernetes_mock::{ApiServer, Deployments, Ending, PacController, PacWatcher, Tekton};
use pac_pipelines::{Mode, vocabulary};
use serde_json::{Value, json};

use crate::common::{repository, server};
use crate::peaks::Peaks;
use crate::setting::{RUN, RUNS, Working, ended, has_slot, in_order, store, templates, until};

/// A server of the webhook that the API server asks from now on.
async fn webhook(server: &ApiServer, mode: InstallMode) -> WebhookServer {
    let access = ClusterAccess::at(server.url()).unwrap();
    let install = Install::default()
        .with_admission(Admission::Webhook)
        .with_mode(mode);
    let _deployments = Deployments::start(server);
    apply(&access, &install, &mut |_, _| {}).await.unwrap();
    let options = WebhookOptions::default()
        .with_address((Ipv4Addr::LOCALHOST, 0).into())
        .with_look_interval(Duration::from_millis(50));
    let webhook = WebhookServer::start(&access, &options).await.unwrap();
    server.serve_service(
        &install.namespace,
        Install::WEBHOOK,
        Some(webhook.address()),
    );
    let configuration = || {
        let name = Install::WEBHOOK_CONFIGURATION;
        let all = server.handle();
        all.get("mutatingwebhookconfigurations", "", name).unwrap()
    };
    until("the API server trusts the webhook", || {
        let bundle = &configuration()["webhooks"][0]["clientConfig"]["caBundle"];
        bundle.is_string()
    })
    .await;
    webhook
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_whose_orders_the_webhook_moves_start_in_their_order_and_never_overlap() {
    let (server, objects) = server().await;
    let _webhook = webhook(&server, InstallMode::Takeover).await;
    objects
        .create("repositories", repository("website", 1))
        .unwrap();
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(RUN));
    let _watcher = PacWatcher::start(&server);
    let peaks = Peaks::new(&objects, "ci");
    let store = store();
    let _working = Working::start(&server, &store, Mode::Takeover).await;
    let pac = PacController::new(&server);
    let order = pac.event("ci", "website", &templates(0..6, "pr")).unwrap();
    let tokens = ended(&objects, "ci", 6).await;
    assert_eq!(in_order(&tokens), order);
    assert_eq!(peaks.of("website"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_the_webhook_holds_at_their_creation_start_within_the_limit() {
    let (server, objects) = server().await;
    let _webhook = webhook(&server, InstallMode::Gate).await;
    for (name, annotations) in [
        ("website", json!({vocabulary::LIMIT: "2"})),
        ("docs", json!({})),
    ] {
        let mut gated = repository(name, 1);
        gated["spec"]["concurrency_limit"] = Value::Null;
        gated["metadata"]["annotations"] = annotations;
        objects.create("repositories", gated).unwrap();
    }
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(RUN));
    let _watcher = PacWatcher::start(&server);
    let peaks = Peaks::new(&objects, "ci");
    let store = store();
    let _working = Working::start(&server, &store, Mode::Gate).await;
    let pac = PacController::new(&server);
    pac.event("ci", "website", &templates(0..6, "w")).unwrap();
    pac.event("ci", "docs", &templates(0..3, "d")).unwrap();
    let tokens = ended(&objects, "ci", 9).await;
    let held: Vec<&String> = tokens.keys().collect();
    assert_eq!(held, ["w0", "w1", "w2", "w3", "w4", "w5"]);
    assert!(peaks.of("website") <= 2, "{}", peaks.of("website"));
}

/// In the lane of each branch, whatever made them: of Namespaces that bear the label.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_a_labelled_namespace_are_held_and_start_by_its_lanes() {
    let (server, objects) = server().await;
    let _webhook = webhook(&server, InstallMode::Gate).await;
    objects.create_namespace("other").unwrap();
    let lanes = json!({"metadata": {
        "labels": {vocabulary::HOLD_RUNS: "true"},
        "annotations": {vocabulary::LANE_LABELS: "branch", vocabulary::LANE_LIMIT: "1"},
    }});
    objects.merge("namespaces", "", "ci", lanes).unwrap();
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let store = store();
    let _working = Working::start(&server, &store, Mode::Gate).await;
    let create = |namespace: &str, name: &str, branch: &str| {
        let labels = json!({"branch": branch});
        let run = json!({
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"pipelineSpec": {"tasks": []}},
        });
        objects.create(RUNS, run).unwrap()
    };
    for (name, branch) in [("m1", "main"), ("n1", "next")] {
        assert_eq!(
            create("ci", name, branch)["spec"]["status"],
            "PipelineRunPending"
        );
        until("it runs", || {
            has_slot(&objects.get(RUNS, "ci", name).unwrap())
        })
        .await;
    }
    let held = create("ci", "m2", "main");
    let annotations = &held["metadata"]["annotations"];
    assert_eq!(annotations[vocabulary::HELD], "true");
    assert!(has_slot(&create("other", "a", "main")), "it is not held");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!has_slot(&objects.get(RUNS, "ci", "m2").unwrap()));
    tekton.finish("ci", "m1", true).unwrap();
    until("the next of its branch runs", || {
        has_slot(&objects.get(RUNS, "ci", "m2").unwrap())
    })
    .await;
}
