//! Runs that are not the controller's to start, and runs that others start or delete.

use std::time::Duration;

use pac_kubernetes_mock::Ending;
use pac_pipelines::vocabulary;
use serde_json::json;
use tokio::time::sleep;

use crate::setting::{RUN, RUNS, in_order, until};
use crate::world::{Place, World};

pub(crate) async fn runs_of_users_and_of_kueue_stay_as_they_are(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::SucceedAfter(RUN)).await;
    let _working = world.controller().await;
    let mut of_its_user = world.held("of-its-user");
    of_its_user["metadata"]["labels"] = json!({});
    of_its_user["metadata"]["annotations"] = json!({vocabulary::REPOSITORY: "website"});
    let mut of_kueue = world.held("of-kueue");
    of_kueue["metadata"]["labels"][vocabulary::KUEUE_QUEUE] = "q".into();
    let order = json!(format!("{}/of-kueue", world.namespace));
    of_kueue["metadata"]["annotations"][vocabulary::OUR_EXECUTION_ORDER] = order;
    for run in [of_its_user, of_kueue] {
        world.objects.create(RUNS, run).unwrap();
    }
    let order = world.event("website", "pr", 3);
    assert_eq!(in_order(&world.ended(3).await), order);
    sleep(Duration::from_millis(200)).await;
    for run in ["of-its-user", "of-kueue"] {
        assert_eq!(world.run(run)["spec"]["status"], "PipelineRunPending");
    }
}

pub(crate) async fn a_run_that_is_deleted_or_cancelled_while_it_waits_lets_the_next_one_pass(
    place: Place,
) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    let _working = world.controller().await;
    world.event("website", "pr", 4);
    world.runs("website", &["pr0"]).await;
    world.delete("pr1");
    let graceful = json!({"spec": {"status": "CancelledRunFinally"}});
    world.merge("pr2", graceful);
    world.finish("pr0", true);
    world.runs("website", &["pr3"]).await;
    // Its finalizer is gone by then.
    until("it is gone", || {
        world.objects.get(RUNS, &world.namespace, "pr1").is_err()
    })
    .await;
}

pub(crate) async fn a_run_that_others_start_counts_beyond_the_limit(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    let working = world.controller().await;
    world.event("website", "pr", 4);
    world.runs("website", &["pr0"]).await;
    let start = json!({"spec": {"status": null}});
    world.merge("pr2", start);
    world.runs("website", &["pr0", "pr2"]).await;
    world.counted(&working, "website", 2).await;
    world.finish("pr0", true);
    sleep(Duration::from_millis(300)).await;
    world.runs("website", &["pr2"]).await;
    world.finish("pr2", true);
    world.runs("website", &["pr1"]).await;
}

pub(crate) async fn two_repositories_of_one_namespace_never_mix(place: Place) {
    let repositories = [("website", 1), ("docs", 2)];
    let world = World::at(&place, &repositories, Ending::SucceedAfter(RUN)).await;
    let first = world.controller().await;
    let website = world.event("website", "w", 4);
    let docs = world.event("docs", "d", 6);
    world.ended(2).await;
    first.end().await;
    let _second = world.controller().await;
    let tokens = world.ended(10).await;
    assert_eq!(tokens.len(), website.len() + docs.len());
    assert!(world.peaks.of("website") <= 1 && world.peaks.of("docs") <= 2);
}
