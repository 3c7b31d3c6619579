//! Recovery of many runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_core::{Limit, PipelineRunKey, RepositoryKey};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::testing::{MemoryCluster, NewRun};
use pac_pipelines::{ControllerOptions, PipelinesController};

const REPOSITORIES: usize = 3_000;
const RUNS: usize = 10_000;
/// As many Repositories share a namespace.
const PER_NAMESPACE: usize = 3;

/// 3,000 Repositories in 1,000 namespaces, 10,000 runs: a fifth of them has ended, some run, the
/// others wait. From nothing, and again after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_runs_are_recovered_with_two_requests() {
    let global = RepositoryKey::new("pipelines-as-code", "pipelines-as-code").unwrap();
    let cluster = MemoryCluster::new(1, global);
    fill(&cluster);
    let _ = cluster.take_requests();
    let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let mut started = 0;
    for round in ["from nothing", "after a restart"] {
        let driver = Arc::clone(&driver) as Arc<dyn pac_core::driver::Driver>;
        let manager = ConcurrencyManager::open(driver, ManagerOptions::default())
            .await
            .unwrap();
        let options = ControllerOptions::default().with_epoch(cluster.now());
        let cluster = cluster.clone();
        let controller =
            PipelinesController::new(manager.clone(), Arc::new(cluster.clone()), options);
        let begun = Instant::now();
        let recovery = controller.recover().await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(10), "{round}: {took:?}");
        assert_eq!((recovery.repositories, recovery.runs), (REPOSITORIES, RUNS));
        assert!(recovery.failed.is_empty(), "{:?}", recovery.failed.first());
        while !controller.is_idle() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let requests = cluster.take_requests();
        assert_eq!((requests.list_runs, requests.list_repositories), (1, 1));
        assert_eq!(requests.read, 0);
        started += requests.start;
        assert_eq!(started, cluster.started().len(), "{round}");
        assert_eq!(requests.total(), requests.start + 2);
        manager.close().await.unwrap();
    }
    assert!(cluster.breaches().is_empty());
}

fn fill(cluster: &MemoryCluster) {
    let key = |number: usize| {
        let namespace = format!("ns{}", number / PER_NAMESPACE);
        RepositoryKey::new(&namespace, &format!("repo{number}")).unwrap()
    };
    for number in 0..REPOSITORIES {
        cluster.apply_repository(&key(number), Limit::new(1 + (number % 3) as u32));
    }
    for number in 0..RUNS {
        let repository = key(number % REPOSITORIES);
        let run = PipelineRunKey::new(repository.namespace(), &format!("run{number}")).unwrap();
        if number % 5 < 2 {
            cluster
                .create(NewRun::of(run.clone(), &repository))
                .unwrap();
            if number % 5 == 0 {
                cluster.finish(&run, true);
            }
        } else {
            cluster
                .create(NewRun::held(run.clone(), &repository))
                .unwrap();
            cluster.set_order(&[run]);
        }
    }
}
