//! A server, a store, and controllers beside the stand-ins for Pipelines-as-Code and Tekton.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pac_core::driver::Driver;
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_kubernetes::{KubernetesCluster, KubernetesOptions};
use pac_kubernetes_mock::{ApiServer, Effect, Handle, Policy, Template};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::{ControllerOptions, Mode, PipelinesController, vocabulary};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::common::{self, LONG, kubeconfig_file};

pub(crate) const RUNS: &str = "pipelineruns";

/// How long a run runs.
pub(crate) const RUN: Duration = Duration::from_millis(60);

/// How often something is looked at that is waited for.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(25);

pub(crate) fn store() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}

/// A controller that works until it is dropped.
pub(crate) struct Working {
    pub(crate) controller: PipelinesController,
    task: JoinHandle<()>,
}

impl Working {
    /// A controller of the cluster of this server.
    pub(crate) async fn start(server: &ApiServer, store: &Arc<dyn Driver>, mode: Mode) -> Self {
        let kubeconfig = kubeconfig_file(server);
        let cluster = common::options().with_kubeconfig(kubeconfig.path());
        let options = controller_options().with_mode(mode);
        Self::over(cluster, store, options, ManagerOptions::default()).await
    }

    /// A controller of the cluster that is reached so.
    pub(crate) async fn over(
        cluster: KubernetesOptions,
        store: &Arc<dyn Driver>,
        options: ControllerOptions,
        manager: ManagerOptions,
    ) -> Self {
        let manager = ConcurrencyManager::open(Arc::clone(store), manager);
        // As `pac controller` follows the cluster in each mode.
        let follows = match options.mode {
            Mode::Gate => cluster
                .with_run_selector(KubernetesOptions::ALL_RUNS)
                .with_lanes(true),
            _ => cluster,
        };
        let cluster = Arc::new(KubernetesCluster::connect(&follows).await.unwrap());
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

/// Options of most controllers: they take over, look again soon, and wait for an order shortly.
pub(crate) fn controller_options() -> ControllerOptions {
    ControllerOptions::default()
        .with_mode(Mode::Takeover)
        .with_recovery_interval(Duration::from_millis(500))
        .with_order_wait(Duration::from_secs(2))
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
pub(crate) async fn ended(objects: &Handle, namespace: &str, runs: usize) -> BTreeMap<String, u64> {
    let all = timeout(LONG, async {
        loop {
            let all = objects.list(RUNS, namespace, "").unwrap_or_default();
            if all.iter().filter(|run| is_done(run)).count() >= runs {
                return all;
            }
            sleep(LOOK_AGAIN).await;
        }
    });
    let Ok(all) = all.await else {
        let left = objects.list(RUNS, namespace, "").unwrap();
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

/// Templates without tasks: a given cluster need not know TaskRuns.
pub(crate) fn templates(names: impl Iterator<Item = usize>, prefix: &str) -> Vec<Template> {
    let template = |at: usize| {
        let mut template = Template::exact(&format!("{prefix}{at}"));
        template.spec = json!({"pipelineSpec": {"tasks": []}});
        template
    };
    names.map(template).collect()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "this does not come: {what}");
        sleep(LOOK_AGAIN).await;
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
