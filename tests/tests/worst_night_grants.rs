//! Grants without a reader: no slot stays with a manager where nothing starts the run, and a run
//! without an owner starts at once where another manager reads its grants.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, Lease, Limit, ManagerOptions, MemoryDriver, MemoryOptions,
    RepositoryKey, RunOutcome, RunRequest,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{
    Fixture, Time, durable, ephemeral, queued, repository, run, run_case, started, uid,
};
use tokio::time::{sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// The settings of every manager here: those of production, the poll of 10 s among them.
fn options(fixture: &Fixture) -> ManagerOptions {
    fixture.options()
}

/// A dropped `admit` that took an orphan over left the run with a manager that holds
/// its slot for nobody.
#[test]
fn an_orphan_taken_over_by_a_dropped_admit_is_an_orphan_again() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        leave_an_orphan(fixture, &web, "a").await;
        let line = Faults::none();
        let ours = fixture.manager_behind_with(&line, options(fixture)).await;
        take_over_and_go(fixture, &line, &ours, &web, durable("a")).await;

        let other = fixture.manager_with(options(fixture)).await;
        let is_orphan = async || is_orphan(&other, &web).await;
        comes_true(fixture, "the orphan, an orphan again", is_orphan).await;
        let lease = started(&other, &web, durable("a")).await;
        assert!(other.holds(&lease), "the next to ask for it holds it");
    });
}

/// Where the manager's grants are read, the slot of that orphan goes there or is given
/// up, and is not forgotten.
#[test]
fn an_orphan_taken_over_by_a_dropped_admit_comes_out_of_the_grants_that_are_read() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        leave_an_orphan(fixture, &web, "a").await;
        let line = Faults::none();
        let ours = fixture.manager_behind_with(&line, options(fixture)).await;
        let mut grants = ours.grants().unwrap();
        take_over_and_go(fixture, &line, &ours, &web, durable("a")).await;

        let other = fixture.manager_with(options(fixture)).await;
        let second = Duration::from_secs(1);
        match timeout(second, grants.next()).await {
            Ok(lease) => assert!(ours.holds(&lease.unwrap())),
            Err(_) => assert!(is_orphan(&other, &web).await, "a slot for nobody"),
        }
    });
}

/// The same before the start: a run that waits without an owner, taken over by a
/// dropped `admit`, was granted to the manager that does not want it any more.
#[test]
fn a_waiting_run_taken_over_by_a_dropped_admit_starts_where_grants_are_read() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let (holder, reader) = two_managers(fixture).await;
        let mut grants = reader.grants().unwrap();
        holder.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&holder, &web, durable("a")).await;
        leave_waiting(fixture, &web, &["b"]).await;
        let line = Faults::none();
        let ours = fixture.manager_behind_with(&line, options(fixture)).await;
        take_over_and_go(fixture, &line, &ours, &web, durable("b")).await;
        fixture.settle().await;

        holder.release(a, DONE).await.unwrap();
        let longest = options(fixture).poll_interval * 2;
        let lease = timeout(longest, grants.next()).await;
        let lease = lease.expect("it started for nobody, or not at all");
        assert!(reader.holds(&lease.unwrap()));
    });
}

/// Leases that were in a dropped `Grants` stream held their slots until the process
/// ended. They are given back: the runs keep their places, and another reader gets them.
#[test]
fn a_dropped_stream_of_grants_gives_back_the_leases_that_are_in_it() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let (holder, ours) = two_managers(fixture).await;
        holder.set_limit(&web, Limit::new(2), None).await.unwrap();
        let first = started(&holder, &web, durable("a-1")).await;
        let second = started(&holder, &web, durable("a-2")).await;
        let stream = ours.grants().unwrap();
        queued(&ours, &web, durable("b")).await.detach();
        queued(&ours, &web, durable("c")).await.detach();
        let tickets = async || {
            let view = fixture.view(&web).await;
            ["b", "c"].map(|name| view.entry(name).unwrap().ticket)
        };
        let before = tickets().await;
        holder.release(first, DONE).await.unwrap();
        holder.release(second, DONE).await.unwrap();
        fixture.comes_to(&web, &["b", "c"], &[]).await;
        fixture.settle().await;

        let reader = fixture.manager_with(options(fixture)).await;
        let mut grants = reader.grants().unwrap();
        drop(stream);
        let longest = options(fixture).poll_interval * 2;
        for name in ["b", "c"] {
            let lease = timeout(longest, grants.next()).await;
            let lease = lease.expect("a slot that nobody uses").unwrap();
            assert_eq!(*lease.run(), run(name));
            assert!(reader.holds(&lease));
        }
        assert_eq!(tickets().await, before, "their places in the queue");
    });
}

/// A manager whose grants nobody reads took every run of the store that has no owner.
/// It takes so many, and other readers get the rest.
#[test]
fn a_manager_takes_no_more_grants_than_are_read() {
    /// Twice as many as are plausible to be kept for a reader that is slow.
    const MOST: usize = 2_048;
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let repositories: Vec<_> = (0..2 * MOST)
            .map(|n| repository(&format!("r-{n}")))
            .collect();
        let _leases = leave_startable(fixture, &repositories).await;
        let (slow, reader) = two_managers(fixture).await;
        let poll = options(fixture).poll_interval;
        let mut unread = slow.grants().unwrap();
        sleep(poll * 3).await;
        let mut taken = 0;
        for key in &repositories {
            taken += fixture.view(key).await.running.len();
        }
        assert!(taken <= MOST, "{taken} grants that nobody reads");

        // The other reader gets the runs that it left, and its own stream those that it took.
        let mut seen = BTreeSet::new();
        let mut grants = reader.grants().unwrap();
        for stream in [&mut grants, &mut unread] {
            while let Ok(Some(lease)) = timeout(poll * 2, stream.next()).await {
                assert!(seen.insert(lease.repository().clone()), "{lease:?} twice");
            }
        }
        assert_eq!(seen.len(), repositories.len());
    });
}

/// A slot freed by force, by a manager that reads no grants, idled until the next poll
/// of the manager that does.
#[test]
fn a_slot_freed_by_force_goes_at_once_to_a_manager_that_reads_grants() {
    freeing_starts_at_once(&async |slot: &mut TakenSlot| {
        let (run, uid) = (run("a"), uid("a"));
        let release = slot.other.release_run(&slot.web, &run, &uid, None, DONE);
        assert_eq!(release.await.unwrap().promoted, [], "it reads no grants");
    });
}

/// The same, by a cancellation.
#[test]
fn a_slot_freed_by_a_cancellation_goes_at_once_to_a_manager_that_reads_grants() {
    freeing_starts_at_once(&async |slot: &mut TakenSlot| {
        let cancel = slot.other.cancel(&slot.web, &run("a"), None).await;
        assert_eq!(cancel.unwrap().promoted, [], "it reads no grants");
    });
}

/// The same, by the holder itself.
#[test]
fn a_slot_that_its_holder_releases_goes_at_once_to_a_manager_that_reads_grants() {
    freeing_starts_at_once(&async |slot: &mut TakenSlot| {
        let lease = slot.lease.take().unwrap();
        slot.holder.release(lease, DONE).await.unwrap();
    });
}

/// The same, by the drop of an ephemeral lease.
#[test]
fn a_slot_freed_by_a_dropped_lease_goes_at_once_to_a_manager_that_reads_grants() {
    freeing_starts_at_once(&async |slot: &mut TakenSlot| drop(slot.lease.take()));
}

/// The same, by a limit that was raised: the new slot is as free as one that was released.
#[test]
fn a_slot_of_a_raised_limit_goes_at_once_to_a_manager_that_reads_grants() {
    freeing_starts_at_once(&async |slot: &mut TakenSlot| {
        let limit = Limit::new(2);
        slot.other.set_limit(&slot.web, limit, None).await.unwrap();
    });
}

/// The same, by the end of the session of an ephemeral run.
#[test]
fn a_slot_freed_by_the_end_of_a_session_goes_at_once_to_a_manager_that_reads_grants() {
    freeing_starts_at_once(&async |slot: &mut TakenSlot| slot.holder.close().await.unwrap());
}

/// The only slot of a repository where a durable run waits that has no owner. Neither manager
/// reads grants.
struct TakenSlot {
    web: RepositoryKey,
    holder: ConcurrencyManager,
    other: ConcurrencyManager,
    /// Of an ephemeral run `a`, of the holder.
    lease: Option<Lease>,
}

/// Once `free` has freed the slot, the run that waits comes out of the grants of a third manager.
fn freeing_starts_at_once(free: &impl AsyncFn(&mut TakenSlot)) {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for touched in [false, true] {
            let web = repository(&format!("web-{touched}"));
            let (holder, other) = two_managers(fixture).await;
            let reader = fixture.manager_with(options(fixture)).await;
            let mut grants = reader.grants().unwrap();
            holder.set_limit(&web, Limit::new(1), None).await.unwrap();
            let lease = Some(started(&holder, &web, ephemeral("a")).await);
            leave_waiting(fixture, &web, &["b"]).await;
            if touched {
                reader.status(&web).await.unwrap();
            }
            // Later than what the reader looks for when it begins to read.
            sleep(Duration::from_secs(1)).await;
            fixture.view(&web).await.assert(&["a"], &["b"]);

            let mut slot = TakenSlot {
                web,
                holder,
                other,
                lease,
            };
            free(&mut slot).await;
            let lease = timeout(Duration::from_millis(500), grants.next()).await;
            let lease = lease.unwrap_or_else(|_| {
                panic!("the slot is idle after 500 ms (repository known to the reader: {touched})")
            });
            assert!(reader.holds(&lease.unwrap()));
            reader.close().await.unwrap();
        }
    });
}

async fn two_managers(fixture: &Fixture) -> (ConcurrencyManager, ConcurrencyManager) {
    let options = options(fixture);
    (
        fixture.manager_with(options).await,
        fixture.manager_with(options).await,
    )
}

/// A durable run that holds the only slot of `web`, and whose manager is gone.
async fn leave_an_orphan(fixture: &Fixture, web: &RepositoryKey, name: &str) {
    let doomed = fixture.manager_with(options(fixture)).await;
    doomed.set_limit(web, Limit::new(1), None).await.unwrap();
    let _lease = started(&doomed, web, durable(name)).await;
    doomed.close().await.unwrap();
    let other = fixture.manager_with(options(fixture)).await;
    assert!(is_orphan(&other, web).await);
}

async fn is_orphan(other: &ConcurrencyManager, web: &RepositoryKey) -> bool {
    let status = other.status(web).await.unwrap();
    status.running.iter().all(|run| run.orphaned) && !status.running.is_empty()
}

/// Durable runs that wait in `web`, and whose manager is gone.
async fn leave_waiting(fixture: &Fixture, web: &RepositoryKey, names: &[&str]) {
    let doomed = fixture.manager_with(options(fixture)).await;
    for name in names {
        queued(&doomed, web, durable(name)).await.detach();
    }
    doomed.close().await.unwrap();
    let view = fixture.view(web).await;
    for name in names {
        assert_eq!(view.session(name), None, "{name} has no owner");
    }
}

/// In each repository a free slot, and a durable run that waits for it without an owner.
async fn leave_startable(fixture: &Fixture, repositories: &[RepositoryKey]) -> Vec<Lease> {
    let doomed = fixture.manager_with(options(fixture)).await;
    let mut leases = Vec::new();
    for key in repositories {
        doomed.set_limit(key, Limit::new(1), None).await.unwrap();
        leases.push(started(&doomed, key, ephemeral("a")).await);
        queued(&doomed, key, durable("b")).await.detach();
    }
    doomed.close().await.unwrap();
    leases
}

/// Asks for a run that has no live owner, and is dropped between the commit and its answer.
async fn take_over_and_go(
    fixture: &Fixture,
    line: &Faults,
    ours: &ConcurrencyManager,
    web: &RepositoryKey,
    request: RunRequest,
) {
    let name = request.run.name().to_owned();
    line.inject([Request::Commit], Fault::HoldAnswer, When::Always);
    let asking = tokio::spawn({
        let (ours, web) = (ours.clone(), web.clone());
        async move {
            let admission: Admission = ours.admit(&web, request).await.unwrap();
            admission
        }
    });
    let session = Some(ours.session());
    let is_ours = async || fixture.view(web).await.session(&name) == session;
    comes_true(fixture, "the takeover", is_ours).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    line.clear();
}

async fn comes_true(fixture: &Fixture, what: &str, is_true: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_true().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    fixture.soon(what, wait).await;
}
