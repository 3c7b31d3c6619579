//! Leases and crashes.

mod clocks;
mod faults;
mod outages;
mod returns;

pub use clocks::a_wrong_clock_changes_nothing;
pub use faults::{
    a_closed_manager_holds_nothing, a_failed_renewal_is_told_at_once, a_lost_answer_is_recognised,
    a_paused_store_costs_no_lease, a_stopped_controller_learns_it, dead_keep_alive_is_not_hidden,
    keep_alive_survives_blocked_workers,
};
pub use outages::{a_long_outage_fails_calls_and_passes, a_restart_of_the_store_loses_nothing};
pub use returns::{
    a_stopped_store_is_told_and_returned_to, a_store_that_is_back_is_used_at_once,
    hints_lost_after_an_outage_cost_no_time,
};

use pac_core::manager::RunStatus;
use pac_core::manager::Turn;
use pac_core::protocol::Ended;
use pac_core::state::{Entry, EntryState, RunOutcome};
use pac_core::{Limit, Ticket};
use tokio::time::{Instant, sleep, timeout};

use crate::faults::Faults;
use crate::{Fixture, at_priority, durable, ephemeral, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

/// (31) A run longer than both TTLs keeps its slot while its controller lives.
pub async fn long_runs_keep_their_slots(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let b = started(&manager, &web, ephemeral("b")).await;
    let mut c = queued(&other, &web, durable("c")).await;
    for part in 1..=9 {
        sleep(fixture.lease_ttl() / 3).await;
        assert!(
            manager.holds(&a) && manager.holds(&b),
            "after {part} thirds"
        );
        let view = fixture.view(&web).await;
        view.assert(&["a", "b"], &["c"]);
        assert_eq!((view.token("a"), view.token("b")), (a.token(), b.token()));
        for name in ["a", "b"] {
            let RunStatus::Started(status) = other.run_status(&web, &run(name)).await.unwrap()
            else {
                panic!("{name} is lost");
            };
            assert!(!status.orphaned && status.session == manager.session());
        }
    }
    fixture.waits_on(&mut c).await;
    let ending = manager.release(b, DONE).await.unwrap();
    assert_eq!(ending.ended, Ended::Done);
    drop(fixture.turn(c).await);
}

/// (32) A waiter longer than both TTLs keeps its place (the prototype lost it after an hour).
pub async fn long_waiters_keep_their_places(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let b = queued(&other, &web, durable("b")).await;
    let c = queued(&manager, &web, ephemeral("c")).await;
    let before = fixture.view(&web).await;
    sleep(fixture.lease_ttl() * 3).await;
    let d = queued(&other, &web, durable("d")).await;
    let view = fixture.view(&web).await;
    view.assert(&["a"], &["b", "c", "d"]);
    for name in ["b", "c"] {
        assert_eq!(view.entry(name), before.entry(name), "its record changed");
    }
    manager.release(a, DONE).await.unwrap();
    let b = fixture.turn(b).await;
    assert_eq!(b.queued_at(), before.times("b")[0]);
    other.release(b, DONE).await.unwrap();
    let c = fixture.turn(c).await;
    manager.release(c, DONE).await.unwrap();
    drop(fixture.turn(d).await);
}

/// (37) All controllers restart: same running set, same order, and the queue moves on without a
/// new event.
pub async fn everybody_restarts(fixture: &Fixture) {
    let web = repository("web");
    let gates = [Faults::none(), Faults::none()];
    let mut kept = Vec::new();
    for (n, gate) in gates.iter().enumerate() {
        let manager = fixture.manager_behind(gate).await;
        manager.set_limit(&web, Limit::new(2), None).await.unwrap();
        for name in ["x", "y", "z"] {
            let request = at_priority(&format!("{name}-{n}"), i32::from(name == "z"));
            kept.push((manager.clone(), manager.admit(&web, request).await.unwrap()));
        }
    }
    let before = fixture.view(&web).await;
    before.assert(&["x-0", "y-0"], &["z-0", "z-1", "x-1", "y-1"]);
    // Kill all of them at once: none can close its session.
    for gate in &gates {
        gate.cut();
    }
    fixture.outlive_session().await;

    let fresh = fixture.manager().await;
    let mut grants = fresh.grants().unwrap();
    // Nobody has seen the store for so long that it may take itself to have stalled, and give every
    // session one TTL more.
    let is_left = |entry: &Entry| match entry.state {
        EntryState::Queued { owner } => owner.is_none(),
        EntryState::Started { orphaned, .. } => orphaned,
        EntryState::Finished { .. } => true,
    };
    let seen_to = async {
        while !fixture
            .view(&web)
            .await
            .entries()
            .all(|entry| is_left(entry))
        {
            sleep(fixture.notice() / 20).await;
        }
    };
    let longest = fixture.lease_ttl() + fixture.notice() * 2;
    timeout(longest, seen_to)
        .await
        .expect("the dead were not seen to");
    let view = fixture.view(&web).await;
    assert_eq!(view.running_names(), before.running_names());
    assert_eq!(view.waiting_names(), before.waiting_names());
    let tickets: Vec<Ticket> = view.waiting.iter().map(|entry| entry.ticket).collect();
    let same: Vec<Ticket> = before.waiting.iter().map(|entry| entry.ticket).collect();
    assert_eq!(tickets, same);
    // The new manager learns of the running runs from the cluster; every later start follows
    // from the end of a run alone.
    for name in ["x-0", "y-0"] {
        drop(started(&fresh, &web, durable(name)).await);
    }
    fixture
        .view(&web)
        .await
        .assert(&["x-0", "y-0"], &["z-0", "z-1", "x-1", "y-1"]);
    for (ends, starts) in [
        ("x-0", "z-0"),
        ("y-0", "z-1"),
        ("z-0", "x-1"),
        ("z-1", "y-1"),
    ] {
        fixture.release_named(&fresh, &web, ends).await;
        let lease = fixture.soon("the grant", grants.next()).await.unwrap();
        assert_eq!(lease.run(), &run(starts));
        assert!(fresh.holds(&lease));
    }
    fixture.view(&web).await.assert(&["x-1", "y-1"], &[]);
    drop(kept);
}

/// (33, 34, 35) As far as one process can simulate a crash: ephemeral entries go within the
/// session TTL and 2 s, and the next run starts; durable waiters keep their places until a
/// manager adopts them; durable runners count as orphans until adopted, or until the lease TTL
/// has passed.
pub async fn a_crash_frees_what_it_has_to(fixture: &Fixture) {
    let options = fixture.options();
    let gate = Faults::none();
    let (doomed, live) = (fixture.manager_behind(&gate).await, fixture.manager().await);
    let (web, left) = (repository("web"), repository("left"));
    live.set_limit(&web, Limit::new(3), None).await.unwrap();
    let eph = started(&doomed, &web, ephemeral("ephemeral")).await;
    let adopted = started(&doomed, &web, durable("adopted")).await;
    let orphan = started(&doomed, &web, durable("orphan")).await;
    let waiting = queued(&doomed, &web, ephemeral("gone")).await;
    let durable_waiter = queued(&doomed, &web, durable("kept")).await;
    let next = queued(&live, &web, durable("next")).await;
    let last = queued(&live, &web, durable("last")).await;
    let other = started(&doomed, &left, durable("orphan")).await;
    gate.cut();
    let died = Instant::now();
    let longest = options.session_ttl + std::time::Duration::from_secs(2);
    let turn = timeout(longest * 2, next)
        .await
        .expect("next was forgotten");
    assert!(died.elapsed() <= longest, "{:?}", died.elapsed());
    assert!(matches!(turn, Ok(Turn::Started(_))), "{turn:?}");
    let view = fixture.view(&web).await;
    view.assert(&["adopted", "orphan", "next"], &["kept", "last"]);
    assert_eq!(view.session("kept"), None, "a slot could go to the dead");
    for name in ["ephemeral", "gone"] {
        assert_eq!(view.outcome(name), Some(RunOutcome::LeaseLost));
    }

    let again = started(&live, &web, durable("adopted")).await;
    assert!(again.token() > adopted.token());
    let kept = queued(&live, &web, durable("kept")).await;
    let view = fixture.view(&web).await;
    view.assert(&["adopted", "orphan", "next"], &["kept", "last"]);
    assert_eq!(view.session("kept"), Some(live.session()));
    // Not before the lease TTL, then soon after, in the other repository too. The session was
    // last renewed at most a third of its TTL before it died.
    let certain = fixture.lease_ttl() - options.session_ttl / 3;
    sleep(certain.saturating_sub(died.elapsed() + fixture.tolerance())).await;
    fixture
        .view(&web)
        .await
        .assert(&["adopted", "orphan", "next"], &["kept", "last"]);
    sleep(options.session_ttl / 3 + fixture.tolerance() + fixture.notice()).await;
    let view = fixture.view(&web).await;
    view.assert(&["adopted", "kept", "next"], &["last"]);
    assert_eq!(view.outcome("orphan"), Some(RunOutcome::LeaseLost));
    let view = fixture.view(&left).await;
    assert_eq!(view.outcome("orphan"), Some(RunOutcome::LeaseLost));
    drop(fixture.turn(kept).await);
    drop((eph, orphan, waiting, durable_waiter, last, other));
}
