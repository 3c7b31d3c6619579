//! Release, cancel, removal.

use pac_core::driver::ListFilter;
use pac_core::manager::{Admission, ConcurrencyManager, Event, Events, Heard, Turn};
use pac_core::protocol::Ended;
use pac_core::state::RunOutcome;
use pac_core::{FencingToken, Limit};
use tokio::time::timeout;

use crate::faults::Faults;
use crate::{Fixture, durable, ephemeral, queued, repository, run, started, uid};

const DONE: RunOutcome = RunOutcome::Completed;

/// (13) Release starts exactly the next waiter; a waiter that vanished is skipped and the one
/// after it starts.
pub async fn release_starts_exactly_the_next(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let b = queued(&manager, &web, durable("b")).await;
    let mut c = queued(&other, &web, durable("c")).await;
    let ending = manager.release(a, DONE).await.unwrap();
    assert_eq!(ending.promoted, [run("b")]);
    let b = fixture.turn(b).await;
    fixture.waits_on(&mut c).await;
    fixture.view(&web).await.assert(&["b"], &["c"]);
    manager.release(b, DONE).await.unwrap();
    let c = fixture.turn(c).await;
    other.release(c, DONE).await.unwrap();

    // A waiter vanishes because its future is dropped, because of a cancel, or at the moment of
    // the release; on the releasing manager or on another one.
    for (n, from) in [&manager, &other].into_iter().enumerate() {
        let names = ["a", "b", "c", "d", "e"].map(|name| format!("{name}-{n}"));
        let a = started(&manager, &web, durable(&names[0])).await;
        let b = queued(from, &web, durable(&names[1])).await;
        let c = queued(from, &web, durable(&names[2])).await;
        let d = queued(from, &web, durable(&names[3])).await;
        let mut e = queued(from, &web, durable(&names[4])).await;
        drop(b);
        fixture.settle().await;
        fixture
            .view(&web)
            .await
            .assert(&[&names[0]], &[&names[2], &names[3], &names[4]]);
        manager.cancel(&web, &run(&names[2]), None).await.unwrap();
        drop(d);
        manager.release(a, DONE).await.unwrap();
        fixture.comes_to(&web, &[&names[4]], &[]).await;
        let turn = fixture.soon("the turn of e", &mut e).await.unwrap();
        let Turn::Started(e) = turn else {
            panic!("{turn:?}");
        };
        let ended = fixture.soon("the news", c).await.unwrap();
        assert!(
            matches!(ended, Turn::Ended(RunOutcome::Cancelled)),
            "{ended:?}"
        );
        manager.release(e, DONE).await.unwrap();
    }
    fixture.view(&web).await.assert(&[], &[]);
}

/// (14) Releasing twice, releasing what never ran, releasing with an older token: no effect, and
/// the answer says which.
pub async fn releases_without_effect_say_so(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let first_token = a.token();
    let Some(Admission::Started(a)) = manager.requeue(a).await.unwrap() else {
        panic!("a is the only one");
    };
    let b = queued(&manager, &web, durable("b")).await;
    let release = async |name: &str, token: Option<FencingToken>| {
        let (run, uid) = (run(name), uid(name));
        let ending = manager.release_run(&web, &run, &uid, token, DONE).await;
        ending.unwrap().ended
    };
    let before = fixture.view(&web).await;
    let future = Some(FencingToken::new(u64::MAX));
    assert_eq!(release("nobody", None).await, Ended::Unknown);
    assert_eq!(release("b", None).await, Ended::NotStarted);
    assert_eq!(release("b", Some(a.token())).await, Ended::NotStarted);
    assert_eq!(
        release("a", Some(first_token)).await,
        Ended::Stale(a.token())
    );
    assert_eq!(release("a", future).await, Ended::Stale(a.token()));
    let after = fixture.view(&web).await;
    assert_eq!(after.head, before.head, "no effect was to be had");
    after.assert(&["a"], &["b"]);

    let token = a.token();
    manager.release(a, RunOutcome::Failed).await.unwrap();
    let before = fixture.view(&web).await;
    let ended = Ended::Before(RunOutcome::Failed);
    assert_eq!(release("a", Some(token)).await, ended);
    assert_eq!(release("a", None).await, ended);
    let after = fixture.view(&web).await;
    assert_eq!(after.head, before.head, "no effect was to be had");
    after.assert(&["b"], &[]);
    assert_eq!(after.outcome("a"), Some(RunOutcome::Failed));
    assert_eq!(release("b", None).await, Ended::Done);
    drop(b);
}

/// (15) A stale holder cannot free the lease of the one that came after it (fencing).
pub async fn a_stale_holder_frees_nothing(fixture: &Fixture) {
    let gate = Faults::none();
    let (stale, live) = (fixture.manager_behind(&gate).await, fixture.manager().await);
    let web = repository("web");
    live.set_limit(&web, Limit::new(2), None).await.unwrap();
    let a = started(&stale, &web, durable("a")).await;
    let own = started(&stale, &web, ephemeral("own")).await;
    let c = queued(&live, &web, ephemeral("c")).await;
    gate.cut();
    fixture.outlive_session().await;
    // The stale manager's ephemeral run ended with its session; its durable run is taken over.
    let c = fixture.turn(c).await;
    let taken = started(&live, &web, durable("a")).await;
    assert!(taken.token() > a.token() && c.token() > own.token());
    assert!(!stale.holds(&a) && !stale.holds(&own));
    gate.open();
    fixture.settle().await;
    let before = fixture.view(&web).await;
    let token = a.token();
    let ending = stale.release(a, DONE).await.unwrap();
    assert_eq!(ending.ended, Ended::Stale(taken.token()));
    let ending = stale.release(own, DONE).await.unwrap();
    assert_eq!(ending.ended, Ended::Before(RunOutcome::LeaseLost));
    let (run, uid) = (run("a"), uid("a"));
    let late = stale
        .release_run(&web, &run, &uid, Some(token), DONE)
        .await
        .unwrap();
    assert_eq!(late.ended, Ended::Stale(taken.token()));
    let after = fixture.view(&web).await;
    assert_eq!(after.head, before.head, "a stale token had an effect");
    after.assert(&["a", "c"], &[]);
    assert!(live.holds(&taken) && live.holds(&c));
}

/// (16) Cancelling a waiter removes it and shifts the positions; cancelling the head wakes nobody
/// wrongly; cancelling a running run frees its slot.
pub async fn cancel_ends_a_run_wherever_it_is(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let mut own = manager.events();
    let a = started(&manager, &web, durable("a")).await;
    let b = queued(&manager, &web, durable("b")).await;
    let mut c = queued(&manager, &web, durable("c")).await;
    let d = queued(&manager, &web, durable("d")).await;
    let mut e = queued(&other, &web, durable("e")).await;
    let cancel = async |by: &ConcurrencyManager, name: &str| {
        let ending = by.cancel(&web, &run(name), Some(&uid(name))).await;
        ending.unwrap().ended
    };

    assert_eq!(cancel(&other, "d").await, Ended::Done);
    let ended = fixture.soon("the end of d", d).await.unwrap();
    assert!(
        matches!(ended, Turn::Ended(RunOutcome::Cancelled)),
        "{ended:?}"
    );
    fixture.settle().await;
    assert_eq!(
        (b.position(), c.position(), e.position()),
        (Some(1), Some(2), Some(3))
    );
    fixture.view(&web).await.assert(&["a"], &["b", "c", "e"]);

    assert_eq!(cancel(&manager, "b").await, Ended::Done);
    let ended = fixture.soon("the end of b", b).await.unwrap();
    assert!(
        matches!(ended, Turn::Ended(RunOutcome::Cancelled)),
        "{ended:?}"
    );
    fixture.waits_on(&mut c).await;
    fixture.waits_on(&mut e).await;
    assert_eq!(c.position(), Some(1));
    fixture.view(&web).await.assert(&["a"], &["c", "e"]);

    assert_eq!(cancel(&other, "a").await, Ended::Done);
    let c = fixture.turn(c).await;
    fixture.waits_on(&mut e).await;
    let view = fixture.view(&web).await;
    view.assert(&["c"], &["e"]);
    assert_eq!(view.outcome("a"), Some(RunOutcome::Cancelled));
    let ending = manager.release(a, DONE).await.unwrap();
    assert_eq!(ending.ended, Ended::Before(RunOutcome::Cancelled));
    assert_eq!(
        cancel(&other, "a").await,
        Ended::Before(RunOutcome::Cancelled)
    );
    assert_eq!(cancel(&other, "nobody").await, Ended::Unknown);
    fixture.view(&web).await.assert(&["c"], &["e"]);
    // The manager is told of each of its runs that another manager ended.
    let told = ends_heard(fixture, &mut own).await;
    assert_eq!(told, [("d", "cancelled"), ("a", "cancelled")].map(owned));
    drop(c);
}

/// (17) Removing a repository with runners and waiters ends all of them with an event each, and
/// leaves no key or row behind.
pub async fn removal_ends_everything_and_leaves_nothing(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let (web, kept) = (repository("web"), repository("kept"));
    manager.set_limit(&kept, Limit::new(1), None).await.unwrap();
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    let over = started(&other, &web, durable("over")).await;
    other.release(over, DONE).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let b = started(&other, &web, ephemeral("b")).await;
    let c = queued(&manager, &web, ephemeral("c")).await;
    let d = queued(&other, &web, durable("d")).await;
    // Let both managers learn of all runs; otherwise they could not report their ends.
    fixture.settle().await;
    let (mut left, mut right) = (manager.events(), other.events());
    let highest = fixture.view(&web).await.head;

    let ended = manager.remove_repository(&web).await.unwrap();
    assert_eq!(ended, ["a", "b", "c", "d"].map(run));
    for waiter in [c, d] {
        let turn = fixture.soon("the news", waiter).await.unwrap();
        assert!(matches!(turn, Turn::Gone), "{turn:?}");
    }
    for events in [&mut left, &mut right] {
        let mut told = ends_heard(fixture, events).await;
        told.sort();
        assert_eq!(told, ["a", "b", "c", "d"].map(|name| owned((name, "gone"))));
    }
    let view = fixture.view(&web).await;
    assert!(!view.exists && view.entries().next().is_none(), "{view:#?}");
    let listed = fixture
        .driver()
        .list(ListFilter::All, None, 10)
        .await
        .unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    for manager in [&manager, &other] {
        let left = fixture
            .driver()
            .repositories_of(manager.session())
            .await
            .unwrap();
        assert_eq!(left, []);
    }
    assert_eq!(manager.remove_repository(&web).await.unwrap(), []);

    // If the repository is created again, no earlier token is valid and the limit is gone.
    let back = started(&other, &web, durable("a")).await;
    assert!(back.token() > highest.last_token);
    let view = fixture.view(&web).await;
    assert!(view.head.revision > highest.revision && view.head.limit == Limit::UNLIMITED);
    let stale = manager.release(a, DONE).await.unwrap();
    assert_eq!(stale.ended, Ended::Stale(back.token()));
    assert_eq!(other.release(b, DONE).await.unwrap().ended, Ended::Unknown);
    fixture.view(&web).await.assert(&["a"], &[]);
}

/// (18) Release needs no in-memory state: a manager that never saw the run can release it by its
/// key, uid and token, or by force with an explicit call.
pub async fn anybody_can_release_by_name(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, durable("a")).await;
    let b = queued(&manager, &web, durable("b")).await;
    let c = queued(&manager, &web, durable("c")).await;
    let release = async |stranger: &ConcurrencyManager, name: &str, token| {
        let (run, uid) = (run(name), uid(name));
        stranger
            .release_run(&web, &run, &uid, token, DONE)
            .await
            .unwrap()
    };
    let stranger = fixture.manager().await;
    let wrong = FencingToken::new(a.token().get() + 1);
    let refused = release(&stranger, "a", Some(wrong)).await;
    assert_eq!(refused.ended, Ended::Stale(a.token()));
    let stranger = fixture.manager().await;
    let ending = release(&stranger, "a", Some(a.token())).await;
    assert_eq!(
        (ending.ended, ending.promoted),
        (Ended::Done, vec![run("b")])
    );
    drop(fixture.turn(b).await);
    let stranger = fixture.manager().await;
    let ending = release(&stranger, "b", None).await;
    assert_eq!(
        (ending.ended, ending.promoted),
        (Ended::Done, vec![run("c")])
    );
    drop(fixture.turn(c).await);
    fixture.view(&web).await.assert(&["c"], &[]);
}

/// The runs whose end the events report now, and how they ended.
async fn ends_heard(fixture: &Fixture, events: &mut Events) -> Vec<(String, String)> {
    let mut told = Vec::new();
    while let Ok(heard) = timeout(fixture.quiet(), events.next()).await {
        match heard {
            Some(Heard::Event(Event::Ended { run, outcome, .. })) => {
                let how = outcome.map_or("gone".to_owned(), |outcome| outcome.to_string());
                told.push((run.name().to_owned(), how));
            }
            other => panic!("{other:?} is no end"),
        }
    }
    told
}

fn owned((name, how): (&str, &str)) -> (String, String) {
    (name.to_owned(), how.to_owned())
}
