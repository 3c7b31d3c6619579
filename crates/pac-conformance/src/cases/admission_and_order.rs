//! Admission and order.

mod crowds;

pub use crowds::{hundred_repositories_drain, limit_holds_under_contention, no_barging};

use std::collections::BTreeMap;

use pac_core::driver::ListFilter;
use pac_core::manager::{Admission, Turn};
use pac_core::protocol::{Ended, RunRequest};
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion};
use tokio::task::JoinSet;

use crate::{
    Fixture, PREFIX_NAMES, at_priority, durable, ephemeral, finished, queued, repository, run,
    started, uid,
};

/// (1) No limit (absent or 0): every run starts at once and is counted.
pub async fn no_limit_starts_everything(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let zero = Some((Limit::new(0), LimitVersion::new(1)));
    for (name, limit) in [("absent", None), ("zero", zero)] {
        let repository = repository(name);
        if let Some((limit, version)) = limit {
            let set = manager.set_limit(&repository, limit, Some(version)).await;
            assert!(set.unwrap().accepted);
        }
        for n in 0..20 {
            drop(started(&manager, &repository, durable(&format!("run-{n}"))).await);
            let view = fixture.view(&repository).await;
            assert_eq!(
                (view.running.len(), view.head.started),
                (n + 1, n as u32 + 1)
            );
        }
    }
    let counted = fixture
        .driver()
        .list(ListFilter::All, None, 10)
        .await
        .unwrap();
    let counts: Vec<_> = counted.iter().map(|(_, head)| head.started).collect();
    assert_eq!(counts, [20, 20]);
}

/// (2) Limit 1: A starts, B and C queue at positions 1 and 2; A released → B starts; then C.
pub async fn limit_one_starts_one_after_the_other(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let repository = repository("web");
    let set = manager.set_limit(&repository, Limit::new(1), None).await;
    assert!(set.unwrap().accepted);
    let a = started(&manager, &repository, durable("a")).await;
    let mut b = queued(&manager, &repository, durable("b")).await;
    let mut c = queued(&manager, &repository, durable("c")).await;
    assert_eq!((b.position(), c.position()), (Some(1), Some(2)));
    fixture.waits_on(&mut b).await;
    fixture.view(&repository).await.assert(&["a"], &["b", "c"]);

    let ending = manager.release(a, RunOutcome::Completed).await.unwrap();
    assert_eq!(
        (ending.ended, ending.promoted),
        (Ended::Done, vec![run("b")])
    );
    let b = fixture.turn(b).await;
    assert_eq!(c.position(), Some(1));
    fixture.waits_on(&mut c).await;
    fixture.view(&repository).await.assert(&["b"], &["c"]);

    manager.release(b, RunOutcome::Failed).await.unwrap();
    let c = fixture.turn(c).await;
    fixture.view(&repository).await.assert(&["c"], &[]);
    manager.release(c, RunOutcome::Completed).await.unwrap();
    let view = fixture.view(&repository).await;
    view.assert(&[], &[]);
    assert_eq!(view.granted_names(), ["a", "b", "c"]);
}

/// (3) Admitting A while it runs, or B while it waits, again: same lease, same position, nothing
/// counted twice. Also when the limit is reached.
pub async fn admitting_again_changes_nothing(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let repository = repository("web");
    manager
        .set_limit(&repository, Limit::new(2), None)
        .await
        .unwrap();
    for kind in [durable, ephemeral as fn(&str) -> RunRequest] {
        let a = started(&manager, &repository, kind("a")).await;
        let again = started(&manager, &repository, kind("a")).await;
        assert_eq!(
            (a.token(), a.started_at()),
            (again.token(), again.started_at())
        );
        // Dropping one of two leases of the same run must not release the slot.
        drop(again);
        fixture.settle().await;
        fixture.view(&repository).await.assert(&["a"], &[]);

        let full = started(&manager, &repository, kind("full")).await;
        let mut b = queued(&manager, &repository, kind("b")).await;
        let mut c = queued(&manager, &repository, kind("c")).await;
        let before = fixture.view(&repository).await;
        let again = started(&manager, &repository, kind("a")).await;
        let mut b_again = queued(&manager, &repository, kind("b")).await;
        assert_eq!(again.token(), a.token());
        assert_eq!((b_again.position(), c.position()), (Some(1), Some(2)));
        let after = fixture.view(&repository).await;
        after.assert(&["a", "full"], &["b", "c"]);
        assert_eq!(after.head, before.head, "a question was a change");
        // Both waiters of b wait; b's place is given up only when the last of them is dropped.
        fixture.waits_on(&mut b).await;
        fixture.waits_on(&mut b_again).await;
        let b_once_more = queued(&manager, &repository, kind("b")).await;
        drop(b_once_more);
        fixture.settle().await;
        fixture
            .view(&repository)
            .await
            .assert(&["a", "full"], &["b", "c"]);

        let first = manager.release(a, RunOutcome::Completed).await.unwrap();
        assert_eq!(first.ended, Ended::Done);
        let twice = manager.release(again, RunOutcome::Completed).await.unwrap();
        assert_eq!(twice.ended, Ended::Before(RunOutcome::Completed));
        let taken = fixture.soon("the news", b).await.unwrap();
        assert!(matches!(taken, Turn::TakenOver), "{taken:?}");
        let b = fixture.turn(b_again).await;
        fixture.waits_on(&mut c).await;
        fixture
            .view(&repository)
            .await
            .assert(&["b", "full"], &["c"]);
        let ended = finished(&manager, &repository, kind("a")).await;
        assert_eq!(ended, RunOutcome::Completed);
        for lease in [b, full] {
            manager.release(lease, RunOutcome::Completed).await.unwrap();
        }
        let c = fixture.turn(c).await;
        manager.release(c, RunOutcome::Completed).await.unwrap();
        manager.remove_repository(&repository).await.unwrap();
        manager
            .set_limit(&repository, Limit::new(2), None)
            .await
            .unwrap();
    }
}

/// (4) A batch admitted together starts and queues in the order given; equal times keep
/// insertion order.
pub async fn a_batch_keeps_its_order(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let repository = repository("web");
    // In neither alphabetical order nor any other that sorting could produce.
    let names = ["m", "c", "x", "a", "k", "b"];
    let batch = names.map(durable).to_vec();
    let limit = Some((Limit::new(2), LimitVersion::new(1)));
    let admissions = manager.admit_all(&repository, limit, batch).await.unwrap();
    let mut waiters = Vec::new();
    for (n, admission) in admissions.into_iter().enumerate() {
        match admission {
            Admission::Started(lease) => assert_eq!((n < 2, lease.run()), (true, &run(names[n]))),
            Admission::Queued(waiter) => {
                assert_eq!((n, waiter.position()), (waiters.len() + 2, Some(n - 1)));
                waiters.push(waiter);
            }
            Admission::Finished(outcome) => panic!("{} is {outcome}", names[n]),
        }
    }
    let view = fixture.view(&repository).await;
    view.assert(&["m", "c"], &["x", "a", "k", "b"]);
    let at = view.times("m")[0];
    assert!(view.entries().all(|entry| entry.queued.at() == at));
    assert_eq!(fixture.drain(&manager, &repository).await, names);
    for waiter in waiters {
        drop(fixture.turn(waiter).await);
    }
}

/// (5) Batches are first in, first out among themselves: a later batch never passes an earlier
/// one, whichever controller releases.
pub async fn batches_never_pass_each_other(fixture: &Fixture) {
    let managers = [fixture.manager().await, fixture.manager().await];
    let repository = repository("web");
    let limit = Some((Limit::new(2), LimitVersion::new(1)));
    let mut waiters = Vec::new();
    let mut expected = Vec::new();
    for batch in 0..4 {
        let names: Vec<_> = (0..5)
            .map(|n| format!("batch-{batch}-{}", (n * 3) % 5))
            .collect();
        let requests = names.iter().map(|name| durable(name)).collect();
        let manager = &managers[batch % 2];
        waiters.extend(
            manager
                .admit_all(&repository, limit, requests)
                .await
                .unwrap(),
        );
        expected.extend(names);
    }
    let mut releases = 0;
    loop {
        let view = fixture.view(&repository).await;
        let Some(last) = view.running_names().last().map(ToString::to_string) else {
            break;
        };
        assert!(view.running.len() == 2 || view.waiting.is_empty());
        // The managers alternate in pairs of releases, independently of the batches' order.
        let manager = &managers[releases / 2 % 2];
        fixture.release_named(manager, &repository, &last).await;
        releases += 1;
        // Otherwise the waiter's manager may learn of its start and its end at once.
        fixture.settle().await;
    }
    assert_eq!(fixture.view(&repository).await.granted_names(), expected);
    for waiter in waiters {
        if let Admission::Queued(waiter) = waiter {
            drop(fixture.turn(waiter).await);
        }
    }

    // Concurrent batches too: each gets consecutive places, in the order of their tickets.
    let managers = [fixture.manager().await, fixture.manager().await];
    let mut batches = JoinSet::new();
    for batch in 0..12 {
        let (manager, repository) = (managers[batch % 2].clone(), repository.clone());
        batches.spawn(async move {
            let names = (0..4).map(|n| format!("crowd-{batch}-{n}"));
            let requests = names.map(|name| durable(&name)).collect();
            manager
                .admit_all(&repository, limit, requests)
                .await
                .unwrap()
        });
    }
    let places = batches.join_all().await;
    let mut tickets: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in fixture.view(&repository).await.entries() {
        if let Some((batch, n)) = entry.run.name().rsplit_once('-')
            && batch.starts_with("crowd")
        {
            tickets
                .entry(batch.to_owned())
                .or_default()
                .push((entry.ticket.get(), n.to_owned()));
        }
    }
    assert_eq!(tickets.len(), 12);
    for mut batch in tickets.into_values() {
        batch.sort_unstable();
        assert_eq!(batch[3].0 - batch[0].0, 3, "came between: {batch:?}");
        assert!(batch.is_sorted_by_key(|(_, n)| n.clone()), "{batch:?}");
    }
    drop(places);
}

/// (7) Priority: higher first, ties by ticket; a changed priority of a waiting run moves it.
pub async fn priority_goes_before_age(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let repository = repository("web");
    manager
        .set_limit(&repository, Limit::new(1), None)
        .await
        .unwrap();
    let mut kept = vec![manager.admit(&repository, durable("first")).await.unwrap()];
    for (name, priority) in [("low", -1), ("b", 0), ("a", 0), ("high", 10), ("later", 0)] {
        let request = at_priority(name, priority);
        kept.push(manager.admit(&repository, request).await.unwrap());
    }
    let view = fixture.view(&repository).await;
    view.assert(&["first"], &["high", "b", "a", "later", "low"]);
    // Among equal priorities the older ticket starts first, even if another manager admitted it.
    kept.push(
        manager
            .admit(&repository, at_priority("a", 10))
            .await
            .unwrap(),
    );
    kept.push(
        other
            .admit(&repository, at_priority("low", 20))
            .await
            .unwrap(),
    );
    kept.push(
        manager
            .admit(&repository, at_priority("b", -5))
            .await
            .unwrap(),
    );
    let view = fixture.view(&repository).await;
    view.assert(&["first"], &["low", "a", "high", "later", "b"]);
    // A high priority neither evicts a running run nor exceeds the limit.
    kept.push(
        manager
            .admit(&repository, at_priority("urgent", 99))
            .await
            .unwrap(),
    );
    fixture
        .view(&repository)
        .await
        .assert(&["first"], &["urgent", "low", "a", "high", "later", "b"]);
    let order = fixture.drain(&manager, &repository).await;
    assert_eq!(order, ["first", "urgent", "low", "a", "high", "later", "b"]);
    drop(kept);
}

/// (8) Re-adding a waiting run does not move it; re-queueing a run that failed to start restores
/// its old place.
pub async fn requeued_runs_get_their_old_place(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let repository = repository("web");
    manager
        .set_limit(&repository, Limit::new(2), None)
        .await
        .unwrap();
    let a = started(&manager, &repository, durable("a")).await;
    let b = started(&manager, &repository, durable("b")).await;
    let first_c = queued(&manager, &repository, durable("c")).await;
    let d = queued(&manager, &repository, durable("d")).await;
    let c_again = queued(&manager, &repository, durable("c")).await;
    let c_elsewhere = queued(&other, &repository, durable("c")).await;
    fixture
        .view(&repository)
        .await
        .assert(&["a", "b"], &["c", "d"]);

    // With a slot free, the requeued run starts again at once, with a new token.
    let token = a.token();
    let again = manager.requeue(a).await.unwrap();
    let Some(Admission::Started(a)) = again else {
        panic!("a is first in the queue, and a slot is free: {again:?}");
    };
    assert!(a.token() > token);
    fixture
        .view(&repository)
        .await
        .assert(&["a", "b"], &["c", "d"]);

    // Without a free slot, it waits before the runs that came later.
    manager
        .set_limit(&repository, Limit::new(1), None)
        .await
        .unwrap();
    let b_again = manager.requeue(b).await.unwrap();
    let Some(Admission::Queued(b)) = b_again else {
        panic!("one runs and one may: {b_again:?}");
    };
    let view = fixture.view(&repository).await;
    view.assert(&["a"], &["b", "c", "d"]);
    assert_eq!(view.times("b")[1], None, "it never started to work");
    manager.release(a, RunOutcome::Completed).await.unwrap();
    let b = fixture.turn(b).await;
    fixture.view(&repository).await.assert(&["b"], &["c", "d"]);

    // A lease that was lost cannot be used to requeue.
    let stale = started(&manager, &repository, durable("b")).await;
    manager.release(b, RunOutcome::Completed).await.unwrap();
    assert!(manager.requeue(stale).await.unwrap().is_none());
    let c = fixture.turn(c_elsewhere).await;
    fixture.view(&repository).await.assert(&["c"], &["d"]);
    drop((c, first_c, c_again, d));
}

/// (9) Two repositories, in one namespace or with names that are prefixes of each other, never
/// see each other's runs.
pub async fn repositories_never_mix(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let mut keys: Vec<_> = PREFIX_NAMES
        .iter()
        .map(|key| key.parse().unwrap())
        .collect();
    let mut waiters = Vec::new();
    for key in &keys {
        manager.set_limit(key, Limit::new(1), None).await.unwrap();
        drop(started(&manager, key, durable("a")).await);
        waiters.push(queued(&other, key, durable("b")).await);
    }
    for (n, key) in keys.iter().enumerate() {
        fixture.release_named(&manager, key, "a").await;
        let lease = fixture.turn(waiters.remove(0)).await;
        assert_eq!(lease.repository(), key);
        for (m, other) in keys.iter().enumerate() {
            let (running, waiting): (_, &[_]) = if m <= n { ("b", &[]) } else { ("a", &["b"]) };
            fixture.view(other).await.assert(&[running], waiting);
        }
    }
    let removed = keys.remove(0);
    let gone = manager.remove_repository(&removed).await.unwrap();
    assert_eq!(gone, [run("b")]);
    for key in &keys {
        fixture.view(key).await.assert(&["b"], &[]);
    }
    keys.sort();
    let listed = fixture
        .driver()
        .list(ListFilter::All, None, 100)
        .await
        .unwrap();
    assert_eq!(
        listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        keys
    );
}

/// (10) Same name, new uid: a new run; the old one's lease cannot release or renew it.
pub async fn a_new_uid_is_a_new_run(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let repository = repository("web");
    let reborn = |name: &str| RunRequest::durable(run(name), uid("somebody-else"));
    manager
        .set_limit(&repository, Limit::new(1), None)
        .await
        .unwrap();
    let old = started(&manager, &repository, durable("a")).await;
    let again = started(&manager, &repository, durable("a")).await;
    let new = started(&manager, &repository, reborn("a")).await;
    assert!(new.token() > old.token());
    let before = fixture.view(&repository).await;
    let ending = manager.release(old, RunOutcome::Completed).await.unwrap();
    assert_eq!(ending.ended, Ended::Unknown);
    assert!(manager.requeue(again).await.unwrap().is_none());
    let old = uid("a");
    let ending = manager
        .cancel(&repository, &run("a"), Some(&old))
        .await
        .unwrap();
    assert_eq!(ending.ended, Ended::Unknown);
    let done = RunOutcome::Completed;
    let forced = manager
        .release_run(&repository, &run("a"), &old, None, done)
        .await
        .unwrap();
    assert_eq!(forced.ended, Ended::Unknown);
    assert_eq!(fixture.view(&repository).await.head, before.head);

    // A waiting run that is replaced: the new one joins the end of the queue, and the old one's
    // waiter is told.
    let b = queued(&manager, &repository, durable("b")).await;
    let c = queued(&manager, &repository, durable("c")).await;
    let new_b = queued(&manager, &repository, reborn("b")).await;
    let turn = fixture.soon("the news", b).await.unwrap();
    assert!(matches!(turn, Turn::Gone), "{turn:?}");
    fixture.view(&repository).await.assert(&["a"], &["c", "b"]);
    manager.release(new, RunOutcome::Completed).await.unwrap();
    let c = fixture.turn(c).await;
    // A running run that is replaced frees its slot for the first waiter.
    let new_c = queued(&manager, &repository, reborn("c")).await;
    let b = fixture.turn(new_b).await;
    fixture.view(&repository).await.assert(&["b"], &["c"]);
    manager.release(c, RunOutcome::Completed).await.unwrap();
    fixture.view(&repository).await.assert(&["b"], &["c"]);
    drop((b, new_c));
}
