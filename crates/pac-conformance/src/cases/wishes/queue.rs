//! The length of a queue, and places in it that an operator gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pac_core::manager::{Admission, RunStatus, Turn};
use pac_core::protocol::{Bump, Claim, SkipIf};
use pac_core::state::{RulesChange, RunOutcome};
use pac_core::{ErrorKind, Limit, Priority};
use tokio::task::JoinSet;

use crate::{Fixture, at_priority, durable, ephemeral, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

/// However many come at once to however many managers, no more wait than may. The rest is refused as
/// *queue full*, is remembered so, and may come again.
pub async fn a_bounded_queue_holds_no_more_under_a_crowd(fixture: &Fixture) {
    const MOST: u32 = 3;
    let managers = [fixture.manager().await, fixture.manager().await];
    let web = repository("web");
    let rules = RulesChange::limit(Limit::new(1)).with_max_queued(Some(MOST));
    let set = managers[0].set_rules(&web, rules, Claim::Set).await;
    assert!(set.unwrap().accepted);
    let holder = started(&managers[0], &web, durable("holder")).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let crowd = fixture.scaled(40).max(10);
    for n in 0..crowd {
        let (manager, web) = (managers[n % 2].clone(), web.clone());
        let refused = Arc::clone(&refused);
        tasks.spawn(async move {
            match manager.admit(&web, ephemeral(&format!("run-{n}"))).await {
                Ok(Admission::Queued(waiter)) => Some(waiter),
                Err(error) if error.kind() == ErrorKind::QueueFull => {
                    refused.fetch_add(1, Ordering::SeqCst);
                    None
                }
                other => panic!("{other:?}"),
            }
        });
    }
    let waiters = tasks.join_all().await.into_iter().flatten();
    let mut waiters: Vec<_> = waiters.collect();
    waiters.sort_by_key(|waiter| waiter.ticket());
    assert_eq!(waiters.len(), MOST as usize);
    assert_eq!(refused.load(Ordering::SeqCst), crowd - MOST as usize);
    let view = fixture.view(&web).await;
    assert_eq!(view.waiting.len(), MOST as usize);
    let ended = view.finished.iter();
    let full = ended.filter(|entry| view.outcome(entry.run.name()) == Some(RunOutcome::QueueFull));
    assert_eq!(full.count(), crowd - MOST as usize, "the history tells");
    let somebody = view.finished[0].run.name().to_owned();

    managers[0].release(holder, DONE).await.unwrap();
    // One has started, so there is room for one again.
    let again = managers[1].admit(&web, ephemeral(&somebody)).await.unwrap();
    let Admission::Queued(again) = again else {
        panic!("{again:?}");
    };
    waiters.push(again);
    for waiter in waiters {
        let lease = fixture.turn(waiter).await;
        let manager = managers.iter().find(|manager| manager.holds(&lease));
        manager.unwrap().release(lease, DONE).await.unwrap();
    }
}

/// A request that is to be skipped where others wait, or wait or run, leaves nothing behind then,
/// whichever manager has admitted those; a run that has its place already is no newcomer.
pub async fn a_request_is_skipped_where_others_wait_or_run(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(1), None).await.unwrap();
    let cron = |name: &str, condition| durable(name).skip_if(condition);
    let first = started(&here, &web, cron("first", SkipIf::Running)).await;
    let skipped = there.admit(&web, cron("second", SkipIf::Running)).await;
    let error = skipped.expect_err("another one runs");
    assert_eq!(error.kind(), ErrorKind::Skipped, "{error}");
    let second = queued(&there, &web, cron("second", SkipIf::Waiting)).await;
    let skipped = here.admit(&web, cron("third", SkipIf::Waiting)).await;
    assert_eq!(skipped.expect_err("it waits").kind(), ErrorKind::Skipped);
    let view = fixture.view(&web).await;
    view.assert(&["first"], &["second"]);
    assert!(view.entry("third").is_none());
    let revision = view.head.revision;
    let again = queued(&there, &web, cron("second", SkipIf::Waiting)).await;
    assert_eq!(fixture.view(&web).await.head.revision, revision);
    drop(second);
    here.release(first, DONE).await.unwrap();
    drop(fixture.turn(again).await);
}

/// A run that an operator moves stays where it was put when its owner admits it again, on whichever
/// manager, and goes back where it came from when it is told to.
pub async fn a_bumped_run_keeps_its_place_and_goes_back(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(1), None).await.unwrap();
    let holder = started(&here, &web, durable("holder")).await;
    let urgent = queued(&here, &web, at_priority("urgent", 5)).await;
    let usual = queued(&here, &web, durable("usual")).await;
    let late = queued(&here, &web, durable("late")).await;
    let moved = there.bump(&web, &run("late"), None, Bump::First).await;
    let RunStatus::Queued(moved) = moved.unwrap() else {
        panic!("it waits");
    };
    assert_eq!((moved.position, moved.priority), (1, Priority::new(6)));
    let view = fixture.view(&web).await;
    view.assert(&["holder"], &["late", "urgent", "usual"]);
    let revision = view.head.revision;
    let late_again = queued(&here, &web, durable("late")).await;
    drop(late);
    let view = fixture.view(&web).await;
    view.assert(&["holder"], &["late", "urgent", "usual"]);
    assert_eq!(view.head.revision, revision, "to ask again changes nothing");
    let below = Bump::To(Priority::new(-1));
    there.bump(&web, &run("urgent"), None, below).await.unwrap();
    let urgent_again = queued(&there, &web, at_priority("urgent", 5)).await;
    let turn = fixture.soon("the other manager", urgent).await.unwrap();
    assert!(matches!(turn, Turn::TakenOver), "{turn:?}");
    fixture
        .view(&web)
        .await
        .assert(&["holder"], &["late", "usual", "urgent"]);
    for name in ["late", "urgent"] {
        let back = here.bump(&web, &run(name), None, Bump::Back).await;
        assert!(matches!(back, Ok(RunStatus::Queued(_))), "{back:?}");
    }
    let view = fixture.view(&web).await;
    view.assert(&["holder"], &["urgent", "usual", "late"]);
    let unchanged = |name: &str| view.entry(name).unwrap().terms.is_none();
    assert!(unchanged("late") && unchanged("urgent"));
    let running = there.bump(&web, &run("holder"), None, Bump::First).await;
    assert!(matches!(running, Ok(RunStatus::Started(_))), "{running:?}");
    here.release(holder, DONE).await.unwrap();
    let lease = fixture.turn(urgent_again).await;
    there.release(lease, DONE).await.unwrap();
    let lease = fixture.turn(usual).await;
    here.release(lease, DONE).await.unwrap();
    drop(fixture.turn(late_again).await);
}
