//! Starts wait until Pipelines-as-Code has prepared a run.

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

use std::time::Duration;

use pac_conformance::Fixture;
use pac_pipelines::integration::Preparation;
use pac_pipelines::testing::NewRun;
use pac_pipelines::{ControllerOptions, Mode, Noticed, Notices, What, vocabulary};
use support::{Running, Setting, run, website};
use tokio::time::{sleep, timeout};

cases! {
    a_start_waits_for_the_secret_and_comes_with_it,
    a_start_that_has_waited_in_vain_comes_all_the_same_and_says_so,
    a_secret_that_is_never_made_is_awaited_once,
    a_controller_that_takes_a_waiting_start_over_goes_on_waiting,
    runs_that_others_have_made_are_not_waited_for,
}

const WAIT: Duration = Duration::from_secs(20);

/// A controller beside Pipelines-as-Code, whose starts wait.
async fn controller(setting: &Setting<'_>) -> Running {
    let options = ControllerOptions::default()
        .with_epoch(setting.cluster.now())
        .with_mode(Mode::Takeover)
        .with_start_wait(WAIT);
    setting.controller_with(options).await
}

/// A run of Pipelines-as-Code whose order we have, and whose secret is not there.
fn unprepared(setting: &Setting<'_>, name: &str) {
    let order = format!("ci/{name}");
    let new = NewRun::held(run(name), &website())
        .annotated(vocabulary::SECRET_CREATED, "false")
        .annotated(vocabulary::OUR_EXECUTION_ORDER, order);
    setting.cluster.create(new).unwrap();
}

fn running(setting: &Setting<'_>) -> Vec<String> {
    setting.running_in_cluster(&website())
}

/// What is told of starts until nothing is for a while.
async fn starts(notices: &mut Notices) -> Vec<String> {
    let mut told = Vec::new();
    while let Ok(Some(Noticed::Notice(notice))) = timeout(2 * WAIT, notices.next()).await {
        let name = notice.run.name();
        match notice.what {
            What::Started { .. } => told.push(format!("{name} started")),
            What::StartedUnprepared { missing } => told.push(format!("{name} {missing:?}")),
            _ => {}
        }
    }
    told
}

mod cases {
    use super::*;

    pub(super) async fn a_start_waits_for_the_secret_and_comes_with_it(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let working = controller(&setting).await;
        let mut notices = working.controller.notices();
        unprepared(&setting, "a");
        unprepared(&setting, "b");
        sleep(WAIT / 2).await;
        assert_eq!(running(&setting), [""; 0]);
        // It has its slot meanwhile: it keeps its place before the others.
        let status = working.manager().status(&website()).await.unwrap();
        assert_eq!((status.running.len(), status.queued.len()), (1, 1));
        let first = status.running[0].run.name().to_owned();
        for name in ["a", "b"] {
            let annotation = vocabulary::SECRET_CREATED;
            setting.cluster.mark(&run(name), annotation, "true");
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running(&setting), [first.as_str()]);
        setting.cluster.finish(&run(&first), true);
        let told = starts(&mut notices).await;
        assert_eq!(told.len(), 2, "each starts once: {told:?}");
        assert!(told.iter().all(|one| one.ends_with("started")), "{told:?}");
        setting.audit();
    }

    pub(super) async fn a_start_that_has_waited_in_vain_comes_all_the_same_and_says_so(
        fixture: &Fixture,
    ) {
        let setting = Setting::new(fixture, 1);
        let working = controller(&setting).await;
        let mut notices = working.controller.notices();
        unprepared(&setting, "a");
        sleep(WAIT - Duration::from_secs(2)).await;
        assert_eq!(running(&setting), [""; 0]);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(running(&setting), ["a"]);
        let missing = format!("a {:?}", Preparation::Secret);
        let expected = ["a started".to_owned(), missing];
        assert_eq!(starts(&mut notices).await, expected);
        // One that has waited in the queue for longer starts at once when its turn comes.
        unprepared(&setting, "b");
        sleep(2 * WAIT).await;
        setting.cluster.finish(&run("a"), true);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running(&setting), ["b"]);
        setting.audit();
    }

    /// As where `secret-auto-create` is off: each run is marked as one without a secret for good.
    pub(super) async fn a_secret_that_is_never_made_is_awaited_once(fixture: &Fixture) {
        let setting = Setting::new(fixture, 4);
        let working = controller(&setting).await;
        let mut notices = working.controller.notices();
        unprepared(&setting, "a");
        sleep(WAIT + Duration::from_secs(2)).await;
        assert_eq!(running(&setting), ["a"]);
        unprepared(&setting, "b");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running(&setting), ["a", "b"]);
        let missing = format!("a {:?}", Preparation::Secret);
        let expected = ["a started", missing.as_str(), "b started"];
        assert_eq!(starts(&mut notices).await, expected);
        // One that has its secret shows that they are made.
        let new = NewRun::held(run("c"), &website())
            .annotated(vocabulary::SECRET_CREATED, "true")
            .annotated(vocabulary::OUR_EXECUTION_ORDER, "ci/c");
        setting.cluster.create(new).unwrap();
        sleep(Duration::from_secs(1)).await;
        unprepared(&setting, "d");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running(&setting), ["a", "b", "c"]);
        setting.audit();
    }

    pub(super) async fn a_controller_that_takes_a_waiting_start_over_goes_on_waiting(
        fixture: &Fixture,
    ) {
        let setting = Setting::new(fixture, 1);
        let first = controller(&setting).await;
        unprepared(&setting, "a");
        sleep(WAIT / 4).await;
        first.close().await;
        let _second = controller(&setting).await;
        sleep(WAIT / 4).await;
        assert_eq!(running(&setting), [""; 0]);
        let annotation = vocabulary::SECRET_CREATED;
        setting.cluster.mark(&run("a"), annotation, "true");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running(&setting), ["a"]);
        setting.audit();
    }

    pub(super) async fn runs_that_others_have_made_are_not_waited_for(fixture: &Fixture) {
        let setting = Setting::new(fixture, 1);
        let _working = controller(&setting).await;
        let new = NewRun::held(run("a"), &website())
            .labelled(vocabulary::MANAGED_BY, "a-cron-job")
            .annotated(vocabulary::SECRET_CREATED, "false")
            .annotated(vocabulary::OUR_EXECUTION_ORDER, "ci/a");
        setting.cluster.create(new).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running(&setting), ["a"]);
        setting.audit();
    }
}
