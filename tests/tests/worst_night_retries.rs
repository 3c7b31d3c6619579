//! How long a command waits for its next attempt depends on why the last one failed, whatever
//! failed before that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, Error, Limit, ManagerOptions, MemoryDriver, MemoryOptions,
    RepositoryKey,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{Fixture, Time, durable, repository, run_case};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// With time for a long outage.
fn options(fixture: &Fixture) -> ManagerOptions {
    fixture
        .options()
        .with_command_timeout(Duration::from_secs(60))
}

/// An outage that began with a lost commit was met with the short pauses of
/// contention: a store that is away was asked 30 times a second by every repository.
#[test]
fn a_store_that_is_away_is_left_alone_although_a_commit_was_lost_before() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (line, ours, web) = slow_line(fixture).await;
        line.inject([Request::Commit], Fault::Conflict, When::Next(1));
        let asking = ask(&ours, &web);
        comes_true("the first attempt", || line.is_used_up()).await;
        line.inject([Request::Commit], Fault::Fail, When::Always);

        sleep(Duration::from_secs(1)).await;
        let before = line.traffic(&web).commits;
        sleep(Duration::from_secs(10)).await;
        let attempts = line.traffic(&web).commits - before;
        assert!(attempts >= 5, "{attempts} attempts in 10 s");
        assert!(attempts <= 60, "{attempts} attempts in 10 s");
        line.clear();
        answered(asking).await;
    });
}

/// Contention that began with an outage was met with the long pauses of an outage: the
/// command lost again and again to others that were faster.
#[test]
fn lost_commits_are_tried_again_at_once_although_the_store_was_away_before() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (line, ours, web) = slow_line(fixture).await;
        line.inject([Request::Commit], Fault::Fail, When::Always);
        let asking = ask(&ours, &web);
        sleep(Duration::from_secs(20)).await;
        line.clear();
        line.inject([Request::Commit], Fault::Conflict, When::Next(5));
        let commits = || line.traffic(&web).commits;
        let before = commits();
        comes_true("the next attempt", || commits() > before).await;

        let start = Instant::now();
        answered(asking).await;
        let took = start.elapsed();
        assert!(line.is_used_up(), "five commits were lost");
        // Five pauses of contention: 20 ms, and as much again by chance.
        assert!(took < Duration::from_millis(400), "{took:?}");
    });
}

async fn slow_line(fixture: &Fixture) -> (Arc<Faults>, ConcurrencyManager, RepositoryKey) {
    let web = repository("web");
    let line = Faults::none();
    let delay = Fault::Delay(Duration::from_millis(1));
    line.inject([Request::Commit], delay, When::Always);
    let ours = fixture.manager_behind_with(&line, options(fixture)).await;
    let other = fixture.manager().await;
    other.set_limit(&web, Limit::new(1), None).await.unwrap();
    // Known before, so that the first request of an admission is its commit.
    ours.status(&web).await.unwrap();
    (line, ours, web)
}

type Asking = JoinHandle<Result<Admission, Error>>;

fn ask(ours: &ConcurrencyManager, web: &RepositoryKey) -> Asking {
    let (ours, web) = (ours.clone(), web.clone());
    tokio::spawn(async move { ours.admit(&web, durable("a")).await })
}

async fn comes_true(what: &str, is_true: impl Fn() -> bool) {
    let wait = async {
        while !is_true() {
            sleep(Duration::from_micros(100)).await;
        }
    };
    let came = timeout(Duration::from_secs(5), wait).await;
    came.unwrap_or_else(|_| panic!("{what} did not come"));
}

async fn answered(asking: Asking) {
    let answer = timeout(Duration::from_secs(10), asking).await;
    let answer = answer.expect("no answer").unwrap();
    assert!(matches!(answer, Ok(Admission::Started(_))), "{answer:?}");
}
