//! Whole flows, as users see them.

use std::time::Duration;

use pac_conformance::faults::Faults;
use pac_core::manager::ManagerOptions;
use pac_kubernetes_mock::{Ending, Fault, PacController, Requests, Tekton, Template, Verb};
use pac_pipelines::{Mode, vocabulary};
use serde_json::json;
use tokio::time::sleep;

use crate::common::{self, LONG, repository, server};
use crate::setting::{RUN, RUNS, Working, controller_options, ended, in_order, store, until};
use crate::world::{Place, World};

pub(crate) async fn ten_runs_with_limit_one_start_in_their_order_and_never_overlap(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::SucceedAfter(RUN)).await;
    let _working = world.controller().await;
    let order = world.event("website", "pr", 10);
    let tokens = world.ended(10).await;
    assert_eq!(world.peaks.of("website"), 1);
    assert_eq!(
        in_order(&tokens),
        order,
        "by their tokens, in the order of the event"
    );
}

pub(crate) async fn two_controllers_share_a_store_and_one_ends_in_the_middle(place: Place) {
    let repositories = [("website", 2), ("docs", 1)];
    let world = World::at(&place, &repositories, Ending::SucceedAfter(RUN)).await;
    let (first, _second) = (world.controller().await, world.controller().await);
    world.event("website", "w", 8);
    world.event("docs", "d", 6);
    world.ended(4).await;
    first.end().await;
    let tokens = world.ended(14).await;
    assert_eq!(
        tokens.len(),
        14,
        "each was started with a token: {tokens:?}"
    );
    assert!(world.peaks.of("website") <= 2 && world.peaks.of("docs") <= 1);
}

pub(crate) async fn a_limit_is_used_to_the_full_and_a_raised_one_at_once(place: Place) {
    let world = World::at(&place, &[("website", 2)], Ending::WhenTold).await;
    let _working = world.controller().await;
    let order = world.event("website", "pr", 5);
    world.runs("website", &["pr0", "pr1"]).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(world.running("website"), order[..2]);
    world.set_limit("website", Some(4));
    world.runs("website", &["pr0", "pr1", "pr2", "pr3"]).await;
    world.finish(&order[0], true);
    world.runs("website", &["pr1", "pr2", "pr3", "pr4"]).await;
    assert!(world.peaks.of("website") <= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_and_watches_that_are_cut_start_nothing_beyond_the_limit() {
    let world = World::new(&[("website", 2)], Ending::SucceedAfter(RUN)).await;
    let _working = world.controller().await;
    let patches = || Requests::any().verb(Verb::Patch).resource(RUNS);
    for fault in [
        Fault::done_then_504(),
        Fault::done_then_dropped(),
        Fault::unavailable(1),
    ] {
        world.server().faults().inject(patches(), 1, fault);
    }
    world.event("website", "w", 8);
    world.ended(2).await;
    let _ = world.server().cut_watches();
    let tokens = world.ended(8).await;
    let peak = world.peaks.of("website");
    assert!(tokens.len() == 8 && peak <= 2, "{tokens:?}");
}

/// Pipelines-as-Code makes the runs of an event side by side: the last of its order may be seen first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_are_seen_while_the_store_is_read_have_their_place_in_the_order_of_their_event() {
    let world = World::new(&[("website", 1)], Ending::WhenTold).await;
    let faults = Faults::none();
    let store = faults.over(&world.store);
    // They wait for their order, however long that takes here.
    let options = controller_options().with_order_wait(LONG);
    let manager = ManagerOptions::default();
    let working = world.controller_with(&store, options, manager).await;
    let rests = || working.controller.has_listed() && working.controller.is_idle();
    until("it rests", rests).await;
    let repository = world.repository("website");
    let reads = || faults.traffic(&repository).loads;
    faults.hold();
    let before = reads();
    world.objects.create(RUNS, world.held("pr2")).unwrap();
    until("the store is asked about it", || reads() > before).await;
    for run in ["pr1", "pr0"] {
        world.objects.create(RUNS, world.held(run)).unwrap();
    }
    let order = json!({vocabulary::EXECUTION_ORDER: "ci/pr0,ci/pr1,ci/pr2"});
    for run in ["pr0", "pr1", "pr2"] {
        world.merge(run, json!({"metadata": {"annotations": order}}));
    }
    let key = "ci/pr2".parse().unwrap();
    let seen = || working.controller.seen(&key);
    until("its order is seen", || {
        seen().is_some_and(|run| run.has_order())
    })
    .await;
    faults.open();
    for run in ["pr0", "pr1", "pr2"] {
        world.runs("website", &[run]).await;
        world.finish(run, true);
    }
    assert_eq!(in_order(&world.ended(3).await), ["pr0", "pr1", "pr2"]);
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
    let tokens = ended(&objects, "ci", 1).await;
    assert!(tokens.contains_key("gated"), "{tokens:?}");
    waits(&["of-pac"]).await;
}
