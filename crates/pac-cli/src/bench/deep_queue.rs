//! The cost of a cycle while 100,000 runs wait, against a repository where none waits. There too
//! the slot is taken, so that every cycle queues one run and starts another.

use std::time::{Duration, Instant};

use pac_concurrency::{
    Admission, ConcurrencyManager, DriverKind, Grants, Limit, PipelineRunKey, RepositoryKey,
    RunOutcome, RunRequest,
};
use tokio::sync::Mutex;

use super::load::Names;
use super::measurement::{Goal, Measurement};
use super::place::{Pace, Place, bug, micros, repository, run};
use super::rounds::Rounds;
use crate::exit::Failure;

const DEPTH: usize = 100_000;
const QUICK_DEPTH: usize = 10_000;

/// Runs admitted in one commit: every store can take this many.
const TOGETHER: usize = 50;

pub(super) async fn measure(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let manager = place.manager().await?;
    // Without a reader the slots of detached runs would be given back, and the runs that wait would
    // not start.
    let grants = manager.grants();
    let grants = Mutex::new(grants.ok_or_else(|| bug("something else reads the grants"))?);
    let mut deep = Deep::fill(&manager, "deep", if quick { QUICK_DEPTH } else { DEPTH }).await?;
    let mut empty = Deep::fill(&manager, "empty", 0).await?;
    let pace = Pace::new(quick);
    let rounds = Rounds::alternate(
        pace.rounds,
        async |_| deep.round(&manager, &grants, pace.round).await,
        async |_| empty.round(&manager, &grants, pace.round).await,
    )
    .await?;
    let measured = Measurement::of_rounds("deep_queue", &rounds.ours, "µs");
    let most = match place.driver() {
        DriverKind::Postgresql => 1.3,
        _ => 1.5,
    };
    let measured = measured.against(rounds.raw()).goal(Goal::AtMost(most));
    // The result matters more than leftover repositories, so errors are ignored.
    let repositories = [deep.repository, empty.repository];
    let _ = place.leave(manager, &repositories).await;
    drop(grants);
    Ok(vec![measured])
}

/// A repository where one run holds the only slot, and many wait.
struct Deep {
    repository: RepositoryKey,
    names: Names,
    running: PipelineRunKey,
}

impl Deep {
    async fn fill(manager: &ConcurrencyManager, name: &str, depth: usize) -> Result<Self, Failure> {
        let repository = repository(name)?;
        manager.set_limit(&repository, Limit::new(1), None).await?;
        let names = Names::new(name);
        let first = names.next()?;
        let running = first.run.clone();
        admit(manager, &repository, vec![first]).await?;
        queue_up(manager, &repository, &names, depth).await?;
        Ok(Self {
            repository,
            names,
            running,
        })
    }

    /// Runs cycles for one round. Returns the microseconds per cycle.
    async fn round(
        &mut self,
        manager: &ConcurrencyManager,
        grants: &Mutex<Grants>,
        length: Duration,
    ) -> Result<f64, Failure> {
        let mut grants = grants.lock().await;
        let (start, mut cycles) = (Instant::now(), 0);
        while start.elapsed() < length {
            self.cycle(manager, &mut grants).await?;
            cycles += 1;
        }
        Ok(micros(start.elapsed()) / f64::from(cycles))
    }

    /// Queues one run, and releases the running one so that the next starts. Reads the lease of that
    /// one here: a task that does so may fall behind on a busy machine, and leases that lie unread in
    /// numbers are given back.
    async fn cycle(
        &mut self,
        manager: &ConcurrencyManager,
        grants: &mut Grants,
    ) -> Result<(), Failure> {
        let request = self.names.next()?;
        match manager.admit(&self.repository, request).await? {
            Admission::Queued(waiter) => waiter.detach(),
            other => return Err(bug(format!("many wait, but: {other:?}"))),
        }
        let uid = run(self.running.name())?.uid;
        let (run, outcome) = (&self.running, RunOutcome::Completed);
        let ending = manager
            .release_run(&self.repository, run, &uid, None, outcome)
            .await?;
        let next = ending.promoted.into_iter().next();
        self.running = next.ok_or_else(|| bug("many wait, but none has started"))?;
        // A durable run goes on without its lease.
        let lease = grants.next().await;
        lease.map(drop).ok_or_else(|| bug("the grants have ended"))
    }
}

/// Queues runs without waiting for them. Where a slot becomes free while they wait, a reader of
/// [`ConcurrencyManager::grants`] must be there: a lease that nobody reads is given back.
pub(super) async fn queue_up(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    names: &Names,
    number: usize,
) -> Result<(), Failure> {
    let mut left = number;
    while left > 0 {
        let requests = (0..left.min(TOGETHER)).map(|_| names.next());
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        left -= requests.len();
        admit(manager, repository, requests).await?;
    }
    Ok(())
}

/// Admits runs together, without waiting for them.
pub(super) async fn admit(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    requests: Vec<RunRequest>,
) -> Result<(), Failure> {
    for admission in manager.admit_all(repository, None, requests).await? {
        if let Admission::Queued(waiter) = admission {
            waiter.detach();
        }
    }
    Ok(())
}
