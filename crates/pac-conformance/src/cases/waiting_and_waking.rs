//! Waiting and waking.

mod giving_up;
mod together;

pub use giving_up::{
    a_waiter_that_gives_up_leaves_nothing, dropped_admissions_leak_nothing,
    giving_up_outlives_the_session,
};
pub use together::slots_of_several_repositories_come_together;

use std::time::Duration;

use pac_core::Limit;
use pac_core::manager::{Heard, RunStatus, WaitReason};
use pac_core::protocol::Ended;
use pac_core::state::RunOutcome;
use tokio::time::{Instant, sleep, timeout};

use crate::faults::{Faults, HintFault, When};
use crate::{Fixture, durable, ephemeral, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;
const LONG: Duration = Duration::from_secs(60 * 60);

/// (24) A release on one manager starts a waiter of another within 50 ms (p99 on one machine),
/// without polling.
pub async fn a_release_wakes_another_manager(fixture: &Fixture) {
    let options = fixture.options().with_poll_interval(LONG);
    let managers = [
        fixture.manager_with(options).await,
        fixture.manager_with(options).await,
    ];
    let web = repository("web");
    managers[0]
        .set_limit(&web, Limit::new(1), None)
        .await
        .unwrap();
    let mut lease = started(&managers[0], &web, durable("run-0")).await;
    let mut delays = Vec::new();
    for n in 1..=300 {
        let waiter = queued(&managers[n % 2], &web, durable(&format!("run-{n}"))).await;
        // Wait in a task of its own, as real waiters do.
        let woken = tokio::spawn(async move { (waiter.await, Instant::now()) });
        sleep(Duration::from_micros(300)).await;
        let released = Instant::now();
        managers[(n + 1) % 2].release(lease, DONE).await.unwrap();
        let (turn, at) = fixture.soon("the wake-up", woken).await.unwrap();
        let pac_core::manager::Turn::Started(next) = turn.unwrap() else {
            panic!("run-{n} was woken for nothing");
        };
        delays.push(at - released);
        lease = next;
    }
    delays.sort_unstable();
    let p99 = delays[delays.len() * 99 / 100];
    assert!(p99 <= Duration::from_millis(50), "p99 {p99:?}, {delays:?}");
}

/// (25) All notifications lost: the waiter still starts within the back-stop interval. Late or
/// doubled ones do no harm.
pub async fn without_hints_the_back_stop_starts_waiters(fixture: &Fixture) {
    let options = fixture.polling_options();
    let manager = fixture.manager_with(options).await;
    let poll = options.poll_interval;
    // The interval is jittered by a fifth of its length.
    let longest = poll.mul_f64(1.2) + fixture.tolerance();
    let late = poll / 20;
    let fates = [
        ("silent", HintFault::Drop, longest),
        (
            "late",
            HintFault::Late(late),
            late * 3 + fixture.tolerance(),
        ),
        ("twice", HintFault::Twice, fixture.tolerance()),
        ("overtaken", HintFault::Overtaken, longest),
    ];
    let suffer = async |(name, fate, longest): (&str, HintFault, Duration)| {
        let repository = repository(name);
        manager
            .set_limit(&repository, Limit::new(1), None)
            .await
            .unwrap();
        let hints = Faults::none();
        hints.inject_hints(fate, When::Always);
        let deaf = fixture.manager_behind_with(&hints, options).await;
        for n in 0..5 {
            let names = ["a", "b", "c"].map(|name| format!("{name}-{n}"));
            let a = started(&manager, &repository, durable(&names[0])).await;
            let b = queued(&deaf, &repository, durable(&names[1])).await;
            let c = queued(&manager, &repository, durable(&names[2])).await;
            sleep(poll / 3 * n).await;
            manager.release(a, DONE).await.unwrap();
            let released = Instant::now();
            let b = timeout(longest * 2, b)
                .await
                .unwrap_or_else(|_| panic!("{name}: lost"));
            let waited = released.elapsed();
            assert!(
                waited <= longest,
                "{name}: {waited:?} is more than {longest:?}"
            );
            let pac_core::manager::Turn::Started(b) = b.unwrap() else {
                panic!("{name}: woken for nothing");
            };
            deaf.release(b, DONE).await.unwrap();
            let c = fixture.turn(c).await;
            manager.release(c, DONE).await.unwrap();
        }
        assert!(hints.hints_hit() > 0, "no hint was there to be lost");
        fixture.view(&repository).await.assert(&[], &[]);
    };
    fixture.each(fates, suffer).await;
}

/// (26) A watcher that is slow, or never read, neither blocks admission nor grows without bound:
/// it sees the latest state, and a mark that it missed steps.
pub async fn slow_watchers_hold_nothing_up(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    let mut slow = manager.watch(&web).await.unwrap();
    let first = slow.next().await.unwrap();
    let mut never_read = manager.watch(&web).await.unwrap();
    let mut events = manager.events();
    let mut hints = fixture.driver().watch(manager.session()).await.unwrap();
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let steps = 1_500;
    for n in 0..steps {
        let name = format!("run-{n}");
        let work = async {
            drop(started(&manager, &web, durable(&name)).await);
            // Another manager ends the run: one event for the manager that had started it.
            let ending = other.cancel(&web, &run(&name), None).await.unwrap();
            assert_eq!(ending.ended, Ended::Done);
            // A direct read, so that the first manager need not wait for the hint of the cancel.
            manager.run_status(&web, &run(&name)).await.unwrap();
        };
        fixture.soon("an admission", work).await;
    }
    fixture.settle().await;
    let latest = fixture.view(&web).await.head.revision;
    for watch in [&mut slow, &mut never_read] {
        let update = fixture
            .soon("the latest state", watch.next())
            .await
            .unwrap();
        assert_eq!(update.status.revision, latest);
        assert!(
            update.missed >= steps,
            "missed {} of {steps}",
            update.missed
        );
        let more = timeout(fixture.quiet(), watch.next()).await;
        assert!(more.is_err(), "kept for the slow: {more:?}");
    }
    let Some(Heard::Missed(missed)) = events.next().await else {
        panic!("a slow reader was not told that it missed something");
    };
    let mut kept = 0;
    while let Ok(Some(Heard::Event(_))) = timeout(fixture.quiet(), events.next()).await {
        kept += 1;
    }
    assert_eq!(missed + kept, steps);
    // The driver merges its hints or drops them above some number: there is not one per commit.
    let mut pending = 0;
    while timeout(fixture.quiet(), hints.next()).await.is_ok() {
        pending += 1;
    }
    assert!(
        (1..=1_024).contains(&pending),
        "{pending} hints kept for one repository"
    );
    // `missed` is 0 if no step was missed.
    assert!(!first.status.exists && first.missed == 0, "{first:?}");
}

/// (27) A watch survives a lost connection, and misses no state change for good.
pub async fn a_watch_survives_a_lost_connection(fixture: &Fixture) {
    let gate = Faults::none();
    let options = fixture
        .options()
        .with_poll_interval(LONG)
        .with_session_ttl(LONG)
        .with_lease_ttl(LONG);
    let manager = fixture.manager_with(options).await;
    let cut = fixture.manager_behind_with(&gate, options).await;
    let (web, idle) = (repository("web"), repository("idle"));
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    manager.set_limit(&idle, Limit::new(1), None).await.unwrap();
    let mut watch = cut.watch(&idle).await.unwrap();
    assert_eq!(watch.next().await.unwrap().status.limit, Limit::new(1));
    let a = started(&manager, &web, durable("a")).await;
    let b = queued(&cut, &web, durable("b")).await;
    gate.cut();
    fixture.settle().await;
    assert!(cut.health().watch_error.is_some(), "{:?}", cut.health());
    // While the connection is cut, b gets a slot and the other repository changes.
    manager.release(a, DONE).await.unwrap();
    manager.set_limit(&idle, Limit::new(7), None).await.unwrap();
    drop(started(&manager, &idle, durable("x")).await);
    fixture.settle().await;
    fixture.view(&web).await.assert(&["b"], &[]);
    gate.open();
    drop(fixture.turn_when_reconnected(b).await);
    let seen = async {
        loop {
            let status = watch.next().await.unwrap().status;
            if status.limit == Limit::new(7) && status.running.len() == 1 {
                return;
            }
        }
    };
    fixture.reconnected("the change", seen).await;
    assert_eq!(cut.health().watch_error, None);
    // The watch also reports later changes.
    let c = queued(&cut, &web, durable("c")).await;
    fixture.release_named(&manager, &web, "b").await;
    drop(fixture.turn(c).await);
}

/// (30) Queue position, reason for waiting and the runs ahead can be read and watched.
pub async fn places_can_be_read_and_watched(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let _b = started(&manager, &web, ephemeral("b")).await;
    let c = queued(&manager, &web, durable("c")).await;
    let d = queued(&other, &web, durable("d")).await;
    let e = queued(&manager, &web, ephemeral("e")).await;
    let reached = |running| WaitReason::LimitReached {
        limit: Limit::new(running),
        running,
    };
    assert_eq!(
        (c.position(), c.reason(), c.ahead()),
        (Some(1), Some(reached(2)), vec![])
    );
    assert_eq!(
        (e.position(), e.ahead()),
        (Some(3), vec![run("c"), run("d")])
    );
    assert_eq!(e.reason(), Some(WaitReason::Behind { ahead: 2 }));
    // Every manager can read the place, not only the one that waits.
    let mut watch = other.watch(&web).await.unwrap();
    for reader in [&manager, &other] {
        let status = reader.status(&web).await.unwrap();
        let places: Vec<_> = status
            .queued
            .iter()
            .map(|run| (run.run.name(), run.position, run.owner))
            .collect();
        let (own, others) = (Some(manager.session()), Some(other.session()));
        assert_eq!(places, [("c", 1, own), ("d", 2, others), ("e", 3, own)]);
        let RunStatus::Queued(place) = reader.run_status(&web, &run("d")).await.unwrap() else {
            panic!("d waits");
        };
        assert_eq!(
            (place.position, place.reason),
            (2, WaitReason::Behind { ahead: 1 })
        );
    }
    let positions = |status: &pac_core::manager::RepositoryStatus| {
        let queued = status.queued.iter();
        queued
            .map(|run| run.run.name().to_owned())
            .collect::<Vec<_>>()
    };
    let update = fixture.soon("the first state", watch.next()).await.unwrap();
    assert_eq!(positions(&update.status), ["c", "d", "e"]);
    manager.release(a, DONE).await.unwrap();
    drop(fixture.turn(c).await);
    let update = fixture.soon("the next state", watch.next()).await.unwrap();
    assert_eq!(positions(&update.status), ["d", "e"]);
    fixture.settle().await;
    assert_eq!((d.position(), d.reason()), (Some(1), Some(reached(2))));
    assert_eq!((e.position(), e.ahead()), (Some(2), vec![run("d")]));

    // A slot is free, yet d waits: its owner is gone, and no other manager starts runs.
    d.detach();
    other.close().await.unwrap();
    manager.set_limit(&web, Limit::new(3), None).await.unwrap();
    let _e = fixture.turn(e).await;
    let status = manager.status(&web).await.unwrap();
    let waits: Vec<_> = status
        .queued
        .iter()
        .map(|run| (run.run.name(), run.owner, run.reason.clone()))
        .collect();
    assert_eq!(waits, [("d", None, reached(3))]);
    manager.set_limit(&web, Limit::new(4), None).await.unwrap();
    let status = manager.status(&web).await.unwrap();
    assert_eq!(status.queued[0].reason, WaitReason::NoOwner);
}
