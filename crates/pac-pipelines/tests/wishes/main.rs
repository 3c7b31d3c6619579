//! What annotations ask for beyond a slot: weights, groups, superseding, bounds, times and pauses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[macro_use]
#[path = "../in_memory/mod.rs"]
mod in_memory;
mod random;
mod refusals;
#[path = "../flows/suite/support.rs"]
mod support;

use std::time::Duration;

use pac_conformance::Fixture;
use pac_core::Limit;
use pac_core::state::RunOutcome;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{NewRun, TektonMode};
use pac_pipelines::{Creation, Noticed, Notices, What, vocabulary};
use support::{Running, Setting, run, website};
use tokio::time::{sleep, timeout};

cases! {
    a_newer_run_takes_the_place_of_the_waiting_one,
    cancel_in_progress_works_with_a_limit,
    what_is_asked_to_end_before_it_starts_never_runs_its_finally_tasks,
    an_older_run_that_asks_late_is_superseded_all_the_same,
    a_run_beyond_a_full_queue_is_cancelled_and_takes_nobodys_place,
    a_heavy_run_waits_for_its_slots_and_backfill_lets_others_pass,
    a_run_that_is_too_heavy_stays_held_until_that_is_mended,
    an_annotation_pauses_and_resumes_what_it_has_paused,
    what_an_operator_has_paused_is_the_operators,
    a_pin_holds_against_annotations_until_it_is_taken_back,
    a_run_that_waits_for_too_long_is_cancelled,
    a_run_that_holds_its_slot_for_too_long_is_asked_to_end,
    wishes_that_are_written_later_are_heard_while_a_run_waits,
    what_is_created_to_run_at_once_is_refused_as_well,
}

const MINUTE: Duration = Duration::from_secs(60);

/// A run of an event of its own.
fn alone(setting: &Setting<'_>, name: &str, annotations: &[(&'static str, &str)]) {
    without_order(setting, name, annotations);
    setting.cluster.set_order(&[run(name)]);
}

/// A run that is held back, and whose order has not come yet.
fn without_order(setting: &Setting<'_>, name: &str, annotations: &[(&'static str, &str)]) {
    let mut new = NewRun::held(run(name), &website());
    for (annotation, value) in annotations {
        new = new.annotated(annotation, *value);
    }
    setting.cluster.create(new).unwrap();
}

/// A run of the Pipeline `unit` for pull request 7, which cancels what is in progress.
const PUSHED: &[(&str, &str)] = &[
    (vocabulary::ORIGINAL_NAME, "unit"),
    (vocabulary::PULL_REQUEST, "7"),
    (vocabulary::SOURCE_BRANCH, "fix"),
    (vocabulary::CANCEL_IN_PROGRESS, "true"),
];

const IN_TURN: &[(&str, &str)] = &[
    (vocabulary::GROUP, "deploy"),
    (vocabulary::SUPERSEDE, "waiting"),
];

/// Waits for a notice about a run that says so.
async fn told(notices: &mut Notices, name: &str, says: impl Fn(&What) -> bool) {
    let found = async {
        loop {
            match notices.next().await {
                Some(Noticed::Notice(notice)) if notice.run == run(name) && says(&notice.what) => {
                    return;
                }
                Some(_) => {}
                None => panic!("the controller has ended"),
            }
        }
    };
    let found = timeout(5 * MINUTE, found).await;
    assert!(found.is_ok(), "it is not told of {name}");
}

/// A Repository of this limit, with Tekton acting when it is told to.
async fn setting(fixture: &Fixture, limit: u32) -> (Setting<'_>, Running) {
    let setting = Setting::new(fixture, limit);
    setting.cluster.set_tekton(TektonMode::Manual);
    let running = setting.controller().await;
    (setting, running)
}

/// Waits until a run has this `spec.status`.
async fn has_status(setting: &Setting<'_>, name: &str, status: SpecStatus) {
    let what = format!("{name} has {status:?}");
    setting
        .until(&what, || setting.view(name).spec_status == status)
        .await;
}

/// It ended at once, and none of its tasks ran.
fn ended_unstarted(setting: &Setting<'_>, name: &str) {
    while setting.cluster.tekton() {}
    assert!(setting.view(name).is_done(), "{name}");
    assert!(!setting.cluster.ran_finally(&run(name)), "{name}");
    assert!(!setting.cluster.started().contains(&run(name)), "{name}");
}

mod cases {
    use super::*;

    pub(super) async fn a_newer_run_takes_the_place_of_the_waiting_one(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        alone(&setting, "d1", IN_TURN);
        setting.event(&["other"]);
        setting.comes_to(&["a"], &["d1", "other"]).await;
        sleep(Duration::from_secs(2)).await;
        alone(&setting, "d2", IN_TURN);
        setting.comes_to(&["a"], &["d2", "other"]).await;
        has_status(&setting, "d1", SpecStatus::Cancelled).await;
        assert_eq!(setting.outcome("d1").await, RunOutcome::Superseded);
        told(&mut notices, "d1", |what| {
            let group = Some("deploy".parse().unwrap());
            *what == What::Superseded { group }
        })
        .await;
        ended_unstarted(&setting, "d1");
        // What runs goes on.
        setting.cluster.finish(&run("a"), true);
        setting.comes_to(&["d2"], &["other"]).await;
        sleep(Duration::from_secs(2)).await;
        alone(&setting, "d3", IN_TURN);
        setting.comes_to(&["d2"], &["other", "d3"]).await;
        setting.audit();
    }

    pub(super) async fn cancel_in_progress_works_with_a_limit(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        alone(&setting, "p1", PUSHED);
        setting.comes_to(&["p1"], &[]).await;
        setting.cluster.tekton();
        // Another Pipeline of the same pull request is another group.
        let lint = [(vocabulary::ORIGINAL_NAME, "lint"), PUSHED[1], PUSHED[3]];
        alone(&setting, "lint", &lint);
        setting.comes_to(&["p1"], &["lint"]).await;
        sleep(Duration::from_secs(2)).await;
        alone(&setting, "p2", PUSHED);
        has_status(&setting, "p1", SpecStatus::CancelledRunFinally).await;
        told(&mut notices, "p1", |what| {
            *what == What::AskedToEnd { runs: true }
        })
        .await;
        // It holds its slot until it has ended.
        setting.comes_to(&["p1"], &["lint", "p2"]).await;
        sleep(Duration::from_secs(2)).await;
        alone(&setting, "p3", PUSHED);
        has_status(&setting, "p2", SpecStatus::Cancelled).await;
        setting.comes_to(&["p1"], &["lint", "p3"]).await;
        assert_eq!(setting.outcome("p2").await, RunOutcome::Superseded);
        while setting.cluster.tekton() {}
        assert!(setting.cluster.ran_finally(&run("p1")));
        assert!(!setting.cluster.ran_finally(&run("p2")));
        setting.comes_to(&["lint"], &["p3"]).await;
        assert_eq!(setting.outcome("p1").await, RunOutcome::Cancelled);
        setting.audit();
    }

    pub(super) async fn what_is_asked_to_end_before_it_starts_never_runs_its_finally_tasks(
        fixture: &Fixture,
    ) {
        let (setting, running) = setting(fixture, 1).await;
        // It is granted a slot, and the cluster does not let it start.
        setting.cluster.refuse_starts_of(&run("p1"));
        alone(&setting, "p1", PUSHED);
        sleep(Duration::from_secs(5)).await;
        let manager = running.manager();
        manager
            .request_cancel(&website(), &run("p1"), None)
            .await
            .unwrap();
        has_status(&setting, "p1", SpecStatus::Cancelled).await;
        setting.comes_to(&[], &[]).await;
        ended_unstarted(&setting, "p1");
        setting.event(&["next"]);
        setting.comes_to(&["next"], &[]).await;
        setting.audit();
    }

    pub(super) async fn an_older_run_that_asks_late_is_superseded_all_the_same(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        without_order(&setting, "p1", PUSHED);
        sleep(Duration::from_secs(2)).await;
        alone(&setting, "p2", PUSHED);
        setting.comes_to(&["a"], &["p2"]).await;
        setting.cluster.set_order(&[run("p1")]);
        has_status(&setting, "p1", SpecStatus::Cancelled).await;
        told(&mut notices, "p1", |what| {
            matches!(what, What::Superseded { .. })
        })
        .await;
        setting.comes_to(&["a"], &["p2"]).await;
        ended_unstarted(&setting, "p1");
    }

    pub(super) async fn a_run_beyond_a_full_queue_is_cancelled_and_takes_nobodys_place(
        fixture: &Fixture,
    ) {
        let setting = Setting::new(fixture, 1);
        setting.cluster.set_tekton(TektonMode::Manual);
        let website = website();
        setting
            .cluster
            .annotate_repository(&website, vocabulary::MAX_QUEUED, "2");
        let running = setting.controller().await;
        let mut notices = running.controller.notices();
        setting.event(&["a", "b", "c", "d"]);
        setting.comes_to(&["a"], &["b", "c"]).await;
        has_status(&setting, "d", SpecStatus::Cancelled).await;
        told(&mut notices, "d", |what| {
            let max_queued = Some(2);
            *what == What::QueueFull { max_queued }
        })
        .await;
        assert_eq!(setting.outcome("d").await, RunOutcome::QueueFull);
        ended_unstarted(&setting, "d");
        // Raised at once, as the limit is.
        setting
            .cluster
            .annotate_repository(&website, vocabulary::MAX_QUEUED, "3");
        sleep(Duration::from_secs(2)).await;
        setting.event(&["e", "f"]);
        setting.comes_to(&["a"], &["b", "c", "e"]).await;
        has_status(&setting, "f", SpecStatus::Cancelled).await;
        setting.audit();
    }

    pub(super) async fn a_heavy_run_waits_for_its_slots_and_backfill_lets_others_pass(
        fixture: &Fixture,
    ) {
        let (setting, _running) = setting(fixture, 3).await;
        let heavy = [(vocabulary::WEIGHT, "2")];
        alone(&setting, "h1", &heavy);
        setting.comes_to(&["h1"], &[]).await;
        alone(&setting, "h2", &heavy);
        setting.comes_to(&["h1"], &["h2"]).await;
        alone(&setting, "light", &[]);
        // Strict: it is not overtaken.
        setting.comes_to(&["h1"], &["h2", "light"]).await;
        setting
            .cluster
            .annotate_repository(&website(), vocabulary::ORDER, "backfill:1");
        setting.comes_to(&["h1", "light"], &["h2"]).await;
        setting.cluster.tekton();
        setting.cluster.finish(&run("light"), true);
        setting.comes_to(&["h1"], &["h2"]).await;
        alone(&setting, "second", &[]);
        // One has passed already.
        setting.comes_to(&["h1"], &["h2", "second"]).await;
        setting.cluster.finish(&run("h1"), true);
        setting.comes_to(&["h2", "second"], &[]).await;
        setting.audit();
    }

    pub(super) async fn a_run_that_is_too_heavy_stays_held_until_that_is_mended(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        alone(&setting, "h", &[(vocabulary::WEIGHT, "2")]);
        told(&mut notices, "h", |what| match what {
            What::Refused { message } => {
                let field = format!(
                    "PipelineRun ci/h: metadata.annotations.{}",
                    vocabulary::WEIGHT
                );
                message.starts_with(&field)
                    && message.contains("at most 1, the limit of ci/website")
            }
            _ => false,
        })
        .await;
        // The others are not held up.
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        assert_eq!(setting.view("h").spec_status, SpecStatus::Pending);
        setting.cluster.apply_repository(&website(), Limit::new(3));
        setting.comes_to(&["a", "h"], &[]).await;
        setting.audit();
    }

    pub(super) async fn an_annotation_pauses_and_resumes_what_it_has_paused(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 2).await;
        let mut notices = running.controller.notices();
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        let pause = |text| {
            setting
                .cluster
                .annotate_repository(&website(), vocabulary::PAUSE, text);
        };
        pause("the registry moves");
        sleep(Duration::from_secs(2)).await;
        setting.event(&["b"]);
        setting.comes_to(&["a"], &["b"]).await;
        told(&mut notices, "b", |what| match what {
            What::Queued { pause, .. } => {
                let reason = pause.as_ref().and_then(|pause| pause.reason.as_ref());
                reason.is_some_and(|reason| reason.as_str().ends_with("the registry moves"))
            }
            _ => false,
        })
        .await;
        // What `pac resume` resumes is paused again while the annotation is there.
        running.manager().resume(&website()).await.unwrap();
        setting.comes_to(&["a", "b"], &[]).await;
        running.controller.recover().await.unwrap();
        setting.event(&["c"]);
        setting.cluster.tekton();
        setting.cluster.finish(&run("a"), true);
        setting.comes_to(&["b"], &["c"]).await;
        pause("false");
        setting.comes_to(&["b", "c"], &[]).await;
        setting.audit();
    }

    pub(super) async fn what_an_operator_has_paused_is_the_operators(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let manager = running.manager();
        let reason = Some("an operator's".parse().unwrap());
        manager.pause(&website(), reason.clone()).await.unwrap();
        for text in ["mine", "false"] {
            setting
                .cluster
                .annotate_repository(&website(), vocabulary::PAUSE, text);
            sleep(Duration::from_secs(2)).await;
            running.controller.recover().await.unwrap();
            let paused = manager.status(&website()).await.unwrap().pause.unwrap();
            assert_eq!(paused.reason, reason, "{text}");
        }
        setting.event(&["a"]);
        setting.comes_to(&[], &["a"]).await;
        manager.resume(&website()).await.unwrap();
        setting.comes_to(&["a"], &[]).await;
    }

    pub(super) async fn a_pin_holds_against_annotations_until_it_is_taken_back(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let manager = running.manager();
        let pin = pac_core::state::RulesChange::limit(Limit::new(2));
        let claim = pac_core::protocol::Claim::Pin;
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        manager.set_rules(&website(), pin, claim).await.unwrap();
        setting
            .cluster
            .annotate_repository(&website(), vocabulary::MAX_QUEUED, "5");
        setting.event(&["b", "c"]);
        setting.comes_to(&["a", "b"], &["c"]).await;
        manager.unpin(&website()).await.unwrap();
        let status = manager.status(&website()).await.unwrap();
        assert_eq!(status.limit, Limit::new(1));
        assert_eq!(status.rules.max_queued, Some(5));
    }

    pub(super) async fn a_run_that_waits_for_too_long_is_cancelled(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        alone(&setting, "b", &[(vocabulary::MAX_WAIT, "90s")]);
        setting.comes_to(&["a"], &["b"]).await;
        sleep(MINUTE).await;
        setting.comes_to(&["a"], &["b"]).await;
        told(&mut notices, "b", |what| {
            *what == What::TimedOut { runs: false }
        })
        .await;
        has_status(&setting, "b", SpecStatus::Cancelled).await;
        assert_eq!(setting.outcome("b").await, RunOutcome::TimedOut);
        ended_unstarted(&setting, "b");
        setting.comes_to(&["a"], &[]).await;
    }

    pub(super) async fn a_run_that_holds_its_slot_for_too_long_is_asked_to_end(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        setting
            .cluster
            .annotate_repository(&website(), vocabulary::MAX_HOLD, "10m");
        setting.event(&["a", "b"]);
        setting.comes_to(&["a"], &["b"]).await;
        setting.cluster.tekton();
        sleep(9 * MINUTE).await;
        assert_eq!(setting.view("a").spec_status, SpecStatus::None);
        told(&mut notices, "a", |what| {
            *what == What::AskedToEnd { runs: true }
        })
        .await;
        has_status(&setting, "a", SpecStatus::CancelledRunFinally).await;
        while setting.cluster.tekton() {}
        assert!(setting.cluster.ran_finally(&run("a")));
        setting.comes_to(&["b"], &[]).await;
        setting.audit();
    }

    pub(super) async fn wishes_that_are_written_later_are_heard_while_a_run_waits(
        fixture: &Fixture,
    ) {
        let (setting, running) = setting(fixture, 2).await;
        setting.event(&["a", "b", "c"]);
        setting.comes_to(&["a", "b"], &["c"]).await;
        setting.cluster.mark(&run("c"), vocabulary::WEIGHT, "2");
        sleep(Duration::from_secs(2)).await;
        let status = running.manager().status(&website()).await.unwrap();
        assert_eq!(status.queued[0].terms().weight.get(), 2);
        setting.cluster.tekton();
        setting.cluster.finish(&run("a"), true);
        setting.comes_to(&["b"], &["c"]).await;
        setting.cluster.finish(&run("b"), true);
        setting.comes_to(&["c"], &[]).await;
    }

    pub(super) async fn what_is_created_to_run_at_once_is_refused_as_well(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        setting
            .cluster
            .annotate_repository(&website(), vocabulary::MAX_QUEUED, "0");
        let create = |name, weight| {
            let new = NewRun::of(run(name), &website()).annotated(vocabulary::WEIGHT, weight);
            let view = setting.cluster.create(new).unwrap();
            let controller = running.controller.clone();
            async move { controller.create(vec![view]).await.unwrap().remove(0) }
        };
        sleep(Duration::from_secs(1)).await;
        assert_eq!(create("a", "1").await, Creation::Started);
        let full = Creation::Finished(RunOutcome::QueueFull);
        assert_eq!(create("b", "1").await, full);
        assert!(matches!(create("c", "2").await, Creation::TooHeavy { .. }));
        has_status(&setting, "b", SpecStatus::Cancelled).await;
        ended_unstarted(&setting, "b");
        assert_eq!(setting.view("c").spec_status, SpecStatus::Pending);
        setting.comes_to(&["a"], &[]).await;
    }
}
