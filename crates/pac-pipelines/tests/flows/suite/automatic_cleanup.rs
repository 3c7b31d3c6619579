//! "Automatic Cleanup".

use pac_conformance::Fixture;
use pac_conformance::faults::Faults;
use pac_core::Limit;
use pac_core::state::RunOutcome;

use super::support::{Setting, run, website};

/// Also two at once, the second of which would be next.
pub(crate) async fn a_deleted_run_leaves_slot_and_queue(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c", "d", "e"]);
    setting.comes_to(&["a"], &["b", "c", "d", "e"]).await;
    setting.cluster.delete(&run("c")).unwrap();
    setting.comes_to(&["a"], &["b", "d", "e"]).await;
    setting.cluster.delete(&run("a")).unwrap();
    setting.cluster.delete(&run("b")).unwrap();
    setting.comes_to(&["d"], &["e"]).await;
    assert!(!setting.cluster.started().contains(&run("b")));
    assert_eq!(setting.outcome("a").await, RunOutcome::Cancelled);
    setting.audit();
}

/// A finalizer may keep it for long.
pub(crate) async fn a_run_that_is_being_deleted_never_starts(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    setting.cluster.begin_deletion(&run("b"));
    setting.comes_to(&["a"], &["c"]).await;
    // One that runs keeps its slot until it is gone.
    setting.cluster.begin_deletion(&run("a"));
    setting.quiet().await;
    setting.comes_to(&["a"], &["c"]).await;
    setting.cluster.delete(&run("a")).unwrap();
    setting.comes_to(&["c"], &[]).await;
    setting.audit();
}

/// (10) And the old one ends.
pub(crate) async fn a_new_run_of_the_same_name_is_another_one(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    // Nobody hears of it in time.
    controller.close().await;
    let old = setting.cluster.delete(&run("a")).unwrap();
    setting.event(&["a"]);
    let next = setting.controller().await;
    setting.comes_to(&["b"], &["a"]).await;
    assert_ne!(setting.view("a").uid, old.uid);
    // What comes late of the old one changes nothing.
    for late in [
        pac_pipelines::ClusterEvent::RunApplied(old.clone()),
        pac_pipelines::ClusterEvent::RunDeleted(old),
    ] {
        next.controller.observe(late);
    }
    setting.quiet().await;
    setting.comes_to(&["b"], &["a"]).await;
    assert!(setting.cluster.finish(&run("b"), true));
    setting.comes_to(&["a"], &[]).await;
}

/// Its runs stay as they are; should it come back, so do they.
pub(crate) async fn a_deleted_repository_leaves_nothing(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    setting.cluster.delete_repository(&website());
    fixture.comes_to(&website(), &[], &[]).await;
    setting.event(&["c"]);
    setting.quiet().await;
    fixture.comes_to(&website(), &[], &[]).await;
    setting.cluster.apply_repository(&website(), Limit::new(1));
    setting.comes_to(&["a"], &["b", "c"]).await;
    setting.audit();
}

/// (33 to 35) In the middle of a batch, one start of which nobody knows.
pub(crate) async fn a_controller_that_crashes_is_followed_by_another(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let connection = Faults::none();
    let doomed = setting.controller_behind(&connection).await;
    setting.event(&["a", "b", "c", "d"]);
    setting.comes_to(&["a", "b"], &["c", "d"]).await;
    let next = setting.controller().await;
    connection.cut();
    drop(doomed.stop());
    assert!(setting.cluster.finish(&run("a"), true));
    setting.event(&["e"]);
    setting.comes_to(&["b", "c"], &["d", "e"]).await;
    for name in ["b", "c", "d", "e"] {
        setting
            .until(name, || setting.view(name).has_started())
            .await;
        assert!(setting.cluster.finish(&run(name), true));
    }
    setting.comes_to(&[], &[]).await;
    assert!(next.manager().health().is_ready());
    setting.audit();
}

/// (37) The same running set, the same order, and the queue moves on.
pub(crate) async fn a_controller_that_restarts_finds_everything_as_it_was(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let controller = setting.controller().await;
    setting.event(&["a", "b", "c"]);
    setting.event(&["d", "e"]);
    setting.comes_to(&["a", "b"], &["c", "d", "e"]).await;
    controller.close().await;
    let next = setting.controller().await;
    setting.comes_to(&["a", "b"], &["c", "d", "e"]).await;
    assert!(setting.cluster.finish(&run("b"), true));
    setting.comes_to(&["a", "c"], &["d", "e"]).await;
    next.close().await;
    assert!(setting.cluster.finish(&run("a"), true));
    let _last = setting.controller().await;
    setting.comes_to(&["c", "d"], &["e"]).await;
    setting.audit();
}
