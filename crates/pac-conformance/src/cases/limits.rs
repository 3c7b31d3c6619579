//! Limits.

use pac_core::manager::{Admission, Lease};
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion};
use tokio::task::JoinSet;

use crate::{Fixture, durable, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

/// (19) Raising the limit from 1 to 5 with 4 waiting starts exactly 4, in order, without any
/// other event.
pub async fn raising_starts_exactly_as_many(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    for (name, waiting) in [("four", 4), ("six", 6)] {
        let repository = repository(name);
        manager
            .set_limit(&repository, Limit::new(1), None)
            .await
            .unwrap();
        drop(started(&manager, &repository, durable("first")).await);
        let names: Vec<_> = (1..=waiting).map(|n| format!("w{}", (n * 3) % 7)).collect();
        let mut waiters = Vec::new();
        for (n, name) in names.iter().enumerate() {
            let admits = [&manager, &other][n % 2];
            waiters.push(queued(admits, &repository, durable(name)).await);
        }
        let change = other
            .set_limit(&repository, Limit::new(5), None)
            .await
            .unwrap();
        let four: Vec<_> = names[..4].iter().map(|name| run(name)).collect();
        assert_eq!((change.accepted, change.promoted), (true, four));
        let mut last = fixture.view(&repository).await.token("first");
        for waiter in waiters.drain(..4) {
            let lease = fixture.turn(waiter).await;
            assert!(lease.token() > last);
            last = lease.token();
        }
        for waiter in &mut waiters {
            fixture.waits_on(waiter).await;
        }
        assert_eq!(fixture.view(&repository).await.running.len(), 5);
    }
}

/// (20) Lowering it from 5 to 2 evicts nobody; nothing starts until fewer than 2 run.
pub async fn lowering_evicts_nobody(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(5), None).await.unwrap();
    let mut leases = Vec::new();
    for n in 0..5 {
        leases.push(started(&manager, &web, durable(&format!("run-{n}"))).await);
    }
    let mut next = queued(&manager, &web, durable("next")).await;
    let mut last = queued(&manager, &web, durable("last")).await;
    let change = manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    assert_eq!(change.promoted, []);
    assert_eq!(fixture.view(&web).await.running.len(), 5);
    for left in [4, 3, 2] {
        let ending = manager.release(leases.remove(0), DONE).await.unwrap();
        assert_eq!(ending.promoted, []);
        let view = fixture.view(&web).await;
        assert_eq!((view.running.len(), view.waiting.len()), (left, 2));
        // A newly admitted run does not start either.
        let newcomer = durable(&format!("newcomer-{left}"));
        let newcomer = queued(&manager, &web, newcomer).await;
        drop(newcomer);
        fixture.waits_on(&mut next).await;
    }
    manager.release(leases.remove(0), DONE).await.unwrap();
    drop(fixture.turn(next).await);
    fixture.waits_on(&mut last).await;
    fixture
        .view(&web)
        .await
        .assert(&["run-4", "next"], &["last"]);
}

/// (21) Removing the limit starts every waiter, in order; setting one later counts the runs that
/// already run.
pub async fn removing_the_limit_starts_everybody(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let mut leases = vec![started(&manager, &web, durable("first")).await];
    let names: Vec<_> = (0..6).map(|n| format!("w{}", (n * 5) % 6)).collect();
    let mut waiters = Vec::new();
    for name in &names {
        waiters.push(queued(&manager, &web, durable(name)).await);
    }
    let change = manager
        .set_limit(&web, Limit::UNLIMITED, None)
        .await
        .unwrap();
    let all: Vec<_> = names.iter().map(|name| run(name)).collect();
    assert_eq!(change.promoted, all);
    for waiter in waiters {
        leases.push(fixture.turn(waiter).await);
    }
    assert!(leases.is_sorted_by_key(Lease::token));
    leases.push(started(&manager, &web, durable("free")).await);
    assert_eq!(fixture.view(&web).await.running.len(), 8);

    manager.set_limit(&web, Limit::new(3), None).await.unwrap();
    let mut late = queued(&manager, &web, durable("late")).await;
    for left in (3..8).rev() {
        let ending = manager.release(leases.remove(0), DONE).await.unwrap();
        assert_eq!((ending.promoted, leases.len()), (vec![], left));
        fixture.waits_on(&mut late).await;
    }
    manager.release(leases.remove(0), DONE).await.unwrap();
    drop(fixture.turn(late).await);
    assert_eq!(fixture.view(&web).await.running.len(), 3);
}

/// (22) Two controllers announce different limits: the store's limit is one value; the last
/// announced with the newer resource version wins, and an older one never overwrites it.
pub async fn the_newest_announcement_holds(fixture: &Fixture) {
    let managers = [fixture.manager().await, fixture.manager().await];
    let web = repository("web");
    for (by, limit, version, accepted, in_force) in [
        (0, 5, 10, true, 5),
        (1, 2, 9, false, 5),
        (1, 7, 10, false, 5),
        (1, 2, 11, true, 2),
        (0, 0, 8, false, 2),
        (0, 0, 12, true, 0),
        (1, 3, u64::MAX - 1_000, true, 3),
    ] {
        let version = Some(LimitVersion::new(version));
        let change = managers[by]
            .set_limit(&web, Limit::new(limit), version)
            .await
            .unwrap();
        let expected = (accepted, Limit::new(in_force));
        assert_eq!((change.accepted, change.limit), expected, "{version:?}");
        assert_eq!(fixture.view(&web).await.head.limit, Limit::new(in_force));
    }
    // A limit announced together with runs is treated like any other.
    let old = Some((Limit::new(1), LimitVersion::new(7)));
    let both = vec![durable("a"), durable("b")];
    let admitted = managers[0].admit_all(&web, old, both).await.unwrap();
    assert!(
        admitted
            .iter()
            .all(|admission| matches!(admission, Admission::Started(_)))
    );

    // Concurrent announcements in random order; the limit of each is derived from its version.
    let base = u64::MAX - 900;
    let mut announcements = JoinSet::new();
    for n in 0..200_u64 {
        let n = (n * 77) % 200;
        let (manager, web) = (managers[n as usize % 2].clone(), web.clone());
        announcements.spawn(async move {
            let limit = Limit::new(n as u32 + 10);
            let version = LimitVersion::new(base + n);
            manager.set_limit(&web, limit, Some(version)).await.unwrap()
        });
    }
    let changes = announcements.join_all().await;
    assert!(changes.iter().any(|change| !change.accepted));
    let head = fixture.view(&web).await.head;
    let newest = (Limit::new(209), Some(LimitVersion::new(base + 199)));
    assert_eq!((head.limit, head.limit_version), newest);
    for manager in managers {
        assert_eq!(manager.status(&web).await.unwrap().limit, newest.0);
    }
}

/// (23) A limit given by a global default is stored as the repository's effective limit and
/// survives a restart.
pub async fn a_default_limit_is_stored(fixture: &Fixture) {
    let web = repository("web");
    let first = fixture.manager().await;
    first.set_limit(&web, Limit::new(2), None).await.unwrap();
    drop(started(&first, &web, durable("a")).await);
    first.close().await.unwrap();
    drop(first);

    let second = fixture.manager().await;
    assert_eq!(second.status(&web).await.unwrap().limit, Limit::new(2));
    drop(started(&second, &web, durable("b")).await);
    let c = queued(&second, &web, durable("c")).await;
    fixture.view(&web).await.assert(&["a", "b"], &["c"]);
    // An announced limit of the repository itself takes precedence over the default.
    let version = Some(LimitVersion::new(1));
    let change = second
        .set_limit(&web, Limit::new(3), version)
        .await
        .unwrap();
    assert_eq!((change.accepted, change.promoted), (true, vec![run("c")]));
    drop(fixture.turn(c).await);
    let head = fixture.view(&web).await.head;
    assert_eq!((head.limit, head.limit_version), (Limit::new(3), version));
}
