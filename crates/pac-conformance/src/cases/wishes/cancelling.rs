//! Runs that are asked to end, and cancellations that depend on what they find.

use pac_core::manager::{Admission, Event, Heard, Turn};
use pac_core::protocol::{Cancellation, Ended, Which};
use pac_core::state::RunOutcome;
use pac_core::{Group, Limit};

use crate::{Fixture, View, durable, queued, repository, run, started};

/// A holder that another manager asks to end hears of it, and keeps its slot until it releases it.
pub async fn a_holder_is_asked_and_keeps_its_slot(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(1), None).await.unwrap();
    let mut events = here.events();
    let lease = started(&here, &web, durable("holder")).await;
    let mut next = queued(&there, &web, durable("next")).await;
    let asked = there.request_cancel(&web, &run("holder"), None).await;
    let asked = asked.unwrap();
    assert_eq!(asked.ended, Ended::Asked(lease.token()));
    assert_eq!(asked.promoted, []);
    fixture
        .soon("the request to end", lease.cancel_requested())
        .await;
    let told = async {
        loop {
            let heard = events.next().await.expect("the manager lives");
            if let Heard::Event(Event::CancelRequested { run, token, .. }) = heard {
                return (run, token);
            }
        }
    };
    let told = fixture.soon("the event", told).await;
    assert_eq!(told, (run("holder"), lease.token()));
    assert!(here.holds(&lease));
    fixture.waits_on(&mut next).await;
    let since = |view: &View| view.entry("holder").unwrap().terms().asked.at();
    let first = since(&fixture.view(&web).await);
    assert!(first.is_some());
    // Asked again, it is since the first time; a run that waits ends at once.
    there
        .request_cancel(&web, &run("holder"), None)
        .await
        .unwrap();
    assert_eq!(since(&fixture.view(&web).await), first);
    let waits = queued(&here, &web, durable("waits")).await;
    let ended = there.request_cancel(&web, &run("waits"), None).await;
    assert_eq!(ended.unwrap().ended, Ended::Done);
    let turn = fixture.soon("the end of the waiter", waits).await;
    assert!(matches!(turn, Ok(Turn::Ended(RunOutcome::Cancelled))));
    here.release(lease, RunOutcome::Cancelled).await.unwrap();
    drop(fixture.turn(next).await);
}

/// A cancellation of a waiting run never ends one that has started, not even in the instant in
/// which it starts.
pub async fn a_conditional_cancellation_ends_nothing_that_has_started(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(1), None).await.unwrap();
    for n in 0..fixture.scaled(50).max(5) {
        let names = [format!("first-{n}"), format!("second-{n}")];
        let first = started(&here, &web, durable(&names[0])).await;
        let second = queued(&here, &web, durable(&names[1])).await;
        let second_run = run(&names[1]);
        let how = Cancellation::IfWaiting;
        let (released, cancelled) = tokio::join!(
            here.release(first, RunOutcome::Completed),
            there.cancel_as(&web, &second_run, None, how),
        );
        let turn = fixture.soon("the turn or the end", second).await.unwrap();
        match (cancelled.unwrap().ended, turn) {
            (Ended::Started(token), Turn::Started(lease)) => {
                assert_eq!(lease.token(), token);
                assert_eq!(released.unwrap().promoted, [second_run]);
                assert!(here.holds(&lease));
                here.release(lease, RunOutcome::Completed).await.unwrap();
            }
            (Ended::Done, Turn::Ended(RunOutcome::Cancelled)) => {
                assert_eq!(released.unwrap().promoted, []);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// All runs of a group end with one commit, whichever managers wait for them, and no other does; the
/// running ones are left alone, asked, or ended.
pub async fn many_are_cancelled_in_one_commit(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    let group: Group = "pr-7".parse().unwrap();
    here.set_limit(&web, Limit::new(1), None).await.unwrap();
    let of_group = |name: &str| durable(name).in_group(group.clone());
    let holder = started(&here, &web, of_group("holder")).await;
    let mut waiters = Vec::new();
    for (n, manager) in [&here, &there, &here, &there].into_iter().enumerate() {
        let request = of_group(&format!("w{n}"));
        waiters.push(queued(manager, &web, request).await);
    }
    let other = queued(&there, &web, durable("other")).await;
    let before = fixture.view(&web).await.head.revision;
    let which = Which::all().of_group(group.clone());
    let swept = there
        .cancel_all(&web, &which, Cancellation::IfWaiting)
        .await;
    let all: Vec<_> = (0..4).map(|n| run(&format!("w{n}"))).collect();
    let swept = swept.unwrap();
    assert_eq!((swept.affected, swept.promoted), (all, vec![]));
    let view = fixture.view(&web).await;
    assert_eq!(view.head.revision, before.next(), "one commit");
    view.assert(&["holder"], &["other"]);
    for waiter in waiters {
        let turn = fixture.soon("the end of the waiter", waiter).await;
        assert!(matches!(turn, Ok(Turn::Ended(RunOutcome::Cancelled))));
    }
    let again = here.cancel_all(&web, &which, Cancellation::IfWaiting).await;
    assert_eq!(again.unwrap().affected, [], "nothing is left to end");

    let asked = there.cancel_all(&web, &which, Cancellation::Ask).await;
    assert_eq!(asked.unwrap().affected, [run("holder")]);
    fixture
        .soon("the request to end", holder.cancel_requested())
        .await;
    assert!(here.holds(&holder));
    let ended = there.cancel_all(&web, &which, Cancellation::AtOnce).await;
    let ended = ended.unwrap();
    assert_eq!(ended.affected, [run("holder")]);
    assert_eq!(ended.promoted, [run("other")]);
    fixture.soon("the loss of the lease", holder.lost()).await;
    drop(fixture.turn(other).await);
    let admitted = here.admit(&web, of_group("w0")).await.unwrap();
    let over = matches!(admitted, Admission::Finished(RunOutcome::Cancelled));
    assert!(over, "{admitted:?}");
}
