//! The controller beside Pipelines-as-Code and Tekton: a store in memory, a cluster over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LONG, cluster, options, repository, server};
use pac_core::driver::Driver;
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_kubernetes_mock::{
    ApiServer, Effect, Ending, Fault, Handle, PacController, PacWatcher, Policy, Requests, Tekton,
    Template, Verb,
};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::{ControllerOptions, Mode, PipelinesController, vocabulary};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const RUNS: &str = "pipelineruns";

/// How long a run runs.
const RUN: Duration = Duration::from_millis(60);

fn store() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}

/// A controller that works until it is dropped.
struct Working {
    controller: PipelinesController,
    task: JoinHandle<()>,
}

impl Working {
    async fn start(server: &ApiServer, store: &Arc<dyn Driver>, mode: Mode) -> Self {
        let manager = ConcurrencyManager::open(Arc::clone(store), ManagerOptions::default());
        let cluster = Arc::new(cluster(server, options()).await);
        let options = ControllerOptions::default()
            .with_mode(mode)
            .with_order_wait(Duration::from_secs(2));
        let controller = PipelinesController::new(manager.await.unwrap(), cluster, options);
        let running = controller.clone();
        let task = tokio::spawn(async move { running.run().await.unwrap() });
        Self { controller, task }
    }

    /// Ends its work and its session, as an orderly end does.
    async fn end(self) {
        self.task.abort();
        self.controller.manager().close().await.unwrap();
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The policy that moves the execution order out of sight of Pipelines-as-Code's own queue.
fn take_over(server: &ApiServer, objects: &Handle) {
    let order = vocabulary::OUR_EXECUTION_ORDER.to_owned();
    server.recognise(Policy::new(
        "takeover",
        "takeover",
        Effect::Takeover { order },
    ));
    install(objects, "takeover");
}

fn install(objects: &Handle, name: &str) {
    let policy = json!({"metadata": {"name": name}, "spec": {}});
    objects.create("mutatingadmissionpolicies", policy).unwrap();
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    objects
        .create("mutatingadmissionpolicybindings", binding)
        .unwrap();
}

/// Looks at the runs all the time: how many of each Repository ran at once at most.
struct Peaks {
    peaks: Arc<Mutex<BTreeMap<String, usize>>>,
    looks: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Peaks {
    fn start(objects: &Handle) -> Self {
        let (peaks, looks) = (
            Arc::<Mutex<BTreeMap<_, _>>>::default(),
            Arc::<AtomicUsize>::default(),
        );
        let (objects, told, count) = (objects.clone(), Arc::clone(&peaks), Arc::clone(&looks));
        let task = tokio::spawn(async move {
            loop {
                let mut now: BTreeMap<String, usize> = BTreeMap::new();
                for run in objects.list(RUNS, "ci", "").unwrap_or_default() {
                    if has_slot(&run) {
                        *now.entry(repository_of(&run)).or_default() += 1;
                    }
                }
                for (repository, running) in now {
                    let mut peaks = told.lock().unwrap();
                    let peak = peaks.entry(repository).or_default();
                    *peak = running.max(*peak);
                }
                count.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
        });
        Self { peaks, looks, task }
    }

    /// How many ran at once at most. A busy machine may have kept it below the limit.
    fn of(&self, repository: &str) -> usize {
        assert!(
            self.looks.load(Ordering::Relaxed) > 50,
            "it has looked too seldom"
        );
        let peaks = self.peaks.lock().unwrap();
        peaks.get(repository).copied().unwrap_or_default()
    }
}

impl Drop for Peaks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a run runs, or was started and Tekton has not seen it yet.
fn has_slot(run: &Value) -> bool {
    !is_done(run)
        && run["spec"]["status"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
}

fn is_done(run: &Value) -> bool {
    let conditions = run["status"]["conditions"].as_array();
    let condition = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Succeeded"));
    condition.is_some_and(|condition| condition["status"] != "Unknown")
}

fn repository_of(run: &Value) -> String {
    let name = run["metadata"]["annotations"][vocabulary::REPOSITORY].as_str();
    name.unwrap_or_default().to_owned()
}

/// Waits until this many runs have ended, and returns the tokens of all runs by name.
async fn ended(objects: &Handle, runs: usize) -> BTreeMap<String, u64> {
    let all = timeout(LONG, async {
        loop {
            let all = objects.list(RUNS, "ci", "").unwrap_or_default();
            if all.iter().filter(|run| is_done(run)).count() >= runs {
                return all;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    let Ok(all) = all.await else {
        let left = objects.list(RUNS, "ci", "").unwrap();
        let left: Vec<_> = left.iter().filter(|run| !is_done(run)).collect();
        panic!("these runs do not end: {left:#?}");
    };
    let tokens = all.iter().filter_map(|run| {
        let token = run["metadata"]["annotations"][vocabulary::TOKEN].as_str()?;
        let name = run["metadata"]["name"].as_str()?;
        Some((name.to_owned(), token.parse().ok()?))
    });
    tokens.collect()
}

fn templates(names: impl Iterator<Item = usize>, prefix: &str) -> Vec<Template> {
    names
        .map(|at| Template::exact(&format!("{prefix}{at}")))
        .collect()
}

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
