//! Tasks that admit and release as fast as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pac_concurrency::{
    Admission, ConcurrencyManager, Lease, RepositoryKey, RunOutcome, RunRequest, Turn,
};
use tokio::task::JoinSet;

use super::place::{bug, micros, run};
use super::statistics::quantile;
use crate::exit::Failure;

/// Cycles before the clock is looked at: where one takes a microsecond, that would count.
const STRIDE: usize = 16;

/// What tasks have done in a round.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) cycles: usize,
    pub(super) elapsed: Duration,
    /// Of each cycle, in microseconds.
    latencies: Vec<f64>,
}

impl Done {
    pub(super) fn rate(&self) -> f64 {
        self.cycles as f64 / self.elapsed.as_secs_f64()
    }
}

/// Names that no run had before.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: Arc<str>,
    next: Arc<AtomicU64>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            next: Arc::default(),
        }
    }

    pub(super) fn next(&self) -> Result<RunRequest, Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        run(&format!("{}-{number}", self.prefix))
    }
}

/// Tasks on one manager; task `n` uses repository `n` modulo their number.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) manager: ConcurrencyManager,
    pub(super) repositories: Vec<RepositoryKey>,
    pub(super) tasks: usize,
    pub(super) names: Names,
    latencies: Vec<f64>,
}

impl Load {
    pub(super) fn new(
        manager: ConcurrencyManager,
        repositories: Vec<RepositoryKey>,
        tasks: usize,
        names: Names,
    ) -> Self {
        Self {
            manager,
            repositories,
            tasks,
            names,
            latencies: Vec::new(),
        }
    }

    /// A round of so long.
    pub(super) async fn round(&mut self, length: Duration) -> Result<f64, Failure> {
        let start = Instant::now();
        let end = start + length;
        let mut tasks = JoinSet::new();
        for task in 0..self.tasks {
            let at = task % self.repositories.len();
            let Some(repository) = self.repositories.get(at).cloned() else {
                return Err(bug("a load needs a repository"));
            };
            tasks.spawn(cycles_until(
                end,
                self.manager.clone(),
                repository,
                self.names.clone(),
            ));
        }
        let mut done = Done::default();
        while let Some(task) = tasks.join_next().await {
            let part = task.map_err(bug)??;
            done.cycles += part.cycles;
            self.latencies.extend(part.latencies);
        }
        done.elapsed = start.elapsed();
        Ok(done.rate())
    }

    /// Of a single cycle in all rounds, in microseconds.
    pub(super) fn latency(&self, part: f64) -> f64 {
        quantile(&self.latencies, part)
    }
}

async fn cycles_until(
    end: Instant,
    manager: ConcurrencyManager,
    repository: RepositoryKey,
    names: Names,
) -> Result<Done, Failure> {
    let mut done = Done::default();
    let mut start = Instant::now();
    let mut stride = 1;
    while start < end {
        for _ in 0..stride {
            cycle(&manager, &repository, names.next()?).await?;
        }
        let now = Instant::now();
        done.cycles += stride;
        done.latencies.push(micros(now - start) / stride as f64);
        // A store that takes its time is asked about every cycle.
        stride = if now - start < Duration::from_micros(50) {
            STRIDE
        } else {
            1
        };
        start = now;
    }
    Ok(done)
}

/// Admits a run, waits for its turn if it has to, and releases it.
pub(super) async fn cycle(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> Result<(), Failure> {
    let lease = acquire(manager, repository, request).await?;
    manager.release(lease, RunOutcome::Completed).await?;
    Ok(())
}

/// Admits a run, and waits for its turn if it has to.
pub(super) async fn acquire(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> Result<Lease, Failure> {
    match manager.admit(repository, request).await? {
        Admission::Started(lease) => Ok(lease),
        Admission::Queued(waiter) => match waiter.await? {
            Turn::Started(lease) => Ok(lease),
            turn => Err(bug(format!("nobody ends this run, but: {turn:?}"))),
        },
        Admission::Finished(outcome) => Err(bug(format!("a new run had {outcome} before"))),
    }
}
