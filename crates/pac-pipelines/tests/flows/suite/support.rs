//! A store, a cluster, and controllers between them.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::Fixture;
use pac_conformance::faults::Faults;
use pac_core::manager::{Admission, ConcurrencyManager};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion, PipelineRunKey, RepositoryKey};
use pac_pipelines::model::{RunView, SpecStatus};
use pac_pipelines::testing::{MemoryCluster, NewRun};
use pac_pipelines::{ControllerOptions, PipelinesController};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The Repository that most flows are about.
pub(crate) fn website() -> RepositoryKey {
    repository("website")
}

/// The Repository `ci/<name>`.
pub(crate) fn repository(name: &str) -> RepositoryKey {
    RepositoryKey::new("ci", name).unwrap()
}

/// The global Repository.
pub(crate) fn global() -> RepositoryKey {
    RepositoryKey::new("pipelines-as-code", "pipelines-as-code").unwrap()
}

/// The run `ci/<name>`.
pub(crate) fn run(name: &str) -> PipelineRunKey {
    PipelineRunKey::new("ci", name).unwrap()
}

/// A store, a cluster, and the controllers that a flow opens.
pub(crate) struct Setting<'a> {
    pub(crate) fixture: &'a Fixture,
    pub(crate) cluster: MemoryCluster,
}

/// A controller that runs.
pub(crate) struct Running {
    pub(crate) controller: PipelinesController,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends in order: what it has is free for others at once.
    pub(crate) async fn close(self) {
        self.task.abort();
        self.controller.manager().close().await.unwrap();
    }

    /// Ends its work without a word to the store: its session has to run out.
    pub(crate) fn stop(self) -> PipelinesController {
        self.task.abort();
        self.controller.clone()
    }

    pub(crate) fn manager(&self) -> &ConcurrencyManager {
        self.controller.manager()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<'a> Setting<'a> {
    /// A cluster with one Repository, `ci/website`, of this limit (0: none).
    pub(crate) fn new(fixture: &'a Fixture, limit: u32) -> Self {
        let cluster = MemoryCluster::new(42, global());
        cluster.apply_repository(&website(), Limit::new(limit));
        Self { fixture, cluster }
    }

    pub(crate) fn options(&self) -> ControllerOptions {
        let options = ControllerOptions::default().with_epoch(self.cluster.now());
        if self.fixture.is_real() {
            options
                .with_order_wait(Duration::from_secs(2))
                .with_grace(Duration::from_secs(1))
        } else {
            options
        }
    }

    /// A controller that is only called.
    pub(crate) async fn idle(&self) -> PipelinesController {
        let manager = self.fixture.manager().await;
        PipelinesController::new(manager, Arc::new(self.cluster.clone()), self.options())
    }

    /// A controller that runs.
    pub(crate) async fn controller(&self) -> Running {
        run_it(self.idle().await).await
    }

    /// A controller with other options.
    pub(crate) async fn controller_with(&self, options: ControllerOptions) -> Running {
        let manager = self.fixture.manager().await;
        let cluster = Arc::new(self.cluster.clone());
        run_it(PipelinesController::new(manager, cluster, options)).await
    }

    /// A controller whose connection to the store can be cut.
    pub(crate) async fn controller_behind(&self, faults: &Arc<Faults>) -> Running {
        let manager = self.fixture.manager_behind(faults).await;
        let cluster = Arc::new(self.cluster.clone());
        run_it(PipelinesController::new(manager, cluster, self.options())).await
    }

    /// Creates runs as Pipelines-as-Code does for one event: held back, then their order.
    pub(crate) fn event(&self, names: &[&str]) {
        self.event_in(&website(), names);
    }

    pub(crate) fn event_in(&self, repository: &RepositoryKey, names: &[&str]) {
        for name in names {
            let created = self.cluster.create(NewRun::held(run(name), repository));
            assert!(created.is_some(), "{name} is there already");
        }
        let keys: Vec<_> = names.iter().map(|name| run(name)).collect();
        self.cluster.set_order(&keys);
    }

    /// Runs that the store has, in this order and with this limit, and the cluster has not.
    pub(crate) async fn ghosts(&self, limit: u32, names: &[&str]) {
        let manager = self.fixture.manager().await;
        let limit = Some((Limit::new(limit), LimitVersion::new(1)));
        for names in names.chunks(32) {
            let ghost = |name: &&str| RunRequest::durable(run(name), name.parse().unwrap());
            let requests = names.iter().map(ghost).collect();
            let admissions = manager.admit_all(&website(), limit, requests).await;
            for admission in admissions.unwrap() {
                if let Admission::Queued(waiter) = admission {
                    waiter.detach();
                }
            }
        }
    }

    /// Waits until the store and the cluster both have these runs, those that wait in order.
    #[track_caller]
    pub(crate) fn comes_to<'s>(
        &'s self,
        running: &'s [&'s str],
        waiting: &'s [&'s str],
    ) -> impl Future<Output = ()> + 's {
        self.comes_to_in(website(), running, waiting)
    }

    pub(crate) async fn comes_to_in(
        &self,
        repository: RepositoryKey,
        running: &[&str],
        waiting: &[&str],
    ) {
        let mut expected = running.to_vec();
        expected.sort_unstable();
        let wanted = (expected, waiting.to_vec());
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let view = self.fixture.view(&repository).await;
            let mut running = view.running_names();
            running.sort_unstable();
            let store = (running, view.waiting_names());
            let runs = self.running_in_cluster(&repository);
            let runs: Vec<_> = runs.iter().map(String::as_str).collect();
            if store == wanted && runs == wanted.0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{repository} should come to {wanted:?}; the store has {store:?}, and the \
                 cluster runs {runs:?}"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The runs of a Repository that run in the cluster, or are to run.
    pub(crate) fn running_in_cluster(&self, repository: &RepositoryKey) -> Vec<String> {
        let views = self.cluster.views();
        let running = views.iter().filter(|run| {
            let starts = run.spec_status == SpecStatus::None || run.has_started();
            starts && !run.is_done() && run.repository().as_ref() == Some(repository)
        });
        running.map(|run| run.key.name().to_owned()).collect()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "this does not come: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the store has recorded the end of a run, and answers how.
    pub(crate) async fn outcome(&self, name: &str) -> RunOutcome {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let view = self.fixture.view(&website()).await;
            if let Some(outcome) = view.outcome(name) {
                return outcome;
            }
            assert!(Instant::now() < deadline, "{name} does not end");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn view(&self, name: &str) -> RunView {
        self.cluster.view(&run(name)).unwrap()
    }

    /// Lets pass what takes no longer than a hint.
    pub(crate) async fn quiet(&self) {
        sleep(self.fixture.quiet() * 2).await;
    }

    /// Nothing happened that must not.
    #[track_caller]
    pub(crate) fn audit(&self) {
        assert_eq!(self.cluster.breaches(), [""; 0]);
    }
}

pub(crate) async fn run_it(controller: PipelinesController) -> Running {
    let running = controller.clone();
    let task = tokio::spawn(async move { running.run().await.unwrap() });
    Running { controller, task }
}
