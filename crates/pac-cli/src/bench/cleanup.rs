//! How fast the server is for another client after the bench has deleted all that it wrote, against
//! before it has written anything.

use std::sync::Arc;
use std::time::Instant;

use pac_concurrency::raw::RawStore;
use tokio::task::JoinSet;

use super::measurement::{Goal, Measurement};
use super::place::{Pace, Place, bug, rate};
use super::statistics::median;
use crate::exit::Failure;
use crate::output::note;

const KEYS: usize = 20_000;
const QUICK_KEYS: usize = 5_000;
const TASKS: usize = 64;

/// Writes what there will be to delete, in addition to what other measurements leave behind.
pub(super) async fn fill(place: &Place, quick: bool) -> Result<(), Failure> {
    let Some(raw) = place.raw().await? else {
        note("cleanup: left out; no other process can reach the memory of this one");
        return Ok(());
    };
    let keys = if quick { QUICK_KEYS } else { KEYS };
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let raw = Arc::clone(&raw);
        tasks.spawn(async move {
            for key in (task..keys).step_by(TASKS) {
                raw.write(key).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.map_err(bug)??;
    }
    Ok(())
}

/// A client that has nothing to do with the bench, and how fast it was before.
pub(super) struct Stranger {
    place: Place,
    pace: Pace,
    before: f64,
}

impl Stranger {
    /// `None` where no other client can reach the store.
    pub(super) async fn before(place: &Place, quick: bool) -> Result<Option<Self>, Failure> {
        if !place.is_shared() {
            return Ok(None);
        }
        let mut stranger = Self {
            place: place.another(),
            pace: Pace::new(quick),
            before: 0.0,
        };
        let rates = stranger.rates().await?;
        stranger.before = median(&rates);
        Ok(Some(stranger))
    }

    pub(super) async fn after(&self) -> Result<Measurement, Failure> {
        let rates = self.rates().await?;
        let measured = Measurement::of_rounds("cleanup", &rates, "writes and reads/s");
        Ok(measured.against(self.before).goal(Goal::AtLeast(0.8)))
    }

    /// Deletes what it has written itself.
    pub(super) async fn clear(&self) -> Result<(), Failure> {
        self.place.clear().await
    }

    /// Writes and reads in turn, for some rounds.
    async fn rates(&self) -> Result<Vec<f64>, Failure> {
        let mut rates = Vec::new();
        if let Some(raw) = self.place.raw().await? {
            // A first round does not count.
            self.round(&raw).await?;
            for _ in 0..self.pace.rounds {
                rates.push(self.round(&raw).await?);
            }
        }
        Ok(rates)
    }

    async fn round(&self, raw: &Arc<dyn RawStore>) -> Result<f64, Failure> {
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed() < self.pace.round {
            raw.write(0).await?;
            raw.read(0).await?;
            done += 1;
        }
        Ok(rate(done, start))
    }
}
