//! What a manager tells when it has lost track of a repository: no older answer undoes what is
//! known since, and the end of a run that it holds is news all the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    ConcurrencyManager, ErrorKind, Event, Heard, Limit, MemoryDriver, MemoryOptions, RepositoryKey,
    RunOutcome, RunRequest,
};
use pac_conformance::faults::{Fault, Faults, Request, Ruin, When};
use pac_conformance::{Fixture, Time, durable, queued, repository, run, run_case, started};
use tokio::time::{sleep, timeout};

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// A full answer from before the admission, that came after the manager had lost
/// track, told a live waiter that its run is gone.
#[test]
fn an_older_answer_ends_no_waiter() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (other, ours) = (fixture.manager().await, fixture.manager_behind(&line).await);
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&other, &web, durable("a")).await;
        // Read now, answered later.
        line.inject([Request::Load], Fault::HoldAnswer, When::Next(1));
        let older = tokio::spawn({
            let (ours, web) = (ours.clone(), web.clone());
            async move { ours.status(&web).await }
        });
        while line.traffic(&web).loads == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let mut b = queued(&ours, &web, durable("b")).await;
        lose_track(&line, &ours, &web).await;
        line.clear();
        // That it is too old is no reason not to answer; with which of the states is not said.
        let _ = fixture.soon("the answer", older).await.unwrap();

        fixture.waits_on(&mut b).await;
        other.release(a, RunOutcome::Completed).await.unwrap();
        drop(fixture.turn(b).await);
    });
}

/// That somebody else has cancelled a run which this manager holds was not told when
/// the manager had lost track in between.
#[test]
fn the_end_of_a_held_run_is_told_although_the_manager_has_lost_track() {
    an_end_is_told(Some(RunOutcome::Cancelled), async |other, web| {
        other.cancel(web, &run("a"), None).await.unwrap();
    });
}

/// The same, for a run that went with its repository.
#[test]
fn the_removal_of_a_held_run_is_told_although_the_manager_has_lost_track() {
    an_end_is_told(None, async |other, web| {
        other.remove_repository(web).await.unwrap();
    });
}

/// The same, for a run whose name another run has taken.
#[test]
fn the_loss_of_a_held_name_is_told_although_the_manager_has_lost_track() {
    an_end_is_told(None, async |other, web| {
        let another = RunRequest::durable(run("a"), "another".parse().unwrap());
        let _ = other.admit(web, another).await.unwrap();
    });
}

fn an_end_is_told(
    outcome: Option<RunOutcome>,
    end: impl AsyncFnOnce(&ConcurrencyManager, &RepositoryKey),
) {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (other, ours) = (fixture.manager().await, fixture.manager_behind(&line).await);
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _a = started(&ours, &web, durable("a")).await;
        let mut events = ours.events();
        lose_track(&line, &ours, &web).await;
        end(&other, &web).await;
        let told = Event::Ended {
            repository: web.clone(),
            run: run("a"),
            outcome,
        };
        let mut heard = Vec::new();
        // The poll has come by then, too.
        let longest = fixture.options().poll_interval * 2;
        let hear = async {
            while heard.last() != Some(&Heard::Event(told.clone())) {
                heard.push(events.next().await.unwrap());
            }
        };
        let came = timeout(longest, hear).await;
        assert!(came.is_ok(), "{told:?} was not told, but {heard:?}");
    });
}

/// What the manager reads once does not add up: it has to forget what it knows.
async fn lose_track(line: &Faults, ours: &ConcurrencyManager, web: &RepositoryKey) {
    line.ruin(web, Ruin::MiscountedQueue);
    let error = ours.status(web).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    line.mend(web);
}
