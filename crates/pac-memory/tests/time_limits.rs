//! What time limits cost those that have none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::faults::{Faults, Request};
use pac_core::SessionIdentity;
use pac_core::driver::{Driver, SessionTtl};
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_memory::{MemoryDriver, MemoryOptions};

#[tokio::test(start_paused = true)]
async fn deaths_one_after_the_other_are_no_reason_to_list_all_repositories_each_time() {
    let store: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let identity = SessionIdentity::of_this_process();
    for at in 0..40 {
        let ttl = SessionTtl::new(Duration::from_secs(10 + 2 * at), Duration::from_secs(600));
        store.open_session(ttl, &identity).await.unwrap();
    }
    let faults = Faults::none();
    let options = ManagerOptions::default();
    let polls = 90 / options.poll_interval.as_secs();
    let manager = ConcurrencyManager::open(faults.over(&store), options)
        .await
        .unwrap();
    let grants = manager.grants();
    tokio::time::sleep(Duration::from_secs(90)).await;
    // The poll lists, too, and intervals vary.
    let lists = faults.requests(Request::List);
    assert!((2..3 * polls).contains(&lists), "{lists} lists");
    drop((grants, manager));
}
