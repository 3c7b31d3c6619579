//! Four processes of 16 tasks for 5 slots of one repository, against one process of 64 tasks.
//! The processes record when they held a slot; from that the bench counts violations of the
//! limit.

use std::time::{Duration, Instant};

use pac_concurrency::{ConcurrencyManager, Limit, RepositoryKey, RunOutcome};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::load::{Length, Load, Names, acquire};
use super::measurement::{Goal, Measurement};
use super::place::{Pace, Place, bug, repository};
use super::rounds::Rounds;
use super::worker::{Asked, Work, Worker};
use crate::exit::Failure;
use crate::output::note;

const PROCESSES: usize = 4;
const TASKS: usize = 16;
const LIMIT: u32 = 5;

/// The time during which a slot was held, by a clock that all processes of the machine share, in
/// nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The work of one process in one round.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Part {
    held: Vec<Held>,
    elapsed: Duration,
}

pub(super) async fn measure(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    if !place.is_shared() {
        note("contended: left out; no other process can reach the memory of this one");
        return Ok(Vec::new());
    }
    let pace = Pace::new(quick);
    let manager = place.manager().await?;
    let alone = repository("contended-alone")?;
    for key in [&repository("contended")?, &alone] {
        manager.set_limit(key, Limit::new(LIMIT), None).await?;
    }
    let mut workers = Vec::new();
    for number in 0..PROCESSES {
        let round = pace.round;
        workers.push(Worker::start(place, Work::Contend { number, round })?);
    }
    let names = Names::new("alone");
    let mut load = Load::new(manager.clone(), vec![alone], PROCESSES * TASKS, names);
    let mut violations = 0;
    let rounds = Rounds::alternate(
        pace.rounds,
        async |_| {
            for worker in &mut workers {
                worker.ask("go")?;
            }
            let parts = workers.iter_mut().map(Worker::answer::<Part>);
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let held: Vec<_> = parts.iter().flat_map(|part| part.held.clone()).collect();
            violations += violations_in(&held, LIMIT as usize);
            let longest = parts.iter().map(|part| part.elapsed).max();
            Ok(held.len() as f64 / longest.unwrap_or_default().as_secs_f64())
        },
        async |_| load.round(Length::Time(pace.round)).await,
    )
    .await?;
    drop(workers);
    manager.close().await?;
    let measured = Measurement {
        violations: Some(violations),
        ..Measurement::of_rounds("contended", &rounds.ours, "cycles/s")
    };
    Ok(vec![
        measured.against(rounds.raw()).goal(Goal::AtLeast(0.5)),
    ])
}

/// Counts how often more than `limit` slots were held at once.
pub(super) fn violations_in(held: &[Held], limit: usize) -> usize {
    let taken = held.iter().map(|held| (held.from, true));
    let given_back = held.iter().map(|held| (held.to, false));
    let mut steps: Vec<_> = taken.chain(given_back).collect();
    // At the same moment, a slot given back sorts before a slot taken.
    steps.sort_unstable();
    let (mut holders, mut violations) = (0usize, 0);
    for (_, takes) in steps {
        if takes {
            holders += 1;
            violations += usize::from(holders > limit);
        } else {
            holders = holders.saturating_sub(1);
        }
    }
    violations
}

/// Runs one of the four processes.
pub(super) async fn take_part(
    place: &Place,
    number: usize,
    round: Duration,
    asked: &mut Asked,
) -> Result<(), Failure> {
    let manager = place.manager().await?;
    let key = repository("contended")?;
    let names = Names::new(&format!("contended-{number}"));
    asked.answer(&"ready")?;
    while asked.next().is_some() {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (manager, key, names) = (manager.clone(), key.clone(), names.clone());
            tasks.spawn(contend(start + round, manager, key, names));
        }
        let mut part = Part::default();
        while let Some(task) = tasks.join_next().await {
            part.held.extend(task.map_err(bug)??);
        }
        part.elapsed = start.elapsed();
        asked.answer(&part)?;
    }
    Ok(manager.close().await?)
}

async fn contend(
    end: Instant,
    manager: ConcurrencyManager,
    repository: RepositoryKey,
    names: Names,
) -> Result<Vec<Held>, Failure> {
    let mut held = Vec::new();
    while Instant::now() < end {
        let lease = acquire(&manager, &repository, names.next()?).await?;
        let from = now();
        // Yield while holding the slot, as working tasks do.
        tokio::task::yield_now().await;
        let to = now();
        manager.release(lease, RunOutcome::Completed).await?;
        held.push(Held { from, to });
    }
    Ok(held)
}

/// The monotonic clock of the machine, in nanoseconds.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now: Duration = now.try_into().unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_exceeded_is_seen() {
        let held = |from, to| Held { from, to };
        let within = [held(1, 5), held(2, 4), held(5, 9), held(4, 6)];
        assert_eq!(violations_in(&within, 2), 0);
        assert_eq!(violations_in(&within, 1), 3);
        assert_eq!(violations_in(&[], 1), 0);
    }
}
