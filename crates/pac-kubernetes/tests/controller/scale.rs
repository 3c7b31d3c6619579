//! Many runs: what is asked of the server, and how often.

use std::time::Duration;

use pac_conformance::faults::Faults;
use pac_kubernetes_mock::{Ending, Requests};
use pac_pipelines::Mode;
use tokio::time::sleep;

use crate::setting::{Working, World, in_order, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_runs_that_wait_or_run_cost_no_request() {
    let mut world = World::new(&[], Ending::WhenTold).await;
    world.watcher = None;
    world.peaks.stop();
    for at in 0..300 {
        let repository = format!("r{at}");
        world.add_repository("ci", &repository, 1);
        let runs = if at < 100 { 4 } else { 3 };
        world.event(&repository, &format!("r{at}-"), runs);
    }
    let working = world.controller().await;
    let starts = || world.server.count(&Requests::writes());
    until("one of each runs", || starts() == 300).await;
    assert_eq!(working.controller.known_runs(), 1_000);
    until("it is idle", || working.controller.is_idle()).await;
    world.server.forget_requests();
    sleep(Duration::from_millis(1_000)).await;
    assert_eq!(world.server.requests(&Requests::any()), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_admitted_in_a_few_commits_and_starts_in_its_order() {
    let mut world = World::new(&[("website", 40)], Ending::WhenTold).await;
    world.watcher = None;
    world.peaks.stop();
    let order = world.event("website", "pr", 500);
    let faults = Faults::none();
    let store = faults.over(&world.store);
    let working = Working::start(&world.server, &store, Mode::Takeover).await;
    until("forty run", || world.running("website").len() == 40).await;
    let repository = "ci/website".parse().unwrap();
    let commits = faults.traffic(&repository).commits;
    assert!(commits < 500 / 32 + 20, "{commits}");
    assert_eq!(world.running("website"), order[..40]);
    let manager = working.controller.manager();
    let status = manager.status(&repository).await.unwrap();
    let waiting: Vec<_> = status.queued.iter().map(|run| run.run.name()).collect();
    assert_eq!(waiting, order[40..]);
    for run in &order[..5] {
        world.tekton.finish("ci", run, true).unwrap();
    }
    until("further ones run", || {
        let running = world.running("website");
        running.len() == 40 && running == order[5..45]
    })
    .await;
    let tokens = world.ended(5).await;
    assert_eq!(in_order(&tokens), order[..45]);
}
