//! Clocks that disagree.

use pac_core::state::RunOutcome;
use pac_core::{Limit, Timestamp};
use tokio::time::{Instant, sleep};

use crate::{Fixture, durable, ephemeral, queued, repository, started};

/// (41) A wall clock set an hour forward or back on a client changes nothing: to be run on
/// stores whose clock is far from the clients'. Expiry is on time, and times are the store's.
pub async fn a_wrong_clock_changes_nothing(fixture: &Fixture, store_starts_at: Timestamp) {
    let options = fixture.options();
    let opened = Instant::now();
    let (manager, live) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, ephemeral("a")).await;
    let mut b = queued(&live, &web, durable("b")).await;
    sleep(options.lease_ttl.unwrap() * 2).await;
    assert!(manager.holds(&a) && manager.health().is_ready());
    fixture.waits_on(&mut b).await;
    // As if it had crashed: its session ends by the store's clock.
    manager.close().await.unwrap();
    let b = fixture.turn(b).await;
    assert!(live.holds(&b));
    let by_store = store_starts_at.plus(opened.elapsed());
    let off = b.started_at().unwrap().as_unix_millis() - by_store.as_unix_millis();
    let tolerance = fixture.tolerance().as_millis() as u64;
    assert!(
        off.unsigned_abs() <= tolerance,
        "{off} ms off the store's clock"
    );
    live.release(b, RunOutcome::Completed).await.unwrap();
    drop(started(&live, &web, durable("c")).await);
    fixture.view(&web).await.assert(&["c"], &[]);
}
