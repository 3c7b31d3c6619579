//! Dead sessions: seen to one after the other, by the process that waits for their slots first,
//! and none in the way of another.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{Limit, MemoryDriver, MemoryOptions, RepositoryKey};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{Fixture, Time, ephemeral, queued, repository, run_case, started};
use tokio::time::{Instant, sleep, timeout};

const DEAD: usize = 12;

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// As many repositories, each with a run that holds its only slot, of a process of its own; all
/// are dead from now on.
async fn dead_holders(fixture: &Fixture) -> Vec<RepositoryKey> {
    let mut held = Vec::new();
    for n in 0..DEAD {
        let line = Faults::none();
        let doomed = fixture.manager_behind(&line).await;
        let key = repository(&format!("held-{n}"));
        doomed.set_limit(&key, Limit::new(1), None).await.unwrap();
        drop_later(started(&doomed, &key, ephemeral("held")).await);
        line.cut();
        held.push(key);
    }
    held
}

/// A killed process gives nothing back.
fn drop_later<T>(lease: T) {
    std::mem::forget(lease);
}

async fn are_free(fixture: &Fixture, held: &[RepositoryKey]) -> bool {
    for key in held {
        if !fixture.view(key).await.running.is_empty() {
            return false;
        }
    }
    true
}

/// Twelve dead sessions took twelve connections of every process at once.
#[test]
fn dead_sessions_are_seen_to_one_after_the_other() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = dead_holders(fixture).await;
        let line = Faults::none();
        // There and back, well within the time that one session waits for another.
        let half = Duration::from_millis(40);
        line.inject([Request::RepositoriesOf], Fault::Delay(half), When::Always);
        let _sweeper = fixture.manager_behind(&line).await;
        while line.requests(Request::RepositoriesOf) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let mut before = 1;
        while line.requests(Request::RepositoriesOf) < DEAD as u64 {
            sleep(half * 2).await;
            let now = line.requests(Request::RepositoriesOf);
            assert!(
                now <= before + 1,
                "{now} after {before}: more than one at once"
            );
            before = now;
        }
        fixture.settle().await;
        assert!(are_free(fixture, &held).await);
    });
}

/// Sessions that cannot be seen to hold up the others for a moment each, and are seen to as soon
/// as that is possible.
#[test]
fn one_that_cannot_be_seen_to_holds_up_no_other_for_long() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = dead_holders(fixture).await;
        let line = Faults::none();
        line.inject([Request::RepositoriesOf], Fault::Hang, When::Next(3));
        let _sweeper = fixture.manager_behind(&line).await;
        fixture.outlive_session().await;
        let mut stuck = 0;
        for key in &held {
            stuck += usize::from(!fixture.view(key).await.running.is_empty());
        }
        assert_eq!(stuck, 3, "those that hang, and no other");
        line.clear();
        fixture.settle().await;
        assert!(are_free(fixture, &held).await);
    });
}

/// Of many processes the one whose run is the next to start frees the slot, or one that looked long
/// before it; the others look, and find nothing to be done.
#[test]
fn the_process_whose_run_is_next_goes_first() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let (killed, first) = (Faults::none(), Faults::none());
        let holder = fixture.manager_behind(&killed).await;
        holder.set_limit(&web, Limit::new(1), None).await.unwrap();
        drop_later(started(&holder, &web, ephemeral("held")).await);
        let next = fixture.manager_behind(&first).await;
        let turn = queued(&next, &web, ephemeral("next")).await;
        let others: Vec<_> = (0..5).map(|_| Faults::none()).collect();
        let mut waiting = Vec::new();
        for (n, line) in others.iter().enumerate() {
            let other = fixture.manager_behind(line).await;
            let waiter = queued(&other, &web, ephemeral(&format!("other-{n}"))).await;
            waiting.push((other, waiter));
        }
        let commits = |line: &Faults| line.traffic(&web).commits;
        let before: Vec<_> = others.iter().map(|line| commits(line)).collect();

        killed.cut();
        let died = Instant::now();
        let longest = fixture.options().session_ttl + Duration::from_secs(2);
        let lease = timeout(longest, turn).await;
        assert!(
            lease.is_ok(),
            "not free {:?} after the death",
            died.elapsed()
        );
        sleep(fixture.notice()).await;
        let after: Vec<_> = others.iter().map(|line| commits(line)).collect();
        let more: u64 = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
            .sum();
        // Each looks at moments of its own: one that looks earlier than the next process by more
        // than it waits for it is the one to free the slot. The others then find nothing.
        assert!(
            more <= 1,
            "commits of those that wait behind: {before:?}, then {after:?}"
        );
        drop(waiting);
    });
}
