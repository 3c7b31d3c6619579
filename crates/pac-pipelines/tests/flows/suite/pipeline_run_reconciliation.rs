//! "PipelineRun Reconciliation".

use std::time::Duration;

use pac_conformance::Fixture;
use pac_core::Limit;
use pac_pipelines::model::{RunView, SpecStatus};
use pac_pipelines::testing::{ClusterFaults, NewRun, StartFault};
use pac_pipelines::vocabulary::KUEUE_QUEUE;
use tokio::time::sleep;

use super::support::{Setting, repository, run, website};

/// Queued, then started when the slot comes.
pub(crate) async fn a_queued_run_starts_when_its_slot_comes(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c", "d"]);
    setting.comes_to(&["a", "b"], &["c", "d"]).await;
    assert!(setting.cluster.finish(&run("b"), true));
    setting.comes_to(&["a", "c"], &["d"]).await;
    assert!(setting.cluster.finish(&run("a"), false));
    setting.comes_to(&["c", "d"], &[]).await;
    assert_eq!(setting.cluster.peak(&website()), 2);
    setting.audit();
}

/// The result is the same.
pub(crate) async fn events_may_come_in_any_order_and_twice(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let faults = ClusterFaults::default().with_disorder(0.7);
    setting
        .cluster
        .set_faults(faults.with_latency(Duration::from_millis(20)));
    let _controller = setting.controller().await;
    let names: Vec<_> = (0..20).map(|number| format!("run{number}")).collect();
    for event in names.chunks(4) {
        let event: Vec<_> = event.iter().map(String::as_str).collect();
        setting.event(&event);
    }
    let is_done = || setting.cluster.views().iter().all(RunView::is_done);
    while !is_done() {
        let running = || setting.running_in_cluster(&website());
        setting
            .until("a run that runs", || !running().is_empty())
            .await;
        for name in running() {
            setting.cluster.finish(&run(&name), true);
        }
        // What is stale comes, too.
        let event = pac_pipelines::ClusterEvent::RunApplied(setting.view(&names[0]));
        setting.cluster.repeat(&event);
    }
    setting.comes_to(&[], &[]).await;
    assert_eq!(setting.cluster.started().len(), names.len());
    assert!(setting.cluster.peak(&website()) <= 2);
    setting.audit();
}

/// (54) The slot is kept, however long nobody can tell.
pub(crate) async fn a_start_whose_answer_was_lost_keeps_its_slot_until_the_truth_is_read(
    fixture: &Fixture,
) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    setting.cluster.fail_next_start(StartFault::AnswerLost);
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    let token = fixture.view(&website()).await.token("a");
    assert_eq!(
        setting.view("a").token(),
        Some(token),
        "it was started twice"
    );
    assert_eq!(setting.cluster.started(), [run("a")]);
    // Away altogether: the slot of the next one is kept for as long.
    assert!(setting.cluster.finish(&run("a"), true));
    setting.comes_to(&["b"], &[]).await;
    setting.event(&["c", "d"]);
    setting.comes_to(&["b"], &["c", "d"]).await;
    setting
        .cluster
        .set_faults(ClusterFaults::default().with_api_away());
    assert!(setting.cluster.finish(&run("b"), true));
    sleep(Duration::from_secs(3)).await;
    fixture.view(&website()).await.assert(&["c"], &["d"]);
    assert_eq!(setting.view("c").spec_status, SpecStatus::Pending);
    setting.cluster.set_faults(ClusterFaults::default());
    setting.comes_to(&["c"], &["d"]).await;
    assert!(controller.manager().health().is_ready());
    setting.audit();
}

/// Unknown is not failed, and not done either.
pub(crate) async fn a_start_whose_request_was_lost_is_made_again(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    for _ in 0..3 {
        setting.cluster.fail_next_start(StartFault::RequestLost);
    }
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    setting.audit();
}

/// However few starts may be under way at once.
pub(crate) async fn a_run_that_the_cluster_refuses_holds_up_no_other(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let other = repository("other");
    setting.cluster.apply_repository(&other, Limit::new(1));
    let options = setting.options().with_concurrent_starts(1);
    let _controller = setting.controller_with(options).await;
    setting.cluster.refuse_starts_of(&run("refused"));
    setting.event(&["refused"]);
    // It waits between its attempts for longer and longer.
    let is_refused = || setting.cluster.take_requests().start > 0;
    for _ in 0..4 {
        setting.until("an attempt", is_refused).await;
    }
    setting.event_in(&other, &["willing"]);
    fixture.comes_to(&other, &["willing"], &[]).await;
    let is_started = || setting.view("willing").spec_status == SpecStatus::None;
    setting.until("the other one has started", is_started).await;
    assert_eq!(setting.view("refused").spec_status, SpecStatus::Pending);
}

/// (8) It goes back to where it was, and a run of higher standing may come first.
pub(crate) async fn a_start_that_certainly_failed_gives_the_old_place_back(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    for _ in 0..4 {
        setting.cluster.fail_next_start(StartFault::Conflict);
    }
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    assert_eq!(setting.cluster.started(), [run("a")]);
    let first = fixture.view(&website()).await.token("a");
    assert!(
        first.get() > 1,
        "a slot that is given back is granted with another token"
    );
    setting.audit();
}

/// (56) Held by its user, by Kueue, by another controller.
pub(crate) async fn runs_of_users_kueue_and_others_are_left_alone(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    let held = |name: &str| NewRun::held(run(name), &website());
    let by_user = NewRun::plain(run("by-user"))
        .annotated(pac_pipelines::vocabulary::REPOSITORY, "website")
        .with_status(SpecStatus::Pending);
    for new in [
        by_user,
        held("kueue").labelled(KUEUE_QUEUE, "team"),
        held("elsewhere").managed_by("kueue.x-k8s.io/multikueue"),
        held("unknown").with_status(SpecStatus::Unknown("Paused".to_owned())),
    ] {
        setting.cluster.create(new).unwrap();
    }
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    sleep(setting.options().order_wait * 2).await;
    assert!(setting.cluster.finish(&run("a"), true));
    setting.comes_to(&["b"], &[]).await;
    assert_eq!(setting.cluster.started(), [run("a"), run("b")]);
    for name in ["by-user", "kueue"] {
        assert_eq!(
            setting.view(name).spec_status,
            SpecStatus::Pending,
            "{name}"
        );
    }
    // Its user starts it: now it runs, so it counts.
    setting
        .cluster
        .set_status(&run("by-user"), SpecStatus::None);
    setting.comes_to(&["b", "by-user"], &[]).await;
}

/// One that waits comes anew; one that had its slot and never started keeps its old place.
pub(crate) async fn a_run_that_another_controller_gives_back_queues_again(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    let paused = || SpecStatus::Unknown("Paused".to_owned());
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    assert!(setting.cluster.set_status(&run("b"), paused()));
    setting.comes_to(&["a"], &["c"]).await;
    assert!(setting.cluster.set_status(&run("b"), SpecStatus::Pending));
    setting.comes_to(&["a"], &["c", "b"]).await;
    let away = ClusterFaults::default().with_api_away();
    setting.cluster.set_faults(away);
    assert!(setting.cluster.finish(&run("a"), true));
    setting.quiet().await;
    assert!(setting.cluster.set_status(&run("c"), paused()));
    setting.quiet().await;
    setting.cluster.set_faults(ClusterFaults::default());
    setting.comes_to(&["b"], &[]).await;
    setting.event(&["d"]);
    setting.comes_to(&["b"], &["d"]).await;
    assert!(setting.cluster.set_status(&run("c"), SpecStatus::Pending));
    setting.comes_to(&["b"], &["c", "d"]).await;
    setting.audit();
}

/// (9) The annotation says whose a run is.
pub(crate) async fn two_repositories_of_one_namespace_never_mix(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let second = repository("second");
    setting.cluster.apply_repository(&second, Limit::new(1));
    let controller = setting.controller().await;
    setting.event(&["w1", "w2"]);
    setting.event_in(&second, &["s1", "s2"]);
    setting.comes_to(&["w1"], &["w2"]).await;
    setting.comes_to_in(second.clone(), &["s1"], &["s2"]).await;
    assert!(setting.cluster.finish(&run("s1"), true));
    setting.comes_to_in(second, &["s2"], &[]).await;
    setting.comes_to(&["w1"], &["w2"]).await;
    assert_eq!(controller.controller.known_runs(), 4);
    setting.audit();
}

/// What happened meanwhile is in the lists.
pub(crate) async fn a_watch_that_breaks_misses_nothing(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    setting.cluster.cut_watches();
    assert!(setting.cluster.finish(&run("a"), true));
    setting.cluster.delete(&run("b")).unwrap();
    setting.event(&["d"]);
    setting.comes_to(&["c"], &["d"]).await;
    setting.audit();
}

/// Both hear everything; the store decides which of them starts a run.
pub(crate) async fn two_controllers_start_every_run_once(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let _both = (setting.controller().await, setting.controller().await);
    let names: Vec<_> = (0..12).map(|number| format!("run{number}")).collect();
    for event in names.chunks(3) {
        let event: Vec<_> = event.iter().map(String::as_str).collect();
        setting.event(&event);
    }
    for (at, name) in names.iter().enumerate() {
        let first = || setting.cluster.started().len() > at;
        setting.until(name, first).await;
        let started = setting.cluster.started();
        setting.cluster.finish(&started[at], true);
    }
    setting.comes_to(&[], &[]).await;
    let in_order: Vec<_> = names.iter().map(|name| run(name)).collect();
    assert_eq!(setting.cluster.started().len(), in_order.len());
    assert!(setting.cluster.peak(&website()) <= 2);
    setting.audit();
}
