//! Controllers that end, are killed, and follow each other.

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::faults::Faults;
use pac_core::manager::ManagerOptions;
use pac_kubernetes_mock::Ending;
use tokio::time::sleep;

use crate::setting::{RUN, Working, controller_options};
use crate::world::{Place, World};

pub(crate) async fn a_controller_that_is_started_anew_finds_its_waiters_in_their_order(
    place: Place,
) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    let first = world.controller().await;
    let order = world.event("website", "pr", 4);
    world.runs("website", &["pr0"]).await;
    world.queued(&first, "website", 3).await;
    first.end().await;
    // It ends, and an event comes, while no controller is there.
    world.finish(&order[0], true);
    world.event("website", "later", 1);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.running("website"), [""; 0]);
    let _second = world.controller().await;
    for run in ["pr1", "pr2", "pr3", "later0"] {
        world.runs("website", &[run]).await;
        world.finish(run, true);
    }
    assert_eq!(world.ended(5).await.len(), 5);
    assert!(world.peaks.of("website") <= 1);
}

pub(crate) async fn two_controllers_that_are_killed_in_turn_lose_no_run_and_start_none_twice(
    place: Place,
) {
    let world = World::at(
        &place,
        &[("website", 2), ("docs", 1)],
        Ending::SucceedAfter(RUN),
    )
    .await;
    let short = || {
        let ttl = Duration::from_millis(1_500);
        ManagerOptions::default()
            .with_session_ttl(ttl)
            // Slots outlive the controllers that hold them.
            .with_lease_ttl(20 * ttl)
    };
    let start = async || {
        let faults = Faults::none();
        let store = faults.over(&world.store);
        let working = world.controller_with(&store, controller_options(), short());
        (working.await, faults)
    };
    // It ends without a word to the store: its session has to run out.
    let kill = |(working, faults): (Working, Arc<Faults>)| {
        faults.cut();
        drop(working);
    };
    let first = start().await;
    let second = start().await;
    let website = world.event("website", "w", 12);
    let docs = world.event("docs", "d", 8);
    world.ended(4).await;
    kill(first);
    world.ended(8).await;
    let _third = start().await;
    kill(second);
    let tokens = world.ended(20).await;
    assert_eq!(tokens.len(), 20, "{tokens:?}");
    assert!(world.peaks.of("website") <= 2 && world.peaks.of("docs") <= 1);
    for order in [website, docs] {
        assert!(
            order.iter().all(|run| tokens.contains_key(run)),
            "{order:?}"
        );
    }
}
