//! Many runs: what is asked of the server and of the store, and how often.

use std::time::Duration;

use pac_conformance::faults::Faults;
use pac_core::driver::Descriptor;
use pac_core::manager::ManagerOptions;
use pac_kubernetes_mock::{Ending, Requests};
use tokio::time::sleep;

use crate::common::LONG;
use crate::setting::{controller_options, in_order, until};
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_runs_that_wait_or_run_cost_no_request() {
    let mut world = World::new(&[], Ending::WhenTold).await;
    world.watcher = None;
    for at in 0..300 {
        let repository = format!("r{at}");
        world.add_repository("ci", &repository, 1);
        let runs = if at < 100 { 4 } else { 3 };
        world.event(&repository, &format!("r{at}-"), runs);
    }
    let working = world.controller().await;
    let starts = || world.server().count(&Requests::writes());
    until("one of each runs", || starts() == 300).await;
    assert_eq!(working.controller.known_runs(), 1_000);
    until("it is idle", || working.controller.is_idle()).await;
    world.server().forget_requests();
    sleep(Duration::from_millis(1_000)).await;
    assert_eq!(world.server().requests(&Requests::any()), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_admitted_in_one_commit_for_each_event_and_starts_in_its_order() {
    assert_eq!(commits_of_a_burst(|store| store).await, [1, 1]);
}

/// As with etcd's smallest transactions, which have room for eight entries: new runs may be half of
/// them, since as many may start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_takes_as_few_commits_as_the_store_has_room_for() {
    let commits = commits_of_a_burst(|store| store.with_batches_of(1, 8)).await;
    assert_eq!(commits, [500 / 4, 20 / 4]);
}

/// An event of 500 runs in a Repository that runs 40 at once, and one of 20 runs after it: the commits
/// that each takes, starts included. Checks the order of all.
async fn commits_of_a_burst(describe: fn(Descriptor) -> Descriptor) -> [u64; 2] {
    let mut world = World::new(&[("website", 40)], Ending::WhenTold).await;
    world.watcher = None;
    let faults = Faults::none();
    faults.describe(describe);
    let store = faults.over(&world.store);
    // However long it takes to make an event, its runs wait for their order.
    let options = controller_options().with_order_wait(10 * LONG);
    let manager = ManagerOptions::default();
    let working = world.controller_with(&store, options, manager).await;
    let repository = world.repository("website");
    let commits = || faults.traffic(&repository).commits;
    let rests = || working.controller.has_listed() && working.controller.is_idle();
    // From the first run on the store knows the limit, which can take a commit of its own.
    let mut order = world.event("website", "first", 1);
    world.runs("website", &["first0"]).await;
    world.finish("first0", true);
    world.counted(&working, "website", 0).await;
    until("it rests", rests).await;

    let before = commits();
    order.extend(world.event("website", "pr", 500));
    world.queued(&working, "website", 460).await;
    until("forty run", || world.running("website").len() == 40).await;
    until("it rests", rests).await;
    let first = commits() - before;
    assert_eq!(world.running("website"), order[1..41]);
    order.extend(world.event("website", "second", 20));
    world.queued(&working, "website", 480).await;
    until("it rests", rests).await;
    let second = commits() - before - first;
    assert_eq!(world.running("website"), order[1..41]);
    let status = working.controller.manager().status(&repository).await;
    let waiting = status.unwrap().queued;
    let waiting: Vec<_> = waiting.iter().map(|run| run.run.name()).collect();
    assert_eq!(waiting, order[41..]);

    // A run that ends and the one that starts for it are one commit.
    let before = commits();
    for run in &order[1..6] {
        world.finish(run, true);
    }
    until("further ones run", || {
        let running = world.running("website");
        running.len() == 40 && running == order[6..46]
    })
    .await;
    assert!(commits() - before <= 5);
    let tokens = world.ended(6).await;
    assert_eq!(in_order(&tokens), order[..46]);
    [first, second]
}
