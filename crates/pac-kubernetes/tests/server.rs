//! The contract of a cluster, over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{cluster, ended, held, next, options, repository, server, short, until};
use pac_core::{FencingToken, Limit, PipelineRunKey, Uid};
use pac_kubernetes_mock::{Fault, Gone, Handle, Requests, Verb};
use pac_pipelines::model::SpecStatus;
use pac_pipelines::{
    Cluster, ClusterErrorKind, EndOutcome, HoldOutcome, StartOutcome, UnreadableObject, vocabulary,
};
use serde_json::json;

const RUNS: &str = "pipelineruns";

fn key(name: &str) -> PipelineRunKey {
    PipelineRunKey::new("ci", name).unwrap()
}

/// Creates a run that is held back.
fn create(objects: &Handle, name: &str) -> Uid {
    let made = objects.create(RUNS, held(name)).unwrap();
    made["metadata"]["uid"].as_str().unwrap().parse().unwrap()
}

fn lists() -> Requests {
    Requests::any().verb(Verb::List)
}

fn gets() -> Requests {
    Requests::any().verb(Verb::Get)
}

#[tokio::test]
async fn lists_come_in_pages_and_from_an_open_watch_without_a_request() {
    let (server, objects) = server().await;
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        create(&objects, name);
    }
    objects
        .create("repositories", repository("website", 2))
        .unwrap();
    let foreign = json!({"metadata": {"name": "x", "namespace": "ci"}, "spec": {}});
    objects.create(RUNS, foreign).unwrap();
    let cluster = cluster(&server, options().with_page_size(3)).await;

    let listing = cluster.list_runs().await.unwrap();
    assert_eq!(listing.items.len(), 7);
    assert_eq!(listing.version.unwrap().get(), objects.revision());
    assert_eq!(server.count(&lists()), 3);
    let run = &listing.items[0];
    assert_eq!(run.spec_status, SpecStatus::Pending);
    assert!(run.created.is_some() && !run.labels.contains_key("x/y"));
    let listing = cluster.list_repositories().await.unwrap();
    assert_eq!(listing.items[0].limit, Some(Limit::new(2)));

    let mut watch = cluster.watch().await.unwrap();
    server.forget_requests();
    assert_eq!(cluster.list_runs().await.unwrap().items.len(), 7);
    create(&objects, "h");
    assert_eq!(short(&next(&mut watch).await), "run h applied");
    let listing = cluster.list_runs().await.unwrap();
    assert_eq!(listing.items.len(), 8);
    assert_eq!(listing.version.unwrap().get(), objects.revision());
    assert_eq!(cluster.list_repositories().await.unwrap().items.len(), 1);
    assert_eq!(server.count(&lists()), 0);
    // A cache that nobody keeps answers nothing.
    drop(watch);
    assert_eq!(cluster.list_runs().await.unwrap().items.len(), 8);
    assert!(server.count(&lists()) > 0);
}

#[tokio::test]
async fn what_happens_is_told_and_a_deletion_is_made_sure_of() {
    let (server, objects) = server().await;
    let cluster = cluster(&server, options()).await;
    let mut watch = cluster.watch().await.unwrap();
    objects
        .create("repositories", repository("website", 2))
        .unwrap();
    assert_eq!(short(&next(&mut watch).await), "repository website applied");
    create(&objects, "a");
    assert_eq!(short(&next(&mut watch).await), "run a applied");
    server.forget_requests();
    objects.delete(RUNS, "ci", "a").unwrap();
    assert_eq!(short(&next(&mut watch).await), "run a deleted");
    assert_eq!(server.count(&gets()), 1);
    assert!(cluster.list_runs().await.unwrap().items.is_empty());
    objects.delete("repositories", "ci", "website").unwrap();
    assert_eq!(short(&next(&mut watch).await), "repository website deleted");
}

#[tokio::test]
async fn a_run_that_only_left_the_selection_is_not_gone() {
    let (server, objects) = server().await;
    let cluster = cluster(&server, options()).await;
    let mut watch = cluster.watch().await.unwrap();
    for name in ["done", "runs"] {
        create(&objects, name);
        until(&mut watch, &format!("run {name} applied")).await;
    }
    objects
        .merge_status(RUNS, "ci", "done", ended("True"))
        .unwrap();
    until(&mut watch, "run done applied").await;
    server.forget_requests();
    let completed = || json!({"metadata": {"labels": {vocabulary::STATE: "completed"}}});
    objects.merge(RUNS, "ci", "done", completed()).unwrap();
    assert_eq!(short(&next(&mut watch).await), "run done applied");
    assert_eq!(server.count(&gets()), 0, "that it has ended was known");

    objects.merge(RUNS, "ci", "runs", completed()).unwrap();
    assert_eq!(short(&next(&mut watch).await), "run runs applied");
    assert_eq!(server.count(&gets()), 1);
    let listing = cluster.list_runs().await.unwrap();
    assert_eq!(listing.items.len(), 1, "it may still run");
    // Nothing tells of its end: it is read again.
    objects
        .merge_status(RUNS, "ci", "runs", ended("False"))
        .unwrap();
    let event = until(&mut watch, "run runs applied").await;
    assert!(matches!(event, pac_pipelines::ClusterEvent::RunApplied(run) if run.is_done()));
    assert!(cluster.list_runs().await.unwrap().items.is_empty());
}

#[tokio::test]
async fn nothing_is_lost_where_a_watch_is_cut_or_its_history_is_gone() {
    let (server, objects) = server().await;
    create(&objects, "a");
    let gone = create(&objects, "b");
    let cluster = cluster(&server, options()).await;
    let mut watch = cluster.watch().await.unwrap();
    create(&objects, "c");
    until(&mut watch, "run c applied").await;
    assert!(server.cut_watches() > 0);
    create(&objects, "d");
    until(&mut watch, "run d applied").await;

    let fault = Fault::Gone(Gone::Event);
    let watches = Requests::any().verb(Verb::Watch).resource(RUNS);
    server.faults().inject(watches, 1, fault);
    assert!(server.cut_watches() > 0);
    objects.delete(RUNS, "ci", "b").unwrap();
    create(&objects, "e");
    until(&mut watch, "missed").await;
    let listing = cluster.list_runs().await.unwrap();
    let names: Vec<_> = listing.items.iter().map(|run| run.key.name()).collect();
    assert!(names.contains(&"e"), "{names:?}");
    // What the new list does not have is made sure of.
    let event = until(&mut watch, "run b deleted").await;
    assert!(matches!(event, pac_pipelines::ClusterEvent::RunDeleted(run) if run.uid == gone));
    assert_eq!(cluster.list_runs().await.unwrap().items.len(), 4);
}

#[tokio::test]
async fn a_start_is_done_once_whatever_the_server_answers() {
    let (server, objects) = server().await;
    let cluster = cluster(&server, options()).await;
    let token = FencingToken::new(41);
    let uid = create(&objects, "a");
    let other: Uid = "other".parse().unwrap();
    let start = async |name: &str, uid: &Uid| cluster.start(&key(name), uid, token).await;
    assert_eq!(start("a", &other).await, StartOutcome::Gone);
    assert_eq!(start("absent", &uid).await, StartOutcome::Gone);
    assert_eq!(start("a", &uid).await, StartOutcome::Started);
    assert_eq!(start("a", &uid).await, StartOutcome::AlreadyStarted);
    let run = cluster.read(&key("a")).await.unwrap().unwrap();
    assert_eq!(
        (run.spec_status.clone(), run.token()),
        (SpecStatus::None, Some(token))
    );
    let kept = objects.get(RUNS, "ci", "a").unwrap();
    assert_eq!(kept["metadata"]["annotations"]["x/y"], "z");

    let patches = || Requests::any().verb(Verb::Patch).resource(RUNS);
    for (name, fault) in [
        ("b", Fault::done_then_504()),
        ("c", Fault::done_then_500()),
        ("d", Fault::done_then_dropped()),
    ] {
        let uid = create(&objects, name);
        server.faults().inject(patches(), 1, fault);
        server.forget_requests();
        assert_eq!(
            start(name, &uid).await,
            StartOutcome::AlreadyStarted,
            "{name}"
        );
        assert_eq!(server.count(&patches()), 1, "{name}: nothing is sent twice");
    }
    let uid = create(&objects, "e");
    server.faults().inject(patches(), 1, Fault::unavailable(1));
    assert_eq!(start("e", &uid).await, StartOutcome::Unknown);
    server
        .faults()
        .inject(patches(), 1, Fault::too_many_requests(1));
    assert_eq!(start("e", &uid).await, StartOutcome::StillPending);
    server.faults().inject(patches(), 1, Fault::forbidden("no"));
    assert_eq!(start("e", &uid).await, StartOutcome::StillPending);

    let bare = json!({"metadata": {"name": "f", "namespace": "ci"},
        "spec": {"status": "PipelineRunPending"}});
    let bare = objects.create(RUNS, bare).unwrap();
    let uid: Uid = bare["metadata"]["uid"].as_str().unwrap().parse().unwrap();
    assert_eq!(start("f", &uid).await, StartOutcome::Started);
    let run = cluster.read(&key("f")).await.unwrap().unwrap();
    assert_eq!(
        (run.spec_status.clone(), run.token()),
        (SpecStatus::None, Some(token))
    );

    let uid = create(&objects, "g");
    let graceful = json!({"spec": {"status": "CancelledRunFinally"}});
    objects.merge(RUNS, "ci", "g", graceful).unwrap();
    assert_eq!(start("g", &uid).await, StartOutcome::Cancelled);
}

#[tokio::test]
async fn a_server_that_is_away_leaves_it_open_and_comes_back() {
    let (server, objects) = server().await;
    let cluster = cluster(&server, options()).await;
    let uid = create(&objects, "a");
    let mut watch = cluster.watch().await.unwrap();
    server.leave();
    let token = FencingToken::new(1);
    assert_eq!(
        cluster.start(&key("a"), &uid, token).await,
        StartOutcome::Unknown
    );
    let kind = |error: pac_pipelines::ClusterError| error.kind();
    let read = cluster.read(&key("a")).await.map_err(kind);
    assert_eq!(read, Err(ClusterErrorKind::Unavailable));
    let marks = [(vocabulary::HELD, Some("true"))];
    let annotated = cluster
        .annotate(&key("a"), &uid, &marks)
        .await
        .map_err(kind);
    assert_eq!(annotated, Err(ClusterErrorKind::Indeterminate));
    // The watch has to notice before the cache is known to be out of date.
    let noticed = tokio::time::timeout(Duration::from_secs(2), watch.next()).await;
    assert!(noticed.is_err(), "{noticed:?}");
    let listed = cluster.list_runs().await.map_err(kind);
    assert_eq!(listed.map(|_| ()), Err(ClusterErrorKind::Unavailable));
    server.come_back();
    assert_eq!(cluster.list_runs().await.unwrap().items.len(), 1);
    create(&objects, "b");
    until(&mut watch, "run b applied").await;
}

#[tokio::test]
async fn holding_ending_and_annotating_hold_for_one_uid() {
    let (server, objects) = server().await;
    let cluster = cluster(&server, options()).await;
    let uid = create(&objects, "a");
    let other: Uid = "other".parse().unwrap();
    let run = key("a");
    let marks = [
        (vocabulary::STATE, None),
        (vocabulary::EXECUTION_ORDER, Some("ci/a")),
    ];
    assert_eq!(cluster.annotate(&run, &other, &marks).await.unwrap(), None);
    assert_eq!(
        cluster.annotate(&key("x"), &uid, &marks).await.unwrap(),
        None
    );
    let view = cluster.annotate(&run, &uid, &marks).await.unwrap().unwrap();
    assert_eq!(view.state(), None);
    assert_eq!(view.order().unwrap().to_string(), "ci/a");

    assert_eq!(cluster.hold(&run, &other).await.unwrap(), HoldOutcome::Gone);
    assert_eq!(cluster.hold(&run, &uid).await.unwrap(), HoldOutcome::Held);
    assert!(cluster.read(&run).await.unwrap().unwrap().is_held_for_us());

    let stop = SpecStatus::StoppedRunFinally;
    let end = async |uid: &Uid, form: &SpecStatus| {
        cluster.request_end(&run, uid, form.clone()).await.unwrap()
    };
    assert_eq!(end(&other, &stop).await, EndOutcome::Gone);
    assert_eq!(end(&uid, &stop).await, EndOutcome::Requested);
    assert_eq!(
        cluster.hold(&run, &uid).await.unwrap(),
        HoldOutcome::TooLate
    );
    assert_eq!(
        end(&uid, &SpecStatus::Cancelled).await,
        EndOutcome::Requested
    );
    assert_eq!(
        objects.get(RUNS, "ci", "a").unwrap()["spec"]["status"],
        "Cancelled"
    );
    objects
        .merge_status(RUNS, "ci", "a", ended("False"))
        .unwrap();
    assert_eq!(end(&uid, &stop).await, EndOutcome::Done);
}

#[tokio::test]
async fn an_object_that_cannot_be_understood_hides_no_other_one() {
    let (server, objects) = server().await;
    objects
        .create("repositories", repository("bad", -1))
        .unwrap();
    objects
        .create("repositories", repository("good", 1))
        .unwrap();
    let mut strange = held("strange");
    strange["spec"]["status"] = json!({});
    objects.create(RUNS, strange).unwrap();
    create(&objects, "a");
    let cluster = cluster(&server, options()).await;
    let mut watch = cluster.watch().await.unwrap();
    let runs = cluster.list_runs().await.unwrap();
    assert_eq!((runs.items.len(), runs.unreadable.len()), (1, 1));
    assert_eq!(
        runs.unreadable[0].object,
        UnreadableObject::Run(key("strange"))
    );
    let repositories = cluster.list_repositories().await.unwrap();
    assert_eq!(
        (repositories.items.len(), repositories.unreadable.len()),
        (1, 1)
    );
    let negative = json!({"spec": {"concurrency_limit": -2}});
    objects
        .merge("repositories", "ci", "good", negative)
        .unwrap();
    let event = short(&next(&mut watch).await);
    assert!(event.starts_with("unreadable Repository"), "{event}");
}

#[tokio::test]
async fn one_namespace_can_be_followed_alone() {
    let (server, objects) = server().await;
    objects.create_namespace("other").unwrap();
    create(&objects, "a");
    let mut elsewhere = held("b");
    elsewhere["metadata"]["namespace"] = "other".into();
    objects.create(RUNS, elsewhere).unwrap();
    let cluster = cluster(&server, options().with_namespace("ci")).await;
    assert_eq!(cluster.list_runs().await.unwrap().items.len(), 1);
    let _watch = cluster.watch().await.unwrap();
    assert_eq!(cluster.list_runs().await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_watch_that_is_not_allowed_says_so() {
    let (server, _) = server().await;
    let lists = lists().resource(RUNS);
    server
        .faults()
        .inject(lists, 1, Fault::forbidden("no list for you"));
    let cluster = cluster(&server, options()).await;
    let error = cluster.watch().await.unwrap_err();
    assert_eq!(error.kind(), ClusterErrorKind::Refused);
    assert!(error.to_string().contains("no list for you"), "{error}");
}
