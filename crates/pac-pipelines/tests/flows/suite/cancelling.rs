//! What ends a run before its time.

use pac_conformance::Fixture;
use pac_core::protocol::Ended;
use pac_core::state::RunOutcome;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{ClusterFaults, TektonMode};

use super::support::{Setting, run, website};

const FORMS: [SpecStatus; 3] = [
    SpecStatus::Cancelled,
    SpecStatus::CancelledRunFinally,
    SpecStatus::StoppedRunFinally,
];

/// (53) And its `finally` tasks never run, since nothing of it ever ran.
pub(crate) async fn every_cancel_form_takes_a_held_run_out_of_the_queue(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    setting.cluster.set_tekton(TektonMode::Manual);
    let _controller = setting.controller().await;
    setting.event(&["runs", "x0", "x1", "x2", "next"]);
    setting
        .comes_to(&["runs"], &["x0", "x1", "x2", "next"])
        .await;
    setting.cluster.tekton();
    for (name, form) in ["x0", "x1", "x2"].into_iter().zip(FORMS) {
        assert!(setting.cluster.set_status(&run(name), form));
    }
    setting
        .until("all are to end at once", || {
            let views = ["x0", "x1", "x2"].map(|name| setting.view(name));
            views
                .iter()
                .all(|view| view.spec_status == SpecStatus::Cancelled)
        })
        .await;
    setting.comes_to(&["runs"], &["next"]).await;
    while setting.cluster.tekton() {}
    for name in ["x0", "x1", "x2"] {
        assert!(setting.view(name).is_done(), "{name}");
        assert!(!setting.cluster.ran_finally(&run(name)), "{name}");
        assert_eq!(setting.outcome(name).await, RunOutcome::Cancelled);
    }
    assert!(setting.cluster.finish(&run("runs"), true));
    setting.comes_to(&["next"], &[]).await;
    setting.audit();
}

/// Its `finally` tasks run, and count.
pub(crate) async fn a_running_run_keeps_its_slot_until_it_has_ended(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    setting.cluster.set_tekton(TektonMode::Manual);
    let _controller = setting.controller().await;
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    setting.cluster.tekton();
    assert!(
        setting
            .cluster
            .set_status(&run("a"), SpecStatus::CancelledRunFinally)
    );
    setting.cluster.tekton();
    setting.quiet().await;
    assert!(setting.cluster.ran_finally(&run("a")));
    setting.comes_to(&["a"], &["b"]).await;
    setting.cluster.tekton();
    setting.comes_to(&["b"], &[]).await;
    assert_eq!(setting.outcome("a").await, RunOutcome::Cancelled);
    setting.audit();
}

/// In the instant in which its start is asked for.
pub(crate) async fn a_run_that_is_cancelled_while_it_is_granted_never_starts(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    setting.cluster.set_tekton(TektonMode::Manual);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    setting.cluster.tekton();
    setting
        .cluster
        .set_faults(ClusterFaults::default().with_api_away());
    assert!(setting.cluster.finish(&run("a"), true));
    setting.quiet().await;
    assert!(
        setting
            .cluster
            .set_status(&run("b"), SpecStatus::StoppedRunFinally)
    );
    setting.quiet().await;
    setting.cluster.set_faults(ClusterFaults::default());
    setting.comes_to(&["c"], &[]).await;
    setting
        .until("b is to end at once", || {
            setting.view("b").spec_status == SpecStatus::Cancelled
        })
        .await;
    while setting.cluster.tekton() {}
    assert!(!setting.cluster.ran_finally(&run("b")));
    assert_eq!(setting.cluster.started(), [run("a"), run("c")]);
    setting.audit();
}

/// As `pac cancel` does. What is held back never starts; what runs may run its `finally` tasks.
pub(crate) async fn a_run_that_is_cancelled_in_the_store_alone_ends_in_the_cluster(
    fixture: &Fixture,
) {
    let setting = Setting::new(fixture, 1);
    setting.cluster.set_tekton(TektonMode::Manual);
    let running = setting.controller().await;
    setting.event(&["a", "b", "c", "d"]);
    setting.comes_to(&["a"], &["b", "c", "d"]).await;
    setting.cluster.tekton();
    let operator = fixture.manager().await;
    for name in ["b", "a"] {
        let (repository, run) = (website(), run(name));
        let cancel = operator.cancel(&repository, &run, None);
        assert_eq!(cancel.await.unwrap().ended, Ended::Done);
    }
    running.controller.recover().await.unwrap();
    assert_eq!(setting.view("b").spec_status, SpecStatus::Cancelled);
    assert_eq!(
        setting.view("a").spec_status,
        SpecStatus::CancelledRunFinally
    );
    while setting.cluster.tekton() {}
    setting.comes_to(&["c"], &["d"]).await;
    assert!(setting.view("b").is_done());
    assert!(!setting.cluster.ran_finally(&run("b")));
    assert!(setting.cluster.ran_finally(&run("a")));
    // Nothing is asked for twice.
    let _ = setting.cluster.take_requests();
    running.controller.recover().await.unwrap();
    assert_eq!(setting.cluster.take_requests().request_end, 0);
    assert_eq!(setting.cluster.started(), [run("a"), run("c")]);
    for name in ["a", "b"] {
        assert_eq!(setting.outcome(name).await, RunOutcome::Cancelled);
    }
}
