//! Cycles of admit and release per second, against the store's own writes per second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pac_concurrency::DriverKind;
use pac_concurrency::raw::RawStore;

use tokio::task::JoinSet;

use super::load::{Length, Load, Names};
use super::measurement::{Goal, Measurement};
use super::place::{Pace, Place, bug, rate, repositories};
use super::rounds::Rounds;
use crate::exit::Failure;

const TASKS: usize = 64;

/// Cycles of a round in memory, which then takes about 50 ms.
const CYCLES: usize = 32_000;

/// A cycle is two durable commits, so at most half the store's write rate is possible.
pub(super) async fn sequential(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let shape = Shape {
        name: "sequential",
        repositories: 1,
        tasks: 1,
        limit: 5,
        writers: 1,
        writes: 2.0,
    };
    let goal = match place.driver() {
        DriverKind::Etcd => Some(Goal::AtLeast(0.8)),
        DriverKind::Postgresql => Some(Goal::AtLeast(0.55)),
        _ => None,
    };
    shape.measure(place, quick, goal).await
}

pub(super) async fn spread(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let shape = Shape {
        name: "spread",
        repositories: TASKS,
        tasks: TASKS,
        limit: 5,
        writers: TASKS,
        writes: 1.0,
    };
    let goal = match place.driver() {
        DriverKind::Etcd => Goal::AtLeast(0.8),
        DriverKind::Postgresql => Goal::AtLeast(0.7),
        _ => Goal::AtLeast(1_000_000.0),
    };
    shape.measure(place, quick, Some(goal)).await
}

pub(super) async fn hot(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let shape = Shape {
        name: "hot",
        repositories: 1,
        tasks: TASKS,
        limit: 1_000,
        writers: 1,
        writes: 1.0,
    };
    let goal = match place.driver() {
        DriverKind::Etcd => Some(Goal::AtLeast(9.0)),
        DriverKind::Postgresql => Some(Goal::AtLeast(7.0)),
        _ => None,
    };
    shape.measure(place, quick, goal).await
}

struct Shape {
    name: &'static str,
    repositories: usize,
    tasks: usize,
    limit: u32,
    /// The concurrent writers when the store is measured without the protocol.
    writers: usize,
    /// The store's writes that one cycle is compared with.
    writes: f64,
}

impl Shape {
    async fn measure(
        &self,
        place: &Place,
        quick: bool,
        goal: Option<Goal>,
    ) -> Result<Vec<Measurement>, Failure> {
        let manager = place.manager().await?;
        let keys = repositories(&manager, self.name, self.repositories, self.limit).await?;
        let pace = Pace::new(quick);
        let names = Names::new(self.name);
        let mut load = Load::new(manager.clone(), keys, self.tasks, names);
        let raw = place.raw().await?;
        let length = if place.is_shared() {
            Length::Time(pace.round)
        } else {
            Length::Cycles(CYCLES / self.tasks)
        };
        let rounds = Rounds::alternate(
            pace.rounds,
            async |_| load.round(length).await,
            async |_| match &raw {
                Some(raw) => writes(raw, self.writers, pace.round).await,
                None => Ok(0.0),
            },
        )
        .await?;
        manager.close().await?;
        let mut measured = Measurement::of_rounds(self.name, &rounds.ours, "cycles/s");
        if raw.is_some() {
            measured = measured
                .against(rounds.raw() / self.writes)
                .latencies(load.latency(0.5), load.latency(0.99));
        }
        Ok(vec![match goal {
            Some(goal) => measured.goal(goal),
            None => measured,
        }])
    }
}

/// Writes per second of the store without the protocol.
async fn writes(raw: &Arc<dyn RawStore>, writers: usize, length: Duration) -> Result<f64, Failure> {
    let start = Instant::now();
    let end = start + length;
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let raw = Arc::clone(raw);
        tasks.spawn(async move {
            let mut written = 0;
            while Instant::now() < end {
                raw.write(writer).await?;
                written += 1;
            }
            Ok::<usize, pac_concurrency::Error>(written)
        });
    }
    let mut written = 0;
    while let Some(task) = tasks.join_next().await {
        written += task.map_err(bug)??;
    }
    Ok(rate(written, start))
}
