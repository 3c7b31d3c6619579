//! An installation with the webhook: examined, taken over from a busy queue, given back, removed.

use pac_kubernetes::install::{
    Admission, CheckOptions, CheckResult, CheckStep, ClusterAccess, FoundSettings, HandoverOptions,
    Install, InstallMode, ObjectOutcome, apply, check, offboard, onboard, remove,
};
use pac_kubernetes::webhook::WebhookServer;
use pac_kubernetes_mock::{ApiServer, Deployments, PacWatcher};
use pac_pipelines::vocabulary::{
    EXECUTION_ORDER, LIMIT, MANAGED_BY, OUR_EXECUTION_ORDER, PAC_MANAGER, PENDING, REPOSITORY,
    STATE,
};
use serde_json::{Value, json};

use crate::setting::{RUNS, World, options, until};

/// What a step says of an installation.
async fn step(access: &ClusterAccess, install: &Install, wanted: CheckStep) -> CheckResult {
    let judge = |_: FoundSettings| Ok("right".to_owned());
    let results = check(access, install, &CheckOptions::default(), &judge).await;
    let found = results.into_iter().find(|(step, _)| *step == wanted);
    found.unwrap().1
}

async fn failure(world: &World, install: &Install) -> String {
    match step(&world.access, install, CheckStep::Policies).await {
        CheckResult::Failed(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_found_right_once_it_is_trusted_and_ready_and_is_removed_as_a_whole() {
    let world = World::new(InstallMode::Gate).await;
    let (access, install) = (&world.access, &world.install);
    let served = step(access, install, CheckStep::PoliciesServed).await;
    assert!(matches!(served, CheckResult::Skipped(_)), "{served:?}");
    assert!(failure(&world, install).await.contains("no caBundle"));
    let _webhook = world.start(&options()).await;
    world.trusted().await;
    let why = failure(&world, install).await;
    assert!(why.contains("none of its replicas is ready"), "{why}");
    world.set_ready(2);
    let right = step(access, install, CheckStep::Policies).await;
    assert!(
        matches!(&right, CheckResult::Ok(said) if said.contains("2 of its")),
        "{right:?}"
    );

    // Anything else than what was asked for is named.
    for (other, said) in [
        (
            install.clone().with_excluded_namespace("x"),
            "namespaceSelector",
        ),
        (
            install.clone().with_mode(InstallMode::Observe),
            "is there, and the mode observe",
        ),
    ] {
        let why = failure(&world, &other).await;
        assert!(why.contains(said), "{why}");
    }
    let policies = install.clone().with_admission(Admission::Policy);
    apply(access, &policies, &mut |_, _| {}).await.unwrap();
    let why = failure(&world, &policies).await;
    assert!(why.contains("beside the policies"), "{why}");
    let why = failure(&world, install).await;
    assert!(why.contains("is not of the mode gate"), "{why}");

    // Of either kind all is removed, whichever is said to be installed.
    let mut removed = Vec::new();
    remove(access, &policies, false, &mut |object, outcome| {
        removed.push((object.to_owned(), outcome));
    })
    .await
    .unwrap();
    let gone = |(_, outcome): &&(String, ObjectOutcome)| *outcome == ObjectOutcome::Removed;
    let webhook = install.webhook();
    let expected = policies.manifests().len() + webhook.len();
    assert_eq!(removed.iter().filter(gone).count(), expected, "{removed:?}");
    for manifest in &webhook {
        let gone = removed
            .iter()
            .any(|(object, _)| *object == manifest.to_string());
        assert!(gone, "{manifest}");
    }
}

/// Until it can answer, it is not asked: a gate that does not answer has every new run refused. And it
/// is trusted with the first question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_is_refused_between_the_first_object_and_the_first_ready_replica() {
    let server = ApiServer::start().await;
    let install = Install::default()
        .with_admission(Admission::Webhook)
        .with_mode(InstallMode::Gate);
    let world = World {
        access: ClusterAccess::at(server.url()).unwrap(),
        server,
        install,
    };
    let objects = world.objects();
    objects.create_namespace("ci").unwrap();
    world.repository("website", &json!({LIMIT: "1"}));
    let create = |name: &str| {
        let run = json!({
            "metadata": {
                "namespace": "ci", "name": name, "annotations": {REPOSITORY: "website"},
            },
            "spec": {},
        });
        objects.create(RUNS, run)
    };
    let (access, install) = (world.access.clone(), world.install.clone());
    let applied =
        tokio::spawn(async move { apply(&access, &install, &mut |_, _| {}).await.unwrap() });
    let namespace = world.install.namespace.as_str();
    until("the Deployment", || {
        let deployment = objects.get("deployments", namespace, Install::WEBHOOK);
        deployment.is_ok()
    })
    .await;
    let webhook = world.start(&options()).await;
    until("a certificate", || webhook.has_certificate()).await;
    let name = Install::WEBHOOK_CONFIGURATION;
    let configuration = || objects.get("mutatingwebhookconfigurations", "", name);
    assert!(configuration().is_err(), "it is not asked");
    create("a").expect("it is not refused");
    world.set_ready(1);
    until("it is asked", || configuration().is_ok()).await;
    let held = create("b").expect("it is trusted");
    assert_eq!(held["spec"]["status"], PENDING);
    applied.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_missing_is_named() {
    let world = World::new(InstallMode::Takeover).await;
    let objects = world.objects();
    let namespace = world.install.namespace.as_str();
    objects
        .delete("services", namespace, Install::WEBHOOK)
        .unwrap();
    let why = failure(&world, &world.install).await;
    assert!(
        why.starts_with("Service pac-concurrency/pac-concurrency-webhook: is not there"),
        "{why}"
    );
    let name = Install::WEBHOOK_CONFIGURATION;
    objects
        .delete("mutatingwebhookconfigurations", "", name)
        .unwrap();
    world.set_ready(1);
    apply(&world.access, &world.install, &mut |_, _| {})
        .await
        .unwrap();
    assert!(
        failure(&world, &world.install)
            .await
            .contains("no caBundle")
    );
}

/// As with the policies: nothing moves before the webhook acts, and it is gone before anything is
/// given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_cluster_changes_hands_and_back() {
    let server = ApiServer::start().await;
    let world = World {
        access: ClusterAccess::at(server.url()).unwrap(),
        server,
        install: Install::default().with_admission(Admission::Webhook),
    };
    let objects = world.objects();
    let _deployments = Deployments::start(&world.server);
    objects.create_namespace("ci").unwrap();
    PacWatcher::deploy(&objects, 0).unwrap();
    world.repository("website", &json!({}));
    let waiting = json!({
        "metadata": {
            "namespace": "ci", "name": "a", "labels": {MANAGED_BY: PAC_MANAGER},
            "annotations": {REPOSITORY: "website", EXECUTION_ORDER: "ci/a", STATE: "queued"},
        },
        "spec": {"status": PENDING},
    });
    objects.create(RUNS, waiting).unwrap();
    let annotations = || {
        let run = objects.get(RUNS, "ci", "a").unwrap();
        run["metadata"]["annotations"].clone()
    };

    let apply = HandoverOptions::default().with_apply(true);
    let mut said = Vec::new();
    {
        // The Deployment of a real cluster would start it.
        let starts = async {
            let (namespace, name) = (world.install.namespace.clone(), Install::WEBHOOK_SECRET);
            until("the Secret", || {
                objects.get("secrets", &namespace, name).is_ok()
            })
            .await;
            world.start(&options()).await
        };
        let mut steps = |step: &str, _, detail: &str| said.push(format!("{step}: {detail}"));
        let onboarded = onboard(&world.access, &world.install, &apply, &mut steps);
        let (webhook, onboarded): (WebhookServer, _) = tokio::join!(starts, onboarded);
        onboarded.unwrap();
        assert_eq!(annotations()[OUR_EXECUTION_ORDER], "ci/a");
        assert_eq!(annotations().get(EXECUTION_ORDER), None);

        let steps = &mut |_: &str, _, _: &str| {};
        offboard(&world.access, &world.install, &apply, steps)
            .await
            .unwrap();
        drop(webhook);
    }
    let at = |text: &str| {
        said.iter()
            .position(|line| line.contains(text))
            .expect(text)
    };
    assert!(at("Namespace") < at("MutatingWebhookConfiguration"));
    assert!(at("they act, by a dry run in ci") < at("1 taken over"));
    assert!(at("1 taken over") < at("Deployment pac-concurrency/pac-concurrency created"));
    let configurations = objects
        .list("mutatingwebhookconfigurations", "", "")
        .unwrap();
    assert_eq!(configurations, [] as [Value; 0]);
    assert_eq!(annotations()[EXECUTION_ORDER], "ci/a");
    assert_eq!(annotations().get(OUR_EXECUTION_ORDER), None);
}
