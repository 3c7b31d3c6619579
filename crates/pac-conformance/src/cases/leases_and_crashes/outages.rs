//! A store that is unreachable for a while and comes back with its state intact.

use std::time::Duration;

use pac_core::driver::Placement;
use pac_core::manager::ManagerOptions;
use pac_core::protocol::Ended;
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit};
use tokio::time::{sleep, timeout};

use crate::cases::calls::every_call_fails;
use crate::faults::{Fault, Faults, HintFault, Request, When};
use crate::{Fixture, durable, ephemeral, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

/// Sessions that outlive every outage, so that only calls are affected.
fn long_sessions(fixture: &Fixture) -> ManagerOptions {
    fixture
        .options()
        .with_session_ttl(fixture.options().session_ttl * 10)
        .with_lease_ttl(fixture.lease_ttl() * 10)
}

/// (38) The store restarts (kill -9) while runs hold and wait: nothing is lost, no run is
/// admitted twice; everything goes on without a restart of the controllers. (Simulated as
/// clients see it: the last commits succeed but their answers are lost, and then nothing
/// answers.)
pub async fn a_restart_of_the_store_loses_nothing(fixture: &Fixture) {
    let options = long_sessions(fixture);
    let store = Faults::none();
    let (left, right) = (
        fixture.manager_behind_with(&store, options).await,
        fixture.manager_behind_with(&store, options).await,
    );
    let web = repository("web");
    left.set_limit(&web, Limit::new(2), None).await.unwrap();
    let a = started(&left, &web, durable("a")).await;
    let b = started(&right, &web, ephemeral("b")).await;
    let c = queued(&right, &web, durable("c")).await;
    let d = queued(&left, &web, ephemeral("d")).await;
    // Wait until both managers have seen all of this, even on a busy machine: a conflict would
    // need a read, which would fail.
    sleep(fixture.notice()).await;
    for manager in [&left, &right] {
        manager.status(&web).await.unwrap();
    }
    let before = fixture.view(&web).await.head;

    let others = Request::ALL
        .into_iter()
        .filter(|request| *request != Request::Commit);
    store.inject(others, Fault::Fail, When::Always);
    store.inject([Request::Commit], Fault::LoseAnswer, When::Next(2));
    if fixture.is_real() {
        // Or the word of the first commit may come before the second is made, which would then have
        // to read.
        store.inject_hints(HintFault::Drop, When::Always);
    }
    let release = {
        let left = left.clone();
        tokio::spawn(async move { left.release(a, DONE).await })
    };
    let admit = {
        let (right, web) = (right.clone(), web.clone());
        tokio::spawn(async move { right.admit(&web, durable("e")).await })
    };
    let lost = async {
        while !store.is_used_up() || fixture.view(&web).await.head.revision == before.revision {
            sleep(Duration::from_millis(1)).await;
        }
    };
    fixture.soon("the loss of two answers", lost).await;
    store.cut();
    fixture.settle().await;
    assert!(
        !release.is_finished() && !admit.is_finished(),
        "nobody could have answered"
    );
    let cancel = {
        let (left, web) = (left.clone(), web.clone());
        tokio::spawn(async move { left.cancel(&web, &run("nobody"), None).await })
    };
    fixture.settle().await;
    store.clear();

    let ending = fixture.reconnected("the release", release).await.unwrap();
    assert_eq!(ending.unwrap().ended, Ended::Done);
    let e = fixture
        .reconnected("the admission", admit)
        .await
        .unwrap()
        .unwrap();
    let ending = fixture.reconnected("the cancel", cancel).await.unwrap();
    assert_eq!(ending.unwrap().ended, Ended::Unknown);
    let c = fixture.turn_when_reconnected(c).await;
    let view = fixture.view(&web).await;
    view.assert(&["b", "c"], &["d", "e"]);
    assert_eq!((view.token("b"), view.token("c")), (b.token(), c.token()));
    let counted = (
        view.head.last_token.get() - before.last_token.get(),
        view.head.last_ticket.get() - before.last_ticket.get(),
    );
    assert_eq!(counted, (1, 1), "somebody was admitted twice");
    // No session was lost, and the queue moves on.
    assert!(right.holds(&b) && right.holds(&c));
    right.release(b, DONE).await.unwrap();
    let d = fixture.turn_when_reconnected(d).await;
    assert!(left.holds(&d));
    for manager in [&left, &right] {
        assert!(manager.health().is_ready() && manager.health().panics == 0);
    }
    drop(e);
}

/// (39) The store is away for longer than the reconnect budget of any one call: calls fail with
/// a clear error, and work again when it is back.
pub async fn a_long_outage_fails_calls_and_passes(fixture: &Fixture) {
    let usual = fixture.options();
    let options = long_sessions(fixture)
        .with_command_timeout(usual.session_ttl)
        .with_request_timeout(usual.session_ttl / 2);
    // The last attempt starts at most one backoff after the timeout; backoffs double, with
    // jitter.
    let backoff = options.command_timeout * 2;
    let longest = options.command_timeout + backoff + options.request_timeout + fixture.tolerance();
    // The store is gone, or it is silent, which only a client with deadlines can detect.
    let is_remote = fixture.driver().descriptor().placement != Placement::InProcess;
    for (name, silent) in [("gone", false), ("silent", true)] {
        if silent && !is_remote {
            continue;
        }
        let store = Faults::none();
        let manager = fixture.manager_behind_with(&store, options).await;
        let web = repository(name);
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&manager, &web, ephemeral("a")).await;
        let b = queued(&manager, &web, durable("b")).await;
        let before = fixture.view(&web).await;

        if silent {
            store.hold();
        } else {
            store.cut();
        }
        let failures = timeout(longest, every_call_fails(&manager, &web)).await;
        let failures = failures.expect("a call was tried for longer than its budget");
        for (call, error) in failures {
            let text = error.to_string();
            match error.kind() {
                ErrorKind::Unavailable if silent => assert!(text.contains("in time"), "{text}"),
                ErrorKind::Unavailable => assert!(text.contains("was cut"), "{text}"),
                // After a request without an answer the caller cannot know that nothing was
                // done.
                ErrorKind::Indeterminate if silent => assert!(text.contains("read"), "{text}"),
                _ => panic!("{call}: {error}"),
            }
        }
        let after = fixture.view(&web).await;
        assert_eq!(
            after.head, before.head,
            "{name}: something was done all the same"
        );
        store.open();

        // The same calls of the same manager succeed again; a waiter that waited through the
        // outage still waits.
        assert!(manager.holds(&a), "{name}: the session was lost");
        let status = manager.status(&web).await.unwrap();
        assert_eq!((status.running.len(), status.queued.len()), (1, 1));
        let ending = manager.release(a, DONE).await.unwrap();
        assert_eq!(ending.ended, Ended::Done);
        let b = fixture.turn_when_reconnected(b).await;
        fixture.view(&web).await.assert(&["b"], &[]);
        manager.release(b, DONE).await.unwrap();
        assert!(manager.health().is_ready() && manager.health().panics == 0);
        manager.close().await.unwrap();
    }
}
