//! What a controller tells about runs, and what annotations say about them.

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
use pac_core::Limit;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{NewRun, StartFault, TektonMode};
use pac_pipelines::{
    ClusterEvent, ControllerOptions, Mode, Notice, Noticed, Notices, PipelinesController, What,
    vocabulary,
};
use support::{Setting, run, website};
use tokio::time::timeout;

cases! {
    a_batch_is_told_with_its_places_and_starts,
    a_start_that_certainly_failed_is_told,
    a_run_that_is_cancelled_in_the_store_alone_is_told,
    a_waiter_that_is_taken_over_is_told_as_such,
    priorities_of_runs_beat_those_of_their_repository,
    a_priority_that_is_none_is_told_and_counts_as_absent,
    a_priority_that_is_written_later_moves_a_waiter,
    a_position_that_is_written_has_nothing_looked_at,
    a_gate_refuses_a_repository_in_two_modes,
}

/// The next notice, in short.
async fn next(notices: &mut Notices) -> String {
    match timeout(Duration::from_secs(20), notices.next()).await {
        Ok(Some(Noticed::Notice(notice))) => short(&notice),
        other => panic!("a notice is due: {other:?}"),
    }
}

async fn all(notices: &mut Notices, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(next(notices).await);
    }
    told
}

/// Nothing more is told, or has been by now.
async fn nothing(notices: &mut Notices) {
    let more = timeout(Duration::from_secs(20), notices.next()).await;
    assert!(more.is_err(), "{more:?}");
}

fn short(notice: &Notice) -> String {
    let run = notice.run.name();
    match &notice.what {
        What::Queued {
            position,
            of,
            running,
            limit,
            again,
            ..
        } => {
            let again = if *again { " again" } else { "" };
            format!("{run} queued{again} {position}/{of}, {running} of {limit}")
        }
        What::Started { .. } => format!("{run} started"),
        What::GivenBack { .. } => format!("{run} given back"),
        What::Requeued => format!("{run} requeued"),
        What::CancelledInStore { runs } => format!("{run} cancelled in the store, runs {runs}"),
        What::InTwoModes { limited_by } => format!("{run} in two modes by {limited_by}"),
        What::InvalidAnnotation { message } => format!("{run} invalid: {message}"),
        other => format!("{run} {other:?}"),
    }
}

mod cases {
    use super::*;

    pub(super) async fn a_batch_is_told_with_its_places_and_starts(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let running = setting.controller().await;
        let mut notices = running.controller.notices();
        setting.event(&["a", "b", "c"]);
        let mut told = all(&mut notices, 3).await;
        told.sort();
        assert_eq!(
            told,
            ["a started", "b queued 1/2, 1 of 1", "c queued 2/2, 1 of 1"]
        );
        setting.cluster.finish(&run("a"), true);
        assert_eq!(next(&mut notices).await, "b started");
        nothing(&mut notices).await;
        setting.audit();
    }

    pub(super) async fn a_start_that_certainly_failed_is_told(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let running = setting.controller().await;
        let mut notices = running.controller.notices();
        setting.cluster.fail_next_start(StartFault::Conflict);
        setting.event(&["a"]);
        assert_eq!(
            all(&mut notices, 2).await,
            ["a given back", "a started"],
            "its slot is its own again at once"
        );
        // One of which it is not known is not given back.
        setting.cluster.fail_next_start(StartFault::RequestLost);
        setting.cluster.finish(&run("a"), true);
        setting.event(&["b"]);
        assert_eq!(next(&mut notices).await, "b started");
    }

    pub(super) async fn a_run_that_is_cancelled_in_the_store_alone_is_told(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let running = setting.controller().await;
        setting.event(&["a", "b"]);
        setting.comes_to(&["a"], &["b"]).await;
        let mut notices = running.controller.notices();
        let other = fixture.manager().await;
        other.cancel(&website(), &run("b"), None).await.unwrap();
        running.controller.recover().await.unwrap();
        assert_eq!(
            next(&mut notices).await,
            "b cancelled in the store, runs false"
        );
        nothing(&mut notices).await;
        setting.comes_to(&["a"], &[]).await;
        assert_eq!(setting.view("b").spec_status, SpecStatus::Cancelled);
    }

    pub(super) async fn a_waiter_that_is_taken_over_is_told_as_such(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let first = setting.controller().await;
        setting.event(&["a", "b"]);
        setting.comes_to(&["a"], &["b"]).await;
        first.close().await;
        let second = setting.idle().await;
        let mut notices = second.notices();
        second.recover().await.unwrap();
        assert_eq!(next(&mut notices).await, "b queued again 1/1, 1 of 1");
    }

    pub(super) async fn priorities_of_runs_beat_those_of_their_repository(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        setting
            .cluster
            .annotate_repository(&website(), vocabulary::PRIORITY, "5");
        let _running = setting.controller().await;
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        for (name, priority) in [("low", Some("-1")), ("usual", None), ("high", Some("6"))] {
            let mut new = NewRun::held(run(name), &website());
            if let Some(priority) = priority {
                new = new.annotated(vocabulary::PRIORITY, priority);
            }
            setting.cluster.create(new).unwrap();
            setting.cluster.set_order(&[run(name)]);
        }
        setting.comes_to(&["a"], &["high", "usual", "low"]).await;
    }

    pub(super) async fn a_priority_that_is_none_is_told_and_counts_as_absent(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let running = setting.controller().await;
        let mut notices = running.controller.notices();
        let new = NewRun::held(run("a"), &website()).annotated(vocabulary::PRIORITY, "urgent");
        setting.cluster.create(new).unwrap();
        setting.cluster.set_order(&[run("a")]);
        let told = next(&mut notices).await;
        assert!(told.starts_with("a invalid: PipelineRun ci/a: "), "{told}");
        assert_eq!(next(&mut notices).await, "a started");
    }

    pub(super) async fn a_priority_that_is_written_later_moves_a_waiter(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let _running = setting.controller().await;
        setting.event(&["a", "b", "c"]);
        setting.comes_to(&["a"], &["b", "c"]).await;
        setting.cluster.mark(&run("c"), vocabulary::PRIORITY, "1");
        setting.comes_to(&["a"], &["c", "b"]).await;
        setting
            .cluster
            .annotate_repository(&website(), vocabulary::PRIORITY, "2");
        setting.comes_to(&["a"], &["b", "c"]).await;
        setting.cluster.finish(&run("a"), true);
        setting.comes_to(&["b"], &["c"]).await;
        setting.audit();
    }

    pub(super) async fn a_position_that_is_written_has_nothing_looked_at(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let controller = setting.idle().await;
        setting.event(&["a", "b"]);
        controller.recover().await.unwrap();
        setting.until("it is idle", || controller.is_idle()).await;
        let observe = |name: &str, value: &str| {
            setting.cluster.mark(&run("b"), name, value);
            controller.observe(ClusterEvent::RunApplied(setting.view("b")));
        };
        observe(vocabulary::POSITION, "1");
        observe(vocabulary::POSITION, "2");
        assert!(controller.is_idle());
        let seen = controller.seen(&run("b")).unwrap();
        assert_eq!(seen.annotation(vocabulary::POSITION), Some("2"));
        observe(vocabulary::HELD, "true");
        assert!(!controller.is_idle());
    }

    pub(super) async fn a_gate_refuses_a_repository_in_two_modes(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        setting.cluster.set_tekton(TektonMode::Manual);
        setting.cluster.put_in_two_modes(&website());
        let options = ControllerOptions::default()
            .with_epoch(setting.cluster.now())
            .with_mode(Mode::Gate);
        let cluster = Arc::new(setting.cluster.clone());
        let controller = PipelinesController::new(fixture.manager().await, cluster, options);
        let mut notices = controller.notices();
        let held = NewRun::held(run("a"), &website()).annotated(vocabulary::HELD, "true");
        setting.cluster.create(held).unwrap();
        let by_its_user = NewRun::plain(run("b")).with_status(SpecStatus::Pending);
        setting.cluster.create(by_its_user).unwrap();
        controller.recover().await.unwrap();
        assert_eq!(next(&mut notices).await, "a in two modes by ci/website");
        nothing(&mut notices).await;
        setting.cluster.apply_repository(&website(), Limit::new(2));
        assert_eq!(setting.running_in_cluster(&website()), [""; 0]);
    }
}
