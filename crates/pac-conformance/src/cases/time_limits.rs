//! How long a run may wait, and hold its slots.

use std::time::Duration;

use pac_core::Limit;
use pac_core::manager::Turn;
use pac_core::state::RunOutcome;
use tokio::time::{Instant, sleep, timeout};

use crate::faults::Faults;
use crate::{Fixture, durable, ephemeral, queued, repository, started};

const SHORT: Duration = Duration::from_secs(1);

/// A run that has waited for as long as it may ends as timed out: not before, and soon after; others
/// keep their places.
pub async fn a_run_waits_for_as_long_as_it_may(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let first = started(&manager, &web, durable("first")).await;
    let asked = Instant::now();
    let short = ephemeral("short").with_max_wait(SHORT);
    let short = queued(&manager, &web, short).await;
    let long = queued(&other, &web, durable("long").with_max_wait(SHORT * 600)).await;
    let longest = SHORT * 2 + fixture.options().sweep_interval * 2 + fixture.tolerance();
    let turn = timeout(longest, short).await.expect("it still waits");
    assert!(
        asked.elapsed() + fixture.tolerance() >= SHORT,
        "{:?}",
        asked.elapsed()
    );
    assert!(
        matches!(turn, Ok(Turn::Ended(RunOutcome::TimedOut))),
        "{turn:?}"
    );
    let view = fixture.view(&web).await;
    view.assert(&["first"], &["long"]);
    assert_eq!(view.outcome("short"), Some(RunOutcome::TimedOut));
    manager.release(first, RunOutcome::Completed).await.unwrap();
    drop(fixture.turn(long).await);
}

/// The time of a waiting run is kept although the controller that admitted it has died, by one that
/// had nothing to do with it.
pub async fn a_waiting_run_times_out_without_its_controller(fixture: &Fixture) {
    let gate = Faults::none();
    let (doomed, live) = (fixture.manager_behind(&gate).await, fixture.manager().await);
    let web = repository("web");
    doomed.set_limit(&web, Limit::new(1), None).await.unwrap();
    let first = started(&doomed, &web, durable("first")).await;
    let waits = durable("waits").with_max_wait(fixture.session_end() * 2);
    let waiter = queued(&doomed, &web, waits).await;
    gate.cut();
    sleep(fixture.session_end() * 2 + fixture.options().sweep_interval * 4).await;
    sleep(fixture.tolerance() + fixture.notice()).await;
    let view = fixture.view(&web).await;
    assert_eq!(view.outcome("waits"), Some(RunOutcome::TimedOut));
    drop((first, waiter, live));
}

/// A run that has held its slot for as long as it may is asked to end, hears it, and keeps the slot
/// until it gives it back.
pub async fn a_run_is_asked_to_end_once_it_has_held_its_slot_for_long(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let asked = Instant::now();
    let short = ephemeral("short").with_max_hold(SHORT);
    let lease = started(&manager, &web, short).await;
    let mut next = queued(&other, &web, durable("next")).await;
    let longest = SHORT * 2 + fixture.options().sweep_interval * 2 + fixture.tolerance();
    let told = timeout(longest, lease.cancel_requested()).await;
    told.expect("it was not asked to end");
    assert!(
        asked.elapsed() + fixture.tolerance() >= SHORT,
        "{:?}",
        asked.elapsed()
    );
    fixture.waits_on(&mut next).await;
    assert!(manager.holds(&lease));
    manager.release(lease, RunOutcome::Cancelled).await.unwrap();
    drop(fixture.turn(next).await);
}
