//! The moment at which a store that was away answers again.

use std::time::Duration;

use pac_core::Limit;
use pac_core::manager::{ConcurrencyManager, ManagerOptions, RepositoryWatch, Turn};
use pac_core::reader::{Change, RunStep, StoreReader};
use pac_core::state::RunOutcome;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::faults::{Faults, HintFault, When};
use crate::{Fixture, durable, ephemeral, queued, repository, started};

const DONE: RunOutcome = RunOutcome::Completed;

/// No back-stop comes to help, and no session is lost.
fn patient(fixture: &Fixture) -> ManagerOptions {
    let long = Duration::from_secs(24 * 60 * 60);
    fixture
        .options()
        .with_poll_interval(long)
        .with_session_ttl(long)
        .with_lease_ttl(long)
}

/// Long enough for all pauses between attempts to have grown.
async fn away(fixture: &Fixture) {
    sleep(Duration::from_secs(if fixture.is_real() { 4 } else { 60 })).await;
}

/// Waits until the watch shows this limit.
async fn shows(watch: &mut RepositoryWatch, limit: Limit) {
    while watch.next().await.unwrap().status.limit != limit {}
}

/// (38) Within a second after the store answers again, calls that waited for it are answered, and
/// every waiter, watcher and reader knows what it has missed. (The store is away for some alone:
/// others change it meanwhile.)
pub async fn a_store_that_is_back_is_used_at_once(fixture: &Fixture) {
    let options = patient(fixture);
    let line = Faults::none();
    let near = fixture.manager_with(options).await;
    let far = fixture.manager_behind_with(&line, options).await;
    let caller = fixture
        .manager_behind_with(
            &line,
            options.with_command_timeout(Duration::from_secs(600)),
        )
        .await;
    let (web, idle) = (repository("web"), repository("idle"));
    for one in [&web, &idle] {
        near.set_limit(one, Limit::new(2), None).await.unwrap();
    }
    let a = started(&near, &web, durable("a")).await;
    let own = started(&caller, &web, ephemeral("own")).await;
    let b = queued(&far, &web, durable("b")).await;
    let c = queued(&far, &web, ephemeral("c")).await;
    let mut watch = far.watch(&idle).await.unwrap();
    shows(&mut watch, Limit::new(2)).await;
    let reader = StoreReader::new(line.over(fixture.driver()));
    let mut changes = reader.watch(Some(idle.clone())).await.unwrap();
    fixture.settle().await;

    line.cut();
    let calling = caller.clone();
    let release = tokio::spawn(async move { calling.release(own, DONE).await });
    let reading = tokio::spawn(async move {
        loop {
            if let Change::Limit { limit, .. } = changes.next().await.unwrap() {
                return limit;
            }
        }
    });
    away(fixture).await;
    near.release(a, DONE).await.unwrap();
    near.set_limit(&idle, Limit::new(7), None).await.unwrap();
    fixture.settle().await;
    fixture.view(&web).await.assert(&["own", "b"], &["c"]);
    assert!(far.health().watch_error.is_some(), "{:?}", far.health());
    assert!(!release.is_finished() && !reading.is_finished());

    line.open();
    let all = async {
        let (b, c, released, limit, ()) =
            tokio::join!(b, c, release, reading, shows(&mut watch, Limit::new(7)),);
        let _ = released.unwrap().unwrap();
        assert_eq!(limit.unwrap(), Limit::new(7));
        (b.unwrap(), c.unwrap())
    };
    let held = fixture.reconnected("all that was missed", all).await;
    fixture.view(&web).await.assert(&["b", "c"], &[]);
    assert_eq!(far.health().watch_error, None);
    assert!(far.health().is_ready() && caller.health().is_ready());
    drop(held);
}

/// (27, 38) While the store is stopped, the health of a manager says so although no run asks for
/// anything. Within a second after it answers again a release that waited for it is done, and the
/// next run starts.
pub async fn a_stopped_store_is_told_and_returned_to(fixture: &Fixture) {
    let options = patient(fixture).with_command_timeout(Duration::from_secs(600));
    let outage = fixture.outage();
    let managers = [
        fixture.manager_behind_with(outage.line(), options).await,
        fixture.manager_behind_with(outage.line(), options).await,
    ];
    let web = repository("web");
    let set = managers[0].set_limit(&web, Limit::new(1), None);
    set.await.unwrap();
    let reader = StoreReader::new(outage.line().over(fixture.driver()));
    let mut changes = reader.watch(Some(web.clone())).await.unwrap();
    let (tell, mut ended) = mpsc::unbounded_channel();
    let reading = tokio::spawn(async move {
        while let Ok(change) = changes.next().await {
            if let Change::Run(run) = change
                && run.step == RunStep::Finished(DONE)
            {
                let _ = tell.send(run.run.name().to_owned());
            }
        }
    });
    let mut held = started(&managers[0], &web, durable("a")).await;
    for (round, next) in ["b", "c"].into_iter().enumerate() {
        let (by, other) = (&managers[round % 2], &managers[(round + 1) % 2]);
        let turn = queued(other, &web, durable(next)).await;
        let name = held.run().name().to_owned();
        outage.begin().await;
        for manager in &managers {
            let told = watches(manager, false);
            fixture.soon("the broken watch", told).await;
        }
        let releasing = by.clone();
        let released = tokio::spawn(async move { releasing.release(held, DONE).await });
        sleep(Duration::from_secs(2)).await;
        assert!(!released.is_finished(), "nobody could have answered");

        outage.end().await;
        let all = async { tokio::join!(released, turn, ended.recv()) };
        let (released, turn, ended) = fixture.reconnected("the next run", all).await;
        let _ = released.unwrap().unwrap();
        let Turn::Started(lease) = turn.unwrap() else {
            panic!("{next} was next");
        };
        assert_eq!(ended.as_deref(), Some(name.as_str()), "what the reader saw");
        assert!(other.holds(&lease));
        held = lease;
        for manager in &managers {
            let watching = watches(manager, true);
            fixture.reconnected("the watch", watching).await;
            assert!(manager.health().is_ready(), "{:?}", manager.health());
        }
    }
    drop(held);
    reading.abort();
}

/// Waits until the health of a manager says that its watch is connected, or that it is not.
async fn watches(manager: &ConcurrencyManager, connected: bool) {
    while manager.health().watch_error.is_none() != connected {
        sleep(Duration::from_millis(5)).await;
    }
}

/// (38) Hints that are lost in the first seconds after an outage, because a process that has
/// changed something is gone, or cannot tell yet, cost a waiter less than half a second each.
pub async fn hints_lost_after_an_outage_cost_no_time(fixture: &Fixture) {
    let options = patient(fixture);
    let line = Faults::none();
    let near = fixture.manager_with(options).await;
    let far = fixture.manager_behind_with(&line, options).await;
    let web = repository("web");
    near.set_limit(&web, Limit::new(1), None).await.unwrap();
    let mut held = started(&near, &web, durable("a")).await;
    let mut waiting = Vec::new();
    for name in ["b", "c", "d"] {
        waiting.push(queued(&far, &web, durable(name)).await);
    }
    line.cut();
    away(fixture).await;
    line.inject_hints(HintFault::Drop, When::Always);
    line.open();
    // The watch is open again before anything changes.
    fixture.reconnected("the watch", watches(&far, true)).await;
    for waiter in waiting {
        sleep(Duration::from_millis(300)).await;
        fixture.release_named(&near, &web, held.run().name()).await;
        held = fixture.turn_when_reconnected(waiter).await;
        assert!(far.holds(&held));
    }
    assert!(line.hints_hit() > 0, "no hint was lost");
}
