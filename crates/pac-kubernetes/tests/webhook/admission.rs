//! The API server asks the webhook about runs that are created and changed.

use pac_kubernetes::install::InstallMode;
use pac_kubernetes_mock::{Fault, Requests, Verb};
use pac_pipelines::vocabulary::{
    CANCELLED_RUN_FINALLY, EXECUTION_ORDER, HELD, LIMIT, MANAGED_BY, OUR_EXECUTION_ORDER,
    PAC_MANAGER, PENDING, REPOSITORY,
};
use serde_json::{Value, json};

use crate::setting::{RUNS, World, options};

fn run(name: &str, annotations: &Value, status: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "ci", "name": name, "labels": {MANAGED_BY: PAC_MANAGER},
            "annotations": annotations,
        },
        "spec": {"status": status},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_a_run_lands_as_ours_and_without_the_webhook_stays() {
    let world = World::new(InstallMode::Takeover).await;
    let objects = world.objects();
    let webhook = world.start(&options()).await;
    world.trusted().await;
    objects
        .create(RUNS, run("a", &json!({REPOSITORY: "website"}), PENDING))
        .unwrap();
    let order = json!({"metadata": {"annotations": {EXECUTION_ORDER: "ci/a"}}});
    let after = objects.merge(RUNS, "ci", "a", order.clone()).unwrap();
    let moved = json!({REPOSITORY: "website", OUR_EXECUTION_ORDER: "ci/a"});
    assert_eq!(after["metadata"]["annotations"], moved);
    // A held run that is cancelled gracefully runs nothing.
    let cancelled = json!({"spec": {"status": CANCELLED_RUN_FINALLY}});
    let after = objects.merge(RUNS, "ci", "a", cancelled).unwrap();
    assert_eq!(after["spec"]["status"], "Cancelled");

    // Its failure is passed over: the queue of Pipelines-as-Code then acts by itself.
    drop(webhook);
    objects
        .create(RUNS, run("b", &json!({REPOSITORY: "website"}), PENDING))
        .unwrap();
    let after = objects.merge(RUNS, "ci", "b", order).unwrap();
    assert_eq!(after["metadata"]["annotations"][EXECUTION_ORDER], "ci/a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_holds_runs_of_limited_repositories_and_refuses_what_it_cannot_know() {
    let world = World::new(InstallMode::Gate).await;
    world.repository("website", &json!({LIMIT: "1"}));
    world.repository("docs", &json!({}));
    let objects = world.objects();
    let webhook = world.start(&options()).await;
    world.trusted().await;
    let create = |name: &str, repository: &str, status: &str| {
        objects.create(RUNS, run(name, &json!({REPOSITORY: repository}), status))
    };
    let held = create("a", "website", "").unwrap();
    assert_eq!(held["spec"]["status"], PENDING);
    assert_eq!(held["metadata"]["annotations"][HELD], "true");
    for (name, repository, status) in [
        ("b", "docs", ""),
        ("c", "absent", ""),
        ("d", "website", PENDING),
    ] {
        let alone = create(name, repository, status).unwrap();
        assert_eq!(alone["spec"]["status"], status, "{name}");
        assert_eq!(alone["metadata"]["annotations"].get(HELD), None, "{name}");
    }
    // A limit that was set a moment ago counts.
    let limited = json!({"metadata": {"annotations": {LIMIT: "2"}}});
    objects
        .merge("repositories", "ci", "docs", limited)
        .unwrap();
    assert_eq!(create("e", "docs", "").unwrap()["spec"]["status"], PENDING);
    // The start of a held run is no creation.
    let started = objects.merge(RUNS, "ci", "a", json!({"spec": {"status": ""}}));
    assert_eq!(started.unwrap()["spec"]["status"], "");

    let reads = Requests::any().verb(Verb::Get).resource("repositories");
    world
        .server
        .faults()
        .inject(reads, 1, Fault::unavailable(1));
    let refused = create("f", "website", "").unwrap_err();
    assert_eq!(refused.code, 503, "{refused:?}");
    assert!(
        refused.message.contains("denied the request: rule gate"),
        "{refused:?}"
    );
    assert!(refused.message.contains("ci/website"), "{refused:?}");
    drop(webhook);
    let refused = create("g", "website", "").unwrap_err();
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (500, "InternalError")
    );
    assert!(
        refused.message.contains("failed calling webhook"),
        "{refused:?}"
    );
    assert_eq!(objects.list(RUNS, "ci", "").unwrap().len(), 5);
}

/// As with the policies, those namespaces are left alone; and a dry run is judged like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_installed_is_applied_again_and_goes_on() {
    let mut world = World::new(InstallMode::Takeover).await;
    let objects = world.objects();
    let _webhook = world.start(&options()).await;
    let before = world.trusted().await;
    let certificate = world.secret()["data"]["tls.crt"].clone();
    world.install = world.install.clone().with_excluded_namespace("sandbox");
    pac_kubernetes::install::apply(&world.access, &world.install, &mut |_, _| {})
        .await
        .unwrap();
    // What was applied has no certificate: that of the webhook stays.
    assert_eq!(world.secret()["data"]["tls.crt"], certificate);
    assert_eq!(world.trusted().await, before);
    objects.create_namespace("sandbox").unwrap();
    let order = json!({EXECUTION_ORDER: "x/y"});
    for (namespace, kept) in [("ci", false), ("sandbox", true)] {
        let mut run = run("a", &order, PENDING);
        run["metadata"]["namespace"] = json!(namespace);
        let created = objects.create(RUNS, run).unwrap();
        let annotations = &created["metadata"]["annotations"];
        assert_eq!(
            annotations.get(EXECUTION_ORDER).is_some(),
            kept,
            "{namespace}"
        );
    }
}
