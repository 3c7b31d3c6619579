//! Clocks that disagree.

use std::time::{Duration, SystemTime};

use pac_core::state::RunOutcome;
use pac_core::{Limit, Timestamp};
use tokio::time::{Instant, sleep};

use crate::{Fixture, durable, ephemeral, queued, repository, started};

/// (41) A wall clock set an hour forward or back on a client changes nothing. Tested with stores
/// whose clock differs by that much from the client's. Expiry is on time, and times are the
/// store's.
pub async fn a_wrong_clock_changes_nothing(fixture: &Fixture) {
    let hour = Duration::from_secs(60 * 60);
    let now = Timestamp::from(SystemTime::now());
    let year_1970 = Timestamp::from_unix_millis(0);
    for store_shows in [now.plus(hour), now.minus(hour), year_1970] {
        nothing_changes(&fixture.at(store_shows), store_shows).await;
    }
}

async fn nothing_changes(fixture: &Fixture, store_starts_at: Timestamp) {
    let opened = Instant::now();
    let (manager, live) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, ephemeral("a")).await;
    let mut b = queued(&live, &web, durable("b")).await;
    sleep(fixture.lease_ttl() * 2).await;
    assert!(manager.holds(&a) && manager.health().is_ready());
    fixture.waits_on(&mut b).await;
    // The session ends by the store's clock, as after a crash.
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
    fixture.audit().await;
}
