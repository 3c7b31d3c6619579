//! `lease.lost()`: every way to lose a lease, with its reason; and the end of waiting with a
//! session.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, ErrorKind, Lease, LeaseLoss, Limit, Lost, ManagerOptions,
    MemoryDriver, MemoryOptions, RepositoryKey, RunOutcome,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{
    Fixture, Time, durable, ephemeral, queued, repository, run, run_case, started,
};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// A manager behind a line, and its lease of the only slot of a repository.
struct Held {
    line: Arc<Faults>,
    manager: ConcurrencyManager,
    web: RepositoryKey,
    lease: Lease,
}

impl Held {
    async fn new(fixture: &Fixture) -> Self {
        let line = Faults::none();
        let manager = fixture.manager_behind(&line).await;
        let web = repository("web");
        let set = manager.set_limit(&web, Limit::new(1), None);
        set.await.unwrap();
        let lease = started(&manager, &web, durable("a")).await;
        Self {
            line,
            manager,
            web,
            lease,
        }
    }

    /// For a while of the usual life of a lease, nothing happens.
    async fn is_held(&self, fixture: &Fixture) -> Lost {
        let lost = self.lease.lost();
        let waited = timeout(fixture.options().session_ttl * 3, lost.clone()).await;
        assert!(waited.is_err(), "lost: {waited:?}");
        assert_eq!(lost.reason(), None);
        lost
    }
}

/// Lost for this reason, which clones and a second look tell too.
async fn is_lost(fixture: &Fixture, lost: Lost, why: LeaseLoss) {
    let mut lost = lost;
    let clone = lost.clone();
    let waited = timeout(fixture.options().session_ttl, &mut lost).await;
    assert_eq!(waited, Ok(why));
    assert_eq!(lost.reason(), Some(why));
    assert_eq!(lost.clone().await, why);
    assert_eq!((&mut lost).await, why, "polled again");
    assert_eq!(clone.reason(), Some(why));
    assert_eq!(clone.await, why);
}

#[test]
fn a_lease_is_lost_with_its_release() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let lost = held.is_held(fixture).await;
        held.manager.release(held.lease, DONE).await.unwrap();
        is_lost(fixture, lost, LeaseLoss::Ended(Some(DONE))).await;
    });
}

#[test]
fn a_lease_is_lost_when_another_manager_cancels_the_run() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let other = fixture.manager().await;
        let lost = held.is_held(fixture).await;
        other.cancel(&held.web, &run("a"), None).await.unwrap();
        let why = LeaseLoss::Ended(Some(RunOutcome::Cancelled));
        is_lost(fixture, lost, why).await;
        // Asked for only now.
        is_lost(fixture, held.lease.lost(), why).await;
        assert!(!held.manager.holds(&held.lease));
    });
}

#[test]
fn a_lease_is_lost_with_its_repository() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let other = fixture.manager().await;
        let lost = held.is_held(fixture).await;
        other.remove_repository(&held.web).await.unwrap();
        is_lost(fixture, lost, LeaseLoss::Ended(None)).await;
        assert!(!held.manager.holds(&held.lease));
    });
}

#[test]
fn a_lease_is_lost_when_the_run_is_given_back_to_the_queue() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let lost = held.is_held(fixture).await;
        let again = held.manager.requeue(held.lease).await.unwrap();
        is_lost(fixture, lost, LeaseLoss::TakenOver).await;
        // First in the queue, it has a slot again, and that lease is another one.
        let Some(Admission::Started(lease)) = again else {
            panic!("its slot is free: {again:?}");
        };
        assert_eq!(lease.lost().reason(), None);
    });
}

/// Another controller adopts the run before this one has heard that its session is over.
#[test]
fn a_lease_is_lost_when_another_controller_takes_the_run_over() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let other = fixture.manager().await;
        let lost = held.is_held(fixture).await;
        // Nothing tells it that its session is over.
        let deaf = [Request::KeepAlive, Request::DeadSessions];
        held.line.inject(deaf, Fault::Fail, When::Always);
        let session = held.manager.session();
        fixture.driver().close_session(session).await.unwrap();
        loop {
            let status = other.status(&held.web).await.unwrap();
            if status.running.iter().any(|run| run.orphaned) {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(lost.reason(), None, "it is its own until another takes it");
        let adopted = other.adopt(&held.web, durable("a")).await.unwrap();
        let Admission::Started(adopted) = adopted else {
            panic!("it runs: {adopted:?}");
        };
        assert!(other.holds(&adopted) && adopted.token() > held.lease.token());
        is_lost(fixture, lost, LeaseLoss::TakenOver).await;
        held.line.clear();
    });
}

#[test]
fn a_lease_is_lost_when_its_session_is_not_renewed_in_time_and_stays_lost() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let lost = held.is_held(fixture).await;
        let (ttl, session) = (fixture.options().session_ttl, held.manager.session());
        held.line.cut();
        let cut = Instant::now();
        is_lost(fixture, lost.clone(), LeaseLoss::NotRenewed).await;
        assert!(cut.elapsed() < ttl, "before the store may grant it again");
        assert!(!held.manager.holds(&held.lease));
        fixture.driver().keep_alive(session).await.unwrap();
        held.line.open();
        sleep(ttl * 2).await;
        assert!(held.manager.health().is_ready());
        assert_eq!(held.manager.session(), session, "the store has kept it");
        assert!(!held.manager.holds(&held.lease), "once lost, always lost");
        is_lost(fixture, lost, LeaseLoss::NotRenewed).await;
        is_lost(fixture, held.lease.lost(), LeaseLoss::NotRenewed).await;
        // Asked for again, it is held again.
        let again = started(&held.manager, &held.web, durable("a")).await;
        assert!(held.manager.holds(&again));
        assert_eq!(again.lost().reason(), None);
    });
}

/// Handed out while the session was not renewed, although commits went through.
#[test]
fn a_lease_that_was_lost_when_it_was_handed_out_stays_lost() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let (ttl, session) = (fixture.options().session_ttl, held.manager.session());
        held.line
            .inject([Request::KeepAlive], Fault::Fail, When::Always);
        for _ in 0..9 {
            sleep(ttl / 6).await;
            fixture.driver().keep_alive(session).await.unwrap();
        }
        assert!(!held.manager.holds(&held.lease));
        let api = repository("api");
        let lease = started(&held.manager, &api, ephemeral("b")).await;
        let lost = lease.lost();
        assert!(!held.manager.holds(&lease));
        assert_eq!(lost.reason(), Some(LeaseLoss::NotRenewed));
        held.line.clear();
        sleep(ttl).await;
        assert!(held.manager.health().is_ready());
        assert_eq!(held.manager.session(), session, "the store has kept it");
        assert!(!held.manager.holds(&lease), "once lost, always lost");
        is_lost(fixture, lost, LeaseLoss::NotRenewed).await;
    });
}

#[test]
fn a_lease_is_lost_with_its_session() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let lost = held.is_held(fixture).await;
        let session = held.manager.session();
        fixture.driver().close_session(session).await.unwrap();
        is_lost(fixture, lost, LeaseLoss::SessionLost).await;
        assert!(!held.manager.holds(&held.lease));
    });
}

/// The other controller may be faster to find the session dead than its own manager.
#[test]
fn a_lease_is_lost_with_its_session_whichever_manager_notices_first() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let api = repository("api");
        let lease = started(&held.manager, &api, ephemeral("b")).await;
        let lost = lease.lost();
        let other = fixture.manager().await;
        held.line
            .inject([Request::KeepAlive], Fault::Hang, When::Always);
        let session = held.manager.session();
        fixture.driver().close_session(session).await.unwrap();
        fixture.comes_to(&api, &[], &[]).await;
        is_lost(fixture, lost, LeaseLoss::SessionLost).await;
        held.line.clear();
        drop(other);
    });
}

#[test]
fn a_lease_is_lost_when_its_manager_is_closed() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let lost = held.is_held(fixture).await;
        held.manager.close().await.unwrap();
        is_lost(fixture, lost, LeaseLoss::Closed).await;
        is_lost(fixture, held.lease.lost(), LeaseLoss::Closed).await;
    });
}

#[test]
fn a_lease_is_lost_when_its_manager_is_gone() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for asked_before in [true, false] {
            let held = Held::new(fixture).await;
            let before = asked_before.then(|| held.lease.lost());
            // The lease of a durable run and what is `Lost` keep no manager.
            drop(held.manager);
            if let Some(lost) = before {
                is_lost(fixture, lost, LeaseLoss::Closed).await;
            }
            is_lost(fixture, held.lease.lost(), LeaseLoss::Closed).await;
            let other = fixture.manager().await;
            other.remove_repository(&held.web).await.unwrap();
        }
    });
}

#[test]
fn a_lease_is_lost_with_the_runtime_of_its_manager() {
    let runtime = || Builder::new_multi_thread().enable_all().build().unwrap();
    let theirs = runtime();
    let (manager, lease) = theirs.block_on(async {
        let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
        let manager = ConcurrencyManager::open(driver, ManagerOptions::default()).await;
        let manager = manager.unwrap();
        let lease = started(&manager, &repository("web"), durable("a")).await;
        (manager, lease)
    });
    let lost = lease.lost();
    assert_eq!(lost.reason(), None);
    theirs.shutdown_timeout(Duration::from_secs(5));
    let ours = runtime();
    let waited = ours.block_on(async { timeout(Duration::from_secs(10), lost).await });
    assert_eq!(waited.unwrap(), LeaseLoss::Closed);
    assert_eq!(lease.lost().reason(), Some(LeaseLoss::Closed));
    assert!(!manager.holds(&lease));
}

/// A durable run that is admitted twice has two leases of one slot.
#[test]
fn two_leases_of_one_slot_are_lost_together_and_not_with_one_another() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let lost = held.lease.lost();
        let again = started(&held.manager, &held.web, durable("a")).await;
        assert_eq!(again.token(), held.lease.token());
        let other = again.lost();
        assert_eq!(other.reason(), None);
        drop((again, other));
        sleep(fixture.options().session_ttl).await;
        assert_eq!(lost.reason(), None);
        let again = started(&held.manager, &held.web, durable("a")).await;
        let other = again.lost();
        held.manager.release(held.lease, DONE).await.unwrap();
        for lost in [lost, other] {
            is_lost(fixture, lost, LeaseLoss::Ended(Some(DONE))).await;
        }
    });
}

/// The place of an ephemeral run is gone with its session; its waiter hears of it at once, and
/// not when a new session can be opened.
#[test]
fn a_waiter_ends_with_its_session_while_the_store_is_still_away() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let held = Held::new(fixture).await;
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        let waiter = queued(&ours, &held.web, ephemeral("b")).await;
        let durable = queued(&ours, &held.web, durable("c")).await;
        let away = Request::ALL.into_iter();
        let away = away.filter(|request| *request != Request::KeepAlive);
        line.inject(away, Fault::Fail, When::Always);
        let session = ours.session();
        fixture.driver().close_session(session).await.unwrap();
        let ended = timeout(fixture.options().session_ttl, waiter).await;
        let error = ended.expect("it hears of it").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SessionLost, "{error}");
        assert_eq!(ours.session(), session, "the store is still away");
        // A durable run keeps its place, and is waited for in the name of the next session.
        let mut durable = durable;
        fixture.waits_on(&mut durable).await;
        line.clear();
        held.manager.release(held.lease, DONE).await.unwrap();
        drop(fixture.turn_when_reconnected(durable).await);
    });
}
