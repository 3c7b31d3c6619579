//! All cases against the memory driver behind a simulated connection: like a server, with
//! batches and answers that take their time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use pac_concurrency::driver::Driver;
use pac_concurrency::{Admission, Limit, MemoryDriver, MemoryOptions, RunOutcome, Timestamp};
use pac_conformance::faults::{Faults, Request};
use pac_conformance::{Fixture, Time, durable, repository, run_case};

pac_conformance::conformance!(crate::distant);

async fn distant(time: Time) -> Fixture {
    let now = MemoryOptions::default().epoch;
    Fixture::over(open(&Faults::line(), now), time).with_clock(|now| open(&Faults::line(), now))
}

fn open(line: &Arc<Faults>, epoch: Timestamp) -> Arc<dyn Driver> {
    let usual = MemoryOptions::default();
    let memory: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions { epoch, ..usual }));
    line.over(&memory)
}

const CYCLES: u64 = 20;

/// Runs 64 tasks of one manager over this many repositories. Returns how many batches and
/// commits that took.
fn cycles(repositories: u64) -> (u64, u64) {
    let line = Faults::line();
    let now = MemoryOptions::default().epoch;
    let open = async |time| Fixture::over(open(&line, now), time);
    let case = async |fixture: &Fixture| {
        let manager = fixture.manager().await;
        let tasks = (0..64).map(|task| {
            let manager = manager.clone();
            let repository = repository(&format!("repository-{}", task % repositories));
            tokio::spawn(async move {
                let limit = Limit::new(1_000);
                manager.set_limit(&repository, limit, None).await.unwrap();
                for cycle in 0..CYCLES {
                    let request = durable(&format!("run-{task}-{cycle}"));
                    match manager.admit(&repository, request).await.unwrap() {
                        Admission::Started(lease) => {
                            let outcome = RunOutcome::Completed;
                            manager.release(lease, outcome).await.unwrap();
                        }
                        other => panic!("there is room for all, but: {other:?}"),
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    };
    run_case(Time::Paused, open, case);
    (line.requests(Request::Commit), line.total_traffic().commits)
}

#[test]
fn commits_of_many_repositories_share_batches() {
    let (batches, commits) = cycles(64);
    assert_eq!(commits, 64 * (2 * CYCLES + 1));
    assert!(
        batches < commits / 8,
        "{commits} commits in {batches} batches"
    );
}

#[test]
fn commands_of_one_repository_share_commits() {
    let operations = 64 * 2 * CYCLES;
    let (_, commits) = cycles(1);
    assert!(
        commits < operations / 8,
        "{operations} operations in {commits} commits"
    );
}
