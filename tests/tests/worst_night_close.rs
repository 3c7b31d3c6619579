//! The end of a manager by its own `close`: it holds nothing while its slots go to others, it
//! comes to an end whatever happens to the call, and no caller waits for it without end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, Error, ErrorKind, Lease, Limit, MemoryDriver, MemoryOptions,
    RunOutcome, SessionId, Turn, Waiter,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{
    Fixture, Time, durable, ephemeral, queued, repository, run, run_case, started, uid,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const SECOND: Duration = Duration::from_secs(1);

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// While `close` waited for an answer, its slot was another manager's already, and it
/// still called itself the holder.
#[test]
fn closing_fences_before_it_frees() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&ours, &web, ephemeral("a")).await;
        let b = queued(&other, &web, ephemeral("b")).await;
        line.inject([Request::Commit], Fault::HoldAnswer, When::Always);
        let closing = close(&ours);
        let b = turn_of(fixture, b).await;
        assert!(other.holds(&b));
        assert!(!ours.holds(&a), "two managers hold the one slot of `web`");
        line.clear();
        let closed = fixture.soon("the end of close", closing).await;
        closed.unwrap().unwrap();
    });
}

/// A `close` that was dropped because of one stuck repository left the manager holding
/// slots that it had given up.
#[test]
fn a_close_that_is_dropped_halfway_has_fenced() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let stuck = HalfStuck::open(fixture).await;
        let dropped = timeout(SECOND, stuck.ours.close()).await;
        assert!(dropped.is_err(), "it waits for `stuck`: {dropped:?}");
        let [a, s] = &stuck.leases;
        assert!(!stuck.ours.holds(a), "its slot is free");
        assert!(!stuck.ours.holds(s), "its slot is about to be free");
    });
}

/// The keep-alive went on after a `close` that was dropped, so that the slots which it
/// had not come to were kept for good.
#[test]
fn a_close_that_is_dropped_halfway_ends_the_session_all_the_same() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let stuck = HalfStuck::open(fixture).await;
        let dropped = timeout(SECOND, stuck.ours.close()).await;
        assert!(dropped.is_err(), "it waits for `stuck`: {dropped:?}");
        stuck.goes_to_others(fixture).await;
    });
}

/// One stuck repository kept `close` from ever coming to an end.
#[test]
fn a_stuck_repository_does_not_keep_close_from_its_end() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let stuck = HalfStuck::open(fixture).await;
        // It may well say that not all went as it should.
        let answer = in_time(fixture, "the end of close", stuck.ours.close()).await;
        drop(answer);
        stuck.goes_to_others(fixture).await;
    });
}

/// A panic on the way through `close` left the session alive for good.
#[test]
fn a_panic_within_close_ends_the_session_all_the_same() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let stuck = HalfStuck::open(fixture).await;
        stuck.line.clear();
        let request = [Request::RepositoriesOf];
        stuck.line.inject(request, Fault::Panic, When::Always);
        // It may panic, too.
        let closed = in_time(fixture, "the end of close", close(&stuck.ours)).await;
        drop(closed);
        stuck.goes_to_others(fixture).await;
    });
}

/// An admission whose commit was on its way when the manager was closed was never
/// answered.
#[test]
fn an_admission_on_its_way_during_close_is_answered() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        line.inject([Request::Commit], Fault::Hang, When::Always);
        let asking = tokio::spawn({
            let ours = ours.clone();
            async move { ours.admit(&repository("web"), durable("a")).await }
        });
        sleep(SECOND / 10).await;
        // It may well say that not all went as it should.
        drop(in_time(fixture, "the end of close", ours.close()).await);
        let answer = in_time(fixture, "the answer", asking).await.unwrap();
        assert!(answer.is_err(), "{answer:?}");
    });
}

/// An admission that was answered with a place in the queue after `close` had swept the
/// waiters waited for ever.
#[test]
fn a_place_that_comes_after_the_end_is_not_waited_in() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _a = started(&other, &web, durable("a")).await;
        // Asked for at 0 s, written at 1 s, answered at 2 s; the session is closed from 0.5 s
        // to 1.5 s.
        let slow = [Request::Commit, Request::CloseSession];
        line.inject(slow, Fault::Delay(SECOND), When::Always);
        let asking = tokio::spawn({
            let (ours, web) = (ours.clone(), web.clone());
            async move { ours.admit(&web, durable("b")).await }
        });
        sleep(SECOND / 2).await;
        let closing = close(&ours);
        match in_time(fixture, "the answer", asking).await.unwrap() {
            Err(_) => {}
            Ok(Admission::Queued(place)) => {
                let turn = in_time(fixture, "the end of waiting", place).await;
                assert!(turn.is_err(), "{turn:?}");
            }
            Ok(admission) => panic!("its slot is taken: {admission:?}"),
        }
        in_time(fixture, "the end of close", closing)
            .await
            .unwrap()
            .unwrap();
    });
}

/// A watch whose first read was on its way when the manager was closed was never
/// answered.
#[test]
fn a_watch_that_is_opened_during_close_is_answered() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        line.inject([Request::Load], Fault::Hang, When::Always);
        let opening = tokio::spawn({
            let ours = ours.clone();
            async move { ours.watch(&repository("web")).await.map(drop) }
        });
        sleep(SECOND / 10).await;
        drop(in_time(fixture, "the end of close", ours.close()).await);
        let answer = in_time(fixture, "the answer", opening).await.unwrap();
        assert!(answer.is_err(), "{answer:?}");
    });
}

/// Events that were asked for after the end never came to an end themselves.
#[test]
fn events_that_are_asked_for_after_the_end_are_over() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let ours = fixture.manager().await;
        ours.close().await.unwrap();
        let mut events = ours.events();
        let heard = fixture.soon("the end of the events", events.next()).await;
        assert_eq!(heard, None);
        if let Some(mut grants) = ours.grants() {
            let lease = fixture.soon("the end of the grants", grants.next()).await;
            assert!(lease.is_none(), "{lease:?}");
        }
    });
}

/// Of all that is asked after the end, every question fails at once and says so.
#[test]
fn every_call_after_close_fails_at_once() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let ours = fixture.manager().await;
        let (a, b) = (
            started(&ours, &web, durable("a")).await,
            started(&ours, &web, durable("b")).await,
        );
        ours.close().await.unwrap();
        let (name, of) = (run("a"), uid("a"));
        refused(fixture, "admit", ours.admit(&web, durable("c"))).await;
        let all = ours.admit_all(&web, None, vec![durable("c")]);
        refused(fixture, "admit_all", all).await;
        refused(fixture, "adopt", ours.adopt(&web, durable("c"))).await;
        refused(fixture, "requeue", ours.requeue(a)).await;
        refused(fixture, "release", ours.release(b, DONE)).await;
        let release = ours.release_run(&web, &name, &of, None, DONE);
        refused(fixture, "release_run", release).await;
        refused(fixture, "cancel", ours.cancel(&web, &name, None)).await;
        let limit = ours.set_limit(&web, Limit::new(1), None);
        refused(fixture, "set_limit", limit).await;
        let remove = ours.remove_repository(&web);
        refused(fixture, "remove_repository", remove).await;
        refused(fixture, "status", ours.status(&web)).await;
        refused(fixture, "run_status", ours.run_status(&web, &name)).await;
        refused(fixture, "watch", ours.watch(&web)).await;
        refused(fixture, "list", ours.list(None, 10)).await;
    });
}

/// A manager with a slot in `web`, and one in `stuck`, where its commits never get through.
/// Another manager waits for both.
struct HalfStuck {
    line: Arc<Faults>,
    ours: ConcurrencyManager,
    session: SessionId,
    leases: [Lease; 2],
    waiters: [Waiter; 2],
    other: ConcurrencyManager,
}

impl HalfStuck {
    async fn open(fixture: &Fixture) -> Self {
        let (web, stuck) = (repository("web"), repository("stuck"));
        let line = Faults::none();
        let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
        for repository in [&web, &stuck] {
            let limit = other.set_limit(repository, Limit::new(1), None);
            limit.await.unwrap();
        }
        let leases = [
            started(&ours, &web, ephemeral("a")).await,
            started(&ours, &stuck, ephemeral("s")).await,
        ];
        let waiters = [
            queued(&other, &web, ephemeral("b")).await,
            queued(&other, &stuck, ephemeral("t")).await,
        ];
        line.inject_at(&stuck, [Request::Commit], Fault::Hang, When::Always);
        let session = ours.session();
        Self {
            line,
            ours,
            session,
            leases,
            waiters,
            other,
        }
    }

    /// Both slots are the other manager's within the TTL of the session, and the session is over.
    async fn goes_to_others(self, fixture: &Fixture) {
        for (waiter, before) in self.waiters.into_iter().zip(&self.leases) {
            let lease = turn_of(fixture, waiter).await;
            assert!(self.other.holds(&lease));
            assert!(!self.ours.holds(before), "two managers hold one slot");
        }
        let renewed = fixture.driver().keep_alive(self.session).await;
        let lost = |error: &Error| error.kind() == ErrorKind::SessionLost;
        assert!(
            renewed.as_ref().err().is_some_and(lost),
            "the session goes on: {renewed:?}"
        );
    }
}

fn close(manager: &ConcurrencyManager) -> JoinHandle<Result<(), Error>> {
    let manager = manager.clone();
    tokio::spawn(async move { manager.close().await })
}

/// The lease that a waiter gets once the session of another manager is over.
async fn turn_of(fixture: &Fixture, waiter: Waiter) -> Lease {
    let run = waiter.run().clone();
    match timeout(fixture.session_end(), waiter).await {
        Ok(Ok(Turn::Started(lease))) => lease,
        Ok(turn) => panic!("{run} waited for a lease and got {turn:?}"),
        Err(_) => panic!("{run} got no slot although the TTL of its holder has passed"),
    }
}

/// Awaits what is answered, well or badly, within the time that a command is given.
async fn in_time<T>(fixture: &Fixture, what: &str, future: impl Future<Output = T>) -> T {
    let longest = fixture.options().command_timeout + SECOND;
    let answer = timeout(longest, future).await;
    answer.unwrap_or_else(|_| panic!("{what} did not come within {longest:?}"))
}

/// A call that fails at once because the manager is closed.
async fn refused<T: fmt::Debug>(
    fixture: &Fixture,
    call: &str,
    future: impl Future<Output = Result<T, Error>>,
) {
    match fixture.soon(&format!("the answer of {call}"), future).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{call}: {error}"),
        Ok(answer) => panic!("{call} of a closed manager was answered with {answer:?}"),
    }
}
