//! A lease that is lost while its holder works: once because an operator ends the run, and once
//! because the session ends. The holder hears of it and stops; and should it be too late for
//! that, the resource refuses its fencing token.
//!
//! ```sh
//! cargo run --example lost_lease
//! ```

#![allow(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::driver::Driver;
use pac_concurrency::{
    ConcurrencyManager, FencingToken, Lease, LeaseLoss, Limit, ManagerOptions, MemoryDriver,
    MemoryOptions, PipelineRunKey, RepositoryKey, RunOutcome, RunRequest, Turn,
};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    // So short that the example ends soon; the defaults suit networks.
    let options = ManagerOptions::default()
        .with_session_ttl(Duration::from_millis(300))
        .with_sweep_interval(Duration::from_millis(50));
    let holder = ConcurrencyManager::open(Arc::clone(&store), options).await?;
    let other = ConcurrencyManager::open(Arc::clone(&store), options).await?;
    let deploys: RepositoryKey = "ci/deploys".parse()?;
    holder.set_limit(&deploys, Limit::new(1), None).await?;
    let mut website = Website::default();

    let lease = start(&holder, &deploys, "ci/deploy-1").await?;
    let run: PipelineRunKey = lease.run().clone();
    let (ended, why) = tokio::join!(
        async {
            sleep(Duration::from_millis(100)).await;
            // As `pac cancel` does, from another process.
            other.cancel(&deploys, &run, None).await
        },
        deploy(&lease, &mut website),
    );
    println!("the operator's answer: {:?}", ended?.ended);
    assert_eq!(why, Some(LeaseLoss::Ended(Some(RunOutcome::Cancelled))));

    let lease = start(&holder, &deploys, "ci/deploy-2").await?;
    let session = holder.session();
    let (closed, why) = tokio::join!(
        async {
            sleep(Duration::from_millis(100)).await;
            // The store has ended the session, as after a network that was away for too long.
            store.close_session(session).await
        },
        deploy(&lease, &mut website),
    );
    closed?;
    assert_eq!(why, Some(LeaseLoss::SessionLost));

    // The next holder writes. What the former one still has on its way comes too late.
    let next = start(&other, &deploys, "ci/deploy-3").await?;
    website.write(next.token(), "by deploy-3")?;
    if let Err(refused) = website.write(lease.token(), "late, by deploy-2") {
        println!("the website refuses deploy-2: {refused}");
    }
    println!("the website says: {}", website.content);
    other.close().await?;
    holder.close().await?;
    Ok(())
}

/// Works until it is done, or the lease is lost: says why, then.
async fn deploy(lease: &Lease, website: &mut Website) -> Option<LeaseLoss> {
    println!("{} works with token {}", lease.run(), lease.token());
    let lost = lease.lost();
    let work = async {
        for part in 1..=100 {
            sleep(Duration::from_millis(30)).await;
            // Asking takes no time: for work that is not dropped where it waits.
            if lost.reason().is_some() {
                return;
            }
            let written = website.write(lease.token(), "half a deploy");
            println!("{} writes part {part}: {written:?}", lease.run());
        }
    };
    tokio::select! {
        why = lease.lost() => {
            println!("{} stops: {why}", lease.run());
            Some(why)
        }
        () = work => lost.reason(),
    }
}

async fn start(
    manager: &ConcurrencyManager,
    deploys: &RepositoryKey,
    run: &str,
) -> Result<Lease, Box<dyn Error>> {
    let uid = format!("uid-of-{}", run.replace('/', "-")).parse()?;
    let request = RunRequest::ephemeral(run.parse()?, uid);
    match manager.admit(deploys, request).await?.turn().await? {
        Turn::Started(lease) => Ok(lease),
        turn => Err(format!("{run} did not start: {turn:?}").into()),
    }
}

/// What the runs write to. It has seen the highest token so far, and refuses smaller ones.
#[derive(Debug, Default)]
struct Website {
    highest: FencingToken,
    content: &'static str,
}

impl Website {
    fn write(&mut self, token: FencingToken, content: &'static str) -> Result<(), String> {
        if token < self.highest {
            return Err(format!("token {token} is older than {}", self.highest));
        }
        self.highest = token;
        self.content = content;
        Ok(())
    }
}

#[test]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
fn it_ends_by_itself() {
    main().unwrap();
}
