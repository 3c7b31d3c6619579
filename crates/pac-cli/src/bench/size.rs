//! What many repositories and long queues cost a process: time to connect, CPU when nothing
//! happens, memory.

use std::time::{Duration, Instant};

use pac_concurrency::{ConcurrencyManager, Limit, LimitVersion, RepositoryKey, RunRequest};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::deep_queue::admit;
use super::load::Names;
use super::measurement::{Goal, Measurement};
use super::place::{Place, bug, repository, run};
use super::worker::{Asked, Work, Worker};
use crate::exit::Failure;
use crate::output::note;

const REPOSITORIES: usize = 10_000;
const ENTRIES: usize = 100_000;
const QUICK: usize = 10;

/// Repositories that are filled at once.
const AT_ONCE: usize = 256;
/// Runs that are admitted in one commit.
const TOGETHER: usize = 50;
/// Repositories, and tens of runs, before memory is looked at: buffers are then as large as
/// they get.
const WARM_UP: usize = 500;
/// Repositories in a page of the list.
const PAGE: usize = 1_000;

/// Connecting to a store where another process has a run in each of 10,000 repositories; and
/// the CPU that such a process takes when nothing happens.
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

/// The process with a run in each of so many repositories.
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
    Ok(())
}

/// A running run each, limit 1.
async fn fill(manager: &ConcurrencyManager, repositories: usize) -> Result<(), Failure> {
    let names = Names::new("many");
    let mut tasks = JoinSet::new();
    for number in 0..repositories {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            done.map_err(bug)??;
        }
        let (manager, request) = (manager.clone(), names.next()?);
        tasks.spawn(fill_one(manager, format!("many-{number}"), request));
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

/// How much of a core this process takes over so long, in per cent.
async fn busy(length: Duration) -> f64 {
    let (start, before) = (Instant::now(), cpu());
    sleep(length).await;
    100.0 * (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.try_into().unwrap_or_default()
}

/// Memory of a process of its own, in which nothing else has happened.
pub(super) async fn footprint(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    if resident().is_none() {
        note("footprint: left out; this system does not say how much memory a process has");
        return Ok(Vec::new());
    }
    let part = if quick { QUICK / 2 } else { 1 };
    let (mut entries, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..if quick { 1 } else { 3 } {
        let (number, repositories) = (ENTRIES / part, REPOSITORIES / part);
        let mut worker = Worker::start(
            place,
            Work::Grow {
                entries: number,
                repositories,
            },
        )?;
        worker.ask("grow")?;
        let (of_entry, of_repository): (f64, f64) = worker.answer()?;
        entries.push(of_entry);
        idle.push(of_repository);
    }
    let row = |name, values: &[f64], most| {
        Measurement::of_rounds(name, values, "bytes").goal(Goal::AtMost(most))
    };
    Ok(vec![
        row("footprint", &entries, 400.0),
        row("footprint_repository", &idle, 1024.0),
    ])
}

/// The process that measures itself: what it knows of repositories that another manager has
/// made, and of runs that it has queued itself. In memory the latter are the store's, too.
pub(super) async fn grow(
    place: &Place,
    entries: usize,
    repositories: usize,
    asked: &mut Asked,
) -> Result<(), Failure> {
    let (maker, manager) = place.two_managers().await?;
    // Names of their own, since several processes do this one after the other.
    let tag = format!("grow-{:012x}", fastrand::u64(..1 << 48));
    let mut keys = Vec::new();
    for number in 0..repositories + WARM_UP {
        keys.push(repository(&format!("{tag}-{number}"))?);
    }
    let mut tasks = JoinSet::new();
    for key in keys.clone() {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            done.map_err(bug)??;
        }
        let maker = maker.clone();
        tasks.spawn(async move { maker.set_limit(&key, Limit::new(1), None).await.map(drop) });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(bug)??;
    }
    let unknown = run("unknown")?.run;
    let (warm_up, measured) = keys.split_at(WARM_UP.min(keys.len()));
    let read = async |keys: &[RepositoryKey]| {
        for key in keys {
            manager.run_status(key, &unknown).await?;
        }
        Ok::<_, Failure>(resident().unwrap_or_default())
    };
    let before = read(warm_up).await?;
    let of_repository = each(before, read(measured).await?, measured.len());

    let names = Names::new(&tag);
    let queue = repository(&tag)?;
    manager.set_limit(&queue, Limit::new(1), None).await?;
    let queue_up = async |number: usize| {
        let mut left = number;
        while left > 0 {
            let requests = (0..left.min(TOGETHER)).map(|_| names.next());
            let requests = requests.collect::<Result<Vec<_>, _>>()?;
            left -= requests.len();
            admit(&manager, &queue, requests).await?;
        }
        Ok::<_, Failure>(resident().unwrap_or_default())
    };
    let before = queue_up(10 * WARM_UP).await?;
    let of_entry = each(before, queue_up(entries).await?, entries);
    asked.answer(&"ready")?;
    while asked.next().is_some() {
        asked.answer(&(of_entry, of_repository))?;
    }
    Ok(())
}

fn each(before: usize, after: usize, number: usize) -> f64 {
    after.saturating_sub(before) as f64 / number.max(1) as f64
}

/// Memory of this process that is there, in bytes.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: usize = pages.split(' ').nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size())
}
