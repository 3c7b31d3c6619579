//! The costs of many repositories and long queues for a process: time to connect, CPU while
//! idle, memory.

use std::time::{Duration, Instant};

use pac_concurrency::{ConcurrencyManager, Limit, LimitVersion, RepositoryKey, RunRequest};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::deep_queue::queue_up;
use super::load::Names;
use super::measurement::{Goal, Measurement};
use super::place::{Place, bug, repository, run};
use super::worker::{Asked, Work, Worker};
use crate::exit::Failure;
use crate::output::note;

const REPOSITORIES: usize = 10_000;
const ENTRIES: usize = 100_000;
const QUICK: usize = 10;

/// Repositories worked on at once.
const AT_ONCE: usize = 256;
/// Repositories, and tens of runs, before memory is first measured: buffers have then reached
/// their final size.
const WARM_UP: usize = 500;
/// Repositories per page of the list.
const PAGE: usize = 1_000;
/// The time until a process is idle: memory of earlier work is freed in the background.
const SETTLE: Duration = Duration::from_secs(2);

/// The time to connect to a store where another process has a run in each of 10,000
/// repositories, and the CPU time that such a process takes while idle.
pub(super) async fn many_repositories(
    place: &Place,
    quick: bool,
) -> Result<Vec<Measurement>, Failure> {
    if !place.is_shared() {
        return idle_in_memory(place, quick).await;
    }
    let repositories = if quick {
        REPOSITORIES / QUICK
    } else {
        REPOSITORIES
    };
    let mut worker = Worker::start(place, Work::Populate { repositories })?;
    let mut ready = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let manager = place.manager().await?;
        let grants = manager.grants();
        let listed = list(&manager).await?;
        ready.push(start.elapsed().as_secs_f64());
        drop(grants);
        manager.close().await?;
        if listed < repositories {
            return Err(bug(format!(
                "{listed} of {repositories} repositories are listed"
            )));
        }
    }
    worker.ask(if quick { "6" } else { "30" })?;
    let busy: f64 = worker.answer()?;
    Ok(vec![
        Measurement::of_rounds("many_repositories", &ready, "s").goal(Goal::AtMost(3.0)),
        idle(busy),
    ])
}

async fn idle_in_memory(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let manager = place.manager().await?;
    let repositories = if quick {
        REPOSITORIES / QUICK
    } else {
        REPOSITORIES
    };
    fill(&manager, repositories).await?;
    let start = Instant::now();
    list(&manager).await?;
    let ready = start.elapsed().as_secs_f64();
    let busy = busy(Duration::from_secs(if quick { 6 } else { 30 })).await;
    Ok(vec![
        Measurement::new("many_repositories", ready, "s").goal(Goal::AtMost(3.0)),
        idle(busy),
    ])
}

fn idle(busy: f64) -> Measurement {
    Measurement::new("many_repositories_cpu", busy, "% of a core").goal(Goal::AtMost(1.0))
}

async fn list(manager: &ConcurrencyManager) -> Result<usize, Failure> {
    let (mut after, mut listed) = (None, 0);
    loop {
        let page = manager.list(after.as_ref(), PAGE).await?;
        listed += page.len();
        if page.len() < PAGE {
            return Ok(listed);
        }
        after = page.into_iter().next_back().map(|last| last.repository);
    }
}

/// Runs the worker process that has a run in each repository.
pub(super) async fn populate(
    place: &Place,
    repositories: usize,
    asked: &mut Asked,
) -> Result<(), Failure> {
    let manager = place.manager().await?;
    fill(&manager, repositories).await?;
    asked.answer(&"ready")?;
    while let Some(seconds) = asked.next() {
        let seconds: u64 = seconds.parse().map_err(bug)?;
        asked.answer(&busy(Duration::from_secs(seconds)).await)?;
    }
    Ok(manager.close().await?)
}

/// Starts one run in each repository, with limit 1.
async fn fill(manager: &ConcurrencyManager, repositories: usize) -> Result<(), Failure> {
    let names = Names::new("many");
    let runs = (0..repositories).map(|number| {
        let (manager, request) = (manager.clone(), names.next());
        async move { fill_one(manager, format!("many-{number}"), request?).await }
    });
    all(runs).await
}

/// Runs all of this work, [`AT_ONCE`] at a time.
async fn all<F>(work: impl Iterator<Item = F>) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for work in work {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            done.map_err(bug)??;
        }
        tasks.spawn(work);
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(bug)??;
    }
    Ok(())
}

async fn fill_one(
    manager: ConcurrencyManager,
    name: String,
    request: RunRequest,
) -> Result<(), Failure> {
    let limit = Some((Limit::new(1), LimitVersion::new(1)));
    manager
        .admit_all(&repository(&name)?, limit, vec![request])
        .await?;
    Ok(())
}

/// The share of one core that this process uses over `length`, in per cent.
async fn busy(length: Duration) -> f64 {
    sleep(SETTLE).await;
    let (start, before) = (Instant::now(), cpu());
    sleep(length).await;
    100.0 * (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.try_into().unwrap_or_default()
}

/// The memory of a fresh process that does nothing else.
pub(super) async fn footprint(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    if resident().is_none() {
        note("footprint: left out; this system does not say how much memory a process has");
        return Ok(Vec::new());
    }
    let part = if quick { QUICK / 2 } else { 1 };
    let (mut of_entry, mut of_repository) = (Vec::new(), Vec::new());
    for _ in 0..if quick { 1 } else { 3 } {
        let entries = ENTRIES / part;
        let tag = tag();
        of_entry.push(grown(place, Work::Queue { tag, entries })?);
        let repositories = REPOSITORIES / part;
        let tag = tag_of_repositories(place, repositories).await?;
        of_repository.push(grown(place, Work::Know { tag, repositories })?);
    }
    let row = |name, values: &[f64], most| {
        Measurement::of_rounds(name, values, "bytes").goal(Goal::AtMost(most))
    };
    Ok(vec![
        row("footprint", &of_entry, 400.0),
        row("footprint_repository", &of_repository, 1024.0),
    ])
}

/// The growth that a worker process has measured of itself.
fn grown(place: &Place, work: Work) -> Result<f64, Failure> {
    let mut worker = Worker::start(place, work)?;
    worker.ask("grow")?;
    worker.answer()
}

/// A tag for names: several processes do the same work one after the other.
fn tag() -> String {
    format!("grow-{:012x}", fastrand::u64(..1 << 48))
}

/// The tag of repositories that exist already, where another process can create them.
async fn tag_of_repositories(place: &Place, repositories: usize) -> Result<String, Failure> {
    let tag = tag();
    if place.is_shared() {
        let maker = place.manager().await?;
        make(&maker, &keys(&tag, repositories)?).await?;
        maker.close().await?;
    }
    Ok(tag)
}

fn keys(tag: &str, repositories: usize) -> Result<Vec<RepositoryKey>, Failure> {
    let numbers = 0..repositories + WARM_UP;
    numbers
        .map(|number| repository(&format!("{tag}-{number}")))
        .collect()
}

async fn make(maker: &ConcurrencyManager, keys: &[RepositoryKey]) -> Result<(), Failure> {
    let heads = keys.iter().map(|key| {
        let (maker, key) = (maker.clone(), key.clone());
        async move {
            maker.set_limit(&key, Limit::new(1), None).await?;
            Ok(())
        }
    });
    all(heads).await
}

/// Runs the worker process that measures the memory of repositories that it has only read. With
/// the memory driver it has to create them itself first, with another manager.
pub(super) async fn know(
    place: &Place,
    tag: &str,
    repositories: usize,
    asked: &mut Asked,
) -> Result<(), Failure> {
    let (maker, manager) = place.two_managers().await?;
    let keys = keys(tag, repositories)?;
    if !place.is_shared() {
        make(&maker, &keys).await?;
    }
    asked.answer(&"ready")?;
    while asked.next().is_some() {
        let unknown = run("unknown")?.run;
        let (warm_up, measured) = keys.split_at(WARM_UP.min(keys.len()));
        let read = async |keys: &[RepositoryKey]| {
            for key in keys {
                manager.run_status(key, &unknown).await?;
            }
            Ok::<_, Failure>(resident().unwrap_or_default())
        };
        let before = read(warm_up).await?;
        asked.answer(&each(before, read(measured).await?, measured.len()))?;
    }
    maker.close().await?;
    Ok(manager.close().await?)
}

/// Runs the worker process that measures the memory of runs that it has queued. With the memory
/// driver this includes the store's own records.
pub(super) async fn queue(
    place: &Place,
    tag: &str,
    entries: usize,
    asked: &mut Asked,
) -> Result<(), Failure> {
    let manager = place.manager().await?;
    let names = Names::new(tag);
    let key = repository(tag)?;
    asked.answer(&"ready")?;
    while asked.next().is_some() {
        manager.set_limit(&key, Limit::new(1), None).await?;
        let grow = async |number: usize| {
            queue_up(&manager, &key, &names, number).await?;
            Ok::<_, Failure>(resident().unwrap_or_default())
        };
        let before = grow(10 * WARM_UP).await?;
        asked.answer(&each(before, grow(entries).await?, entries))?;
    }
    // Otherwise the manager that cleans up after this session would read the whole queue.
    place.leave(manager, &[key]).await
}

fn each(before: usize, after: usize, number: usize) -> f64 {
    after.saturating_sub(before) as f64 / number.max(1) as f64
}

/// The resident memory of this process, in bytes.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: usize = pages.split(' ').nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size())
}
