//! "PipelineRun Completion".

use pac_conformance::Fixture;
use pac_core::manager::RunStatus;
use pac_core::state::RunOutcome;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::vocabulary::STATE;

use super::support::{Setting, run, website};

/// The final state is recorded, the slot is free, the next one starts.
pub(crate) async fn the_end_of_a_run_starts_the_next_one(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    setting.event(&["good", "bad", "stopped", "last"]);
    setting
        .comes_to(&["good"], &["bad", "stopped", "last"])
        .await;
    assert!(setting.cluster.finish(&run("good"), true));
    setting.comes_to(&["bad"], &["stopped", "last"]).await;
    assert!(setting.cluster.finish(&run("bad"), false));
    setting.comes_to(&["stopped"], &["last"]).await;
    assert!(
        setting
            .cluster
            .set_status(&run("stopped"), SpecStatus::Cancelled)
    );
    setting.comes_to(&["last"], &[]).await;
    for (name, outcome) in [
        ("good", RunOutcome::Completed),
        ("bad", RunOutcome::Failed),
        ("stopped", RunOutcome::Cancelled),
    ] {
        assert_eq!(setting.outcome(name).await, outcome, "{name}");
    }
    let unknown = controller
        .controller
        .status(&website(), &run("never"))
        .await
        .unwrap();
    assert_eq!(unknown, RunStatus::Unknown);
    setting.audit();
}

/// (55) The state that reporting leaves on a run does not matter.
pub(crate) async fn the_end_counts_whatever_was_reported(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    // Reported as ended although it runs, and as running although it has ended.
    setting.cluster.mark(&run("a"), STATE, "completed");
    setting.quiet().await;
    setting.comes_to(&["a"], &["b", "c"]).await;
    setting.cluster.mark(&run("a"), STATE, "started");
    assert!(setting.cluster.finish(&run("a"), true));
    setting.comes_to(&["b"], &["c"]).await;
    setting.audit();
}

/// Between two looks, also of one that waits and is started by its user.
pub(crate) async fn a_run_that_ended_while_nobody_looked_frees_its_slot(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    setting.event(&["a", "b", "c", "d"]);
    setting.comes_to(&["a"], &["b", "c", "d"]).await;
    controller.close().await;
    assert!(setting.cluster.finish(&run("a"), true));
    assert!(setting.cluster.set_status(&run("c"), SpecStatus::None));
    assert!(setting.cluster.finish(&run("c"), false));
    let _next = setting.controller().await;
    setting.comes_to(&["b"], &["d"]).await;
    assert_eq!(setting.outcome("c").await, RunOutcome::Failed);
    setting.audit();
}
