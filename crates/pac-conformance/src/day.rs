//! A day of a busy store in a shorter time: runs come and go, and the size of the store is looked
//! at now and then. It should rise until the retention takes effect, and then stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, Turn};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{Error, ErrorKind, Limit, RepositoryKey};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, interval, sleep, sleep_until};

/// What happens in a day.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Day {
    /// How long it takes.
    pub length: Duration,
    /// In how many repositories, each with the limit 2.
    pub repositories: usize,
    /// How many runs come in a second, in all of them together.
    pub rate: u32,
    /// How often sizes are looked at.
    pub points: u32,
}

impl Default for Day {
    /// Ten minutes, fifty repositories, a hundred runs a second (which is 60,000 in the day), ten
    /// looks.
    fn default() -> Self {
        Self {
            length: Duration::from_secs(600),
            repositories: 50,
            rate: 100,
            points: 10,
        }
    }
}

impl Day {
    /// The same in another time.
    #[must_use]
    pub fn within(self, length: Duration) -> Self {
        Self { length, ..self }
    }
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Point {
    /// Runs that have ended so far.
    pub runs: usize,
    /// What there is to measure, in bytes.
    pub sizes: Vec<(&'static str, u64)>,
}

/// Lives through a day with one manager over a driver, and calls `sizes` at regular intervals. Tells
/// each point to `tell` as it comes, and returns all of them.
///
/// # Errors
/// Those of the manager and of `sizes`.
pub async fn live(
    driver: Arc<dyn Driver>,
    day: Day,
    mut sizes: impl AsyncFnMut() -> Result<Vec<(&'static str, u64)>, Error>,
    mut tell: impl FnMut(&Point),
) -> Result<Vec<Point>, Error> {
    let manager = ConcurrencyManager::open(driver, ManagerOptions::default()).await?;
    let ended = Arc::new(AtomicUsize::new(0));
    let mut work = JoinSet::new();
    for number in 0..day.repositories {
        let key: RepositoryKey = format!("day/repository-{number}").parse()?;
        manager.set_limit(&key, Limit::new(2), None).await?;
        work.spawn(busy(manager.clone(), key, day, Arc::clone(&ended)));
    }
    let start = Instant::now();
    let mut points = Vec::new();
    for number in 1..=day.points {
        sleep_until(start + day.length * number / day.points.max(1)).await;
        let point = Point {
            runs: ended.load(Ordering::Relaxed),
            sizes: sizes().await?,
        };
        tell(&point);
        points.push(point);
        while let Some(ended) = work.try_join_next() {
            ended.unwrap_or_else(|panic| Err(bug(&panic)))?;
        }
    }
    work.shutdown().await;
    manager.close().await?;
    Ok(points)
}

fn bug(panic: &JoinError) -> Error {
    Error::new(ErrorKind::Internal, "live", panic.to_string())
}

/// Runs in one repository, for ever.
async fn busy(
    manager: ConcurrencyManager,
    key: RepositoryKey,
    day: Day,
    ended: Arc<AtomicUsize>,
) -> Result<(), Error> {
    let share = u32::try_from(day.repositories).unwrap_or(u32::MAX);
    let mut ticks = interval(Duration::from_secs(1) * share / day.rate.max(1));
    for number in 0_u64.. {
        ticks.tick().await;
        let run = format!("day/run-{number}").parse()?;
        let uid = format!("{number}").parse()?;
        let lease = match manager.admit(&key, RunRequest::durable(run, uid)).await? {
            Admission::Started(lease) => lease,
            Admission::Queued(waiter) => match waiter.await? {
                Turn::Started(lease) => lease,
                _ => continue,
            },
            _ => continue,
        };
        sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        manager.release(lease, RunOutcome::Completed).await?;
        ended.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
