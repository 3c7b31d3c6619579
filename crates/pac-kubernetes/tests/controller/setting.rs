//! A server, a store, and controllers beside the stand-ins for Pipelines-as-Code and Tekton.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pac_core::driver::Driver;
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_kubernetes::KubernetesOptions;
use pac_kubernetes_mock::{
    ApiServer, Effect, Ending, Handle, PacController, PacWatcher, Policy, Tekton, Template,
};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::{ControllerOptions, Mode, PipelinesController, vocabulary};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::common::{self, LONG, cluster, repository};

pub(crate) const RUNS: &str = "pipelineruns";

/// How long a run runs.
pub(crate) const RUN: Duration = Duration::from_millis(60);

pub(crate) fn store() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}

/// A controller that works until it is dropped.
pub(crate) struct Working {
    pub(crate) controller: PipelinesController,
    task: JoinHandle<()>,
}

impl Working {
    pub(crate) async fn start(server: &ApiServer, store: &Arc<dyn Driver>, mode: Mode) -> Self {
        Self::start_with(server, store, mode, ManagerOptions::default()).await
    }

    pub(crate) async fn start_with(
        server: &ApiServer,
        store: &Arc<dyn Driver>,
        mode: Mode,
        options: ManagerOptions,
    ) -> Self {
        let manager = ConcurrencyManager::open(Arc::clone(store), options);
        // As `pac controller` follows the cluster in each mode.
        let follows = match mode {
            Mode::Gate => common::options()
                .with_run_selector(KubernetesOptions::ALL_RUNS)
                .with_lanes(true),
            _ => common::options(),
        };
        let cluster = Arc::new(cluster(server, follows).await);
        let options = ControllerOptions::default()
            .with_mode(mode)
            .with_recovery_interval(Duration::from_millis(500))
            .with_order_wait(Duration::from_secs(2));
        let controller = PipelinesController::new(manager.await.unwrap(), cluster, options);
        let running = controller.clone();
        let task = tokio::spawn(async move { running.run().await.unwrap() });
        Self { controller, task }
    }

    /// Ends its work and its session, as an orderly end does.
    pub(crate) async fn end(self) {
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
pub(crate) fn take_over(server: &ApiServer, objects: &Handle) {
    let order = vocabulary::OUR_EXECUTION_ORDER.to_owned();
    server.recognise(Policy::new(
        "takeover",
        "takeover",
        Effect::Takeover { order },
    ));
    install(objects, "takeover");
}

pub(crate) fn install(objects: &Handle, name: &str) {
    let policy = json!({"metadata": {"name": name}, "spec": {}});
    objects.create("mutatingadmissionpolicies", policy).unwrap();
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    objects
        .create("mutatingadmissionpolicybindings", binding)
        .unwrap();
}

/// Looks at the runs all the time: how many of each Repository ran at once at most.
pub(crate) struct Peaks {
    peaks: Arc<Mutex<BTreeMap<String, usize>>>,
    looks: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Peaks {
    pub(crate) fn start(objects: &Handle) -> Self {
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
    pub(crate) fn of(&self, repository: &str) -> usize {
        assert!(
            self.looks.load(Ordering::Relaxed) > 50,
            "it has looked too seldom"
        );
        let peaks = self.peaks.lock().unwrap();
        peaks.get(repository).copied().unwrap_or_default()
    }
}

impl Peaks {
    /// Looks no more: with very many runs it would take most of the time.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Peaks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a run runs, or was started and Tekton has not seen it yet.
pub(crate) fn has_slot(run: &Value) -> bool {
    !is_done(run)
        && run["spec"]["status"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
}

pub(crate) fn is_done(run: &Value) -> bool {
    let conditions = run["status"]["conditions"].as_array();
    let condition = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Succeeded"));
    condition.is_some_and(|condition| condition["status"] != "Unknown")
}

pub(crate) fn repository_of(run: &Value) -> String {
    let name = run["metadata"]["annotations"][vocabulary::REPOSITORY].as_str();
    name.unwrap_or_default().to_owned()
}

/// Waits until this many runs have ended, and returns the tokens of all runs by name.
pub(crate) async fn ended(objects: &Handle, runs: usize) -> BTreeMap<String, u64> {
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

pub(crate) fn templates(names: impl Iterator<Item = usize>, prefix: &str) -> Vec<Template> {
    names
        .map(|at| Template::exact(&format!("{prefix}{at}")))
        .collect()
}

/// A cluster with the takeover policy, Tekton, both parts of Pipelines-as-Code, and a store.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) objects: Handle,
    pub(crate) store: Arc<dyn Driver>,
    pub(crate) tekton: Tekton,
    pub(crate) peaks: Peaks,
    pac: PacController,
    /// Pipelines-as-Code's watcher; `None` once a test does without it.
    pub(crate) watcher: Option<PacWatcher>,
}

impl World {
    /// With Repositories of these limits; 0 is none.
    pub(crate) async fn new(repositories: &[(&str, i64)], ending: Ending) -> Self {
        let (server, objects) = common::server().await;
        take_over(&server, &objects);
        let world = Self {
            tekton: Tekton::start(&server, ending),
            peaks: Peaks::start(&objects),
            pac: PacController::new(&server),
            watcher: Some(PacWatcher::start(&server)),
            store: store(),
            server,
            objects,
        };
        for (name, limit) in repositories {
            world.add_repository("ci", name, *limit);
        }
        world
    }

    pub(crate) fn add_repository(&self, namespace: &str, name: &str, limit: i64) {
        let mut new = repository(name, limit);
        new["metadata"]["namespace"] = namespace.into();
        if limit == 0 {
            new["spec"]["concurrency_limit"] = Value::Null;
        }
        self.objects.create_namespace(namespace).unwrap();
        self.objects.create("repositories", new).unwrap();
    }

    pub(crate) fn set_limit(&self, name: &str, limit: Option<i64>) {
        let patch = json!({"spec": {"concurrency_limit": limit}});
        self.objects
            .merge("repositories", "ci", name, patch)
            .unwrap();
    }

    pub(crate) async fn controller(&self) -> Working {
        Working::start(&self.server, &self.store, Mode::Takeover).await
    }

    /// An event whose runs are the prefix with the numbers from 0; their names in their order.
    pub(crate) fn event(&self, repository: &str, prefix: &str, runs: usize) -> Vec<String> {
        let templates = templates(0..runs, prefix);
        self.pac.event("ci", repository, &templates).unwrap()
    }

    pub(crate) async fn ended(&self, runs: usize) -> BTreeMap<String, u64> {
        ended(&self.objects, runs).await
    }

    pub(crate) fn run(&self, name: &str) -> Value {
        self.objects.get(RUNS, "ci", name).unwrap()
    }

    /// The runs of a Repository that Tekton runs, in the order of their tokens.
    pub(crate) fn running(&self, repository: &str) -> Vec<String> {
        let all = self.objects.list(RUNS, "ci", "").unwrap_or_default();
        let mut running: Vec<_> = all
            .iter()
            .filter(|run| run["status"]["startTime"].is_string() && !is_done(run))
            .filter(|run| repository_of(run) == repository)
            .map(|run| (token(run), name(run)))
            .collect();
        running.sort();
        running.into_iter().map(|(_, name)| name).collect()
    }

    /// Waits until just these runs of a Repository run.
    pub(crate) async fn runs(&self, repository: &str, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let begun = Instant::now();
        loop {
            let mut running = self.running(repository);
            running.sort_unstable();
            if running == expected {
                return;
            }
            assert!(
                begun.elapsed() < LONG,
                "{running:?} run, not {expected:?}: {:#?}",
                self.objects.list(RUNS, "ci", "").unwrap_or_default()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "this does not come: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn name(run: &Value) -> String {
    run["metadata"]["name"].as_str().unwrap().to_owned()
}

/// The token that a run was started with; `None` if it was not started by a controller.
pub(crate) fn token(run: &Value) -> Option<u64> {
    let token = run["metadata"]["annotations"][vocabulary::TOKEN].as_str()?;
    token.parse().ok()
}

/// The runs of one Repository in the order of their tokens.
pub(crate) fn in_order(tokens: &BTreeMap<String, u64>) -> Vec<String> {
    let by_token: BTreeMap<u64, &String> =
        tokens.iter().map(|(name, token)| (*token, name)).collect();
    by_token.into_values().cloned().collect()
}
