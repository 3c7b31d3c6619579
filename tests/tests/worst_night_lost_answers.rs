//! Commands whose answer was lost: what is repeated is what was asked for and nothing else, what
//! was done is told, and what nobody waits for any more is taken back, however long the store
//! was away.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, Ended, Ending, Limit, LimitVersion, MemoryDriver, MemoryOptions, RunKind, RunOutcome,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{
    Fixture, Time, at_priority, durable, ephemeral, queued, repository, run, run_case, started,
};
use tokio::time::{sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const SECOND: Duration = Duration::from_secs(1);

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// The next commit is done and its answer lost; until the plan is cleared, nothing can be read.
fn lose_the_next_answer(line: &Faults) {
    line.inject([Request::Commit], Fault::LoseAnswer, When::Next(1));
    line.inject([Request::Load], Fault::Fail, When::Always);
}

/// `cancel` by name, repeated after its answer was lost, ended the next run of that
/// name.
#[test]
fn a_cancel_whose_answer_was_lost_ends_no_later_run_of_that_name() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for waits in [false, true] {
            let web = repository(&format!("web-{waits}"));
            let line = Faults::none();
            let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
            other.set_limit(&web, Limit::new(1), None).await.unwrap();
            let mut before = Vec::new();
            if waits {
                before.push(started(&other, &web, durable("before")).await);
            }
            let first = ours.admit(&web, durable("x")).await.unwrap();
            lose_the_next_answer(&line);
            let cancelling = tokio::spawn({
                let (ours, web) = (ours.clone(), web.clone());
                async move { ours.cancel(&web, &run("x"), None).await }
            });
            sleep(SECOND).await;
            let cancelled = fixture.view(&web).await.outcome("x");
            assert_eq!(cancelled, Some(RunOutcome::Cancelled));

            let mut next = durable("x");
            next.uid = "another".parse().unwrap();
            let next = other.admit(&web, next).await.unwrap();
            line.clear();
            let answer = fixture.reconnected("the answer", cancelling).await.unwrap();
            fixture.settle().await;
            let view = fixture.view(&web).await;
            let left = view.entry("x").unwrap();
            assert!(
                !left.is_finished() && left.uid.as_str() == "another",
                "the run that was not meant has ended: {left:?}"
            );
            if let Ok(ending) = answer {
                assert_eq!(ending.ended, Ended::Done);
            }
            drop((first, next));
        }
    });
}

/// `remove_repository`, repeated after its answer was lost, removed the repository that
/// somebody had made anew.
#[test]
fn a_removal_whose_answer_was_lost_leaves_what_was_made_anew() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
        ours.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _old = started(&ours, &web, durable("old")).await;
        lose_the_next_answer(&line);
        let removing = tokio::spawn({
            let (ours, web) = (ours.clone(), web.clone());
            async move { ours.remove_repository(&web).await }
        });
        sleep(SECOND).await;
        assert!(!fixture.view(&web).await.exists);

        other.set_limit(&web, Limit::new(3), None).await.unwrap();
        let _new = started(&other, &web, durable("new")).await;
        line.clear();
        let answer = fixture.reconnected("the answer", removing).await.unwrap();
        fixture.settle().await;
        let view = fixture.view(&web).await;
        view.assert(&["new"], &[]);
        assert_eq!(view.head.limit, Limit::new(3));
        if let Ok(ended) = answer {
            assert_eq!(ended, [run("old")]);
        }
    });
}

/// `remove_repository` whose answer was lost forgot which runs it had ended.
#[test]
fn a_removal_whose_answer_was_lost_names_the_runs_that_it_ended() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        ours.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _a = started(&ours, &web, durable("a")).await;
        let _b = queued(&ours, &web, durable("b")).await;
        line.inject([Request::Commit], Fault::LoseAnswer, When::Next(1));
        let ended = ours.remove_repository(&web).await.unwrap();
        assert!(line.is_used_up());
        assert_eq!(ended, [run("a"), run("b")]);
    });
}

/// `set_limit` without a version, repeated after its answer was lost, overwrote a limit
/// that was set later.
#[test]
fn a_limit_whose_answer_was_lost_overwrites_no_later_one() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for version in [None, Some(LimitVersion::new(7))] {
            let web = repository(&format!("web-{}", version.is_some()));
            let line = Faults::none();
            let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
            ours.set_limit(&web, Limit::new(1), None).await.unwrap();
            lose_the_next_answer(&line);
            let setting = tokio::spawn({
                let (ours, web) = (ours.clone(), web.clone());
                async move { ours.set_limit(&web, Limit::new(5), None).await }
            });
            sleep(SECOND).await;
            assert_eq!(fixture.view(&web).await.head.limit, Limit::new(5));

            let later = other.set_limit(&web, Limit::new(2), version).await.unwrap();
            assert!(later.accepted, "{later:?}");
            line.clear();
            // Whatever is said of it: it must not be done twice.
            let answer = fixture.reconnected("the answer", setting).await.unwrap();
            fixture.settle().await;
            let limit = fixture.view(&web).await.head.limit;
            assert_eq!(limit, Limit::new(2), "answered with {answer:?}");
        }
    });
}

/// `set_limit` whose answer was lost forgot which runs it had started.
#[test]
fn a_limit_whose_answer_was_lost_names_the_runs_that_it_started() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        ours.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _a = started(&ours, &web, durable("a")).await;
        let _b = queued(&ours, &web, durable("b")).await;
        line.inject([Request::Commit], Fault::LoseAnswer, When::Next(1));
        let change = ours.set_limit(&web, Limit::new(2), None).await.unwrap();
        assert!(line.is_used_up() && change.accepted);
        assert_eq!(change.promoted, [run("b")]);
    });
}

/// `release` and `cancel` whose answers were lost forgot which run had started instead.
#[test]
fn an_ending_whose_answer_was_lost_names_the_run_that_it_started() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for cancel in [false, true] {
            let web = repository(&format!("web-{cancel}"));
            let line = Faults::none();
            let ours = fixture.manager_behind(&line).await;
            ours.set_limit(&web, Limit::new(1), None).await.unwrap();
            let a = started(&ours, &web, durable("a")).await;
            let _b = queued(&ours, &web, durable("b")).await;
            line.inject([Request::Commit], Fault::LoseAnswer, When::Next(1));
            let ending: Ending = if cancel {
                ours.cancel(&web, &run("a"), None).await.unwrap()
            } else {
                ours.release(a, DONE).await.unwrap()
            };
            assert!(line.is_used_up());
            assert_eq!(ending.ended, Ended::Done);
            assert_eq!(ending.promoted, [run("b")], "by cancel: {cancel}");
        }
    });
}

/// `admit`, dropped after its answer was lost, leaked its slot for the life of the
/// process when the store was away for longer than a command is tried.
#[test]
fn a_dropped_admission_is_taken_back_however_long_the_store_was_away() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for kind in [RunKind::Durable, RunKind::Ephemeral] {
            let web = repository(&format!("web-{kind:?}").to_lowercase());
            let line = Faults::none();
            let ours = fixture.manager_behind(&line).await;
            ours.set_limit(&web, Limit::new(1), None).await.unwrap();
            lose_the_next_answer(&line);
            let mut request = durable("a");
            request.kind = kind;
            let dropped = timeout(SECOND, ours.admit(&web, request)).await;
            assert!(dropped.is_err(), "{dropped:?}");
            fixture.view(&web).await.assert(&["a"], &[]);
            come_back_late(fixture, &line).await;
            fixture.view(&web).await.assert(&[], &[]);
        }
    });
}

/// `requeue` of an ephemeral run, dropped after its answer was lost, leaked the slot or
/// the place that the run had got by it when the store was away for longer than a command is
/// tried.
#[test]
fn a_dropped_requeue_is_taken_back_however_long_the_store_was_away() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for urgent in [false, true] {
            let web = repository(&format!("web-{urgent}"));
            let line = Faults::none();
            let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
            ours.set_limit(&web, Limit::new(1), None).await.unwrap();
            let a = started(&ours, &web, ephemeral("a")).await;
            let mut before = Vec::new();
            if urgent {
                before.push(queued(&other, &web, at_priority("b", 1)).await);
                // It is known that `b` goes first.
                fixture.settle().await;
            }
            lose_the_next_answer(&line);
            let dropped = timeout(SECOND, ours.requeue(a)).await;
            assert!(dropped.is_err(), "{dropped:?}");
            let requeued = fixture.view(&web).await;
            if urgent {
                requeued.assert(&["b"], &["a"]);
            } else {
                requeued.assert(&["a"], &[]);
            }
            come_back_late(fixture, &line).await;
            let left: &[&str] = if urgent { &["b"] } else { &[] };
            fixture.view(&web).await.assert(left, &[]);
        }
    });
}

/// The slot that a durable run had got by a dropped `requeue` came to nobody when the
/// store was away for longer than a command is tried.
#[test]
fn the_slot_of_a_dropped_requeue_is_granted_however_long_the_store_was_away() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let ours = fixture.manager_behind(&line).await;
        let mut grants = ours.grants().unwrap();
        ours.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&ours, &web, durable("a")).await;
        let before = a.token();
        lose_the_next_answer(&line);
        let dropped = timeout(SECOND, ours.requeue(a)).await;
        assert!(dropped.is_err(), "{dropped:?}");
        let token = fixture.view(&web).await.token("a");
        assert!(token > before);
        come_back_late(fixture, &line).await;
        let lease = fixture.soon("the lease of a", grants.next()).await.unwrap();
        assert_eq!((lease.run(), lease.token()), (&run("a"), token));
    });
}

/// A `requeue`, repeated after its answer was lost, answered with the slot of a run that had come
/// since under the same name.
#[test]
fn a_requeue_whose_answer_was_lost_takes_no_later_run_of_that_name() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        for uid in ["a", "another"] {
            let web = repository(&format!("web-{uid}"));
            let line = Faults::none();
            let (ours, other) = (fixture.manager_behind(&line).await, fixture.manager().await);
            ours.set_limit(&web, Limit::new(1), None).await.unwrap();
            let asked = |uid: &str| {
                let mut asked = durable("a");
                asked.uid = uid.parse().unwrap();
                asked
            };
            let a = started(&ours, &web, asked("a")).await;
            lose_the_next_answer(&line);
            let requeueing = tokio::spawn({
                let ours = ours.clone();
                async move { ours.requeue(a).await }
            });
            sleep(SECOND).await;
            assert!(fixture.view(&web).await.entry("a").is_some());

            other.remove_repository(&web).await.unwrap();
            other.set_limit(&web, Limit::new(1), None).await.unwrap();
            let theirs = started(&other, &web, asked(uid)).await;
            line.clear();
            let answer = fixture.reconnected("the answer", requeueing).await.unwrap();
            fixture.settle().await;
            let taken = |admission: &Admission| match admission {
                Admission::Started(lease) => lease.token() == theirs.token(),
                _ => false,
            };
            assert!(
                !matches!(&answer, Ok(Some(admission)) if taken(admission)),
                "one slot, and two that hold it: {answer:?}"
            );
            assert_eq!(fixture.view(&web).await.token("a"), theirs.token());
            assert!(other.holds(&theirs), "the later run has lost its slot");
        }
    });
}

/// The store can be read again, longer after the loss than a command is tried.
async fn come_back_late(fixture: &Fixture, line: &Faults) {
    sleep(fixture.options().command_timeout * 2).await;
    line.clear();
    sleep(SECOND * 5).await;
}
