//! An orderly end is no incident: what a manager says of itself, and to its callers, after it
//! was closed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fmt::Debug;
use std::sync::Arc;

use pac_concurrency::{
    Error, ErrorKind, Event, Events, Heard, Limit, MemoryDriver, MemoryOptions, RunOutcome,
};
use pac_conformance::faults::Faults;
use pac_conformance::{
    Fixture, Time, durable, ephemeral, queued, repository, run, run_case, started, uid,
};

const DONE: RunOutcome = RunOutcome::Completed;

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

async fn distant(time: Time) -> Fixture {
    let memory = memory(time).await;
    Fixture::over(Faults::line().over(memory.driver()), time)
}

/// The health of a closed manager said that its session had died.
#[test]
fn the_health_of_a_closed_manager_blames_no_part() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let manager = fixture.manager().await;
        manager.close().await.unwrap();
        fixture.settle().await;
        let health = manager.health();
        assert!(!health.is_ready(), "it takes no more work: {health:?}");
        let of_its_owner = |cause: &str| cause.contains("closed by its owner");
        assert!(health.dead.is_none_or(of_its_owner), "{health:?}");
        assert_eq!((health.watch_error, health.panics), (None, 0));
    });
}

/// A manager that was closed told that its session was lost.
#[test]
fn no_session_is_told_to_be_lost_when_a_manager_is_closed() {
    run_case(Time::Paused, memory, no_loss_is_told);
    run_case(Time::Paused, distant, no_loss_is_told);
}

async fn no_loss_is_told(fixture: &Fixture) {
    let web = repository("web");
    let manager = fixture.manager().await;
    let mut events = manager.events();
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    let _a = started(&manager, &web, ephemeral("a")).await;
    let _b = started(&manager, &web, durable("b")).await;
    let _c = queued(&manager, &web, durable("c")).await;
    manager.close().await.unwrap();
    for event in rest_of(fixture, &mut events).await {
        let loss = matches!(event, Heard::Event(Event::SessionLost(_)));
        assert!(!loss, "{event:?} although nothing went wrong");
    }
}

/// Calls after `close` said that the session, or the last handle, had ended, and some
/// were answered although the manager was closed.
#[test]
fn every_call_after_the_end_says_that_the_owner_has_closed_the_manager() {
    run_case(Time::Paused, memory, calls_after_the_end);
    run_case(Time::Paused, distant, calls_after_the_end);
}

async fn calls_after_the_end(fixture: &Fixture) {
    let web = repository("web");
    let manager = fixture.manager().await;
    manager.set_limit(&web, Limit::new(3), None).await.unwrap();
    let lease = started(&manager, &web, durable("a")).await;
    let again = started(&manager, &web, durable("b")).await;
    let _c = started(&manager, &web, durable("c")).await;
    let waiter = queued(&manager, &web, durable("d")).await;
    let patient = queued(&manager, &web, durable("e")).await;
    manager.close().await.unwrap();
    assert!(!manager.holds(&lease));
    let mut wrong = Vec::new();
    let ask = async |wrong: &mut Vec<String>| {
        let (run, uid) = (run("a"), uid("a"));
        check(wrong, "admit", manager.admit(&web, durable("x")).await);
        let all = manager.admit_all(&web, None, vec![durable("x")]);
        check(wrong, "admit_all", all.await);
        check(wrong, "adopt", manager.adopt(&web, durable("x")).await);
        check(wrong, "release", manager.release(lease, DONE).await);
        check(wrong, "requeue", manager.requeue(again).await);
        let release = manager.release_run(&web, &run, &uid, None, DONE);
        check(wrong, "release_run", release.await);
        check(wrong, "cancel", manager.cancel(&web, &run, None).await);
        let limit = manager.set_limit(&web, Limit::new(1), None);
        check(wrong, "set_limit", limit.await);
        let removed = manager.remove_repository(&web).await;
        check(wrong, "remove_repository", removed);
        check(wrong, "status", manager.status(&web).await);
        check(wrong, "run_status", manager.run_status(&web, &run).await);
        check(wrong, "list", manager.list(None, 10).await);
        check(wrong, "watch", manager.watch(&web).await);
        check(wrong, "waiter", waiter.await);
        let longest = fixture.options().poll_interval;
        check(wrong, "wait_for", patient.wait_for(longest).await);
    };
    // None of it hangs.
    fixture.soon("the answers", ask(&mut wrong)).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The answer to `call` is that of a closed manager; else it is noted as wrong.
fn check<T: Debug>(wrong: &mut Vec<String>, call: &str, answer: Result<T, Error>) {
    let says_so = |error: &Error| {
        error.kind() == ErrorKind::Closed && error.to_string().contains("closed by its owner")
    };
    if !answer.as_ref().is_err_and(says_so) {
        let answer = answer.map_err(|error| error.to_string());
        wrong.push(format!("{call}: {answer:?}"));
    }
}

async fn rest_of(fixture: &Fixture, events: &mut Events) -> Vec<Heard> {
    let mut heard = Vec::new();
    while let Some(event) = fixture.soon("the end", events.next()).await {
        heard.push(event);
    }
    heard
}
