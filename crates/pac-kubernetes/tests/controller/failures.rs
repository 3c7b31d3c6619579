//! Starts that fail, a server and a store that are away, a policy that is removed.

use std::time::Duration;

use pac_conformance::faults::Faults;
use pac_core::manager::ManagerOptions;
use pac_kubernetes_mock::{Ending, Fault, Requests, Verb};
use tokio::time::sleep;

use crate::setting::{RUN, RUNS, controller_options, in_order, token};
use crate::world::{Place, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_in_any_way_keeps_the_order_and_the_limit() {
    let world = World::new(&[("website", 1)], Ending::SucceedAfter(RUN)).await;
    let starts = || Requests::any().verb(Verb::Patch).resource(RUNS);
    let injected: Vec<_> = [
        Fault::forbidden("admission webhook \"x\" denied the request"),
        Fault::done_then_500(),
        Fault::too_many_requests(1),
        Fault::done_then_504_allotted(),
        Fault::done_then_dropped(),
    ]
    .into_iter()
    .map(|fault| world.server().faults().inject(starts(), 1, fault))
    .collect();
    let _working = world.controller().await;
    let order = world.event("website", "pr", 6);
    let tokens = world.ended(6).await;
    assert_eq!(in_order(&tokens), order);
    assert!(world.peaks.of("website") <= 1);
    assert!(injected.iter().all(|fault| fault.hits() == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_gone_is_listed_anew() {
    let world = World::new(&[("website", 1)], Ending::SucceedAfter(RUN)).await;
    let _working = world.controller().await;
    let order = world.event("website", "pr", 6);
    for ended in [1, 3] {
        world.ended(ended).await;
        world.peaks.look();
        let _ = world.server().cut_watches();
        world.server().compact();
    }
    assert_eq!(in_order(&world.ended(6).await), order);
    assert!(world.peaks.of("website") <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_a_while_costs_neither_order_nor_limit() {
    let world = World::new(&[("website", 1)], Ending::SucceedAfter(RUN)).await;
    let _working = world.controller().await;
    let order = world.event("website", "pr", 6);
    world.ended(2).await;
    world.server().leave();
    sleep(Duration::from_millis(700)).await;
    world.server().come_back();
    assert_eq!(in_order(&world.ended(6).await), order);
    assert!(world.peaks.of("website") <= 1);
}

pub(crate) async fn while_the_store_is_away_nothing_starts_and_then_all_goes_on(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    let faults = Faults::none();
    let store = faults.over(&world.store);
    let (options, manager) = (controller_options(), ManagerOptions::default());
    let _working = world.controller_with(&store, options, manager).await;
    let order = world.event("website", "pr", 3);
    world.runs("website", &["pr0"]).await;
    faults.cut();
    world.finish(&order[0], true);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(world.running("website"), [""; 0]);
    faults.open();
    world.runs("website", &["pr1"]).await;
    world.finish(&order[1], true);
    world.runs("website", &["pr2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_policy_the_queue_of_pipelines_as_code_takes_what_is_new() {
    let world = World::new(&[("website", 2)], Ending::SucceedAfter(RUN)).await;
    let _working = world.controller().await;
    world.event("website", "ours", 4);
    let bindings = "mutatingadmissionpolicybindings";
    world.objects.delete(bindings, "", "takeover").unwrap();
    world.event("website", "theirs", 4);
    world.ended(8).await;
    for at in 0..4 {
        assert!(token(&world.run(&format!("ours{at}"))).is_some(), "{at}");
        assert_eq!(token(&world.run(&format!("theirs{at}"))), None, "{at}");
    }
}
