//! Whole flows, as users see them.

use std::collections::BTreeMap;
use std::time::Duration;

use pac_kubernetes_mock::{
    Ending, Fault, PacController, PacWatcher, Requests, Tekton, Template, Verb,
};
use pac_pipelines::{Mode, vocabulary};
use serde_json::json;
use tokio::time::sleep;

use crate::common::{self, LONG, repository, server};
use crate::setting::{Peaks, RUN, RUNS, Working, ended, store, take_over, templates};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_runs_with_limit_one_start_in_their_order_and_never_overlap() {
    let (server, objects) = server().await;
    take_over(&server, &objects);
    objects
        .create("repositories", repository("website", 1))
        .unwrap();
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(RUN));
    let _watcher = PacWatcher::start(&server);
    let peaks = Peaks::start(&objects);
    let store = store();
    let _working = Working::start(&server, &store, Mode::Takeover).await;
    let pac = PacController::new(&server);
    let order = pac.event("ci", "website", &templates(0..10, "pr")).unwrap();

    let tokens = ended(&objects, 10).await;
    assert_eq!(peaks.of("website"), 1);
    let by_token: BTreeMap<u64, &String> =
        tokens.iter().map(|(name, token)| (*token, name)).collect();
    let started: Vec<_> = by_token.into_values().cloned().collect();
    assert_eq!(started, order, "by their tokens, in the order of the event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_share_a_store_and_one_ends_in_the_middle() {
    let (server, objects) = server().await;
    take_over(&server, &objects);
    for (name, limit) in [("website", 2), ("docs", 1)] {
        objects
            .create("repositories", repository(name, limit))
            .unwrap();
    }
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(RUN));
    let _watcher = PacWatcher::start(&server);
    let peaks = Peaks::start(&objects);
    let store = store();
    let first = Working::start(&server, &store, Mode::Takeover).await;
    let _second = Working::start(&server, &store, Mode::Takeover).await;
    let pac = PacController::new(&server);
    pac.event("ci", "website", &templates(0..8, "w")).unwrap();
    pac.event("ci", "docs", &templates(0..6, "d")).unwrap();
    ended(&objects, 4).await;
    first.end().await;
    let tokens = ended(&objects, 14).await;
    assert_eq!(
        tokens.len(),
        14,
        "each was started with a token: {tokens:?}"
    );
    assert!(peaks.of("website") <= 2 && peaks.of("docs") <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_used_to_the_full_and_a_raised_one_at_once() {
    let (server, objects) = server().await;
    take_over(&server, &objects);
    objects
        .create("repositories", repository("website", 2))
        .unwrap();
    let tekton = Tekton::start(&server, Ending::WhenTold);
    let store = store();
    let _working = Working::start(&server, &store, Mode::Takeover).await;
    let pac = PacController::new(&server);
    let order = pac.event("ci", "website", &templates(0..5, "pr")).unwrap();
    let running = |expected: usize| {
        let (objects, order) = (&objects, &order);
        async move {
            let has_started = |name: &&String| {
                let run = objects.get(RUNS, "ci", name).unwrap();
                run["status"]["startTime"].is_string()
            };
            let begun = tokio::time::Instant::now();
            loop {
                let started: Vec<_> = order.iter().filter(has_started).collect();
                if started.len() == expected {
                    assert_eq!(started, order.iter().take(expected).collect::<Vec<_>>());
                    return;
                }
                assert!(started.len() < expected, "{started:?}");
                assert!(begun.elapsed() < LONG, "{started:?}");
                sleep(Duration::from_millis(5)).await;
            }
        }
    };
    running(2).await;
    sleep(Duration::from_millis(300)).await;
    running(2).await;
    let raised = json!({"spec": {"concurrency_limit": 4}});
    objects
        .merge("repositories", "ci", "website", raised)
        .unwrap();
    running(4).await;
    tekton.finish("ci", &order[0], true).unwrap();
    running(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_and_watches_that_are_cut_start_nothing_beyond_the_limit() {
    let (server, objects) = server().await;
    take_over(&server, &objects);
    objects
        .create("repositories", repository("website", 2))
        .unwrap();
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(RUN));
    let _watcher = PacWatcher::start(&server);
    let peaks = Peaks::start(&objects);
    let store = store();
    let _working = Working::start(&server, &store, Mode::Takeover).await;
    let patches = || Requests::any().verb(Verb::Patch).resource(RUNS);
    for fault in [
        Fault::done_then_504(),
        Fault::done_then_dropped(),
        Fault::unavailable(1),
    ] {
        server.faults().inject(patches(), 1, fault);
    }
    let pac = PacController::new(&server);
    pac.event("ci", "website", &templates(0..8, "w")).unwrap();
    ended(&objects, 2).await;
    let _ = server.cut_watches();
    let tokens = ended(&objects, 8).await;
    assert!(tokens.len() == 8 && peaks.of("website") <= 2, "{tokens:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_leaves_alone_what_is_not_its_own() {
    let (server, objects) = server().await;
    objects
        .create("repositories", repository("website", 5))
        .unwrap();
    let _tekton = Tekton::start(&server, Ending::SucceedAfter(RUN));
    let store = store();
    let writes = || Requests::writes().resource(RUNS);
    let waits = async |names: &[&str]| {
        sleep(Duration::from_secs(3)).await;
        for name in names {
            let run = objects.get(RUNS, "ci", name).unwrap();
            assert_eq!(run["spec"]["status"], "PipelineRunPending", "{name}");
        }
    };
    // Without the policy the order stays that of Pipelines-as-Code, whose queue starts the run.
    PacController::new(&server)
        .event("ci", "website", &[Template::exact("of-pac")])
        .unwrap();
    let mut gated = common::held("gated");
    gated["metadata"]["annotations"][vocabulary::HELD] = "true".into();
    gated["metadata"]["annotations"][vocabulary::EXECUTION_ORDER] = "ci/gated".into();
    objects.create(RUNS, gated).unwrap();

    let observing = Working::start(&server, &store, Mode::Observe).await;
    waits(&["of-pac", "gated"]).await;
    assert_eq!(observing.controller.known_runs(), 2);
    assert_eq!(server.count(&writes()), 0);
    observing.end().await;
    let taking_over = Working::start(&server, &store, Mode::Takeover).await;
    waits(&["of-pac", "gated"]).await;
    taking_over.end().await;
    let _gating = Working::start(&server, &store, Mode::Gate).await;
    let tokens = ended(&objects, 1).await;
    assert!(tokens.contains_key("gated"), "{tokens:?}");
    waits(&["of-pac"]).await;
}
