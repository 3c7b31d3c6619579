//! Limits: none, a global one, and such as change while runs wait.

use std::time::Duration;

use pac_core::Limit;
use pac_kubernetes_mock::Ending;
use tokio::time::sleep;

use crate::setting::until;
use crate::world::{Place, World};

pub(crate) async fn without_a_limit_ten_runs_run_side_by_side_and_are_counted(place: Place) {
    let world = World::at(&place, &[("website", 0)], Ending::WhenTold).await;
    let working = world.controller().await;
    world.event("website", "pr", 10);
    until("ten run", || world.running("website").len() == 10).await;
    world.counted(&working, "website", 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_global_limit_holds_where_there_is_no_other() {
    let world = World::new(&[], Ending::WhenTold).await;
    world.add_repository("pipelines-as-code", "pipelines-as-code", 1);
    world.add_repository("ci", "website", 0);
    world.add_repository("ci", "docs", 3);
    let _working = world.controller().await;
    let website = world.event("website", "w", 4);
    let docs = world.event("docs", "d", 4);
    world.runs("website", &["w0"]).await;
    world.runs("docs", &["d0", "d1", "d2"]).await;
    world.finish(&website[0], true);
    world.finish(&docs[1], false);
    world.runs("website", &["w1"]).await;
    world.runs("docs", &["d0", "d2", "d3"]).await;
}

pub(crate) async fn a_limit_that_goes_starts_all_and_one_that_is_lowered_evicts_none(place: Place) {
    let world = World::at(&place, &[("website", 3)], Ending::WhenTold).await;
    let working = world.controller().await;
    let order = world.event("website", "pr", 6);
    world.runs("website", &["pr0", "pr1", "pr2"]).await;
    world.set_limit("website", Some(1));
    let (manager, repository) = (working.controller.manager(), world.repository("website"));
    while manager.status(&repository).await.unwrap().limit != Limit::new(1) {
        sleep(Duration::from_millis(10)).await;
    }
    world.finish(&order[0], true);
    world.runs("website", &["pr1", "pr2"]).await;
    world.finish(&order[1], true);
    world.runs("website", &["pr2"]).await;
    world.finish(&order[2], true);
    world.runs("website", &["pr3"]).await;
    world.set_limit("website", None);
    world.runs("website", &["pr3", "pr4", "pr5"]).await;
}
