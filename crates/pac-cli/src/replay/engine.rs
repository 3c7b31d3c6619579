//! Replays a trace through the manager.
//!
//! Each repository is replayed by a task of its own that handles one event after the other in
//! the order of time; at the same moment, the ends of runs come before rows. So the order of
//! events depends neither on the number of controllers nor on their background work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{ConcurrencyManager, Error, ManagerOptions, Settings};
use pac_concurrency::{PipelineRunKey, RepositoryKey};
use tokio::task::JoinSet;

use super::bug::internal;
use super::clock::ReplayClock;
use super::idle::Idle;
use super::progress::Progress;
use super::record::{Replay, RepositoryRecord};
use super::repository::RepositoryReplay;
use super::trace::{Row, Trace};
use super::{Clock, Options};

/// Session and lease TTL on the virtual clock, where no process dies. So long that years of
/// virtual time pass without the keep-alive and sweeps of millions of usual intervals.
const VIRTUAL: Duration = ManagerOptions::LONGEST_SESSION_TTL;

/// Replays the trace on the memory driver.
///
/// # Errors
/// The first error of any call to a manager.
pub(crate) async fn replay(
    trace: &Trace,
    options: &Options,
    progress: &Progress,
) -> Result<Replay, Error> {
    let Some(first) = trace.rows.first() else {
        return Ok(Replay::default());
    };
    let mut settings = Settings::default();
    settings.memory.epoch = first.at;
    settings.manager = manager_options(options.clock);
    let driver = pac_concurrency::open_driver(&settings).await?;
    let mut managers = Vec::new();
    for _ in 0..options.controllers {
        let driver = Arc::clone(&driver);
        managers.push(ConcurrencyManager::open(driver, settings.manager).await?);
    }
    let managers: Arc<[ConcurrencyManager]> = managers.into();
    let clock = ReplayClock::start(first.at, options.clock, Idle::of(trace));
    let clock = Arc::new(clock);

    let mut tasks = JoinSet::new();
    let repositories = by_repository(trace);
    let count = repositories.len();
    for (at, (repository, rows)) in repositories.into_iter().enumerate() {
        let (managers, clock) = (Arc::clone(&managers), Arc::clone(&clock));
        let replay = RepositoryReplay::new(repository, managers, clock, progress.clone());
        tasks.spawn(async move { (at, replay.run(rows).await) });
    }
    let mut replayed: Vec<Option<_>> = (0..count).map(|_| None).collect();
    while let Some(ended) = tasks.join_next().await {
        let (at, outcome) = ended.map_err(|error| internal(error.to_string()))?;
        if let Some(place) = replayed.get_mut(at) {
            *place = Some(outcome?);
        }
    }
    for manager in managers.iter() {
        manager.close().await?;
    }
    Ok(collect(replayed.into_iter().flatten()))
}

fn manager_options(clock: Clock) -> ManagerOptions {
    match clock {
        Clock::Real { .. } => ManagerOptions::default(),
        Clock::Virtual => ManagerOptions::default()
            .with_session_ttl(VIRTUAL)
            .with_lease_ttl(VIRTUAL)
            .with_poll_interval(VIRTUAL)
            .with_sweep_interval(VIRTUAL),
    }
}

/// The rows of a repository, each with its index in the whole trace.
type Rows = Vec<(usize, Row)>;

/// The repositories in the order in which the trace first names them, with their rows.
fn by_repository(trace: &Trace) -> Vec<(RepositoryKey, Rows)> {
    let mut known = HashMap::new();
    let mut repositories: Vec<(RepositoryKey, Rows)> = Vec::new();
    for (index, row) in trace.rows.iter().enumerate() {
        let at = *known.entry(&row.repository).or_insert_with(|| {
            repositories.push((row.repository.clone(), Vec::new()));
            repositories.len() - 1
        });
        if let Some((_, rows)) = repositories.get_mut(at) {
            rows.push((index, row.clone()));
        }
    }
    repositories
}

fn collect(
    replayed: impl Iterator<Item = (RepositoryRecord, Vec<(usize, PipelineRunKey)>)>,
) -> Replay {
    let mut replay = Replay::default();
    for (record, unknown_cancels) in replayed {
        replay.repositories.push(record);
        replay.unknown_cancels.extend(unknown_cancels);
    }
    replay.unknown_cancels.sort_unstable();
    replay
}
