//! Creation, limits, cancelling, and disorder.

use std::time::Duration;

use pac_core::Limit;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{ClusterFaults, NewRun, TektonMode};
use pac_pipelines::{ClusterEvent, Creation, vocabulary};
use tokio::time::sleep;

use crate::setting::{Setting, global, repository, run, website};

/// With the state and the order in their annotations.
#[tokio::test(start_paused = true)]
async fn created_runs_are_started_or_queued_in_their_order() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    // One of them is not held back yet, and Tekton has not seen it.
    setting.cluster.set_tekton(TektonMode::Manual);
    let mut views = Vec::new();
    for (name, status) in [
        ("pr2", SpecStatus::Pending),
        ("pr10", SpecStatus::None),
        ("pr1", SpecStatus::Pending),
    ] {
        let new = NewRun::of(run(name), &website()).with_status(status);
        views.push(setting.cluster.create(new).unwrap());
    }
    let answers = controller.controller.create(views).await.unwrap();
    setting.cluster.set_tekton(TektonMode::Immediate);
    let queued = |position| Creation::Queued {
        position: Some(position),
    };
    // The one that was created to run may have been counted before it was held back.
    assert!(matches!(answers[2], Creation::Queued { .. }), "{answers:?}");
    assert_eq!(answers, [Creation::Started, queued(1), queued(2)]);
    setting
        .comes_to(&controller, &["pr2"], &["pr10", "pr1"])
        .await;
    for (name, state) in [("pr2", "started"), ("pr10", "queued"), ("pr1", "queued")] {
        assert_eq!(setting.state(name), state);
        let view = setting.view(name);
        assert_eq!(
            view.annotation(vocabulary::EXECUTION_ORDER),
            Some("ci/pr2,ci/pr10,ci/pr1")
        );
    }
    setting.audit();
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_every_run_starts() {
    let setting = Setting::new(0);
    let controller = setting.controller();
    let view = setting
        .cluster
        .create(NewRun::of(run("a"), &website()))
        .unwrap();
    let created = controller.controller.create(vec![view]).await.unwrap();
    assert_eq!(created, [Creation::Started]);
    setting.event(&["b", "c"]);
    setting.comes_to(&controller, &["a", "b", "c"], &[]).await;
    setting.quiet().await;
    for name in ["a", "b", "c"] {
        assert_eq!(setting.state(name), "started");
    }
}

/// Its slot there is free at once.
#[tokio::test(start_paused = true)]
async fn a_run_that_moves_to_another_repository_wakes_the_old_one() {
    let setting = Setting::new(1);
    let other = repository("other");
    setting.cluster.apply_repository(&other, Limit::new(1));
    let controller = setting.controller();
    setting.event(&["a", "b"]);
    setting.comes_to(&controller, &["a"], &["b"]).await;
    setting
        .cluster
        .mark(&run("a"), vocabulary::REPOSITORY, "other");
    setting.comes_to(&controller, &["b"], &[]).await;
    setting.comes_to_in(&other, &controller, &["a"], &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_either_limit_acts_at_once() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    setting.event(&["a", "b", "c", "d"]);
    setting
        .comes_to(&controller, &["a"], &["b", "c", "d"])
        .await;
    setting.cluster.apply_repository(&website(), Limit::new(2));
    setting
        .comes_to(&controller, &["a", "b"], &["c", "d"])
        .await;
    setting.cluster.apply_repository(&website(), Limit::new(1));
    setting.finish("a");
    setting.quiet().await;
    setting.comes_to(&controller, &["b"], &["c", "d"]).await;
    // The global one is inherited, and its changes too.
    setting.cluster.apply_repository(&global(), Limit::new(2));
    setting
        .cluster
        .apply_repository(&website(), Limit::UNLIMITED);
    setting.comes_to(&controller, &["b", "c"], &["d"]).await;
    setting.cluster.apply_repository(&global(), Limit::new(3));
    setting.comes_to(&controller, &["b", "c", "d"], &[]).await;
    setting.event(&["e", "f"]);
    setting.quiet().await;
    setting
        .comes_to(&controller, &["b", "c", "d"], &["e", "f"])
        .await;
    setting.cluster.delete_repository(&global());
    setting
        .comes_to(&controller, &["b", "c", "d", "e", "f"], &[])
        .await;
    setting.audit();
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_cannot_be_understood_starts_none() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    setting.cluster.break_repository(&website());
    setting.event(&["a"]);
    setting.quiet().await;
    setting.comes_to(&controller, &[], &["a"]).await;
    let status = controller.controller.status(&website()).await;
    assert_eq!(status.limit, None);
    setting.cluster.apply_repository(&website(), Limit::new(1));
    setting.comes_to(&controller, &["a"], &[]).await;
}

/// And none of them runs its `finally` tasks.
#[tokio::test(start_paused = true)]
async fn every_cancel_form_takes_a_waiting_run_out_of_the_queue() {
    let setting = Setting::new(1);
    setting.cluster.set_tekton(TektonMode::Manual);
    let controller = setting.controller();
    setting.event(&["a", "b", "c", "d", "e"]);
    setting
        .comes_to(&controller, &["a"], &["b", "c", "d", "e"])
        .await;
    for (name, form) in [
        ("b", SpecStatus::Cancelled),
        ("c", SpecStatus::CancelledRunFinally),
        ("d", SpecStatus::StoppedRunFinally),
    ] {
        assert!(setting.cluster.set_status(&run(name), form));
    }
    setting.comes_to(&controller, &["a"], &["e"]).await;
    setting.quiet().await;
    setting.cluster.set_tekton(TektonMode::Immediate);
    setting.quiet().await;
    for name in ["b", "c", "d"] {
        assert!(!setting.cluster.ran_finally(&run(name)), "{name}");
        assert!(setting.view(name).is_done(), "{name}");
    }
    setting.comes_to(&controller, &["a"], &["e"]).await;
    // A graceful end of one that runs keeps its slot until it is over.
    assert!(setting.cluster.finish(&run("a"), false));
    setting.comes_to(&controller, &["e"], &[]).await;
    setting.audit();
}

#[tokio::test(start_paused = true)]
async fn deleted_runs_and_repositories_leave_nothing() {
    let setting = Setting::new(1);
    let controller = setting.controller();
    setting.event(&["a", "b", "c", "d"]);
    setting
        .comes_to(&controller, &["a"], &["b", "c", "d"])
        .await;
    setting.cluster.begin_deletion(&run("c"));
    let old = setting.cluster.delete(&run("a")).unwrap();
    let late = setting.view("b");
    setting.cluster.delete(&run("b"));
    setting.comes_to(&controller, &["d"], &[]).await;
    let late = ClusterEvent::RunApplied(late);
    controller.controller.observe(late);
    setting.quiet().await;
    setting.comes_to(&controller, &["d"], &[]).await;
    // A new run of the old name; what comes late of the old one changes nothing.
    setting.event(&["a"]);
    setting.comes_to(&controller, &["d"], &["a"]).await;
    for late in [
        ClusterEvent::RunApplied(old.clone()),
        ClusterEvent::RunDeleted(old),
    ] {
        controller.controller.observe(late);
    }
    setting.quiet().await;
    setting.comes_to(&controller, &["d"], &["a"]).await;
    setting.cluster.delete_repository(&website());
    setting.quiet().await;
    let status = controller.controller.status(&website()).await;
    assert_eq!((status.running.len(), status.waiting.len()), (0, 0));
    setting.cluster.apply_repository(&website(), Limit::new(1));
    setting.comes_to(&controller, &["d"], &["a"]).await;
    setting.audit();
}

#[tokio::test(start_paused = true)]
async fn runs_of_users_kueue_and_others_are_left_alone() {
    let setting = Setting::new(2);
    let controller = setting.controller();
    let held = |name: &str| NewRun::held(run(name), &website());
    let plain = NewRun::plain(run("users"))
        .annotated(vocabulary::REPOSITORY, "website")
        .with_status(SpecStatus::Pending);
    setting.cluster.create(plain).unwrap();
    let kueue = held("kueues").labelled(vocabulary::KUEUE_QUEUE, "q");
    setting.cluster.create(kueue).unwrap();
    let other = held("others").managed_by("example.org/other");
    setting.cluster.create(other).unwrap();
    setting.event(&["a"]);
    setting.comes_to(&controller, &["a"], &[]).await;
    sleep(Duration::from_secs(30)).await;
    for name in ["users", "kueues", "others"] {
        assert_eq!(
            setting.view(name).spec_status,
            SpecStatus::Pending,
            "{name}"
        );
    }
}

/// Ambiguous answers, conflicts, events out of order and twice, watches that are cut, restarts.
#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_the_limits_hold_and_everything_drains() {
    for seed in 0..40 {
        let setting = Setting::seeded(seed, 2);
        let second = repository("second");
        setting.cluster.apply_repository(&second, Limit::new(1));
        let faults = ClusterFaults::default()
            .with_ambiguous_starts(0.2)
            .with_conflicts(0.2)
            .with_disorder(0.3)
            .with_latency(Duration::from_millis(300));
        setting.cluster.set_faults(faults);
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut controller = setting.controller();
        let mut created = 0;
        let mut steps = 0;
        while created < 24 || setting.cluster.views().iter().any(|run| !run.is_done()) {
            steps += 1;
            assert!(steps < 5_000, "seed {seed} does not drain");
            sleep(Duration::from_millis(chance.u64(..400))).await;
            match chance.u8(..20) {
                0..6 if created < 24 => {
                    let names = [1, 2].map(|n| format!("r{}", created + n));
                    created += 2;
                    let repository = if chance.bool() {
                        website()
                    } else {
                        second.clone()
                    };
                    setting.event_in(&repository, &names.each_ref().map(String::as_str));
                }
                6..15 => {
                    let views = setting.cluster.views();
                    let runs = |view: &&_| {
                        let view: &pac_pipelines::model::RunView = view;
                        view.has_started() && !view.is_done()
                    };
                    let running: Vec<_> = views.iter().filter(runs).collect();
                    if let Some(view) = chance.choice(&running) {
                        setting.cluster.finish(&view.key, chance.bool());
                    }
                }
                15 => setting.cluster.cut_watches(),
                16 if chance.bool() => {
                    controller.stop().await;
                    controller = setting.controller();
                }
                _ => {}
            }
        }
        setting.audit();
        for (repository, limit) in [(&website(), 2), (&second, 1)] {
            let peak = setting.cluster.peak(repository);
            assert!(peak <= limit, "seed {seed}: {peak} at once in {repository}");
        }
        assert_eq!(setting.cluster.started().len(), 24, "seed {seed}");
    }
}
