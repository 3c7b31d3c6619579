//! A month of real PipelineRuns through controllers, over a cluster whose API fails now and then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_core::{Limit, PipelineRunKey, RepositoryKey, Timestamp};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::model::RunView;
use pac_pipelines::testing::{ClusterFaults, MemoryCluster, NewRun};
use pac_pipelines::{Cluster, ClusterEvent, ControllerOptions, PipelinesController};
use tokio::time::sleep;

const TRACE: &str = include_str!("../../pac-cli/examples/pipelineruns-2026-06.jsonl");

struct Row {
    at: Timestamp,
    repository: RepositoryKey,
    limit: u32,
    run: PipelineRunKey,
    duration: Duration,
}

fn trace() -> Vec<Row> {
    let rows = TRACE.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let at: jiff::Timestamp = text("at").parse().unwrap();
        Row {
            at: Timestamp::from_unix_millis(at.as_millisecond()),
            repository: text("repository").parse().unwrap(),
            limit: u32::try_from(row["limit"].as_u64().unwrap()).unwrap(),
            run: text("run").parse().unwrap(),
            duration: Duration::from_secs_f64(row["duration_s"].as_f64().unwrap()),
        }
    });
    rows.collect()
}

/// 5 % of the starts are answered with "unknown", 5 % with a conflict.
#[tokio::test(start_paused = true)]
async fn a_month_drains_within_the_limits_and_nothing_starts_twice() {
    replay(1, 7).await;
}

/// Both follow everything, and either may start any run.
#[tokio::test(start_paused = true)]
async fn two_controllers_share_a_month() {
    replay(2, 8).await;
}

async fn replay(controllers: usize, seed: u64) {
    let rows = trace();
    let global = RepositoryKey::new("pipelines-as-code", "pipelines-as-code").unwrap();
    let cluster = MemoryCluster::new(seed, global);
    let faults = ClusterFaults::default()
        .with_ambiguous_starts(0.05)
        .with_conflicts(0.05)
        .with_latency(Duration::from_millis(300));
    cluster.set_faults(faults);
    let limits: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (&row.repository, row.limit))
        .collect();
    for (repository, limit) in &limits {
        cluster.apply_repository(repository, Limit::new(*limit));
    }
    let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let mut tasks = Vec::new();
    for _ in 0..controllers {
        let driver = Arc::clone(&driver) as Arc<dyn pac_core::driver::Driver>;
        let manager = ConcurrencyManager::open(driver, unhurried()).await.unwrap();
        let options = ControllerOptions::default()
            .with_epoch(cluster.now())
            .with_recovery_interval(Duration::from_secs(3_600));
        let controller = PipelinesController::new(manager, Arc::new(cluster.clone()), options);
        tasks.push(tokio::spawn(async move { controller.run().await.unwrap() }));
    }
    tasks.push(work_is_done(&cluster, &rows).await);
    arrive(&cluster, &rows).await;
    for _ in 0..2_000 {
        if cluster.views().iter().all(RunView::is_done) {
            break;
        }
        sleep(Duration::from_secs(60)).await;
    }
    let open: Vec<_> = cluster
        .views()
        .into_iter()
        .filter(|run| !run.is_done())
        .collect();
    assert!(
        open.is_empty(),
        "{} runs are left, such as {:?}",
        open.len(),
        open.first()
    );
    assert_eq!(cluster.breaches(), [""; 0]);
    for (repository, limit) in limits {
        assert!(cluster.peak(repository) <= limit as usize, "{repository}");
    }
    let started = cluster.started();
    let different: HashSet<_> = started.iter().collect();
    assert_eq!((started.len(), different.len()), (rows.len(), rows.len()));
    in_order_where_one_runs_at_a_time(&rows, &started);
    for task in tasks {
        task.abort();
    }
}

/// A month of seconds is long.
fn unhurried() -> ManagerOptions {
    let mut options = ManagerOptions::default();
    let fields = &mut options;
    fields.sweep_interval = Duration::from_secs(60);
    fields.session_ttl = Duration::from_secs(600);
    fields.poll_interval = Duration::from_secs(120);
    options
}

/// Creates the runs when they came, each event's with their order.
async fn arrive(cluster: &MemoryCluster, rows: &[Row]) {
    let begin = rows[0].at;
    let epoch = cluster.now();
    for event in rows.chunk_by(|a, b| (a.at, &a.repository) == (b.at, &b.repository)) {
        let due = event[0].at.since(begin);
        sleep(due.saturating_sub(cluster.now().since(epoch))).await;
        for row in event {
            let created = cluster.create(NewRun::held(row.run.clone(), &row.repository));
            assert!(created.is_some(), "{} comes twice", row.run);
        }
        let order: Vec<_> = event.iter().map(|row| row.run.clone()).collect();
        cluster.set_order(&order);
    }
}

/// Every run that Tekton has begun with ends when its time has passed.
async fn work_is_done(cluster: &MemoryCluster, rows: &[Row]) -> tokio::task::JoinHandle<()> {
    let durations = rows.iter().map(|row| (row.run.clone(), row.duration));
    let durations: HashMap<PipelineRunKey, Duration> = durations.collect();
    let mut watch = cluster.watch().await.unwrap();
    let cluster = cluster.clone();
    tokio::spawn(async move {
        let mut begun = BTreeSet::new();
        while let Some(event) = watch.next().await {
            let ClusterEvent::RunApplied(run) = event else {
                continue;
            };
            if !run.has_started() || !begun.insert(run.key.clone()) {
                continue;
            }
            let (cluster, duration) = (cluster.clone(), durations[&run.key]);
            tokio::spawn(async move {
                sleep(duration).await;
                cluster.finish(&run.key, true);
            });
        }
    })
}

/// With a limit of 1 the order of the starts is the order of arrival.
fn in_order_where_one_runs_at_a_time(rows: &[Row], started: &[PipelineRunKey]) {
    let alone: Vec<_> = rows.iter().filter(|row| row.limit == 1).collect();
    let repositories: BTreeSet<_> = alone.iter().map(|row| &row.repository).collect();
    for repository in repositories {
        let rows = alone.iter().filter(|row| row.repository == *repository);
        let arrived: Vec<_> = rows.map(|row| &row.run).collect();
        let started = started.iter().filter(|run| arrived.contains(run));
        let started: Vec<_> = started.collect();
        for (at, (started, arrived)) in started.iter().zip(&arrived).enumerate() {
            assert_eq!(started, arrived, "number {at} of {repository}");
        }
    }
}
