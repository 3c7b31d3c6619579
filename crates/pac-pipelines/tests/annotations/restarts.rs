//! After a restart, and what upstream's issues tell of it.

use std::time::Duration;

use pac_core::Limit;
use pac_pipelines::Cluster;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{ClusterFaults, NewRun, StartFault};
use pac_pipelines::vocabulary;
use tokio::time::sleep;

use crate::setting::{Setting, repository, run, website};

/// #1790: nothing happens any more that would wake them.
#[tokio::test(start_paused = true)]
async fn runs_that_waited_through_a_downtime_are_started_1790() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&controller, &["a"], &["b", "c"]).await;
    controller.stop().await;
    setting.finish("a");
    setting.event(&["d"]);
    sleep(Duration::from_secs(3_600)).await;
    let controller = setting.controller();
    setting.comes_to(&controller, &["b"], &["c", "d"]).await;
    setting.audit();
}

/// #2945: upstream's watcher crashes, for every Repository, again and again.
#[tokio::test(start_paused = true)]
async fn malformed_order_entries_never_stop_anything_2945() {
    let setting = Setting::new(1);
    let second = repository("second");
    setting.cluster.apply_repository(&second, Limit::new(1));
    setting.event_in(&second, &["s1", "s2"]);
    setting.event(&["a", "b"]);
    for (name, order) in [
        ("a", "no-slash,ci/a,ci/x/y,,ci/b,\0"),
        ("b", "no-slash,ci/a,ci/x/y,,ci/b,\0"),
    ] {
        setting
            .cluster
            .mark(&run(name), vocabulary::EXECUTION_ORDER, order);
    }
    setting
        .cluster
        .create(NewRun::held(run("nonsense"), &website()))
        .unwrap();
    let order = "///,\n,ci/";
    setting
        .cluster
        .mark(&run("nonsense"), vocabulary::EXECUTION_ORDER, order);
    setting.cluster.add_unreadable_run(&run("not-even-a-run"));
    let controller = setting.controller();
    setting.comes_to(&controller, &["a"], &["b"]).await;
    setting
        .comes_to_in(&second, &controller, &["s1"], &["s2"])
        .await;
    // An order that names no run is none: the run waits for one for a while.
    sleep(Duration::from_secs(11)).await;
    setting
        .comes_to(&controller, &["a"], &["b", "nonsense"])
        .await;
    setting.audit();
}

/// #2949: the mark of a run that has ended says that it has started.
#[tokio::test(start_paused = true)]
async fn finished_runs_take_no_slot_2949() {
    let setting = Setting::new(1);
    for name in ["old1", "old2"] {
        setting.started(&website(), name);
        setting.finish(name);
        assert_eq!(setting.state(name), "started");
    }
    setting.event(&["a", "b"]);
    let controller = setting.controller();
    setting.comes_to(&controller, &["a"], &["b"]).await;
    setting.audit();
}

/// U1: upstream's queues have the runs of both after a restart.
#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_repositories_of_a_namespace_apart_u1() {
    let setting = Setting::new(1);
    let second = repository("second");
    setting.cluster.apply_repository(&second, Limit::new(1));
    setting.event_in(&second, &["s1", "s2"]);
    setting.event(&["w1", "w2"]);
    let mut controller = setting.controller();
    for _ in 0..2 {
        setting.comes_to(&controller, &["w1"], &["w2"]).await;
        setting
            .comes_to_in(&second, &controller, &["s1"], &["s2"])
            .await;
        controller.stop().await;
        controller = setting.controller();
        setting.quiet().await;
    }
    setting.finish("w1");
    setting.comes_to(&controller, &["w2"], &[]).await;
    setting
        .comes_to_in(&second, &controller, &["s1"], &["s2"])
        .await;
    setting.audit();
}

/// What runs beyond the limit runs, and is not put among those that wait.
#[tokio::test(start_paused = true)]
async fn what_runs_beyond_the_limit_is_counted() {
    let setting = Setting::new(1);
    setting.started(&website(), "x");
    setting.started(&website(), "y");
    setting.event(&["a"]);
    let controller = setting.controller();
    setting.comes_to(&controller, &["x", "y"], &["a"]).await;
    setting.finish("x");
    setting.quiet().await;
    setting.comes_to(&controller, &["y"], &["a"]).await;
    setting.finish("y");
    setting.comes_to(&controller, &["a"], &[]).await;
    setting.audit();
}

/// Wherever the controller was: the same runs, the same order.
#[tokio::test(start_paused = true)]
async fn a_restart_changes_nothing() {
    let setting = Setting::new(2);
    let controller = setting.controller();
    setting.event(&["pr2", "pr10", "pr1"]);
    setting.quiet().await;
    sleep(Duration::from_secs(1)).await;
    setting.event(&["a2", "a1"]);
    let waits = ["pr1", "a2", "a1"];
    setting
        .comes_to(&controller, &["pr2", "pr10"], &waits)
        .await;
    controller.stop().await;
    let controller = setting.controller();
    setting
        .comes_to(&controller, &["pr2", "pr10"], &waits)
        .await;
    setting.finish("pr10");
    setting
        .comes_to(&controller, &["pr2", "pr1"], &["a2", "a1"])
        .await;
    setting.audit();
}

/// In the middle of a start, of which the next one does not know.
#[tokio::test(start_paused = true)]
async fn a_controller_that_dies_in_a_start_is_followed_by_another() {
    let setting = Setting::new(1);
    let slow = ClusterFaults::default().with_latency(Duration::from_secs(8));
    setting.event(&["a", "b"]);
    for _ in 0..5 {
        let controller = setting.controller();
        setting.cluster.set_faults(slow.clone());
        sleep(Duration::from_secs(5)).await;
        controller.stop().await;
    }
    setting.cluster.set_faults(ClusterFaults::default());
    let controller = setting.controller();
    setting.comes_to(&controller, &["a"], &["b"]).await;
    assert_eq!(setting.cluster.started(), [run("a")]);
    setting.audit();
}

/// #2751: the patch of the state was lost; upstream never looks at such a run.
#[tokio::test(start_paused = true)]
async fn a_run_without_a_state_is_seen_to_2751() {
    let setting = Setting::new(1);
    setting.event(&["a", "b"]);
    for name in ["a", "b"] {
        let view = setting.view(name);
        let remove = [(vocabulary::STATE, None)];
        let removed = setting.cluster.annotate(&view.key, &view.uid, &remove);
        removed.await.unwrap();
    }
    let controller = setting.controller();
    setting.comes_to(&controller, &["a"], &["b"]).await;
    setting.quiet().await;
    assert_eq!(
        (setting.state("a"), setting.state("b")),
        ("started".into(), "queued".into())
    );
}

/// #2948: upstream frees the slot, and starts one too many.
#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_keeps_its_slot_2948() {
    for fault in [StartFault::AnswerLost, StartFault::RequestLost] {
        let setting = Setting::new(1);
        let controller = setting.controller();
        setting.cluster.fail_next_start(fault);
        setting.event(&["a", "b"]);
        setting.comes_to(&controller, &["a"], &["b"]).await;
        assert_eq!(setting.cluster.started(), [run("a")], "{fault:?}");
        setting.finish("a");
        setting.comes_to(&controller, &["b"], &[]).await;
        setting.audit();
    }
}

/// A failure that is certain drops nobody either.
#[tokio::test(start_paused = true)]
async fn a_start_that_failed_keeps_its_place_2948() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    for _ in 0..3 {
        setting.cluster.fail_next_start(StartFault::Conflict);
    }
    setting.event(&["a", "b"]);
    setting.comes_to(&controller, &["a"], &["b"]).await;
    assert_eq!(setting.cluster.started(), [run("a")]);
    setting.audit();
}

/// #2946: upstream keeps the slot for ever when the end cannot be reported.
#[tokio::test(start_paused = true)]
async fn the_end_frees_the_slot_whatever_is_reported_2946() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&controller, &["a"], &["b", "c"]).await;
    setting.finish("a");
    setting.comes_to(&controller, &["b"], &["c"]).await;
    assert_eq!(setting.state("a"), "started");
    for (name, reported, state) in [("a", true, "completed"), ("b", false, "failed")] {
        let view = setting.view(name);
        controller.controller.finish(&view, reported).await.unwrap();
        assert_eq!(setting.state(name), state);
    }
    // Reported as ended while it still runs: it has its slot.
    setting.quiet().await;
    setting.comes_to(&controller, &["b"], &["c"]).await;
    setting.finish("b");
    setting.comes_to(&controller, &["c"], &[]).await;
    setting.audit();
}

/// Nothing is lost, and what has changed meanwhile is seen.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_away_for_a_while_loses_nothing() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&controller, &["a"], &["b", "c"]).await;
    let away = ClusterFaults::default().with_api_away();
    setting.cluster.set_faults(away);
    setting.cluster.cut_watches();
    setting.finish("a");
    setting
        .cluster
        .set_status(&run("b"), SpecStatus::CancelledRunFinally);
    sleep(Duration::from_secs(300)).await;
    setting.cluster.set_faults(ClusterFaults::default());
    setting.comes_to(&controller, &["c"], &[]).await;
    setting.audit();
}
