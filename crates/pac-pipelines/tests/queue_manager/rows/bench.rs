//! What the rows work on: a store, a cluster, and the queues between them.

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::Fixture;
use pac_core::manager::RunStatus;
use pac_core::{Limit, PipelineRunKey, RepositoryKey};
use pac_pipelines::ControllerOptions;
use pac_pipelines::model::{
    Condition, ConditionStatus, RepositoryView, ResourceVersion, RunView, SpecStatus,
};
use pac_pipelines::queue_manager::{Found, QueueManager, Repositories, RunName, StartLoop};
use pac_pipelines::testing::{MemoryCluster, NewRun};
use pac_pipelines::{Cluster, vocabulary};
use tokio::time::sleep;

use super::scripted::Scripted;

pub(crate) fn website() -> RepositoryKey {
    repository("website")
}

pub(crate) fn repository(name: &str) -> RepositoryKey {
    RepositoryKey::new("ci", name).unwrap()
}

pub(crate) fn global() -> RepositoryKey {
    RepositoryKey::new("pipelines-as-code", "pipelines-as-code").unwrap()
}

pub(crate) fn run(name: &str) -> PipelineRunKey {
    PipelineRunKey::new("ci", name).unwrap()
}

/// Runs as upstream names them: without a uid.
pub(crate) fn names(names: &[&str]) -> Vec<RunName> {
    names.iter().map(|name| run(name).into()).collect()
}

pub(crate) fn name_of(run: &PipelineRunKey) -> &str {
    run.name()
}

/// A run that has succeeded.
pub(crate) fn done(name: &str) -> RunView {
    let mut view = RunView::new(run(name), format!("uid-of-{name}").parse().unwrap());
    view.succeeded = Some(Condition::new(ConditionStatus::True, "Succeeded"));
    view
}

/// The limit of `ci/website` as version `version` of its object has it; 0 is none.
pub(crate) fn limited(limit: u32, version: u64) -> RepositoryView {
    let mut view = RepositoryView::new(website()).with_limit(Limit::new(limit));
    view.version = Some(ResourceVersion::new(version));
    view
}

/// How long a run without an order waits for it: longer than a row takes that must find it
/// waiting, on a busy machine too.
const ORDER_WAIT: Duration = Duration::from_secs(3);

pub(crate) struct Bench {
    pub(crate) cluster: MemoryCluster,
    pub(crate) scripted: Scripted,
    pub(crate) queues: QueueManager,
}

impl Bench {
    /// A cluster with `ci/website` of this limit, and queues that nothing is in.
    pub(crate) async fn new(fixture: &Fixture, limit: u32) -> Self {
        Self::of(fixture, cluster(limit), ORDER_WAIT).await
    }

    /// As [`new`](Self::new); runs without an order do not wait for it.
    pub(crate) async fn without_orders(fixture: &Fixture, limit: u32) -> Self {
        Self::of(fixture, cluster(limit), Duration::ZERO).await
    }

    /// One more controller of a cluster.
    pub(crate) async fn over(fixture: &Fixture, cluster: MemoryCluster) -> Self {
        Self::of(fixture, cluster, ORDER_WAIT).await
    }

    async fn of(fixture: &Fixture, cluster: MemoryCluster, order_wait: Duration) -> Self {
        let options = ControllerOptions::default()
            .with_epoch(cluster.now())
            .with_order_wait(order_wait);
        Self {
            scripted: Scripted::over(cluster.clone()),
            queues: QueueManager::new(fixture.manager().await, options),
            cluster,
        }
    }

    /// The same cluster and store after the controller was started again.
    pub(crate) async fn restarted(self, fixture: &Fixture) -> Self {
        self.queues.manager().close().await.unwrap();
        Self::over(fixture, self.cluster).await
    }

    pub(crate) fn start_loop(&self) -> StartLoop {
        StartLoop::new(self.queues.clone(), Arc::new(self.scripted.clone()))
    }

    pub(crate) async fn repositories(&self) -> Repositories {
        let listing = self.cluster.list_repositories().await.unwrap();
        Repositories::of(listing, Some(&global()))
    }

    pub(crate) async fn website(&self) -> RepositoryView {
        match self.repositories().await.get(&website()) {
            Found::Here(view) => view,
            other => panic!("ci/website is there, not {other:?}"),
        }
    }

    /// Runs of one event that wait, with their order.
    pub(crate) fn event(&self, names: &[&str]) {
        self.event_in(&website(), names);
    }

    pub(crate) fn event_in(&self, repository: &RepositoryKey, names: &[&str]) {
        for name in names {
            self.cluster
                .create(NewRun::held(run(name), repository))
                .unwrap();
        }
        let keys: Vec<_> = names.iter().map(|name| run(name)).collect();
        self.cluster.set_order(&keys);
    }

    /// A run that runs, with the mark of it.
    pub(crate) fn started(&self, repository: &RepositoryKey, name: &str) {
        let new = NewRun::of(run(name), repository).annotated(vocabulary::STATE, "started");
        self.cluster.create(new).unwrap();
    }

    pub(crate) fn view(&self, name: &str) -> RunView {
        self.cluster.view(&run(name)).unwrap()
    }

    /// Whether a run was started in the cluster.
    pub(crate) fn has_started(&self, name: &str) -> bool {
        let view = self.cluster.view(&run(name));
        view.is_some_and(|view| view.spec_status == SpecStatus::None)
    }

    /// Adds runs, and answers with those that were handed out.
    pub(crate) async fn add(&self, repository: &RepositoryView, runs: &[&str]) -> Vec<String> {
        let queues = &self.queues;
        let runs = names(runs);
        let acquired = queues.add_list_to_running_queue(repository, &runs);
        let acquired = acquired.await.unwrap();
        acquired.iter().map(|run| run.name().to_owned()).collect()
    }

    /// Adds runs, and hands out none.
    pub(crate) async fn pend(&self, repository: &RepositoryView, runs: &[&str]) {
        let runs = names(runs);
        let add = self.queues.add_to_pending_queue(repository, &runs);
        add.await.unwrap();
    }

    /// Takes a run out of the queue of `ci/website`.
    pub(crate) async fn remove(&self, name: &str) -> bool {
        let (repository, run) = (website(), run(name));
        let removed = self.queues.remove_from_queue(&repository, &run);
        removed.await.unwrap()
    }

    /// Gives a run of `ci/website` back.
    pub(crate) async fn hand_back(&self, name: &str) -> bool {
        let (repository, run) = (website(), run(name));
        self.queues.hand_back(&repository, &run).await.unwrap()
    }

    /// Hands out what has a slot; adds none.
    pub(crate) async fn acquire(&self) -> Vec<String> {
        self.add(&self.website().await, &[]).await
    }

    /// The end of a run; answers with the one that was handed out for it, or "".
    pub(crate) async fn take(&self, repository: &RepositoryView, ended: &str) -> String {
        self.take_view(repository, &done(ended)).await
    }

    pub(crate) async fn take_view(&self, repository: &RepositoryView, ended: &RunView) -> String {
        let queues = &self.queues;
        let next = queues.remove_and_take_item_from_queue(repository, ended);
        let next = next.await.unwrap();
        next.map_or_else(String::new, |run| run.name().to_owned())
    }

    /// The runs of `ci/website` that run, and those that wait, next first.
    pub(crate) async fn assert(&self, running: &[&str], queued: &[&str]) {
        self.assert_in(&website(), running, queued).await;
    }

    pub(crate) async fn assert_in(
        &self,
        repository: &RepositoryKey,
        running: &[&str],
        queued: &[&str],
    ) {
        let found = self.queues.running(repository).await.unwrap();
        let mut found: Vec<_> = found.iter().map(name_of).collect();
        let mut running = running.to_vec();
        found.sort_unstable();
        running.sort_unstable();
        assert_eq!(found, running, "running in {repository}");
        let found = self.queues.queued(repository).await.unwrap();
        let found: Vec<_> = found.iter().map(name_of).collect();
        assert_eq!(found, queued, "queued in {repository}");
    }

    /// Whether the store has nothing live of a run.
    pub(crate) async fn is_out(&self, name: &str) -> bool {
        let manager = self.queues.manager();
        let status = manager.run_status(&website(), &run(name)).await.unwrap();
        matches!(status, RunStatus::Unknown | RunStatus::Finished(_))
    }

    /// Lets the time pass in which an order may still come to the runs that there are.
    pub(crate) async fn outlast_the_order(&self) {
        sleep(ORDER_WAIT + Duration::from_secs(1)).await;
    }

    /// Lets the whole seconds that Kubernetes keeps change.
    pub(crate) async fn second(&self) {
        sleep(Duration::from_secs(1)).await;
    }
}

/// A cluster with `ci/website` of this limit.
fn cluster(limit: u32) -> MemoryCluster {
    let cluster = MemoryCluster::new(7, global());
    cluster.apply_repository(&website(), Limit::new(limit));
    cluster
}
