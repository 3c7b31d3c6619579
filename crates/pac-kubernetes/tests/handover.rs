//! The queues of a busy cluster change hands, beside a stand-in for Pipelines-as-Code that behaves
//! as the real one was recorded: at no time do two runs of the Repository run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "common/pac.rs"]
mod pac;

use std::time::{Duration, Instant};

use pac_kubernetes::install::{
    CheckOptions, CheckResult, CheckStep, ClusterAccess, HandoverOptions, Install, check, offboard,
    onboard,
};
use pac_kubernetes_mock::{ApiServer, PacController, PacWatcher, Template};
use pac_pipelines::vocabulary::{PENDING, STATE, TOKEN};
use serde_json::{Value, json};

use pac::{PAC, WATCHER, server_with_pac};

/// A cluster with Pipelines-as-Code and one Repository `ci/website` with the limit 1.
struct World {
    server: ApiServer,
    access: ClusterAccess,
    install: Install,
    options: HandoverOptions,
}

impl World {
    async fn new() -> Self {
        let server = server_with_pac().await;
        Self {
            access: ClusterAccess::at(server.url()).unwrap(),
            server,
            install: Install::default(),
            options: HandoverOptions::default().with_apply(true),
        }
    }

    async fn onboard(&self) {
        let steps = &mut |_: &str, _, _: &str| {};
        let done = onboard(&self.access, &self.install, &self.options, steps).await;
        done.unwrap();
    }

    async fn offboard(&self) {
        let steps = &mut |_: &str, _, _: &str| {};
        let done = offboard(&self.access, &self.install, &self.options, steps).await;
        done.unwrap();
    }

    fn event(&self, names: &[&str]) {
        let templates: Vec<Template> = names.iter().map(|name| Template::exact(name)).collect();
        let controller = PacController::new(&self.server);
        controller.event("ci", "website", &templates).unwrap();
    }

    fn start_watcher(&self) -> PacWatcher {
        self.scale(1);
        PacWatcher::start(&self.server)
    }

    fn stop(&self, watcher: PacWatcher) {
        drop(watcher);
        self.scale(0);
    }

    fn scale(&self, replicas: u32) {
        let patch = json!({"spec": {"replicas": replicas}});
        self.server
            .handle()
            .merge("deployments", PAC, WATCHER, patch)
            .unwrap();
    }

    /// What the controller does: it starts a run with a token.
    fn start(&self, run: &str) {
        let patch = json!({
            "metadata": {"annotations": {TOKEN: "1"}}, "spec": {"status": null},
        });
        self.server
            .handle()
            .merge("pipelineruns", "ci", run, patch)
            .unwrap();
        self.condition(run, "Unknown", "Running");
    }

    fn condition(&self, run: &str, status: &str, reason: &str) {
        let condition = json!({"type": "Succeeded", "status": status, "reason": reason});
        let patch = json!({"status": {"conditions": [condition]}});
        self.server
            .handle()
            .merge_status("pipelineruns", "ci", run, patch)
            .unwrap();
    }

    fn run(&self, run: &str) -> Value {
        self.server.handle().get("pipelineruns", "ci", run).unwrap()
    }

    fn is_pending(&self, run: &str) -> bool {
        self.run(run)["spec"]["status"] == PENDING
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < Duration::from_secs(20), "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn has_state(&self, run: &str, state: &str) {
        let has = |world: &Self| world.run(run)["metadata"]["annotations"][STATE] == state;
        self.until(&format!("{run} is {state}"), has).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_while_the_queues_change_hands_and_back() {
    let world = World::new().await;
    let watcher = world.start_watcher();
    world.event(&["c", "d"]);
    world
        .until("c was started", |world| !world.is_pending("c"))
        .await;
    world.condition("c", "Unknown", "Running");
    world.has_state("c", "started").await;
    assert!(world.is_pending("d"));

    // On-boarded: the watcher, started again, leaves d alone, also when c has ended.
    world.stop(watcher);
    world.onboard().await;
    let watcher = world.start_watcher();
    world.condition("c", "True", "Succeeded");
    world.has_state("c", "completed").await;
    watcher.settled().await;
    assert!(world.is_pending("d"));

    // The controller starts d; e waits behind it.
    world.event(&["e"]);
    world.start("d");
    world.has_state("d", "started").await;
    assert!(world.is_pending("e"));

    // Off-boarded: the rebuild counts d, and e goes on after it.
    world.stop(watcher);
    world.offboard().await;
    let watcher = world.start_watcher();
    watcher.settled().await;
    assert!(world.is_pending("e"), "{}", watcher.queue());
    let queue = json!({"limit": 1, "running": ["ci/d"], "pending": ["ci/e"]});
    assert_eq!(watcher.queue()["ci/website"], queue);
    world.condition("d", "True", "Succeeded");
    world
        .until("e was started", |world| !world.is_pending("e"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_stays_pending_beside_the_watcher_and_goes_without_a_trace() {
    let world = World::new().await;
    world.scale(0);
    world.onboard().await;
    let _watcher = world.start_watcher();
    let options = CheckOptions::default()
        .with_canary("ci")
        .with_canary_time(Duration::from_millis(500));
    let judge = |_| Ok(String::new());
    let results = check(&world.access, &world.install, &options, &judge).await;
    let canary = results
        .into_iter()
        .find(|(step, _)| *step == CheckStep::Canary);
    let canary = canary.unwrap().1;
    assert!(matches!(canary, CheckResult::Ok(_)), "{canary:?}");
    let is_gone = |world: &World| {
        let runs = world.server.handle().list("pipelineruns", "", "").unwrap();
        runs.is_empty()
    };
    world.until("the canary is gone", is_gone).await;
}
