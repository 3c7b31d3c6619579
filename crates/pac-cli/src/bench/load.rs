//! Tasks that admit and release as fast as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pac_concurrency::{
    Admission, ConcurrencyManager, Lease, RepositoryKey, RunOutcome, RunRequest, Turn,
};
use tokio::task::JoinSet;

use super::place::{bug, micros, rate, run};
use super::statistics::quantile;
use crate::exit::Failure;

/// The length of a round.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Time(Duration),
    /// This many cycles of each task, with names made before the clock starts. For a store where
    /// making a name, or reading the clock, takes as long as part of a cycle.
    Cycles(usize),
}

/// The work of one task in one round.
#[derive(Debug, Default)]
struct Done {
    cycles: usize,
    /// The duration of each cycle, in microseconds.
    latencies: Vec<f64>,
}

/// Generates names that no run had before.
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

    /// Runs one round. Returns the cycles per second.
    pub(super) async fn round(&mut self, length: Length) -> Result<f64, Failure> {
        let mut work = Vec::new();
        for (task, repository) in (0..self.tasks).zip(self.repositories.iter().cycle()) {
            let named = match length {
                Length::Time(_) => Vec::new(),
                Length::Cycles(cycles) => {
                    let names = Names::new(&format!("{}-{task}", self.names.next()?.run.name()));
                    let named = (0..cycles).map(|_| names.next());
                    named.collect::<Result<_, _>>()?
                }
            };
            work.push((repository.clone(), named));
        }
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (repository, named) in work {
            let (manager, names) = (self.manager.clone(), self.names.clone());
            match length {
                Length::Time(time) => {
                    tasks.spawn(cycles_until(start + time, manager, repository, names));
                }
                Length::Cycles(_) => {
                    tasks.spawn(cycles_of(named, manager, repository));
                }
            }
        }
        let mut cycles = 0;
        while let Some(task) = tasks.join_next().await {
            let done = task.map_err(bug)??;
            cycles += done.cycles;
            self.latencies.extend(done.latencies);
        }
        Ok(rate(cycles, start))
    }

    /// The quantile of a single cycle's duration over all rounds, in microseconds.
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
    while start < end {
        cycle(&manager, &repository, names.next()?).await?;
        let now = Instant::now();
        done.cycles += 1;
        done.latencies.push(micros(now - start));
        start = now;
    }
    Ok(done)
}

async fn cycles_of(
    requests: Vec<RunRequest>,
    manager: ConcurrencyManager,
    repository: RepositoryKey,
) -> Result<Done, Failure> {
    let cycles = requests.len();
    for request in requests {
        cycle(&manager, &repository, request).await?;
    }
    Ok(Done {
        cycles,
        ..Done::default()
    })
}

/// Admits a run, waits until it starts, and releases it.
pub(super) async fn cycle(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> Result<(), Failure> {
    let lease = acquire(manager, repository, request).await?;
    manager.release(lease, RunOutcome::Completed).await?;
    Ok(())
}

/// Admits a run, and waits until it starts.
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
