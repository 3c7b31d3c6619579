//! A slot in one line: permits, turns, and what their callers are told when there is none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pac_concurrency::driver::{Driver, Placement};
use pac_concurrency::{
    Admission, ConcurrencyManager, ErrorKind, Limit, ManagerOptions, MemoryDriver, MemoryOptions,
    RepositoryKey, RunOutcome, RunRequest, Turn,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{
    Fixture, Time, durable, ephemeral, poll_times, queued, repository, run, run_case, started,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// A manager whose store seems to be behind a network: each request takes 2 ms.
async fn distant(fixture: &Fixture) -> ConcurrencyManager {
    let line = Faults::none();
    line.describe(|inner| {
        inner.with_placement(Placement::Remote {
            batches_in_flight: 2,
        })
    });
    let delay = Fault::Delay(Duration::from_millis(1));
    line.inject(Request::ALL, delay, When::Always);
    fixture.manager_behind(&line).await
}

/// A manager, and a repository with this limit.
async fn limited(fixture: &Fixture, limit: u32) -> (ConcurrencyManager, RepositoryKey) {
    let manager = fixture.manager().await;
    let web = repository("web");
    let set = manager.set_limit(&web, Limit::new(limit), None);
    set.await.unwrap();
    (manager, web)
}

/// The outcomes of the runs that have ended, in that order.
async fn history(manager: &ConcurrencyManager, repository: &RepositoryKey) -> Vec<RunOutcome> {
    let status = manager.status(repository).await.unwrap();
    status.finished.iter().map(|run| run.outcome).collect()
}

#[test]
fn permits_hold_slots_and_never_more_than_the_limit() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 2).await;
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut work = JoinSet::new();
        for manager in [manager.clone(), distant(fixture).await] {
            for _ in 0..10 {
                let (manager, web) = (manager.clone(), web.clone());
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                work.spawn(async move {
                    let permit = manager.acquire(&web).await.unwrap();
                    assert!(permit.is_held());
                    assert_eq!(permit.token(), permit.lease().token());
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(Duration::from_millis(10)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
        while let Some(done) = work.join_next().await {
            done.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        fixture.comes_to(&web, &[], &[]).await;
        assert_eq!(history(&manager, &web).await, [DONE; 20]);
    });
}

#[test]
fn an_acquire_that_is_dropped_leaves_nothing_behind() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (near, web) = limited(fixture, 1).await;
        for manager in [near, distant(fixture).await] {
            for polls in 0..60 {
                // Where there is a slot, and where there is none.
                drop(poll_times(manager.acquire(&web), polls).await);
                fixture.comes_to(&web, &[], &[]).await;
                let permit = manager.acquire(&web).await.unwrap();
                drop(poll_times(manager.acquire(&web), polls).await);
                let run = permit.lease().run().name().to_owned();
                fixture.comes_to(&web, &[&run], &[]).await;
                drop(poll_times(permit.release(), polls).await);
                fixture.comes_to(&web, &[], &[]).await;
            }
        }
    });
}

#[test]
fn a_slot_that_does_not_come_in_time_is_none() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 1).await;
        let second = Duration::from_secs(1);
        let permit = manager.acquire_timeout(&web, second).await.unwrap();
        let permit = permit.expect("it is free");
        assert!(manager.try_acquire(&web).await.unwrap().is_none());
        let late = manager.acquire_timeout(&web, second).await.unwrap();
        assert!(late.is_none());
        let held = manager.status(&web).await.unwrap();
        assert_eq!((held.running.len(), held.queued.len()), (1, 0));

        let later = async {
            sleep(second / 2).await;
            drop(permit);
        };
        let (in_time, ()) = tokio::join!(manager.acquire_timeout(&web, second), later);
        drop(in_time.unwrap().expect("it was freed in time"));
        let permit = manager.try_acquire(&web).await.unwrap();
        assert!(permit.expect("it is free").is_held());
    });
}

#[test]
fn a_permit_ends_as_its_work_did() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 1).await;
        // The history has no order within one millisecond.
        let moment = || sleep(Duration::from_millis(2));
        drop(manager.acquire(&web).await.unwrap());
        moment().await;
        let mut permit = manager.acquire(&web).await.unwrap();
        permit.set_outcome(RunOutcome::Failed);
        drop(permit);
        moment().await;
        let mut permit = manager.acquire(&web).await.unwrap();
        permit.set_outcome(RunOutcome::Cancelled);
        permit.release().await.unwrap();
        moment().await;
        let (ours, there) = (manager.clone(), web.clone());
        let panics = tokio::spawn(async move {
            let _permit = ours.acquire(&there).await.unwrap();
            panic!("as the work may");
        });
        assert!(panics.await.unwrap_err().is_panic());
        fixture.comes_to(&web, &[], &[]).await;
        let ended = history(&manager, &web).await;
        let expected = [
            DONE,
            RunOutcome::Failed,
            RunOutcome::Cancelled,
            RunOutcome::Failed,
        ];
        assert_eq!(ended, expected);
    });
}

#[test]
fn work_is_done_in_a_slot_and_its_end_is_recorded() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 1).await;
        let answer = manager.with_slot(&web, async {
            let status = manager.status(&web).await.unwrap();
            assert_eq!(status.running.len(), 1);
            6 * 7
        });
        assert_eq!(answer.await.unwrap(), 42);
        // Given back when the call has ended, not some time later.
        fixture.view(&web).await.assert(&[], &[]);

        // The history has no order within one millisecond.
        sleep(Duration::from_millis(2)).await;
        let (ours, there) = (manager.clone(), web.clone());
        let panics = tokio::spawn(async move {
            let work = async { panic!("as the work may") };
            ours.with_slot(&there, work).await
        });
        assert!(panics.await.unwrap_err().is_panic());
        let work = manager.with_slot(&web, std::future::pending::<()>());
        assert!(timeout(Duration::from_secs(60), work).await.is_err());
        fixture.comes_to(&web, &[], &[]).await;
        let expected = [DONE, RunOutcome::Failed, RunOutcome::Cancelled];
        assert_eq!(history(&manager, &web).await, expected);
    });
}

/// Tells that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn work_is_dropped_when_its_slot_is_lost() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 1).await;
        let other = fixture.manager().await;
        for kind in [
            ErrorKind::RunEnded,
            ErrorKind::SessionLost,
            ErrorKind::Closed,
        ] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let guard = Dropped(Arc::clone(&dropped));
            let (ours, there) = (manager.clone(), web.clone());
            let work = tokio::spawn(async move {
                let work = async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                };
                ours.with_slot(&there, work).await
            });
            sleep(Duration::from_millis(10)).await;
            let running = manager.status(&web).await.unwrap().running;
            let run = running.first().expect("it works").run.clone();
            match kind {
                ErrorKind::RunEnded => drop(other.cancel(&web, &run, None).await.unwrap()),
                ErrorKind::Closed => manager.close().await.unwrap(),
                _ => {
                    let session = manager.session();
                    fixture.driver().close_session(session).await.unwrap();
                }
            }
            let error = work.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(dropped.load(Ordering::SeqCst), 1, "{error}");
            fixture.comes_to(&web, &[], &[]).await;
        }
    });
}

#[test]
fn a_run_that_is_ended_while_it_waits_for_a_permit_is_no_closed_manager() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 1).await;
        let _held = manager.acquire(&web).await.unwrap();
        let operator = async {
            sleep(Duration::from_millis(10)).await;
            let waiting = manager.status(&web).await.unwrap().queued;
            let run = waiting.first().expect("it waits").run.clone();
            manager.cancel(&web, &run, None).await.unwrap();
        };
        let (ended, ()) = tokio::join!(manager.acquire(&web), operator);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::RunEnded);

        let operator = async {
            sleep(Duration::from_millis(10)).await;
            manager.remove_repository(&web).await.unwrap();
        };
        let (ended, ()) = tokio::join!(manager.acquire(&web), operator);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::RunEnded);
    });
}

/// The permit is the last handle of its manager, and frees its slot all the same.
#[test]
fn a_permit_outlives_the_handle_that_it_came_from() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (other, web) = limited(fixture, 1).await;
        for manager in [fixture.manager().await, distant(fixture).await] {
            let permit = manager.acquire(&web).await.unwrap();
            drop(manager);
            sleep(fixture.options().session_ttl * 3).await;
            assert!(permit.is_held(), "its session is kept as long as it lives");
            drop(permit);
            fixture.comes_to(&web, &[], &[]).await;
            assert_eq!(history(&other, &web).await.pop(), Some(DONE));
        }
    });
}

#[test]
fn the_turn_of_an_admission_comes_however_it_stood() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 1).await;
        let a = manager.admit(&web, durable("a")).await.unwrap();
        let Ok(Turn::Started(a)) = a.turn().await else {
            panic!("it had started");
        };
        let b = manager.admit(&web, durable("b")).await.unwrap();
        assert!(matches!(b, Admission::Queued(_)));
        let (b, ended) = tokio::join!(b.turn(), manager.release(a, DONE));
        ended.unwrap();
        assert!(matches!(b, Ok(Turn::Started(_))), "{b:?}");
        let a = manager.admit(&web, durable("a")).await.unwrap();
        let a = a.turn().await;
        assert!(matches!(a, Ok(Turn::Ended(DONE))), "{a:?}");
        // Dropped, it gives up the place.
        let c = manager.admit(&web, durable("c")).await.unwrap();
        assert!(poll_times(c.turn(), 3).await.is_none());
        fixture.comes_to(&web, &["b"], &[]).await;
    });
}

#[test]
fn a_name_in_use_is_an_error_of_its_own() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, web) = limited(fixture, 1).await;
        let other = fixture.manager().await;
        let _runs = started(&manager, &web, ephemeral("runs")).await;
        let _waits = queued(&manager, &web, ephemeral("waits")).await;
        for name in ["runs", "waits"] {
            let another = RunRequest::ephemeral(run(name), "another".parse().unwrap());
            for request in [ephemeral(name), durable(name), another] {
                let refused = other.admit(&web, request).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::NameInUse, "{refused}");
                assert!(!refused.is_retryable());
                assert_eq!(refused.repository(), Some(&web));
            }
        }
        fixture.view(&web).await.assert(&["runs"], &["waits"]);
    });
}

#[tokio::test(start_paused = true)]
async fn options_that_contradict_each_other_are_refused_with_the_rule() {
    let store: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let usual = ManagerOptions::default();
    let (zero, month) = (Duration::ZERO, Duration::from_secs(31 * 24 * 60 * 60));
    for (options, rule) in [
        (
            usual.with_session_ttl(Duration::from_millis(99)),
            "at least 100 ms",
        ),
        (
            usual.with_lease_ttl(Duration::from_secs(14)),
            "not be shorter than the session TTL",
        ),
        (usual.with_session_ttl(zero), "longer than zero"),
        (usual.with_lease_ttl(zero), "longer than zero"),
        (usual.with_command_timeout(zero), "longer than zero"),
        (usual.with_request_timeout(zero), "longer than zero"),
        (usual.with_poll_interval(zero), "longer than zero"),
        (usual.with_sweep_interval(zero), "longer than zero"),
        (usual.with_lease_ttl(month), "not be longer than 30 days"),
        (
            usual
                .with_session_ttl(ManagerOptions::LONGEST_SESSION_TTL + Duration::from_millis(1))
                .with_lease_ttl(month - Duration::from_secs(2 * 24 * 60 * 60)),
            "not be longer than 24 hours",
        ),
        (
            usual.with_poll_interval(month),
            "not be longer than 30 days",
        ),
    ] {
        let refused = ConcurrencyManager::open(Arc::clone(&store), options).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
        assert!(refused.to_string().contains(rule), "{refused}: {rule}");
    }
    for session_ttl in [
        Duration::from_millis(100),
        ManagerOptions::LONGEST_SESSION_TTL,
    ] {
        let options = usual.with_session_ttl(session_ttl);
        let opened = ConcurrencyManager::open(Arc::clone(&store), options).await;
        opened.unwrap().close().await.unwrap();
    }
}
