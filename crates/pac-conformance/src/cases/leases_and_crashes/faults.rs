//! The effects on leases of faults in the connection, the machine and the manager's own tasks.

use pac_core::manager::KeepAliveOn;
use pac_core::manager::{Admission, Event, Heard, Turn};
use pac_core::protocol::Ended;
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, LimitVersion};
use tokio::time::{sleep, timeout};

use crate::faults::{Fault, Faults, Request, When};
use crate::{Fixture, durable, ephemeral, queued, repository, run, started, uid};

const DONE: RunOutcome = RunOutcome::Completed;

/// (36) A controller stopped beyond its session TTL and continued: it learns that it lost its
/// leases before it acts, and its token is refused.
pub async fn a_stopped_controller_learns_it(fixture: &Fixture) {
    let options = fixture.options();
    let gate = Faults::none();
    let (stopped, live) = (fixture.manager_behind(&gate).await, fixture.manager().await);
    let web = repository("web");
    live.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&stopped, &web, ephemeral("a")).await;
    let b = queued(&live, &web, ephemeral("b")).await;
    let mut events = stopped.events();
    let session = stopped.session();
    gate.hold();
    // The manager knows by its own clock, before any other can hold the slot.
    let fenced = async {
        while stopped.holds(&a) {
            sleep(options.session_ttl / 100).await;
        }
        fixture.view(&web).await.assert(&["a"], &["b"]);
    };
    timeout(options.session_ttl, fenced)
        .await
        .expect("it went on as if it held the slot");
    fixture.outlive_session().await;
    let b = fixture.turn(b).await;
    gate.open();
    fixture.settle().await;
    let told = fixture.soon("the failed renewal", events.next()).await;
    let told = matches!(
        &told,
        Some(Heard::Event(Event::NotRenewed { session: of, remaining, .. }))
            if *of == session && *remaining < options.session_ttl
    );
    assert!(
        told,
        "the first renewal that fails is told before anything is lost"
    );
    let heard = fixture.soon("the loss", events.next()).await;
    assert_eq!(heard, Some(Heard::Event(Event::LeasesLost(session))));
    let lost = async {
        let lost = Heard::Event(Event::SessionLost(session));
        while events.next().await.expect("it goes on") != lost {}
    };
    fixture.soon("the loss of the session", lost).await;
    assert!(!stopped.holds(&a) && live.holds(&b));
    let ending = stopped.release(a, DONE).await.unwrap();
    assert_eq!(ending.ended, Ended::Before(RunOutcome::LeaseLost));
    fixture.view(&web).await.assert(&["b"], &[]);
    // With a new session the manager works like any other.
    sleep(options.session_ttl).await;
    assert!(stopped.session() != session && stopped.health().is_ready());
    let c = queued(&stopped, &web, durable("c")).await;
    live.release(b, DONE).await.unwrap();
    let c = fixture.turn(c).await;
    assert!(stopped.holds(&c));
}

/// (36) The same for a manager that closes its session itself: its slot passes on at once.
pub async fn a_closed_manager_holds_nothing(fixture: &Fixture) {
    let (closing, live) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    live.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&closing, &web, ephemeral("a")).await;
    let b = queued(&live, &web, ephemeral("b")).await;
    closing.close().await.unwrap();
    let b = fixture.turn(b).await;
    assert!(live.holds(&b));
    let refused = closing.status(&web).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed, "{refused}");
    assert!(!closing.health().is_ready());
    assert!(
        !closing.holds(&a),
        "two managers call themselves the holder"
    );
}

/// (40) A commit whose answer was lost is recognised as the manager's own: no second slot, no
/// lost slot.
pub async fn a_lost_answer_is_recognised(fixture: &Fixture) {
    let faulty = Faults::none();
    let manager = fixture.manager_behind(&faulty).await;
    let mut round = 0;
    // Only one answer can be lost: the next attempt recognises that the command was carried out,
    // and commits nothing. Questions can be lost several times.
    for (lost, times) in [
        (Fault::LoseAnswer, 1),
        (Fault::LoseQuestion, 1),
        (Fault::LoseQuestion, 2),
        (Fault::LoseQuestion, 5),
    ] {
        round += 1;
        let web = repository(&format!("web-{round}"));
        let lose = || {
            assert!(faulty.is_used_up(), "nothing got lost");
            faulty.clear();
            faulty.inject([Request::Commit], lost, When::Next(times));
        };
        // Counters continue where the removed repository left them.
        let head = fixture.view(&web).await.head;
        let (base, tickets) = (head.last_token.get(), head.last_ticket.get());
        lose();
        let limit = (Limit::new(2), Some(LimitVersion::new(1)));
        let change = manager.set_limit(&web, limit.0, limit.1).await.unwrap();
        assert_eq!((change.accepted, change.limit), (true, limit.0));
        lose();
        let a = started(&manager, &web, durable("a")).await;
        lose();
        let own = started(&manager, &web, ephemeral("own")).await;
        lose();
        let c = queued(&manager, &web, durable("c")).await;
        lose();
        let batch = ["d", "e", "f"].map(durable).to_vec();
        let waiting = manager.admit_all(&web, None, batch).await.unwrap();
        let view = fixture.view(&web).await;
        view.assert(&["a", "own"], &["c", "d", "e", "f"]);
        assert_eq!(
            (view.token("a"), view.token("own")),
            (a.token(), own.token())
        );
        let counters = (
            view.head.last_token.get() - base,
            view.head.last_ticket.get() - tickets,
        );
        assert_eq!(counters, (2, 6), "something was done twice");

        lose();
        let ending = manager.release(own, RunOutcome::Failed).await.unwrap();
        assert_eq!(ending.ended, Ended::Done);
        let c = fixture.turn(c).await;
        lose();
        let ending = manager
            .cancel(&web, &run("d"), Some(&uid("d")))
            .await
            .unwrap();
        assert_eq!(ending.ended, Ended::Done);
        lose();
        let Some(Admission::Started(c)) = manager.requeue(c).await.unwrap() else {
            panic!("c was first in the queue, and a slot was free");
        };
        lose();
        let adopted = manager.adopt(&web, durable("g")).await.unwrap();
        let view = fixture.view(&web).await;
        view.assert(&["a", "c", "g"], &["e", "f"]);
        assert_eq!(
            view.head.last_token.get(),
            base + 5,
            "something was granted twice"
        );
        assert_eq!(view.outcome("own"), Some(RunOutcome::Failed));

        lose();
        let gone = manager.remove_repository(&web).await.unwrap();
        // If the lost answer was that of the removal, the runs are gone and can no longer be
        // named.
        if lost == Fault::LoseQuestion {
            assert_eq!(gone, ["a", "c", "e", "f", "g"].map(run));
        }
        assert!(!fixture.view(&web).await.exists);
        drop((a, c, adopted, waiting));
    }
    assert_eq!(manager.health().panics, 0);
}

/// (42) Keep-alive goes on while the application's tasks block a runtime worker. (Here they
/// block all of them: the keep-alive of a store behind a network has a thread of its own.)
pub async fn keep_alive_survives_blocked_workers(fixture: &Fixture) {
    let options = fixture.options();
    let line = Faults::none();
    let options = options.with_keep_alive_on(KeepAliveOn::Thread);
    let manager = fixture.manager_behind_with(&line, options).await;
    let other = fixture.manager_behind_with(&line, options).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, ephemeral("a")).await;
    let mut b = queued(&other, &web, ephemeral("b")).await;
    let session = manager.session();
    let blocked: Vec<_> = (0..8)
        .map(|_| {
            let longer = options.session_ttl + options.session_ttl / 4;
            tokio::spawn(async move { std::thread::sleep(longer) })
        })
        .collect();
    for task in blocked {
        task.await.unwrap();
    }
    assert!(manager.holds(&a) && manager.session() == session);
    assert!(manager.health().is_ready() && other.health().is_ready());
    fixture.waits_on(&mut b).await;
    fixture.view(&web).await.assert(&["a"], &["b"]);
    manager.release(a, DONE).await.unwrap();
    drop(fixture.turn(b).await);
}

/// (43) The keep-alive task dies or panics: the manager says so (health, error on use), it never
/// pretends.
pub async fn dead_keep_alive_is_not_hidden(fixture: &Fixture) {
    let options = fixture.options();
    let live = fixture.manager().await;
    let bug = Faults::none();
    bug.inject([Request::KeepAlive], Fault::Panic, When::Always);
    let manager = fixture.manager_behind(&bug).await;
    let web = repository("web");
    live.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, ephemeral("a")).await;
    let b = queued(&live, &web, durable("b")).await;
    assert!(manager.health().is_ready());
    // The keep-alive is due after a third of the TTL. (Reporting a panic takes a while.)
    sleep(options.session_ttl / 3).await;
    let alarm = async {
        while manager.health().dead.is_none() {
            sleep(options.session_ttl / 100).await;
        }
    };
    fixture.soon("the alarm", alarm).await;
    let health = manager.health();
    assert!(!health.is_ready(), "{health:?}");
    assert!(
        health.dead.is_some_and(|part| part.contains("keep-alive")),
        "{health:?}"
    );
    let refused = manager.admit(&web, durable("c")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed, "{refused}");
    assert!(!refused.is_retryable());
    let refused = manager.status(&web).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed, "{refused}");
    fixture.outlive_session().await;
    assert!(!manager.holds(&a));
    // The other manager goes on.
    let b = fixture.turn(b).await;
    fixture.view(&web).await.assert(&["b"], &[]);
    live.release(b, DONE).await.unwrap();

    // The keep-alive hangs, while everything else of its manager goes on.
    let pause = Faults::none();
    let paused = fixture.manager_behind(&pause).await;
    let session = paused.session();
    let mut events = paused.events();
    let d = started(&paused, &web, ephemeral("d")).await;
    let e = queued(&live, &web, durable("e")).await;
    pause.inject([Request::KeepAlive], Fault::Hang, When::Always);
    sleep(options.session_ttl).await;
    assert!(!paused.holds(&d), "{:?}", paused.health());
    sleep(fixture.notice()).await;
    drop(fixture.turn(e).await);
    let told = async {
        let lost = Heard::Event(Event::SessionLost(session));
        while events.next().await.expect("it goes on") != lost {}
    };
    fixture.soon("the loss", told).await;
    pause.clear();
    sleep(options.session_ttl).await;
    assert!(paused.session() != session && paused.health().is_ready());
    let ending = paused.release(d, DONE).await.unwrap();
    assert_eq!(ending.ended, Ended::Before(RunOutcome::LeaseLost));
}

/// (43) A renewal that fails is told at once, with its cause and what is left, and so is the first
/// that succeeds again: nothing is lost.
pub async fn a_failed_renewal_is_told_at_once(fixture: &Fixture) {
    let line = Faults::none();
    let manager = fixture.manager_behind(&line).await;
    let (web, session) = (repository("web"), manager.session());
    let a = started(&manager, &web, ephemeral("a")).await;
    let mut events = manager.events();
    let ttl = fixture.options().session_ttl;
    line.inject([Request::KeepAlive], Fault::Fail, When::Always);
    let told = timeout(ttl / 2 + fixture.tolerance(), events.next()).await;
    let Ok(Some(Heard::Event(Event::NotRenewed {
        session: of,
        remaining,
        cause,
    }))) = told
    else {
        panic!("the failure was to be told, and not {told:?}");
    };
    assert_eq!(of, session);
    assert!(ttl / 3 < remaining && remaining < ttl, "{remaining:?}");
    assert!(cause.contains("keep alive"), "{cause}");
    let health = manager.health();
    assert!(
        health.is_ready() && health.renewal_error.is_some(),
        "{health:?}"
    );

    line.clear();
    let again = fixture.reconnected("a renewal", events.next()).await;
    assert_eq!(again, Some(Heard::Event(Event::Renewed(session))));
    let health = manager.health();
    assert!(
        health.is_ready() && health.renewal_error.is_none(),
        "{health:?}"
    );
    assert!(manager.holds(&a) && manager.session() == session);
}

/// (44) Store paused for half a session TTL: no lease lost.
pub async fn a_paused_store_costs_no_lease(fixture: &Fixture) {
    let mut options = fixture.options();
    if fixture.is_real() {
        // Where a renewal was due as the pause began, a fifteenth of the TTL is left for its answer:
        // more than a busy machine takes.
        let ttl = options.session_ttl * 3;
        options = options.with_session_ttl(ttl).with_lease_ttl(ttl * 2);
    }
    // The pauses begin at different points of the keep-alive's interval.
    let pause = async |n: u32| {
        let gate = Faults::none();
        let (manager, other) = (
            fixture.manager_behind_with(&gate, options).await,
            fixture.manager_behind_with(&gate, options).await,
        );
        let web = repository(&format!("web-{n}"));
        manager.set_limit(&web, Limit::new(2), None).await.unwrap();
        let a = started(&manager, &web, ephemeral("a")).await;
        let b = started(&manager, &web, durable("b")).await;
        let mut c = queued(&other, &web, ephemeral("c")).await;
        let mut events = manager.events();
        sleep(options.session_ttl / 36 * n).await;
        gate.hold();
        sleep(options.session_ttl / 2).await;
        gate.open();
        sleep(options.session_ttl / 2).await;
        assert!(manager.holds(&a) && manager.holds(&b), "lost in round {n}");
        let view = fixture.view(&web).await;
        view.assert(&["a", "b"], &["c"]);
        assert_eq!((view.token("a"), view.token("b")), (a.token(), b.token()));
        while let Ok(heard) = timeout(fixture.quiet(), events.next()).await {
            // Events of the earlier rounds may still be pending.
            let lost = Event::LeasesLost(manager.session());
            assert_ne!(heard, Some(Heard::Event(lost)), "lost in round {n}");
        }
        fixture.waits_on(&mut c).await;
        manager.release(a, DONE).await.unwrap();
        let turn = fixture.soon("the turn of c", c).await.unwrap();
        assert!(matches!(turn, Turn::Started(_)), "{turn:?}");
    };
    fixture.each(0..12, pause).await;
}
