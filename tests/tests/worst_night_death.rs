//! A manager that has died, and leases that are lost: what is dead keeps nothing, answers
//! everybody, and never calls itself a holder.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pac_concurrency::driver::{Driver, Placement};
use pac_concurrency::{
    ConcurrencyManager, Error, ErrorKind, Event, Heard, Lease, Limit, ManagerOptions, MemoryDriver,
    MemoryOptions, RunOutcome, RunRequest, Turn,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{
    Fixture, Time, durable, ephemeral, queued, repository, run, run_case, started, uid,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const SECOND: Duration = Duration::from_secs(1);

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// Sessions that end while a test waits for it.
fn options(session_ttl: Duration) -> ManagerOptions {
    ManagerOptions::default()
        .with_session_ttl(session_ttl)
        .with_lease_ttl(session_ttl * 4)
        .with_sweep_interval(session_ttl / 4)
}

/// The requests of the parts that a manager cannot do without, apart from its keep-alive.
const PARTS: [Request; 3] = [Request::DeadSessions, Request::List, Request::Watch];

/// Has a part of a manager die of a bug in the driver that it meets.
async fn kill_by_panic(manager: &ConcurrencyManager, line: &Faults, part: Request) {
    line.inject([part], Fault::Panic, When::Always);
    if part == Request::Watch {
        // It is opened again only when it is broken.
        line.cut();
        sleep(SECOND / 100).await;
        line.open();
    }
    let grants = manager.grants();
    let dying = async {
        while manager.health().dead.is_none() {
            sleep(SECOND / 20).await;
        }
    };
    timeout(SECOND * 20, dying).await.unwrap();
    drop(grants);
}

/// A manager with a part that had died of a panic went on keeping its session, so that
/// nobody ever got the slots that it held.
#[test]
fn a_manager_that_dies_of_a_panic_keeps_no_slot() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for (number, part) in PARTS.into_iter().enumerate() {
            let web = repository(&format!("web-{number}"));
            let line = Faults::none();
            let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
            other.set_limit(&web, Limit::new(1), None).await.unwrap();
            let a = started(&ours, &web, ephemeral("a")).await;
            let b = queued(&other, &web, ephemeral("b")).await;
            kill_by_panic(&ours, &line, part).await;
            let turn = timeout(fixture.session_end(), b).await;
            let Ok(Ok(Turn::Started(b))) = turn else {
                panic!("after a panic in {part:?} its slot went to nobody: {turn:?}");
            };
            assert!(!ours.holds(&a) && other.holds(&b));
            other.release(b, DONE).await.unwrap();
        }
    });
}

/// A slot that was freed went to the next waiter of a dead manager, which nobody read.
#[test]
fn a_manager_that_dies_of_a_panic_keeps_no_place() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&other, &web, ephemeral("a")).await;
        let dead = queued(&ours, &web, ephemeral("dead")).await;
        let b = queued(&other, &web, ephemeral("b")).await;
        kill_by_panic(&ours, &line, Request::DeadSessions).await;
        assert!(fixture.soon("the end of waiting", dead).await.is_err());
        sleep(fixture.session_end()).await;
        other.release(a, DONE).await.unwrap();
        let turn = timeout(SECOND * 10, b).await;
        assert!(matches!(turn, Ok(Ok(Turn::Started(_)))), "{turn:?}");
    });
}

/// A dead manager could not be closed, so that its session could not be ended at all.
#[test]
fn a_manager_that_has_died_can_be_closed() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let session = ours.session();
        let _a = started(&ours, &web, ephemeral("a")).await;
        let b = queued(&other, &web, ephemeral("b")).await;
        kill_by_panic(&ours, &line, Request::DeadSessions).await;
        // It may well say what it has died of.
        let closed = timeout(SECOND * 15, ours.close()).await;
        assert!(closed.is_ok(), "it hangs");
        let renewed = fixture.driver().keep_alive(session).await;
        let lost = |error: &Error| error.kind() == ErrorKind::SessionLost;
        assert!(
            renewed.as_ref().err().is_some_and(lost),
            "the session goes on: {renewed:?}"
        );
        let turn = fixture.soon("the turn of b", b).await;
        assert!(matches!(turn, Ok(Turn::Started(_))), "{turn:?}");
    });
}

/// A command that was on its way when a part of the manager died was never answered.
#[test]
fn a_command_on_its_way_when_the_manager_dies_is_answered() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        line.inject([Request::Commit], Fault::Hang, When::Always);
        let asking = tokio::spawn({
            let ours = ours.clone();
            async move { ours.admit(&repository("web"), durable("a")).await }
        });
        sleep(SECOND / 10).await;
        assert_eq!(line.requests(Request::Commit), 1, "it is on its way");
        kill_by_panic(&ours, &line, Request::DeadSessions).await;
        let longest = fixture.options().command_timeout + SECOND;
        let answer = timeout(longest, asking).await;
        let Ok(answer) = answer else {
            panic!("no answer within {longest:?}");
        };
        let answer = answer.unwrap();
        assert!(answer.is_err(), "{answer:?}");
    });
}

/// The events of a dead manager went on without an end for callers that asked for them
/// after its death.
#[test]
fn events_that_are_asked_for_after_the_death_are_over() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        kill_by_panic(&ours, &line, Request::DeadSessions).await;
        let mut events = ours.events();
        let heard = fixture.soon("the end of the events", events.next()).await;
        assert_eq!(heard, None);
    });
}

/// A manager whose runtime was shut down went on keeping its session from a thread of
/// its own, so that nobody ever got the slots that it held.
#[test]
fn a_manager_whose_runtime_was_shut_down_keeps_no_slot() {
    let ttl = SECOND;
    let memory: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let far = Faults::none();
    // Kept alive from a thread of its own, as behind a network.
    far.describe(|inner| {
        inner.with_placement(Placement::Remote {
            batches_in_flight: 1,
        })
    });
    let web = repository("web");
    let (theirs, ours) = (runtime(), runtime());
    let other = theirs.block_on(open(&memory, ttl));
    let manager = ours.block_on(open(&far.over(&memory), ttl));
    let a = ours.block_on(async {
        let limit = manager.set_limit(&web, Limit::new(1), None);
        limit.await.unwrap();
        started(&manager, &web, ephemeral("a")).await
    });
    let b = theirs.block_on(queued(&other, &web, ephemeral("b")));
    ours.shutdown_timeout(SECOND * 5);
    let turn = theirs.block_on(async { timeout(ttl * 4, b).await });
    let held = manager.holds(&a);
    // Whatever came of it: the thread is not to outlive this test.
    drop((a, manager));
    let Ok(Ok(Turn::Started(_b))) = turn else {
        panic!("4 TTLs after its runtime, its slot is still kept: {turn:?}");
    };
    assert!(!held, "two managers hold the one slot of `web`");
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

async fn open(driver: &Arc<dyn Driver>, ttl: Duration) -> ConcurrencyManager {
    let opening = ConcurrencyManager::open(Arc::clone(driver), options(ttl));
    opening.await.unwrap()
}

/// A manager that had told by an event that a run was ended by somebody else still
/// called itself the holder of its slot.
#[test]
fn a_run_that_was_ended_by_another_manager_is_not_held() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (ours, other) = (fixture.manager().await, fixture.manager().await);
        for how in ["released", "cancelled", "removed", "replaced"] {
            let web = repository(how);
            let mut events = ours.events();
            let lease = started(&ours, &web, durable("a")).await;
            assert!(ours.holds(&lease));
            match how {
                "released" => {
                    let token = Some(lease.token());
                    let (name, of) = (run("a"), uid("a"));
                    let release = other.release_run(&web, &name, &of, token, DONE);
                    drop(release.await.unwrap());
                }
                "cancelled" => drop(other.cancel(&web, &run("a"), None).await.unwrap()),
                "removed" => drop(other.remove_repository(&web).await.unwrap()),
                _ => {
                    let next = RunRequest::durable(run("a"), "another".parse().unwrap());
                    drop(started(&other, &web, next).await);
                }
            }
            let heard = fixture.soon("the news of the end", events.next()).await;
            assert!(
                matches!(&heard, Some(Heard::Event(Event::Ended { run: of, .. })) if *of == run("a")),
                "{how}: {heard:?}"
            );
            assert!(!ours.holds(&lease), "{how}, and still called held");
        }
    });
}

/// `holds` read the session, whether it was lost and when it was renewed one after the
/// other; in the moment in which a new session opened it said yes for a lease of the old one.
#[test]
fn a_lost_lease_is_never_held_again_when_a_new_session_opens() {
    const SESSIONS: usize = 100;
    // More than cores: some are interrupted in the middle of `holds` when the new session comes.
    const READERS: usize = 4;
    run_case(Time::Real, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let manager = fixture.manager_behind(&line).await;
        let slow = Fault::Delay(Duration::from_millis(1));
        line.inject([Request::OpenSession], slow, When::Always);
        let current: Arc<Mutex<Option<Arc<Lease>>>> = Arc::default();
        let (over, held_again) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (manager, current) = (manager.clone(), Arc::clone(&current));
                let (over, held_again) = (Arc::clone(&over), Arc::clone(&held_again));
                std::thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let lease = current.lock().unwrap().clone();
                        if lease.is_some_and(|lease| is_held_again(&manager, &lease)) {
                            AtomicBool::store(&held_again, true, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for n in 0..SESSIONS {
            let lease = started(&manager, &web, durable(&format!("a-{n}"))).await;
            *current.lock().unwrap() = Some(Arc::new(lease));
            let session = manager.session();
            fixture.driver().close_session(session).await.unwrap();
            // It hears of the loss by its next commit.
            let limit = manager.set_limit(&web, Limit::new(SESSIONS as u32 + n as u32), None);
            limit.await.unwrap();
            assert_ne!(manager.session(), session);
            if held_again.load(Ordering::Relaxed) {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        let held_again = held_again.load(Ordering::Relaxed);
        assert!(!held_again, "a lease that was lost was called held again");
    });
}

/// Asks many times whether a lease is held; true when that was so after it had not been.
fn is_held_again(manager: &ConcurrencyManager, lease: &Lease) -> bool {
    let mut lost = false;
    for _ in 0..2_000 {
        match manager.holds(lease) {
            false => lost = true,
            true if lost => return true,
            true => {}
        }
    }
    false
}
