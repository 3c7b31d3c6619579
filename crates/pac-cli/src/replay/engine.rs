//! Drives the manager with a trace.
//!
//! Each repository is replayed by a task of its own that does one thing after the other: what
//! is due, in the order of time; runs that end before rows of the same moment. So the order of
//! events does not depend on how many controllers there are, nor on what they do in the
//! background.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{ConcurrencyManager, Error, ManagerOptions, MemoryOptions, Settings};
use pac_concurrency::{PipelineRunKey, RepositoryKey};
use tokio::task::JoinSet;

use super::clock::ReplayClock;
use super::progress::Progress;
use super::record::{Replay, RepositoryRecord};
use super::repository::RepositoryReplay;
use super::trace::{Row, Trace};
use super::{Clock, Options};

/// On the virtual clock no process dies: its hours pass without work that would be repeated
/// hundreds of thousands of times a month.
const VIRTUAL: Duration = Duration::from_secs(60 * 60);

/// Replays the trace on the memory driver.
///
/// # Errors
/// The first that any call to a manager came to.
pub(crate) async fn replay(
    trace: &Trace,
    options: &Options,
    progress: &Progress,
) -> Result<Replay, Error> {
    let Some(first) = trace.rows.first() else {
        return Ok(Replay::default());
    };
    let settings = Settings {
        memory: MemoryOptions {
            epoch: first.at,
            ..MemoryOptions::default()
        },
        manager: manager_options(options.clock),
        ..Settings::default()
    };
    let driver = pac_concurrency::open_driver(&settings).await?;
    let mut managers = Vec::new();
    for _ in 0..options.controllers {
        let driver = Arc::clone(&driver);
        managers.push(ConcurrencyManager::open(driver, settings.manager).await?);
    }
    let managers: Arc<[ConcurrencyManager]> = managers.into();
    let clock = Arc::new(ReplayClock::start(first.at, options.clock));

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
        Clock::Virtual => ManagerOptions {
            session_ttl: VIRTUAL,
            lease_ttl: Some(VIRTUAL),
            poll_interval: VIRTUAL,
            sweep_interval: VIRTUAL,
            ..ManagerOptions::default()
        },
    }
}

/// A repository's rows, each with its place in the whole trace.
type Rows = Vec<(usize, Row)>;

/// In the order in which the trace first names them.
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

pub(super) fn internal(message: String) -> Error {
    Error::new(pac_concurrency::ErrorKind::Internal, "replay", message)
}
