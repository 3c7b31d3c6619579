//! Calls and handles at the edges: a lease of another manager, a call that is dropped between two
//! steps, a manager whose runtime is gone, a store that says nothing while a manager is opened.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use pac_concurrency::driver::Driver;
use pac_concurrency::{
    Admission, ConcurrencyManager, Ended, ErrorKind, Lease, Limit, ManagerOptions, MemoryDriver,
    MemoryOptions, RepositoryKey, RunOutcome,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{Fixture, Time, durable, ephemeral, queued, repository, run_case, started};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const SECOND: Duration = Duration::from_secs(1);

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// The repository of the lease's own manager took the other one's session for a former one of its
/// own, and ended that one's runs when their names were asked for.
#[test]
fn a_lease_of_another_manager_is_released_and_nobody_elses_run_with_it() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (ours, other) = (fixture.manager().await, fixture.manager().await);
        let web = repository("web");
        ours.set_limit(&web, Limit::new(3), None).await.unwrap();
        let a = started(&ours, &web, ephemeral("a")).await;
        let back = started(&ours, &web, durable("back")).await;
        let theirs = started(&other, &web, ephemeral("theirs")).await;
        let ending = other.release(a, DONE).await.unwrap();
        assert_eq!(ending.ended, Ended::Done);
        assert!(other.requeue(back).await.unwrap().is_some());
        let refused = ours.admit(&web, ephemeral("theirs")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NameInUse, "{refused}");
        assert!(other.holds(&theirs));
    });
}

/// The lease outlives its manager, as that of a durable run does.
#[test]
fn a_lease_of_a_closed_manager_is_released_by_a_new_one() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (ours, web) = (fixture.manager().await, repository("web"));
        ours.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&ours, &web, durable("a")).await;
        ours.close().await.unwrap();
        let new = fixture.manager().await;
        assert_eq!(new.release(a, DONE).await.unwrap().ended, Ended::Done);
        fixture.comes_to(&web, &[], &[]).await;
    });
}

/// A task that has used up its turn is sent to the back by the first await of a call: dropped
/// there, the call had done nothing, and the slot stayed taken.
#[test]
fn a_release_that_is_dropped_at_its_first_await_is_carried_out() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = (fixture.manager().await, repository("web"));
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&manager, &web, durable("a")).await;
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        assert!(manager.release(a, DONE).now_or_never().is_none());
        fixture.comes_to(&web, &[], &[]).await;
    });
}

/// The task that tells the store never ran, and nobody who closed the manager was ever answered.
#[test]
fn closing_ends_although_the_runtime_of_the_manager_never_runs_again() {
    let theirs = Builder::new_current_thread().enable_all().build().unwrap();
    let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let opening = ConcurrencyManager::open(driver, ManagerOptions::default());
    let manager = theirs.block_on(opening).unwrap();
    let ours = Builder::new_multi_thread().enable_all().build().unwrap();
    ours.block_on(async {
        let closing = tokio::spawn(async move { manager.close().await });
        while !closing.is_finished() && theirs.metrics().num_alive_tasks() == 0 {
            sleep(SECOND / 100).await;
        }
        // It has begun by then, and waits.
        sleep(SECOND / 10).await;
        theirs.shutdown_background();
        let closed = timeout(SECOND * 20, closing).await.unwrap().unwrap();
        assert_eq!(closed.unwrap_err().kind(), ErrorKind::Indeterminate);
    });
}

/// Opening the watch had no deadline.
#[test]
fn opening_ends_although_the_store_says_nothing() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for request in [Request::OpenSession, Request::Watch] {
            let line = Faults::line();
            line.inject([request], Fault::Hang, When::Always);
            let within = SECOND * 3;
            let options = ManagerOptions::default().with_request_timeout(within);
            let since = Instant::now();
            let opening = ConcurrencyManager::open(line.over(fixture.driver()), options);
            let refused = timeout(within * 4, opening).await.unwrap();
            let kind = refused.unwrap_err().kind();
            let expected = [ErrorKind::Unavailable, ErrorKind::Indeterminate];
            assert!(expected.contains(&kind), "{kind:?}");
            assert!(since.elapsed() <= within * 2, "{:?}", since.elapsed());
        }
    });
}

/// The time of a wait began with the answer to the admission.
#[test]
fn the_time_to_wait_for_a_slot_counts_from_the_call() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::line();
        let manager = fixture.manager_behind(&line).await;
        let web = repository("web");
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let held = manager.acquire(&web).await.unwrap();
        // There and back.
        line.inject([Request::Commit], Fault::Delay(SECOND), When::Next(1));
        let since = Instant::now();
        let late = manager.acquire_timeout(&web, SECOND * 3).await.unwrap();
        assert!(late.is_none());
        let took = since.elapsed();
        assert!(took < SECOND * 4, "{took:?}");
        drop(held);
    });
}

/// It may have been carried out: "closed" said that it was not.
#[test]
fn what_is_on_its_way_at_the_end_is_told_to_be_unknown() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::line();
        let manager = fixture.manager_behind(&line).await;
        let web = repository("web");
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        line.inject([Request::Commit], Fault::Hang, When::Next(1));
        let removing = async {
            let removed = manager.remove_repository(&web).await;
            removed.unwrap_err()
        };
        let closing = async {
            sleep(SECOND).await;
            let _ = manager.close().await;
        };
        let (error, ()) = tokio::join!(removing, closing);
        assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    });
}

/// The turn that was never looked at was given back, and with it the slot that another caller of
/// the same process had been answered with: its lease said that it was lost.
#[test]
fn a_waiter_that_goes_with_its_turn_leaves_it_to_another_caller() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (other, ours) = (fixture.manager().await, fixture.manager().await);
        let web = repository("web");
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&other, &web, durable("a")).await;
        let waiter = queued(&ours, &web, durable("b")).await;
        other.release(a, DONE).await.unwrap();
        fixture.comes_to(&web, &["b"], &[]).await;
        fixture.settle().await;
        let lease = started(&ours, &web, durable("b")).await;
        drop(waiter);
        is_kept(fixture, &ours, &lease).await;
    });
}

/// The same with a grant that lay in a stream which nobody reads any more.
#[test]
fn a_stream_of_grants_that_goes_leaves_the_slot_to_another_caller() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (other, ours) = (fixture.manager().await, fixture.manager().await);
        let web = repository("web");
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&other, &web, durable("a")).await;
        let grants = ours.grants().unwrap();
        queued(&ours, &web, durable("b")).await.detach();
        other.release(a, DONE).await.unwrap();
        fixture.comes_to(&web, &["b"], &[]).await;
        fixture.settle().await;
        let lease = started(&ours, &web, durable("b")).await;
        drop(grants);
        is_kept(fixture, &ours, &lease).await;
    });
}

/// The same with an answer, to each kind of call that asks for the run.
#[test]
fn a_call_that_goes_with_its_answer_leaves_the_slot_to_another_caller() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::line();
        let ours = fixture.manager_behind(&line).await;
        let web = repository("web");
        ours.set_limit(&web, Limit::new(2), None).await.unwrap();
        for (name, adopts) in [("a", false), ("b", true)] {
            let unread = answered_unread(&ours, &web, name).await;
            let admission = if adopts {
                ours.adopt(&web, durable(name)).await.unwrap()
            } else {
                ours.admit(&web, durable(name)).await.unwrap()
            };
            drop(unread);
            let Admission::Started(lease) = admission else {
                panic!("{name} had started");
            };
            is_kept(fixture, &ours, &lease).await;
        }
    });
}

/// What the first has left to the others is not forgotten with the last of them.
#[test]
fn the_last_call_that_goes_with_its_answer_gives_the_slot_back() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::line();
        let ours = fixture.manager_behind(&line).await;
        let web = repository("web");
        ours.set_limit(&web, Limit::new(1), None).await.unwrap();
        let mut calls = Vec::new();
        for _ in 0..3 {
            calls.push(answered_unread(&ours, &web, "a").await);
        }
        for call in calls {
            fixture.settle().await;
            fixture.view(&web).await.assert(&["a"], &[]);
            drop(call);
        }
        fixture.comes_to(&web, &[], &[]).await;
    });
}

/// Taken over from a controller that has gone, a run that was adopted went back to the queue while
/// it was running, if the call was dropped with its answer.
#[test]
fn a_run_whose_adoption_nobody_hears_of_runs_on() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let gone = fixture.manager().await;
        gone.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _lease = started(&gone, &web, durable("a")).await;
        gone.close().await.unwrap();
        let line = Faults::line();
        let ours = fixture.manager_behind(&line).await;
        let mut adopting = Box::pin(ours.adopt(&web, durable("a")));
        assert!((&mut adopting).now_or_never().is_none());
        sleep(SECOND).await;
        drop(adopting);
        fixture.settle().await;
        fixture.view(&web).await.assert(&["a"], &[]);
    });
}

/// A call that has been answered, and was not looked at since.
async fn answered_unread<'a>(
    manager: &'a ConcurrencyManager,
    web: &'a RepositoryKey,
    name: &str,
) -> impl Future + use<'a> {
    let mut asking = Box::pin(manager.admit(web, durable(name)));
    assert!((&mut asking).now_or_never().is_none());
    sleep(SECOND).await;
    asking
}

async fn is_kept(fixture: &Fixture, manager: &ConcurrencyManager, lease: &Lease) {
    fixture.settle().await;
    assert!(manager.holds(lease), "{:?}", lease.lost().reason());
    let view = fixture.view(lease.repository()).await;
    assert_eq!(view.session(lease.run().name()), Some(manager.session()));
}
