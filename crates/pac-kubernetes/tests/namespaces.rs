//! Namespaces, over HTTP: what a cluster tells of them, and what an examination finds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::{cluster, next, options, server};
use pac_kubernetes::KubernetesOptions;
use pac_kubernetes::install::{
    Admission, CheckOptions, CheckResult, CheckStep, ClusterAccess, Install, InstallMode, check,
};
use pac_kubernetes_mock::{ApiServer, Handle, Requests, Verb};
use pac_pipelines::vocabulary::{HOLD_RUNS, LANE, LANE_LABELS, LANE_LIMIT, LIMIT};
use pac_pipelines::{Cluster, ClusterEvent};
use serde_json::{Value, json};

fn annotate(objects: &Handle, annotations: &Value) {
    let patch = json!({"metadata": {"annotations": annotations}});
    objects.merge("namespaces", "", "ci", patch).unwrap();
}

fn with_lanes() -> KubernetesOptions {
    let options = options().with_run_selector(KubernetesOptions::ALL_RUNS);
    options.with_lanes(true)
}

#[tokio::test]
async fn namespaces_are_listed_and_followed_where_there_may_be_lanes() {
    let (server, objects) = server().await;
    objects.create_namespace("other").unwrap();
    annotate(&objects, &json!({LIMIT: "2", "x/y": "z"}));
    let lists = || Requests::any().verb(Verb::List).resource("namespaces");

    let without = cluster(&server, options()).await;
    assert_eq!(without.list_namespaces().await.unwrap(), None);
    assert_eq!(server.count(&lists()), 0);

    let only = cluster(&server, with_lanes().with_namespace("ci")).await;
    let listing = only.list_namespaces().await.unwrap().unwrap();
    assert_eq!(listing.items.len(), 1);
    assert_eq!(listing.items[0].name, "ci");
    assert_eq!(listing.items[0].annotations.len(), 1);
    let excluding = with_lanes().with_excluded_namespace("other");
    let excluding = cluster(&server, excluding).await;
    let listing = excluding.list_namespaces().await.unwrap().unwrap();
    assert!(listing.items.iter().all(|view| view.name != "other"));

    let all = cluster(&server, with_lanes()).await;
    let mut watch = all.watch().await.unwrap();
    let before = server.count(&lists());
    let listing = all.list_namespaces().await.unwrap().unwrap();
    assert!(listing.items.iter().any(|view| view.name == "other"));
    assert_eq!(
        server.count(&lists()),
        before,
        "from what the watch has seen"
    );
    annotate(&objects, &json!({LIMIT: "3"}));
    let applied = loop {
        if let ClusterEvent::NamespaceApplied(view) = next(&mut watch).await {
            break view;
        }
    };
    assert_eq!(applied.annotations[LIMIT], "3");
    objects.delete("namespaces", "", "other").unwrap();
    loop {
        if let ClusterEvent::NamespaceDeleted(view) = next(&mut watch).await {
            assert_eq!(view.name, "other");
            break;
        }
    }
}

/// Those that lanes may depend on, in a cluster that is followed for them.
#[tokio::test]
async fn a_run_keeps_its_other_labels_and_short_annotations_for_lanes_alone() {
    let (server, objects) = server().await;
    let mut run = common::held("a");
    run["metadata"]["annotations"]["x/long"] = "x".repeat(257).into();
    objects.create("pipelineruns", run).unwrap();
    let with = cluster(&server, with_lanes()).await;
    let listing = with.list_runs().await.unwrap();
    let run = &listing.items[0];
    assert_eq!(run.other_labels["x/y"], "z");
    assert_eq!(run.other_annotations.keys().collect::<Vec<_>>(), ["x/y"]);
    let without = cluster(&server, options()).await;
    let listing = without.list_runs().await.unwrap();
    assert!(listing.items[0].other_labels.is_empty());
    assert!(listing.items[0].other_annotations.is_empty());
}

/// What the step says.
async fn examined(server: &ApiServer, mode: InstallMode) -> String {
    examined_of(server, &Install::default().with_mode(mode)).await
}

async fn examined_of(server: &ApiServer, install: &Install) -> String {
    let access = ClusterAccess::at(server.url()).unwrap();
    let judge = |_| Ok(String::new());
    let results = check(&access, install, &CheckOptions::default(), &judge).await;
    let mut results = results.into_iter();
    let (_, result) = results
        .find(|(step, _)| *step == CheckStep::Namespaces)
        .unwrap();
    match result {
        CheckResult::Ok(detail) => format!("ok: {detail}"),
        CheckResult::Skipped(why) => format!("skipped: {why}"),
        CheckResult::Failed(error) => format!("failed: {error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_examination_names_what_namespaces_say_wrongly() {
    let (server, objects) = server().await;
    let examined = |mode| examined(&server, mode);
    let skipped = examined(InstallMode::Takeover).await;
    assert!(skipped.starts_with("skipped: "), "{skipped}");
    annotate(&objects, &json!({LANE_LABELS: "branch", LANE_LIMIT: "2"}));
    assert_eq!(
        examined(InstallMode::Gate).await,
        "ok: 1 Namespaces with a limit, 1 of them with lanes"
    );
    let told = examined(InstallMode::Takeover).await;
    assert!(told.contains("only the mode gate"), "{told}");

    let limited = json!({"metadata": {"name": "website", "namespace": "ci",
        "annotations": {LIMIT: "1"}}, "spec": {}});
    objects.create("repositories", limited).unwrap();
    let told = examined(InstallMode::Gate).await;
    assert!(told.contains("ci/website has a limit of its own"), "{told}");
    annotate(
        &objects,
        &json!({LANE_LABELS: null, LANE_LIMIT: null, LIMIT: "1"}),
    );
    assert!(examined(InstallMode::Gate).await.starts_with("ok: "));
    let lane = json!({"metadata": {"name": "lane.main", "namespace": "ci"}, "spec": {}});
    objects.create("repositories", lane).unwrap();
    let told = examined(InstallMode::Gate).await;
    assert!(
        told.contains("ci/lane.main has a name that begins"),
        "{told}"
    );

    annotate(&objects, &json!({LANE: "params.x", LIMIT: "0"}));
    let told = examined(InstallMode::Gate).await;
    assert!(told.contains("at least 1, not \"0\""), "{told}");
    assert!(
        told.contains("over object, which \"params\" is not"),
        "{told}"
    );
}

/// A webhook is selected by labels: without the label it is not asked about runs of the Namespace.
#[tokio::test]
async fn an_examination_names_namespaces_that_the_webhook_does_not_see() {
    let (server, objects) = server().await;
    let webhook = Install::default()
        .with_mode(InstallMode::Gate)
        .with_admission(Admission::Webhook);
    annotate(&objects, &json!({LIMIT: "2"}));
    let told = examined_of(&server, &webhook).await;
    let cure = format!("kubectl label namespace ci {HOLD_RUNS}=true");
    assert!(told.contains(&cure), "{told}");
    let label = json!({"metadata": {"labels": {HOLD_RUNS: "true"}}});
    objects.merge("namespaces", "", "ci", label).unwrap();
    assert_eq!(
        examined_of(&server, &webhook).await,
        "ok: 1 Namespaces with a limit, 0 of them with lanes"
    );
}
