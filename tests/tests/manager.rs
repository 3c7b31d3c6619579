//! Properties of the manager beyond the cases for every driver: it loses no grant between
//! concurrent callers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, Ended, ErrorKind, Heard, Limit, MemoryDriver, MemoryOptions, RunOutcome, RunRequest,
    RunStatus, Turn,
};
use pac_conformance::faults::{Fault, Faults, HintFault, Request, When};
use pac_conformance::{
    Fixture, Time, durable, ephemeral, poll_times, queued, repository, run_case, started,
};
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

async fn distant(time: Time) -> Fixture {
    let memory = memory(time).await;
    Fixture::over(Faults::line().over(memory.driver()), time)
}

/// Removing what another manager has just removed once went round in circles for good.
#[test]
fn what_is_gone_already_is_removed_with_an_answer() {
    for open in [Faults::none, Faults::line] {
        run_case(Time::Paused, memory, async |fixture: &Fixture| {
            let web = repository("web");
            let line = open();
            let (first, second) = (
                fixture.manager_behind(&line).await,
                fixture.manager_behind(&line).await,
            );
            first.set_limit(&web, Limit::new(1), None).await.unwrap();
            let _a = started(&first, &web, durable("a")).await;
            second.status(&web).await.unwrap();
            let removed = first.remove_repository(&web).await.unwrap();
            assert_eq!(removed.len(), 1);
            let again = timeout(Duration::from_secs(20), second.remove_repository(&web)).await;
            assert_eq!(again.expect("it ends").unwrap(), []);
        });
    }
}

#[test]
fn a_waiter_outlives_the_loss_of_two_sessions() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let outage = Faults::none();
        let (other, ours) = (
            fixture.manager().await,
            fixture.manager_behind(&outage).await,
        );
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&other, &web, durable("a")).await;
        let mut b = queued(&ours, &web, durable("b")).await;

        // Sessions can be opened and are ended again, but cannot be used.
        let used = [Request::Load, Request::Commit];
        outage.inject(used, Fault::Fail, When::Always);
        for _ in 0..2 {
            let session = ours.session();
            fixture.driver().close_session(session).await.unwrap();
            while ours.session() == session {
                sleep(Duration::from_millis(50)).await;
            }
        }
        outage.clear();
        assert!(
            timeout(Duration::from_secs(3), &mut b).await.is_err(),
            "it still waits"
        );
        other.release(a, DONE).await.unwrap();
        let turn = fixture.soon("the turn", b).await.unwrap();
        assert!(matches!(turn, Turn::Started(_)), "{turn:?}");
    });
}

#[test]
fn a_waiter_outlives_a_session_that_ends_before_the_answer_comes() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (other, ours) = (fixture.manager().await, fixture.manager_behind(&line).await);
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&other, &web, durable("a")).await;
        line.inject([Request::Commit], Fault::HoldAnswer, When::Always);
        let asking = tokio::spawn({
            let (ours, web) = (ours.clone(), web.clone());
            async move { ours.admit(&web, durable("b")).await.unwrap() }
        });
        fixture.comes_to(&web, &["a"], &["b"]).await;

        // The session ends, the store records that, and the manager learns it, all before the
        // answer.
        let session = ours.session();
        fixture.driver().close_session(session).await.unwrap();
        while ours.session() == session {
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let status = ours.status(&web).await.unwrap();
        assert_eq!(status.queued[0].owner, None);

        line.clear();
        let Admission::Queued(b) = asking.await.unwrap() else {
            unreachable!("its slot is taken");
        };
        fixture.settle().await;
        other.release(a, DONE).await.unwrap();
        let turn = fixture.soon("the turn", b).await.unwrap();
        assert!(matches!(turn, Turn::Started(_)), "{turn:?}");
    });
}

#[test]
fn asking_again_after_an_answer_was_not_waited_for_is_a_new_question() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for full in [true, false] {
            let web = repository(&format!("web-{full}"));
            let line = Faults::none();
            let (other, ours) = (fixture.manager().await, fixture.manager_behind(&line).await);
            let limit = Limit::new(if full { 1 } else { 2 });
            other.set_limit(&web, limit, None).await.unwrap();
            let a = started(&other, &web, durable("a")).await;
            line.inject([Request::Commit], Fault::HoldAnswer, When::Always);
            let ask = || {
                let (ours, web) = (ours.clone(), web.clone());
                tokio::spawn(async move { ours.admit(&web, durable("b")).await.unwrap() })
            };
            // The answer to the first request comes after its caller has gone, while the second
            // waits.
            let impatient = ask();
            let first = async || fixture.view(&web).await.entry("b").is_some();
            while !first().await {
                sleep(Duration::from_millis(10)).await;
            }
            impatient.abort();
            assert!(impatient.await.unwrap_err().is_cancelled());
            let again = ask();
            fixture.settle().await;
            line.clear();
            let lease = match again.await.unwrap() {
                Admission::Started(lease) if !full => lease,
                Admission::Queued(b) if full => {
                    other.release(a, DONE).await.unwrap();
                    fixture.turn(b).await
                }
                admission => panic!("{admission:?}"),
            };
            fixture.settle().await;
            assert!(ours.holds(&lease));
            let ended = ours.release(lease, DONE).await.unwrap();
            assert_eq!(ended.ended, Ended::Done);
        }
    });
}

#[test]
fn who_asked_by_the_same_commit_has_what_another_went_away_from() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let second = Duration::from_secs(1);
        let slow = Faults::none();
        let manager = fixture.manager_behind(&slow).await;
        manager.set_limit(&web, Limit::new(2), None).await.unwrap();
        let ask = |name| {
            let (manager, web) = (manager.clone(), web.clone());
            tokio::spawn(async move { manager.admit(&web, durable(name)).await.unwrap() })
        };
        slow.inject([Request::Commit], Fault::Delay(second / 2), When::Always);
        // While one commit is in flight, two requests join the next; during that one, one caller
        // goes.
        let a = ask("a");
        sleep(second / 2).await;
        let (first, again) = (ask("b"), ask("b"));
        sleep(second).await;
        first.abort();
        drop(a.await.unwrap());
        let Admission::Started(lease) = again.await.unwrap() else {
            unreachable!("a slot is free");
        };
        sleep(second * 5).await;
        fixture.view(&web).await.assert(&["a", "b"], &[]);
        assert!(manager.holds(&lease));
        // If both callers go away, the entry is taken back.
        manager.release(lease, DONE).await.unwrap();
        let waits = ask("d");
        sleep(second / 2).await;
        let both = [ask("c"), ask("c")];
        sleep(second).await;
        for asking in &both {
            asking.abort();
        }
        drop(waits.await.unwrap());
        sleep(second * 5).await;
        assert_eq!(
            fixture.view(&web).await.outcome("c"),
            Some(RunOutcome::Cancelled)
        );
    });
}

#[test]
fn a_manager_that_was_closed_ends_its_streams_and_waiters() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let (manager, other) = (fixture.manager().await, fixture.manager().await);
        let (mut grants, mut events) = (manager.grants().unwrap(), manager.events());
        let mut others = other.grants().unwrap();
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&manager, &web, ephemeral("a")).await;
        let b = queued(&manager, &web, durable("b")).await;

        manager.close().await.unwrap();
        assert!(fixture.soon("the end", b).await.is_err());
        assert!(fixture.soon("the end", grants.next()).await.is_none());
        while let Some(heard) = fixture.soon("the end", events.next()).await {
            assert!(matches!(heard, Heard::Event(_)), "{heard:?}");
        }
        assert!(!manager.holds(&a));
        // The closed manager's waiting run goes to a live controller, not back to itself.
        let lease = others.next().await.unwrap();
        assert_eq!(
            (lease.run(), lease.session()),
            (&durable("b").run, other.session())
        );
    });
}

/// Wherever the second request was when its caller went: the first waiter, or the stream of
/// grants, gets the slot.
#[test]
fn asking_again_and_going_away_loses_no_grant() {
    run_case(Time::Paused, distant, async |fixture: &Fixture| {
        let manager = fixture.manager().await;
        let other = fixture.manager().await;
        let mut grants = manager.grants().unwrap();
        for polls in 0..60 {
            let web = repository(&format!("web-{polls}"));
            other.set_limit(&web, Limit::new(1), None).await.unwrap();
            let a = started(&other, &web, durable("a")).await;
            let waiter = queued(&manager, &web, durable("b")).await;
            let releasing = tokio::spawn({
                let other = other.clone();
                async move { other.release(a, DONE).await.unwrap() }
            });
            let again = poll_times(manager.admit(&web, durable("b")), polls).await;
            releasing.await.unwrap();
            let lease = match again {
                Some(Ok(Admission::Started(lease))) => lease,
                Some(Ok(Admission::Queued(later))) => fixture.turn(later).await,
                Some(answer) => unreachable!("{answer:?}"),
                None => match fixture.soon("the news", waiter).await.unwrap() {
                    Turn::Started(lease) => lease,
                    Turn::TakenOver => fixture.soon("the grant", grants.next()).await.unwrap(),
                    turn => unreachable!("{turn:?}"),
                },
            };
            assert!(manager.holds(&lease), "after {polls} polls");
            manager.release(lease, DONE).await.unwrap();
            let b = manager.run_status(&web, &durable("b").run).await.unwrap();
            assert!(
                matches!(b, RunStatus::Finished(ref b) if b.outcome == DONE),
                "{b:?}"
            );
        }
    });
}

#[test]
fn giving_up_leaves_the_run_to_who_else_waits_for_it() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let manager = fixture.manager().await;
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&manager, &web, durable("a")).await;
        let first = queued(&manager, &web, durable("b")).await;
        let second = queued(&manager, &web, durable("b")).await;
        assert!(
            first
                .wait_for(Duration::from_millis(1))
                .await
                .unwrap()
                .is_none()
        );
        manager.release(a, DONE).await.unwrap();
        drop(fixture.turn(second).await);
    });
}

#[test]
fn a_lease_ends_no_later_life_of_its_run() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let manager = fixture.manager().await;
        let first = started(&manager, &web, ephemeral("x")).await;
        let mut other = durable("x");
        other.uid = "another".parse().unwrap();
        drop(started(&manager, &web, other).await);
        let again = started(&manager, &web, durable("x")).await;
        drop(first);
        fixture.settle().await;
        fixture.view(&web).await.assert(&["x"], &[]);
        manager.release(again, DONE).await.unwrap();
        // The same after the repository was removed, with a run of the same name and uid.
        let first = started(&manager, &web, ephemeral("y")).await;
        manager.remove_repository(&web).await.unwrap();
        let _again = started(&manager, &web, ephemeral("y")).await;
        drop(first);
        fixture.settle().await;
        fixture.view(&web).await.assert(&["y"], &[]);
    });
}

#[test]
fn an_ephemeral_run_is_refused_under_a_name_that_is_in_use() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let (ours, others) = (fixture.manager().await, fixture.manager().await);
        let kept = started(&others, &web, durable("a")).await;
        let another = RunRequest::ephemeral(kept.run().clone(), "another".parse().unwrap());
        let error = ours.admit(&web, another.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NameInUse, "{error}");
        assert!(error.to_string().contains("choose another name"), "{error}");
        assert!(others.holds(&kept) && others.status(&web).await.unwrap().running.len() == 1);
        others.release(kept, DONE).await.unwrap();
        assert!(matches!(
            ours.admit(&web, another).await.unwrap(),
            Admission::Started(_)
        ));
    });
}

#[test]
fn the_back_stop_looks_at_many_repositories_with_few_requests() {
    const MANY: usize = 300;
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let repositories: Vec<_> = (0..MANY).map(|n| repository(&format!("r-{n}"))).collect();
        let manager = fixture.manager().await;
        let options = fixture.polling_options();
        let faults = Faults::none();
        faults.inject_hints(HintFault::Drop, When::Always);
        let deaf = fixture.manager_behind_with(&faults, options).await;
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for (n, repository) in repositories.iter().enumerate() {
            let set = manager.set_limit(repository, Limit::new(1), None);
            set.await.unwrap();
            running.push(started(&manager, repository, durable(&format!("a-{n}"))).await);
            waiting.push(queued(&deaf, repository, durable(&format!("b-{n}"))).await);
        }
        let poll = options.poll_interval;
        sleep(poll * 2).await;
        let asked = || faults.requests(Request::Load) + faults.requests(Request::List);
        let before = asked();
        sleep(poll * 10).await;
        let asked = asked() - before;
        // One request per repository and poll would make 3,000.
        assert!(asked < 100, "{asked} requests although nothing happened");

        for a in running {
            manager.release(a, DONE).await.unwrap();
        }
        for waiter in waiting {
            let turn = timeout(poll * 2, waiter).await.unwrap();
            assert!(matches!(turn, Ok(Turn::Started(_))), "{turn:?}");
        }
    });
}

/// Each commit of a mere admission could conflict with a manager that has a slot to hand over.
async fn admissions_go_along(fixture: &Fixture) {
    let web = repository("web");
    let line = Faults::none();
    let ours = fixture.manager_behind(&line).await;
    ours.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&ours, &web, durable("a")).await;
    let b = queued(&ours, &web, durable("b")).await;
    let commits = || line.traffic(&web).commits;
    let ask = |run| {
        let (ours, web) = (ours.clone(), web.clone());
        tokio::spawn(async move { ours.admit(&web, durable(run)).await.unwrap() })
    };

    // A single conflict may only mean that this manager's state was out of date.
    line.inject([Request::Commit], Fault::Conflict, When::Next(1));
    let start = Instant::now();
    let c = queued(&ours, &web, durable("c")).await;
    assert!(start.elapsed() < Duration::from_millis(15));

    // No other commit to join: the admission waits once, and not again after the next conflict.
    sleep(Duration::from_millis(200)).await;
    line.inject([Request::Commit], Fault::Conflict, When::Next(3));
    let (before, start) = (commits(), Instant::now());
    let d = queued(&ours, &web, durable("d")).await;
    let (asked, waited) = (commits() - before, start.elapsed());
    assert_eq!(asked, 4, "three conflicts, and then it is in the queue");
    let (least, most) = (Duration::from_millis(15), Duration::from_millis(60));
    assert!(waited > least && waited < most, "{waited:?}");

    // After a quiet while, a release comes during such a wait: both are one commit.
    sleep(Duration::from_millis(200)).await;
    line.inject([Request::Commit], Fault::Conflict, When::Next(2));
    let asking = ask("e");
    sleep(Duration::from_millis(5)).await;
    let before = commits();
    assert!(line.is_used_up(), "it has met a conflict, and waits");
    ours.release(a, DONE).await.unwrap();
    assert!(matches!(asking.await.unwrap(), Admission::Queued(_)));
    assert_eq!(commits() - before, 1);
    let turn = fixture.soon("the turn", b).await.unwrap();
    assert!(matches!(turn, Turn::Started(_)), "{turn:?}");

    // A batch of admissions does not wait, and its commit includes the waiting admission.
    sleep(Duration::from_millis(200)).await;
    line.inject([Request::Commit], Fault::Conflict, When::Next(2));
    let asking = ask("f");
    sleep(Duration::from_millis(5)).await;
    assert!(line.is_used_up(), "it has met a conflict, and waits");
    let (before, start) = (commits(), Instant::now());
    let both = vec![durable("g"), durable("h")];
    let admitted = ours.admit_all(&web, None, both).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(5));
    assert!(matches!(asking.await.unwrap(), Admission::Queued(_)));
    assert_eq!(commits() - before, 1);
    drop((c, d, admitted));
}

#[test]
fn where_others_are_faster_an_admission_to_a_full_queue_goes_along_with_a_release() {
    run_case(Time::Paused, distant, admissions_go_along);
}
