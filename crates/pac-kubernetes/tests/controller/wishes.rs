//! What annotations ask for beyond a slot, on a Repository and on its runs.

use pac_core::Limit;
use pac_kubernetes::{ReportOptions, Reporter};
use pac_kubernetes_mock::{Ending, Handle, Tekton};
use pac_pipelines::{Mode, vocabulary};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::common::{self, held};
use crate::setting::{LOOK_AGAIN, RUNS, Working, has_slot, is_done, store, token, until};
use crate::world::{Place, World};

/// A run of the Pipeline `unit` for pull request 7, which cancels what is in progress.
fn pushed(mut run: Value) -> Value {
    let annotations = &mut run["metadata"]["annotations"];
    annotations[vocabulary::ORIGINAL_NAME] = "unit".into();
    annotations[vocabulary::PULL_REQUEST] = "7".into();
    annotations[vocabulary::SOURCE_BRANCH] = "fix".into();
    annotations[vocabulary::CANCEL_IN_PROGRESS] = "true".into();
    run
}

/// Creates a run as an event of its own.
fn create(world: &World, name: &str, annotations: &[(&str, &str)], change: fn(Value) -> Value) {
    let mut run = change(world.held(name));
    let order = format!("{}/{name}", world.namespace);
    run["metadata"]["annotations"][vocabulary::OUR_EXECUTION_ORDER] = order.into();
    for (annotation, value) in annotations {
        run["metadata"]["annotations"][*annotation] = (*value).into();
    }
    world.objects.create(RUNS, run).unwrap();
}

fn annotate(world: &World, repository: &str, annotation: &str, value: Option<&str>) {
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    let objects = &world.objects;
    objects
        .merge("repositories", &world.namespace, repository, patch)
        .unwrap();
}

fn status_of(run: &Value) -> &str {
    run["spec"]["status"].as_str().unwrap_or_default()
}

/// It was cancelled while it was held back: none of its tasks has run.
fn ended_unstarted(run: &Value) {
    assert!(is_done(run), "{run:#}");
    assert_eq!((status_of(run), token(run)), ("Cancelled", None), "{run:#}");
}

/// Waits until an event about a run with this reason is there; its note.
async fn noted(objects: &Handle, namespace: &str, run: &str, reason: &str) -> String {
    let note = || {
        let events = objects.list("events", namespace, "").unwrap_or_default();
        let event = events
            .into_iter()
            .find(|event| event["regarding"]["name"] == run && event["reason"] == reason)?;
        Some(event["note"].as_str()?.to_owned())
    };
    until(&format!("{reason} of {run}"), || note().is_some()).await;
    note().unwrap()
}

/// Events of a controller until the end of the test.
async fn reports(world: &World, working: &Working) {
    let reporter = Reporter::new(&world.cluster().await, ReportOptions::default());
    let controller = working.controller.clone();
    tokio::spawn(async move { reporter.run(&controller).await });
    // It hears what happens from now on.
    sleep(2 * LOOK_AGAIN).await;
}

/// What Pipelines-as-Code refuses together with a limit.
pub(crate) async fn cancel_in_progress_works_with_a_limit(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    let working = world.controller().await;
    reports(&world, &working).await;
    create(&world, "p1", &[], pushed);
    world.runs("website", &["p1"]).await;
    create(&world, "other", &[], |run| run);
    world.queued(&working, "website", 1).await;
    create(&world, "p2", &[], pushed);
    // It runs its finally tasks, and the next starts when they have ended.
    until("p1 is cancelled", || {
        status_of(&world.run("p1")) == "CancelledRunFinally"
    })
    .await;
    world.runs("website", &["other"]).await;
    assert!(is_done(&world.run("p1")));
    world.queued(&working, "website", 1).await;
    create(&world, "p3", &[], pushed);
    until("p2 has ended", || is_done(&world.run("p2"))).await;
    ended_unstarted(&world.run("p2"));
    let note = noted(&world.objects, &world.namespace, "p2", "Superseded").await;
    assert!(note.contains("group pull-request 7 website/unit"), "{note}");
    noted(&world.objects, &world.namespace, "p1", "AskedToEnd").await;
    world.finish("other", true);
    world.runs("website", &["p3"]).await;
    assert!(world.peaks.of("website") <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_in_progress_works_in_the_mode_gate() {
    let (server, objects) = common::server().await;
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let website = json!({
        "metadata": {"name": "website", "namespace": "ci", "annotations": {vocabulary::LIMIT: "1"}},
        "spec": {"url": "https://example.org/website"},
    });
    objects.create("repositories", website).unwrap();
    let working = Working::start(&server, &store(), Mode::Gate).await;
    let create = |name: &str| {
        let mut run = pushed(held(name));
        run["metadata"]["annotations"][vocabulary::HELD] = "true".into();
        objects.create(RUNS, run).unwrap();
    };
    let get = |name: &str| objects.get(RUNS, "ci", name).unwrap();
    let mut other = held("other");
    other["metadata"]["annotations"][vocabulary::HELD] = "true".into();
    objects.create(RUNS, other).unwrap();
    until("it runs", || has_slot(&get("other"))).await;
    create("p1");
    let manager = working.controller.manager();
    let repository = "ci/website".parse().unwrap();
    while manager.status(&repository).await.unwrap().queued.len() != 1 {
        sleep(LOOK_AGAIN).await;
    }
    create("p2");
    until("p1 has ended", || is_done(&get("p1"))).await;
    ended_unstarted(&get("p1"));
    tekton.finish("ci", "other", true).unwrap();
    until("p2 runs", || has_slot(&get("p2"))).await;
    // As Pipelines-as-Code does it by itself in this mode, at the same time.
    create("p3");
    let cancel = json!({"spec": {"status": "CancelledRunFinally"}});
    objects.merge(RUNS, "ci", "p2", cancel).unwrap();
    until("p3 runs", || has_slot(&get("p3"))).await;
    assert!(is_done(&get("p2")));
}

pub(crate) async fn a_full_queue_refuses_a_run_and_says_why(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    annotate(&world, "website", vocabulary::MAX_QUEUED, Some("1"));
    let working = world.controller().await;
    reports(&world, &working).await;
    world.event("website", "pr", 3);
    world.runs("website", &["pr0"]).await;
    until("pr2 has ended", || is_done(&world.run("pr2"))).await;
    ended_unstarted(&world.run("pr2"));
    let note = noted(&world.objects, &world.namespace, "pr2", "QueueFull").await;
    assert!(
        note.contains("as may: 1") && note.contains(vocabulary::MAX_QUEUED),
        "{note}"
    );
    world.finish("pr0", true);
    world.runs("website", &["pr1"]).await;
}

pub(crate) async fn a_paused_repository_starts_nothing_until_the_annotation_goes(place: Place) {
    let world = World::at(&place, &[("website", 2)], Ending::WhenTold).await;
    let working = world.controller().await;
    reports(&world, &working).await;
    world.event("website", "first", 1);
    world.runs("website", &["first0"]).await;
    annotate(
        &world,
        "website",
        vocabulary::PAUSE,
        Some("the registry moves"),
    );
    let (manager, repository) = (working.controller.manager(), world.repository("website"));
    while manager.status(&repository).await.unwrap().pause.is_none() {
        sleep(LOOK_AGAIN).await;
    }
    world.event("website", "pr", 2);
    let note = noted(&world.objects, &world.namespace, "pr0", "Queued").await;
    assert!(note.ends_with("the registry moves"), "{note}");
    world.runs("website", &["first0"]).await;
    annotate(&world, "website", vocabulary::PAUSE, None);
    world.runs("website", &["first0", "pr0"]).await;
}

pub(crate) async fn a_weighted_run_takes_its_slots_in_one_step(place: Place) {
    let world = World::at(&place, &[("website", 2)], Ending::WhenTold).await;
    let working = world.controller().await;
    reports(&world, &working).await;
    create(&world, "light", &[], |run| run);
    world.runs("website", &["light"]).await;
    create(&world, "heavy", &[(vocabulary::WEIGHT, "2")], |run| run);
    world.queued(&working, "website", 1).await;
    create(&world, "beyond", &[(vocabulary::WEIGHT, "3")], |run| run);
    let note = noted(&world.objects, &world.namespace, "beyond", "NotQueued").await;
    assert!(
        note.contains("must be at most 2") && note.contains("raise the limit"),
        "{note}"
    );
    world.runs("website", &["light"]).await;
    world.finish("light", true);
    world.runs("website", &["heavy"]).await;
    assert_eq!(status_of(&world.run("beyond")), "PipelineRunPending");
    world.set_limit("website", Some(5));
    world.runs("website", &["heavy", "beyond"]).await;
    let status = working
        .controller
        .manager()
        .status(&world.repository("website"))
        .await;
    assert_eq!(status.as_ref().unwrap().slots_taken, 5);
    assert_eq!(status.unwrap().limit, Limit::new(5));
}

pub(crate) async fn a_run_that_waits_for_too_long_is_cancelled_and_told_so(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    let working = world.controller().await;
    reports(&world, &working).await;
    create(&world, "first", &[], |run| run);
    world.runs("website", &["first"]).await;
    create(&world, "late", &[(vocabulary::MAX_WAIT, "1s")], |run| run);
    create(&world, "patient", &[(vocabulary::MAX_WAIT, "1d")], |run| {
        run
    });
    let note = noted(&world.objects, &world.namespace, "late", "TimedOut").await;
    assert!(note.contains(vocabulary::MAX_WAIT), "{note}");
    until("it has ended", || is_done(&world.run("late"))).await;
    ended_unstarted(&world.run("late"));
    let note = noted(
        &world.objects,
        &world.namespace,
        "patient",
        "InvalidAnnotation",
    )
    .await;
    assert!(note.contains("not \"1d\"; it counts as absent"), "{note}");
    world.finish("first", true);
    world.runs("website", &["patient"]).await;
}
