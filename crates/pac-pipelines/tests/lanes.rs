//! Queues that Namespaces say: by label and by expression, for runs of Pipelines-as-Code and for
//! others, with the store in memory and paused time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod in_memory;
#[path = "flows/suite/support.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::Fixture;
use pac_core::{Limit, RepositoryKey};
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{MemoryCluster, NewRun};
use pac_pipelines::vocabulary::{
    CANCEL_IN_PROGRESS, HELD, LANE, LANE_LABELS, LANE_LIMIT, LIMIT, ORIGINAL_NAME, SOURCE_BRANCH,
};
use pac_pipelines::{ControllerOptions, Mode, Noticed, Notices, PipelinesController, What};
use support::{Setting, repository, run, website};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

cases! {
    a_limit_of_a_namespace_holds_for_runs_of_no_repository,
    lanes_by_label_run_side_by_side,
    lanes_are_the_same_after_a_restart,
    a_run_whose_label_changes_moves,
    a_rule_that_changes_moves_what_waits_and_what_runs,
    a_lane_that_cannot_be_told_holds_its_runs,
    lanes_by_expression_have_limits_of_their_own,
    a_lane_without_runs_is_forgotten,
    a_limit_that_is_gone_lets_what_waits_start,
    repositories_that_share_a_lane_do_not_cancel_each_others_runs,
}

/// A controller in gate mode that runs until it is dropped.
struct Gate {
    controller: PipelinesController,
    task: JoinHandle<()>,
}

impl Gate {
    async fn open(setting: &Setting<'_>) -> Self {
        let options = ControllerOptions::default()
            .with_epoch(setting.cluster.now())
            .with_recovery_interval(Duration::from_secs(30))
            .with_mode(Mode::Gate);
        let cluster = Arc::new(setting.cluster.clone());
        let manager = setting.fixture.manager().await;
        let controller = PipelinesController::new(manager, cluster, options);
        let running = controller.clone();
        let task = tokio::spawn(async move { running.run().await.unwrap() });
        Self { controller, task }
    }

    async fn close(self) {
        self.task.abort();
        self.controller.manager().close().await.unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A cluster without Repositories, whose namespace says this.
fn setting<'a>(fixture: &'a Fixture, annotations: &[(&str, &str)]) -> Setting<'a> {
    let global = "pipelines-as-code/pipelines-as-code".parse().unwrap();
    let cluster = MemoryCluster::new(7, global);
    cluster.apply_namespace("ci", annotations);
    Setting { fixture, cluster }
}

/// Creates runs as the policy of the mode leaves them, one second after the other.
async fn held(setting: &Setting<'_>, names: &[&str], label: Option<&str>) {
    for name in names {
        let mut new = NewRun::plain(run(name))
            .annotated(HELD, "true")
            .with_status(SpecStatus::Pending);
        if let Some(value) = label {
            new = new.labelled("branch", value);
        }
        setting.cluster.create(new).unwrap();
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until the store has these runs in a queue, and the cluster runs those that it runs.
async fn comes_to(setting: &Setting<'_>, lane: &str, running: &[&str], waiting: &[&str]) {
    let lane: RepositoryKey = repository(lane);
    let wanted = (running.to_vec(), waiting.to_vec());
    for _ in 0..200 {
        let view = setting.fixture.view(&lane).await;
        let mut in_store = view.running_names();
        in_store.sort_unstable();
        let runs = |name: &&str| {
            let view = setting.view(name);
            view.has_started() && !view.is_done()
        };
        if (in_store.clone(), view.waiting_names()) == wanted && running.iter().all(runs) {
            let is_held = |name: &&str| setting.view(name).spec_status == SpecStatus::Pending;
            assert!(waiting.iter().all(is_held), "{waiting:?} must not run");
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let view = setting.fixture.view(&lane).await;
    let is = (view.running_names(), view.waiting_names());
    panic!("{lane} should come to {wanted:?}, and is at {is:?}");
}

/// What is told of a run that is refused.
async fn refused(notices: &mut Notices) -> (String, String) {
    loop {
        match timeout(Duration::from_secs(60), notices.next()).await {
            Ok(Some(Noticed::Notice(notice))) => {
                if let What::Refused { message } = notice.what {
                    return (notice.run.name().to_owned(), message);
                }
            }
            other => panic!("a refusal is due: {other:?}"),
        }
    }
}

mod cases {
    use super::*;

    pub(super) async fn a_limit_of_a_namespace_holds_for_runs_of_no_repository(fixture: &Fixture) {
        let setting = setting(fixture, &[(LIMIT, "2")]);
        setting
            .cluster
            .apply_repository(&website(), Limit::UNLIMITED);
        let _gate = Gate::open(&setting).await;
        held(&setting, &["a", "b", "c", "d"], None).await;
        comes_to(&setting, "lane.0--all", &["a", "b"], &["c", "d"]).await;
        // Each Repository without a limit has as many.
        for name in ["w1", "w2", "w3"] {
            let new = NewRun::held(run(name), &website()).annotated(HELD, "true");
            setting.cluster.create(new).unwrap();
        }
        comes_to(&setting, "website", &["w1", "w2"], &["w3"]).await;
        assert!(setting.cluster.finish(&run("a"), true));
        comes_to(&setting, "lane.0--all", &["b", "c"], &["d"]).await;
        setting.cluster.apply_namespace("ci", &[(LIMIT, "3")]);
        comes_to(&setting, "lane.0--all", &["b", "c", "d"], &[]).await;
        comes_to(&setting, "website", &["w1", "w2", "w3"], &[]).await;
        setting.audit();
    }

    pub(super) async fn lanes_by_label_run_side_by_side(fixture: &Fixture) {
        let setting = setting(fixture, &[(LANE_LABELS, "branch"), (LANE_LIMIT, "1")]);
        let _gate = Gate::open(&setting).await;
        held(&setting, &["m1", "m2"], Some("main")).await;
        held(&setting, &["n1", "n2"], Some("next")).await;
        held(&setting, &["x1", "x2"], None).await;
        comes_to(&setting, "lane.main", &["m1"], &["m2"]).await;
        comes_to(&setting, "lane.next", &["n1"], &["n2"]).await;
        comes_to(&setting, "lane.0--none", &["x1"], &["x2"]).await;
        assert!(setting.cluster.finish(&run("m1"), false));
        comes_to(&setting, "lane.main", &["m2"], &[]).await;
        comes_to(&setting, "lane.next", &["n1"], &["n2"]).await;
        setting.audit();
    }

    pub(super) async fn lanes_are_the_same_after_a_restart(fixture: &Fixture) {
        let setting = setting(fixture, &[(LANE_LABELS, "branch"), (LANE_LIMIT, "1")]);
        let first = Gate::open(&setting).await;
        held(&setting, &["m1", "m2", "m3"], Some("main")).await;
        comes_to(&setting, "lane.main", &["m1"], &["m2", "m3"]).await;
        first.close().await;
        held(&setting, &["m4"], Some("main")).await;
        let _second = Gate::open(&setting).await;
        comes_to(&setting, "lane.main", &["m1"], &["m2", "m3", "m4"]).await;
        assert!(setting.cluster.finish(&run("m1"), true));
        comes_to(&setting, "lane.main", &["m2"], &["m3", "m4"]).await;
        setting.audit();
    }

    pub(super) async fn a_run_whose_label_changes_moves(fixture: &Fixture) {
        let setting = setting(fixture, &[(LANE_LABELS, "branch"), (LANE_LIMIT, "1")]);
        let _gate = Gate::open(&setting).await;
        held(&setting, &["m1", "m2", "m3"], Some("main")).await;
        held(&setting, &["n1"], Some("next")).await;
        comes_to(&setting, "lane.main", &["m1"], &["m2", "m3"]).await;
        // One that waits waits elsewhere, and comes back to the end.
        setting.cluster.relabel(&run("m2"), "branch", "next");
        comes_to(&setting, "lane.next", &["n1"], &["m2"]).await;
        comes_to(&setting, "lane.main", &["m1"], &["m3"]).await;
        setting.cluster.relabel(&run("m2"), "branch", "main");
        comes_to(&setting, "lane.main", &["m1"], &["m3", "m2"]).await;
        // One that runs counts where it is now, beyond the limit, and its slot is free.
        setting.cluster.relabel(&run("m1"), "branch", "next");
        comes_to(&setting, "lane.next", &["m1", "n1"], &[]).await;
        comes_to(&setting, "lane.main", &["m3"], &["m2"]).await;
        held(&setting, &["n2"], Some("next")).await;
        assert!(setting.cluster.finish(&run("n1"), true));
        comes_to(&setting, "lane.next", &["m1"], &["n2"]).await;
        assert!(setting.cluster.finish(&run("m1"), true));
        comes_to(&setting, "lane.next", &["n2"], &[]).await;
        assert_ne!(setting.view("m2").spec_status, SpecStatus::Cancelled);
        setting.audit();
    }

    pub(super) async fn a_rule_that_changes_moves_what_waits_and_what_runs(fixture: &Fixture) {
        let setting = setting(fixture, &[(LIMIT, "1")]);
        let _gate = Gate::open(&setting).await;
        held(&setting, &["m1", "m2"], Some("main")).await;
        held(&setting, &["n1", "n2"], Some("next")).await;
        comes_to(&setting, "lane.0--all", &["m1"], &["m2", "n1", "n2"]).await;
        let lanes = [(LANE_LABELS, "branch"), (LIMIT, "1")];
        setting.cluster.apply_namespace("ci", &lanes);
        comes_to(&setting, "lane.main", &["m1"], &["m2"]).await;
        comes_to(&setting, "lane.next", &["n1"], &["n2"]).await;
        comes_to(&setting, "lane.0--all", &[], &[]).await;
        // And back: both that run count, and nothing starts beside them.
        setting.cluster.apply_namespace("ci", &[(LIMIT, "1")]);
        comes_to(&setting, "lane.0--all", &["m1", "n1"], &["m2", "n2"]).await;
        assert!(setting.cluster.finish(&run("m1"), true));
        comes_to(&setting, "lane.0--all", &["n1"], &["m2", "n2"]).await;
        assert!(setting.cluster.finish(&run("n1"), true));
        comes_to(&setting, "lane.0--all", &["m2"], &["n2"]).await;
        setting.audit();
    }

    pub(super) async fn a_lane_that_cannot_be_told_holds_its_runs(fixture: &Fixture) {
        let source = "object.metadata.labels.branch";
        let setting = setting(fixture, &[(LANE, source), (LIMIT, "1")]);
        let gate = Gate::open(&setting).await;
        let mut notices = gate.controller.notices();
        held(&setting, &["m1", "m2"], Some("main")).await;
        held(&setting, &["x"], None).await;
        let (name, message) = refused(&mut notices).await;
        assert_eq!(name, "x");
        assert!(message.contains("No such key: branch"), "{message}");
        comes_to(&setting, "lane.main", &["m1"], &["m2"]).await;
        comes_to(&setting, "lane.0--all", &[], &[]).await;
        assert_eq!(setting.view("x").spec_status, SpecStatus::Pending);
        // With a rule that nobody understands nothing starts, and what runs is counted.
        let broken = [(LANE, "object."), (LIMIT, "1")];
        setting.cluster.apply_namespace("ci", &broken);
        comes_to(&setting, "lane.0--all", &["m1"], &[]).await;
        assert!(setting.cluster.finish(&run("m1"), true));
        sleep(Duration::from_secs(60)).await;
        for name in ["m2", "x"] {
            assert_eq!(setting.view(name).spec_status, SpecStatus::Pending);
        }
        // A label, and a rule that is right, cure both.
        setting.cluster.relabel(&run("x"), "branch", "main");
        let right = [(LANE, source), (LIMIT, "1")];
        setting.cluster.apply_namespace("ci", &right);
        comes_to(&setting, "lane.main", &["m2"], &["x"]).await;
        setting.audit();
    }

    pub(super) async fn lanes_by_expression_have_limits_of_their_own(fixture: &Fixture) {
        let rule = [
            (
                LANE,
                "object.metadata.labels.branch.startsWith('release') ? 'release' : 'other'",
            ),
            (LANE_LIMIT, "lane == 'release' ? 1 : 2"),
        ];
        let setting = setting(fixture, &rule);
        let _gate = Gate::open(&setting).await;
        held(&setting, &["r1"], Some("release-1")).await;
        held(&setting, &["r2"], Some("release-2")).await;
        held(&setting, &["a", "b", "c"], Some("main")).await;
        comes_to(&setting, "lane.release", &["r1"], &["r2"]).await;
        comes_to(&setting, "lane.other", &["a", "b"], &["c"]).await;
        setting.audit();
    }

    pub(super) async fn a_lane_without_runs_is_forgotten(fixture: &Fixture) {
        let setting = setting(fixture, &[(LANE_LABELS, "branch"), (LANE_LIMIT, "1")]);
        let gate = Gate::open(&setting).await;
        held(&setting, &["m1", "m2"], Some("main")).await;
        comes_to(&setting, "lane.main", &["m1"], &["m2"]).await;
        for name in ["m1", "m2"] {
            assert!(setting.cluster.delete(&run(name)).is_some());
        }
        sleep(Duration::from_secs(300)).await;
        let manager = gate.controller.manager();
        let status = manager.status(&repository("lane.main")).await.unwrap();
        assert!(!status.exists);
        // It comes back with the next run.
        held(&setting, &["m3"], Some("main")).await;
        comes_to(&setting, "lane.main", &["m3"], &[]).await;
    }

    pub(super) async fn a_limit_that_is_gone_lets_what_waits_start(fixture: &Fixture) {
        let setting = setting(fixture, &[(LIMIT, "1")]);
        let _gate = Gate::open(&setting).await;
        held(&setting, &["a", "b", "c"], None).await;
        comes_to(&setting, "lane.0--all", &["a"], &["b", "c"]).await;
        setting.cluster.apply_namespace("ci", &[]);
        comes_to(&setting, "lane.0--all", &["a", "b", "c"], &[]).await;
    }

    pub(super) async fn repositories_that_share_a_lane_do_not_cancel_each_others_runs(
        fixture: &Fixture,
    ) {
        let setting = setting(fixture, &[(LANE, "'all'"), (LIMIT, "1")]);
        for name in ["website", "docs"] {
            let repository = repository(name);
            setting
                .cluster
                .apply_repository(&repository, Limit::UNLIMITED);
        }
        let _gate = Gate::open(&setting).await;
        held(&setting, &["first"], None).await;
        comes_to(&setting, "lane.all", &["first"], &[]).await;
        let pushed = async |name: &str, of: &str| {
            let new = NewRun::held(run(name), &repository(of))
                .annotated(HELD, "true")
                .annotated(ORIGINAL_NAME, "unit")
                .annotated(SOURCE_BRANCH, "main")
                .annotated(CANCEL_IN_PROGRESS, "true");
            setting.cluster.create(new).unwrap();
            sleep(Duration::from_secs(15)).await;
        };
        pushed("w1", "website").await;
        pushed("d1", "docs").await;
        comes_to(&setting, "lane.all", &["first"], &["w1", "d1"]).await;
        pushed("w2", "website").await;
        comes_to(&setting, "lane.all", &["first"], &["w2", "d1"]).await;
        assert_eq!(setting.view("w1").spec_status, SpecStatus::Cancelled);
        assert_eq!(setting.view("d1").spec_status, SpecStatus::Pending);
        setting.audit();
    }
}
