//! A pool of workers that share the slots of a repository, with each other and with every other
//! process on the same store. It ends when its work is done, and at ctrl-c: what waits for a slot
//! then gives up, what runs is finished, and every slot is free at once.
//!
//! ```sh
//! cargo run --example worker_pool
//! ```

#![allow(clippy::print_stdout, reason = "it is there to be read")]

use std::time::Duration;

use pac_concurrency::{
    ConcurrencyManager, Error, Limit, RepositoryKey, RunOutcome, Settings, connect,
};
use tokio::signal::ctrl_c;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

const SLOTS: u32 = 2;
const JOBS: u32 = 6;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // The memory driver. Settings that name etcd or PostgreSQL share the slots between processes.
    let manager = connect(&Settings::default()).await?;
    let builds: RepositoryKey = "ci/builds".parse()?;
    manager.set_limit(&builds, Limit::new(SLOTS), None).await?;

    // The short way: a future that is polled only while a slot is held.
    let answer = manager.with_slot(&builds, async { 6 * 7 }).await?;
    println!("with_slot: {answer}");

    let (stop, stopped) = watch::channel(false);
    let mut pool = JoinSet::new();
    for job in 1..=JOBS {
        pool.spawn(work(manager.clone(), builds.clone(), job, stopped.clone()));
    }
    tokio::select! {
        () = finish(&mut pool) => println!("all jobs have ended"),
        _ = ctrl_c() => {
            println!("stopping: no further job starts");
            stop.send_replace(true);
            finish(&mut pool).await;
        }
    }

    for run in manager.status(&builds).await?.finished {
        println!("history: {} {}", run.run, run.outcome);
    }
    // Without this, what is left at the store would be freed only after the session TTL.
    manager.close().await
}

/// One job: waits for a slot unless the pool is stopped first, and works while it holds it.
async fn work(
    manager: ConcurrencyManager,
    builds: RepositoryKey,
    job: u32,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut slot = tokio::select! {
        slot = manager.acquire(&builds) => slot?,
        // Dropping `acquire` gives up the place in the queue.
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    };
    println!("job {job} runs with fencing token {}", slot.token());
    sleep(Duration::from_millis(50)).await;
    if job == 3 {
        slot.set_outcome(RunOutcome::Failed);
    }
    // Dropping the permit would do too; this waits until the store knows.
    let next = slot.release().await?.promoted;
    println!("job {job} has ended; {} started in its stead", next.len());
    Ok(())
}

async fn finish(pool: &mut JoinSet<Result<(), Error>>) {
    while let Some(ended) = pool.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => println!("a job failed: {error}"),
            // Its permit was dropped by the panic, and its run is recorded as failed.
            Err(panic) => println!("a job panicked: {panic}"),
        }
    }
}

#[test]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
fn it_ends_by_itself() {
    main().unwrap();
}
