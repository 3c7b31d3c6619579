//! A cluster, and controllers without a store.

use std::sync::Arc;
use std::time::Duration;

use pac_core::{Limit, PipelineRunKey, RepositoryKey};
use pac_pipelines::ControllerOptions;
use pac_pipelines::annotations::AnnotationController;
use pac_pipelines::model::{RunView, SpecStatus};
use pac_pipelines::testing::{MemoryCluster, NewRun};
use pac_pipelines::vocabulary;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

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

pub(crate) struct Setting {
    pub(crate) cluster: MemoryCluster,
}

/// A controller that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) controller: AnnotationController,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Ends it where it is, and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Setting {
    /// A cluster with `ci/website` of this limit (0: none).
    pub(crate) fn new(limit: u32) -> Self {
        Self::seeded(11, limit)
    }

    pub(crate) fn seeded(seed: u64, limit: u32) -> Self {
        let cluster = MemoryCluster::new(seed, global());
        cluster.apply_repository(&website(), Limit::new(limit));
        Self { cluster }
    }

    pub(crate) fn idle(&self) -> AnnotationController {
        let options = ControllerOptions::default().with_epoch(self.cluster.now());
        AnnotationController::new(Arc::new(self.cluster.clone()), options)
    }

    pub(crate) fn controller(&self) -> Running {
        let controller = self.idle();
        let running = controller.clone();
        let task = tokio::spawn(async move { running.run().await });
        Running { controller, task }
    }

    /// Creates runs as Pipelines-as-Code does for one event: held back, then their order.
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

    pub(crate) fn state(&self, name: &str) -> String {
        let view = self.view(name);
        view.annotation(vocabulary::STATE).unwrap_or("").to_owned()
    }

    /// Waits until the cluster runs these and the controller counts them, and has those waiting.
    pub(crate) async fn comes_to(&self, running: &Running, runs: &[&str], waits: &[&str]) {
        self.comes_to_in(&website(), running, runs, waits).await;
    }

    pub(crate) async fn comes_to_in(
        &self,
        repository: &RepositoryKey,
        running: &Running,
        runs: &[&str],
        waits: &[&str],
    ) {
        let mut wanted: Vec<_> = runs.iter().map(ToString::to_string).collect();
        wanted.sort_unstable();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = running.controller.status(repository).await;
            let names = |runs: &[PipelineRunKey]| {
                let names = runs.iter().map(|run| run.name().to_owned());
                names.collect::<Vec<_>>()
            };
            let mut counted = names(&status.running);
            counted.sort_unstable();
            let waiting = names(&status.waiting);
            let cluster = self.running_in_cluster(repository);
            if counted == wanted && waiting == waits && cluster == wanted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{repository} should come to {wanted:?} and {waits:?}; {counted:?} are counted, \
                 {waiting:?} wait, and the cluster runs {cluster:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn running_in_cluster(&self, repository: &RepositoryKey) -> Vec<String> {
        let views = self.cluster.views();
        let running = views.iter().filter(|run| {
            let starts = run.spec_status == SpecStatus::None || run.has_started();
            starts && !run.is_done() && run.repository().as_ref() == Some(repository)
        });
        running.map(|run| run.key.name().to_owned()).collect()
    }

    pub(crate) fn finish(&self, name: &str) {
        assert!(self.cluster.finish(&run(name), true), "{name} runs");
    }

    /// Lets everything happen that is under way.
    pub(crate) async fn quiet(&self) {
        sleep(Duration::from_millis(500)).await;
    }

    /// Nothing happened that must not.
    #[track_caller]
    pub(crate) fn audit(&self) {
        assert_eq!(self.cluster.breaches(), [""; 0]);
    }
}
