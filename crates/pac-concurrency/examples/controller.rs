//! Two controllers on one store. The cluster executes their runs, so these are *durable*: one
//! controller is dropped without a word, as by a crash, and the other one goes on in its place.
//! It adopts the run that it sees running, and reads the runs whose turn comes from the stream of
//! grants.
//!
//! ```sh
//! cargo run --example controller
//! ```

#![allow(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::driver::Driver;
use pac_concurrency::{
    Admission, ConcurrencyManager, Event, Heard, Limit, ManagerOptions, MemoryDriver,
    MemoryOptions, RepositoryKey, RunOutcome, RunRequest,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    // So short that the example ends soon; the defaults suit clusters.
    let options = ManagerOptions::default()
        .with_session_ttl(Duration::from_millis(300))
        .with_lease_ttl(Duration::from_secs(10))
        .with_sweep_interval(Duration::from_millis(50));
    let first = ConcurrencyManager::open(Arc::clone(&store), options).await?;
    let second = ConcurrencyManager::open(store, options).await?;
    let website = "ci/website".parse()?;

    first.set_limit(&website, Limit::new(1), None).await?;
    for number in 1..=3 {
        // A controller admits every PipelineRun that it sees, again after each restart.
        match first.admit(&website, build(number)?).await? {
            Admission::Started(lease) => println!("first: {} starts", lease.run()),
            Admission::Queued(waiter) => {
                println!("first: {} waits at {:?}", waiter.run(), waiter.position());
                // Its lease comes out of `grants()`, at whichever controller reads that.
                waiter.detach();
            }
            Admission::Finished(outcome) => println!("first: build {number} {outcome} before"),
        }
    }

    let mut events = second.events();
    let mut grants = second.grants().ok_or("somebody reads the grants already")?;
    println!("the first controller dies");
    drop(first);
    wait_until_orphaned(&mut events).await?;

    // The cluster says that build 1 still runs. Adopting keeps its slot; were it not adopted
    // within the lease TTL, the slot would be freed.
    let Admission::Started(running) = second.adopt(&website, build(1)?).await? else {
        return Err("build 1 runs".into());
    };
    println!(
        "second: {} goes on with token {}",
        running.run(),
        running.token()
    );
    println!("second: {} has ended in the cluster", running.run());
    second.release(running, RunOutcome::Completed).await?;

    for _ in 2..=3 {
        let lease = grants.next().await.ok_or("the manager has ended")?;
        println!(
            "second: {} starts with token {}",
            lease.run(),
            lease.token()
        );
        second.release(lease, RunOutcome::Completed).await?;
    }
    show(&second, &website).await?;
    second.close().await?;
    Ok(())
}

fn build(number: u32) -> Result<RunRequest, Box<dyn Error>> {
    let run = format!("ci/build-{number}").parse()?;
    // In a cluster: the uid of the PipelineRun, which tells it from another of the same name.
    let uid = format!("uid-of-build-{number}").parse()?;
    Ok(RunRequest::durable(run, uid))
}

/// The death of a controller is noticed when its session TTL has passed.
async fn wait_until_orphaned(events: &mut pac_concurrency::Events) -> Result<(), Box<dyn Error>> {
    loop {
        match events.next().await.ok_or("the manager has ended")? {
            Heard::Event(Event::Orphaned { run, .. }) => {
                println!("second: {run} has lost its controller");
                return Ok(());
            }
            Heard::Event(event) => println!("second: {event:?}"),
            Heard::Missed(number) => println!("second: {number} events passed unread"),
            other => println!("second: {other:?}"),
        }
    }
}

async fn show(manager: &ConcurrencyManager, website: &RepositoryKey) -> Result<(), Box<dyn Error>> {
    for run in manager.status(website).await?.finished {
        let at = run.finished_at.map(|at| at.to_string());
        println!(
            "history: {} {} {}",
            run.run,
            run.outcome,
            at.unwrap_or_default()
        );
    }
    Ok(())
}

#[test]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
fn it_ends_by_itself() {
    main().unwrap();
}
