//! The decision: the controller itself looks at the manifests once, over a store in memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    ConcurrencyManager, ManagerOptions, PipelineRunKey, RepositoryKey, RepositoryStatus, Settings,
};
use pac_pipelines::{Cluster, ControllerOptions, PipelinesController, PipelinesError};
use tokio::time::{sleep, timeout};

use super::cluster::{Asked, PlannedCluster};
use super::manifests::Manifests;
use crate::exit::{Exit, Failure};

/// Longer than a plan takes by its clock, which passes only where something is waited for.
const LONG: Duration = Duration::from_secs(60 * 60);

/// What the controller decided.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// By Repository: what runs, what waits, and in which order.
    pub(super) repositories: BTreeMap<RepositoryKey, RepositoryStatus>,
    /// What it asked the cluster for.
    pub(super) asked: Asked,
}

impl Decision {
    pub(super) fn has_started(&self, run: &PipelineRunKey) -> bool {
        self.asked.started.contains(run)
    }
}

/// Lets a controller look at the manifests, and start what may start.
///
/// # Errors
/// Those of the store in memory and of a Repository that the controller could not see to: faults
/// of this software.
pub(super) async fn decide(
    manifests: &Manifests,
    options: ControllerOptions,
) -> Result<Decision, Failure> {
    let manager_options = ManagerOptions::default()
        .with_session_ttl(LONG)
        .with_lease_ttl(LONG)
        .with_poll_interval(LONG)
        .with_sweep_interval(LONG);
    let driver = pac_concurrency::open_driver(&Settings::default()).await?;
    let manager = ConcurrencyManager::open(driver, manager_options).await?;
    let planned = Arc::new(PlannedCluster::of(manifests));
    let cluster: Arc<dyn Cluster> = Arc::clone(&planned) as _;
    let controller = PipelinesController::new(manager.clone(), cluster, options);
    let recovery = controller.recover().await.map_err(internal)?;
    if let Some((_, error)) = recovery.failed.into_iter().next() {
        return Err(internal(error));
    }
    let idle = async {
        while !controller.is_idle() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(LONG, idle).await.is_err() {
        let message = "the controller did not come to an end with the manifests";
        return Err(Failure::new(Exit::Internal, message));
    }
    let mut decision = Decision {
        asked: planned.asked(),
        ..Decision::default()
    };
    let named = manifests
        .runs
        .iter()
        .filter_map(|run| run.view.repository());
    let repositories: HashSet<_> = named
        .chain(manifests.repositories.keys().cloned())
        .collect();
    for repository in repositories {
        let status = manager.status(&repository).await?;
        decision.repositories.insert(repository, status);
    }
    manager.close().await?;
    Ok(decision)
}

fn internal(error: PipelinesError) -> Failure {
    match error {
        PipelinesError::Store(error) => error.into(),
        error => Failure::new(Exit::Internal, error),
    }
}
