//! The objects that show queues.

use std::sync::Arc;
use std::time::Duration;

use pac_core::Limit;
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_core::protocol::RunRequest;
use pac_kubernetes::install::Install;
use pac_kubernetes::{ReportOptions, Reporter};
use pac_kubernetes_mock::{Ending, Fault, Handle, HoldPoint, Requests, Verb};
use pac_pipelines::{ControllerOptions, PipelinesController};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::setting::{RUN, Working, in_order, until};
use crate::world::World;

const QUEUES: &str = "concurrencyqueues";
const INTERVAL: Duration = Duration::from_millis(200);

/// Shows queues until it is dropped.
struct Showing(JoinHandle<()>);

impl Showing {
    async fn start(world: &World, working: &Working) -> Self {
        Self::of(world, &working.controller).await
    }

    async fn of(world: &World, controller: &PipelinesController) -> Self {
        let quick = ReportOptions::default()
            .with_events(false)
            .with_positions(false)
            .with_queues(true)
            .with_queues_per_second(500)
            .with_queue_interval(INTERVAL);
        let reporter = Reporter::new(&world.cluster().await, quick);
        let controller = controller.clone();
        Self(tokio::spawn(async move { reporter.run(&controller).await }))
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Puts the definition into the cluster, as it is installed.
fn define(objects: &Handle) {
    let manifests = Install::default().with_queues(true).manifests();
    let mut manifests = manifests.iter();
    let definition = manifests.find(|one| one.kind() == "CustomResourceDefinition");
    let definition = definition.unwrap().as_value().clone();
    objects
        .create("customresourcedefinitions", definition)
        .unwrap();
}

/// Limit, running and waiting; `None` where there is no object.
fn shown(world: &World, repository: &str) -> Option<[u64; 3]> {
    let queue = world.objects.get(QUEUES, "ci", repository).ok()?;
    let number = |field: &str| queue["status"][field].as_u64();
    Some([number("limit")?, number("running")?, number("waiting")?])
}

async fn shows(world: &World, repository: &str, expected: [u64; 3]) {
    let what = format!("{repository} shows {expected:?}");
    until(&what, || shown(world, repository) == Some(expected)).await;
}

fn writes() -> Requests {
    Requests::writes().resource(QUEUES)
}

/// Waits until each controller has looked again and nothing is under way.
async fn settle() {
    sleep(INTERVAL * 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_follows_each_queue_whatever_controller_works() {
    let world = World::new(&[("website", 1), ("idle", 3)], Ending::WhenTold).await;
    define(&world.objects);
    let (first, second) = (world.controller().await, world.controller().await);
    let _first = Showing::start(&world, &first).await;
    let _second = Showing::start(&world, &second).await;
    world.event("website", "pr", 3);
    shows(&world, "website", [1, 1, 2]).await;
    let queue = world.objects.get(QUEUES, "ci", "website").unwrap();
    let oldest = queue["status"]["oldestWaitingSince"].as_str().unwrap();
    assert!(oldest.ends_with('Z'), "{queue:#}");
    let owner = world.objects.get("repositories", "ci", "website").unwrap();
    assert_eq!(
        queue["metadata"]["ownerReferences"],
        json!([{"apiVersion": "pipelinesascode.tekton.dev/v1alpha1", "kind": "Repository",
            "name": "website", "uid": owner["metadata"]["uid"]}])
    );

    // What does not change is not written.
    settle().await;
    world.server().forget_requests();
    settle().await;
    assert_eq!(world.server().requests(&writes()), []);

    world.finish("pr0", true);
    shows(&world, "website", [1, 1, 1]).await;
    world.set_limit("website", Some(2));
    shows(&world, "website", [2, 2, 0]).await;
    for run in ["pr1", "pr2"] {
        world.finish(run, true);
    }
    shows(&world, "website", [2, 0, 0]).await;
    let queue = world.objects.get(QUEUES, "ci", "website").unwrap();
    assert_eq!(queue["status"]["oldestWaitingSince"], Value::Null);
    assert!(shown(&world, "idle").is_none_or(|shown| shown == [3, 0, 0]));
    settle().await;
    let of_all = Requests::any().resource(QUEUES);
    let reads = world.server().requests(&of_all);
    assert!(
        reads.iter().all(|request| request.verb == Verb::Patch),
        "nothing is read back: {reads:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_controllers_one_writes_what_has_changed() {
    let world = World::new(&[("website", 1)], Ending::WhenTold).await;
    define(&world.objects);
    let (first, second) = (world.controller().await, world.controller().await);
    let _first = Showing::start(&world, &first).await;
    let _second = Showing::start(&world, &second).await;
    world.event("website", "pr", 1);
    world.runs("website", &["pr0"]).await;
    world.finish("pr0", true);
    shows(&world, "website", [1, 0, 0]).await;
    settle().await;
    // Now it is idle, which both have written.
    world.event("website", "next", 1);
    shows(&world, "website", [1, 1, 0]).await;
    for limit in [5, 6] {
        settle().await;
        world.server().forget_requests();
        world.set_limit("website", Some(limit));
        let shown = [limit.unsigned_abs(), 1, 0];
        shows(&world, "website", shown).await;
        settle().await;
        assert_eq!(world.server().count(&writes()), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_stays_right_when_controllers_die_in_turn() {
    let world = World::new(&[("website", 2)], Ending::WhenTold).await;
    define(&world.objects);
    let first = world.controller().await;
    let showing = Showing::start(&world, &first).await;
    world.event("website", "pr", 4);
    shows(&world, "website", [2, 2, 2]).await;
    let second = world.controller().await;
    let _second = Showing::start(&world, &second).await;
    drop(showing);
    first.end().await;
    for run in ["pr0", "pr1"] {
        world.finish(run, true);
    }
    shows(&world, "website", [2, 2, 0]).await;
    for run in ["pr2", "pr3"] {
        world.finish(run, true);
    }
    shows(&world, "website", [2, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_fail_or_hang_hold_no_run_up_and_are_made_up_for() {
    let world = World::new(&[("website", 1)], Ending::SucceedAfter(RUN)).await;
    let working = world.controller().await;
    let _showing = Showing::start(&world, &working).await;
    // Without the definition, then refused, then one that hangs.
    let order = world.event("website", "pr", 4);
    assert_eq!(in_order(&world.ended(4).await), order);
    define(&world.objects);
    let forbidden = Fault::forbidden("concurrencyqueues is forbidden");
    let refused = world.server().faults().inject(writes(), 1, forbidden);
    let hold = world.server().faults().hold_at(HoldPoint::Before, writes());
    world.event("website", "late", 2);
    world.ended(6).await;
    hold.until_reached(1).await;
    hold.release();
    shows(&world, "website", [1, 0, 0]).await;
    assert_eq!(refused.hits(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queues_are_shown_with_one_write_each() {
    let mut world = World::new(&[], Ending::WhenTold).await;
    define(&world.objects);
    world.watcher = None;
    for at in 0..300 {
        let repository = format!("r{at}");
        world.add_repository("ci", &repository, 1);
        world.event(&repository, &format!("r{at}-"), 2);
    }
    let working = world.controller().await;
    until("all wait or run", || working.controller.is_idle()).await;
    let starts = || world.server().count(&Requests::writes());
    until("one of each runs", || starts() == 300).await;
    let _showing = Showing::start(&world, &working).await;
    let all = || (0..300).all(|at| shown(&world, &format!("r{at}")) == Some([1, 1, 1]));
    until("all are shown", all).await;
    settle().await;
    assert_eq!(world.server().count(&writes()), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_whose_repository_is_gone_is_not_made_anew() {
    let world = World::new(&[("website", 1)], Ending::WhenTold).await;
    define(&world.objects);
    let working = world.controller().await;
    let _showing = Showing::start(&world, &working).await;
    world.event("website", "pr", 2);
    shows(&world, "website", [1, 1, 1]).await;
    world
        .objects
        .delete("repositories", "ci", "website")
        .unwrap();
    let key = "ci/website".parse().unwrap();
    let is_gone = || working.controller.repository(&key).is_none();
    until("it is seen", is_gone).await;
    settle().await;
    // As the garbage collector does, by the owner reference.
    world.objects.delete(QUEUES, "ci", "website").unwrap();
    settle().await;
    assert_eq!(shown(&world, "website"), None);
    world.add_repository("ci", "website", 5);
    world.event("website", "new", 1);
    let by_the_new_one = || {
        let owner = world.objects.get("repositories", "ci", "website").unwrap();
        let queue = world.objects.get(QUEUES, "ci", "website");
        queue.is_ok_and(|queue| {
            queue["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
        })
    };
    until("it is shown again", by_the_new_one).await;
}

/// As `pac cleanup` does it: the Repository is there, and the store has nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_the_store_has_forgotten_is_shown_as_idle() {
    let world = World::new(&[("website", 1)], Ending::WhenTold).await;
    define(&world.objects);
    let manager = ConcurrencyManager::open(Arc::clone(&world.store), ManagerOptions::default());
    let manager = manager.await.unwrap();
    let cluster = Arc::new(world.cluster().await);
    // It is only called, and puts nothing back into the store.
    let controller =
        PipelinesController::new(manager.clone(), cluster, ControllerOptions::default());
    controller.recover().await.unwrap();
    let _showing = Showing::of(&world, &controller).await;
    let key = "ci/website".parse().unwrap();
    manager.set_limit(&key, Limit::new(1), None).await.unwrap();
    let request = RunRequest::ephemeral("ci/a".parse().unwrap(), "u".parse().unwrap());
    let _slot = manager.admit(&key, request).await.unwrap();
    shows(&world, "website", [1, 1, 0]).await;
    manager.remove_repository(&key).await.unwrap();
    let is_idle = || {
        let queue = world.objects.get(QUEUES, "ci", "website").unwrap();
        queue["status"] == json!({"running": 0, "waiting": 0})
    };
    until("nothing runs in it", is_idle).await;
    settle().await;
    assert!(is_idle());
}
