//! The cost of the manager and the protocol, measured on the memory driver, which adds almost
//! none: `cargo bench -p pac-concurrency`.
//!
//! - `spread`: admit+release cycles per second of 64 tasks over 64 repositories on two threads.
//! - `deep_queue`: admit, cancel and release with 10, 1,000 and 100,000 runs waiting, as ratios
//!   to the first. The rounds of the three alternate, so that other load on the machine affects
//!   them alike; the medians are compared.

use std::error::Error;
use std::time::{Duration, Instant};

use pac_concurrency::{
    Admission, ConcurrencyManager, Limit, PipelineRunKey, RepositoryKey, RunOutcome, RunRequest,
    Settings, Uid, Waiter,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TASKS: usize = 64;
const SPREAD_ROUNDS: usize = 51;
const CYCLES: usize = 2_000;

const DEPTHS: [usize; 3] = [10, 1_000, 100_000];
const DEEP_ROUNDS: usize = 41;
const OPERATIONS: u32 = 500;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let spread = runtime.block_on(spread())?;
    report(&format!("spread: {spread:.0} cycles/s"));
    let deep = runtime.block_on(deep_queue())?;
    let [shallow, ..] = deep;
    for (depth, cost) in DEPTHS.into_iter().zip(deep) {
        let line = |name: &str, cost: Duration, base: Duration| {
            let ratio = cost.as_secs_f64() / base.as_secs_f64();
            report(&format!(
                "deep_queue: {name} with {depth} waiting: {cost:?}, {ratio:.2}"
            ));
        };
        line("admit", cost.admit, shallow.admit);
        line("cancel", cost.cancel, shallow.cancel);
        line("release", cost.release, shallow.release);
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is what a benchmark is for")]
fn report(line: &str) {
    println!("{line}");
}

/// Median cycles per second. The names are made before the clock starts.
async fn spread() -> Result<f64> {
    let manager = pac_concurrency::connect(&Settings::default()).await?;
    let repositories = (0..TASKS)
        .map(|task| RepositoryKey::new("bench", &format!("repository-{task}")))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    for repository in &repositories {
        manager.set_limit(repository, Limit::new(5), None).await?;
    }
    let mut rates = Vec::new();
    for round in 0..SPREAD_ROUNDS {
        let mut tasks = Vec::new();
        for (task, repository) in repositories.iter().enumerate() {
            let requests = (0..CYCLES)
                .map(|cycle| request(&format!("run-{task}-{round}-{cycle}")))
                .collect::<Result<Vec<_>>>()?;
            tasks.push(cycles(manager.clone(), repository.clone(), requests));
        }
        let start = Instant::now();
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await??;
        }
        rates.push((TASKS * CYCLES) as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates.get(SPREAD_ROUNDS / 2).copied().unwrap_or_default())
}

async fn cycles(
    manager: ConcurrencyManager,
    repository: RepositoryKey,
    requests: Vec<RunRequest>,
) -> Result<()> {
    for request in requests {
        match manager.admit(&repository, request).await? {
            Admission::Started(lease) => {
                manager.release(lease, RunOutcome::Completed).await?;
            }
            other => return Err(format!("nothing else runs, but: {other:?}").into()),
        }
    }
    Ok(())
}

fn request(name: &str) -> Result<RunRequest> {
    let uid: Uid = name.parse()?;
    Ok(RunRequest::durable(
        PipelineRunKey::new("bench", name)?,
        uid,
    ))
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    admit: Duration,
    cancel: Duration,
    release: Duration,
}

async fn deep_queue() -> Result<[Cost; 3]> {
    let manager = pac_concurrency::connect(&Settings::default()).await?;
    let mut rounds: [Vec<Cost>; 3] = Default::default();
    for depth in DEPTHS {
        fill(&manager, depth).await?;
    }
    for round in 0..DEEP_ROUNDS {
        for (depth, costs) in DEPTHS.into_iter().zip(&mut rounds) {
            costs.push(deep_round(&manager, depth, round).await?);
        }
    }
    Ok(rounds.map(|costs| {
        let median = |part: fn(&Cost) -> Duration| {
            let mut parts: Vec<_> = costs.iter().map(part).collect();
            parts.sort_unstable();
            parts.get(DEEP_ROUNDS / 2).copied().unwrap_or_default() / OPERATIONS
        };
        Cost {
            admit: median(|cost| cost.admit),
            cancel: median(|cost| cost.cancel),
            release: median(|cost| cost.release),
        }
    }))
}

fn deep(depth: usize) -> Result<RepositoryKey> {
    Ok(RepositoryKey::new("bench", &format!("deep-{depth}"))?)
}

/// Starts one run, which takes the only slot, and queues `depth` more.
async fn fill(manager: &ConcurrencyManager, depth: usize) -> Result<()> {
    let repository = deep(depth)?;
    manager.set_limit(&repository, Limit::new(1), None).await?;
    for waiting in 0..=depth {
        let request = request(&format!("deep-{depth}-{waiting}"))?;
        if let Admission::Queued(waiter) = manager.admit(&repository, request).await? {
            waiter.detach();
        }
    }
    Ok(())
}

/// Adds runs at the end of the queue, cancels half of them, and releases as many running runs as
/// remain of the added ones, so that the depth stays the same.
async fn deep_round(manager: &ConcurrencyManager, depth: usize, round: usize) -> Result<Cost> {
    let repository = deep(depth)?;
    let name = |n: u32| format!("round-{depth}-{round}-{n}");
    let requests: Vec<_> = (0..2 * OPERATIONS)
        .map(|n| request(&name(n)))
        .collect::<Result<_>>()?;
    let start = Instant::now();
    let mut waiting: Vec<Waiter> = Vec::with_capacity(requests.len());
    for request in requests {
        if let Admission::Queued(waiter) = manager.admit(&repository, request).await? {
            waiting.push(waiter);
        }
    }
    let admit = start.elapsed() / 2;
    let cancelled: Vec<_> = waiting
        .iter()
        .step_by(2)
        .map(|waiter| waiter.run().clone())
        .collect();
    let start = Instant::now();
    for run in &cancelled {
        manager.cancel(&repository, run, None).await?;
    }
    let cancel = start.elapsed();
    waiting.into_iter().for_each(Waiter::detach);

    let mut status = manager.status(&repository).await?;
    let queued = status.queued.iter().map(|queued| queued.run.clone());
    let running = status.running.drain(..).map(|running| running.run);
    let order: Vec<_> = running.chain(queued.take(OPERATIONS as usize)).collect();
    let start = Instant::now();
    for run in order.iter().take(OPERATIONS as usize) {
        manager
            .release_run(&repository, run, &uid_of(run)?, None, RunOutcome::Completed)
            .await?;
    }
    let release = start.elapsed();
    Ok(Cost {
        admit,
        cancel,
        release,
    })
}

/// The uid of a run: here always its name.
fn uid_of(run: &PipelineRunKey) -> Result<Uid> {
    Ok(run.name().parse()?)
}
