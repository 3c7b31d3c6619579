//! However a run ends, its slot is given back.

use pac_core::state::RunOutcome;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{ClusterFaults, NewRun};

use crate::setting::{Setting, Steps, flow, run, stored, website};

/// `a` is in the section, `b` and `c` wait.
async fn full(setting: &Setting<'_>) {
    setting.started(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        setting.asks(name).await;
    }
    setting.enters("a").await;
    setting.section_is(&["a"], &["b", "c"]).await;
}

#[test]
fn a_run_that_ends_gives_the_slot_back_however_it_ends() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        for (outcome, succeeded) in [(RunOutcome::Completed, true), (RunOutcome::Failed, false)] {
            full(&setting).await;
            assert!(setting.cluster.finish(&run("a"), succeeded));
            setting.enters("b").await;
            setting.section_is(&["b"], &["c"]).await;
            assert_eq!(fixture.view(&stored()).await.outcome("a"), Some(outcome));
            for name in ["a", "b", "c"] {
                setting.cluster.delete(&run(name)).unwrap();
            }
            setting.section_is(&[], &[]).await;
        }
    });
}

#[test]
fn a_run_that_is_cancelled_leaves_when_it_has_ended() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        full(&setting).await;
        // One that waits, and the one that is inside.
        assert!(setting.cluster.set_status(&run("b"), SpecStatus::Cancelled));
        setting.section_is(&["a"], &["c"]).await;
        assert!(
            setting
                .cluster
                .set_status(&run("a"), SpecStatus::CancelledRunFinally)
        );
        setting.enters("c").await;
        setting.section_is(&["c"], &[]).await;
        let view = fixture.view(&stored()).await;
        assert_eq!(view.outcome("a"), Some(RunOutcome::Cancelled));
    });
}

#[test]
fn a_run_that_is_deleted_leaves_slot_and_queue() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        full(&setting).await;
        setting.cluster.delete(&run("b")).unwrap();
        setting.section_is(&["a"], &["c"]).await;
        setting.cluster.delete(&run("a")).unwrap();
        setting.enters("c").await;
        setting.section_is(&["c"], &[]).await;
    });
}

#[test]
fn a_run_that_is_being_deleted_is_let_in_no_more_and_stays_until_it_is_gone() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        full(&setting).await;
        setting.cluster.begin_deletion(&run("b"));
        setting.section_is(&["a"], &["c"]).await;
        setting.cluster.begin_deletion(&run("a"));
        setting.quiet().await;
        setting.section_is(&["a"], &["c"]).await;
        setting.cluster.delete(&run("a")).unwrap();
        setting.enters("c").await;
    });
}

#[test]
fn a_new_run_of_the_same_name_is_another_one() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let controller = setting.controller().await;
        full(&setting).await;
        controller.close().await;
        setting.cluster.delete(&run("a")).unwrap();
        setting
            .cluster
            .create(NewRun::of(run("a"), &website()))
            .unwrap();
        let _next = setting.controller().await;
        setting.section_is(&["b"], &["c"]).await;
        setting.asks("a").await;
        setting.section_is(&["b"], &["c", "a"]).await;
    });
}

#[test]
fn nothing_is_given_back_as_long_as_the_cluster_cannot_be_asked() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        full(&setting).await;
        setting
            .cluster
            .set_faults(ClusterFaults::default().with_api_away());
        assert!(setting.cluster.finish(&run("a"), true));
        setting.quiet().await;
        setting.section_is(&["a"], &["b", "c"]).await;
        setting.cluster.set_faults(ClusterFaults::default());
        setting.enters("b").await;
        setting.section_is(&["b"], &["c"]).await;
    });
}

#[test]
fn a_section_of_a_namespace_without_repositories_is_forgotten() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let running = setting.controller().await;
        setting.started(&["a"]);
        setting.asks("a").await;
        setting.enters("a").await;
        assert!(setting.cluster.finish(&run("a"), true));
        setting.section_is(&[], &[]).await;
        let exists = async || running.manager().status(&stored()).await.unwrap().exists;
        running.controller.recover().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
        running.controller.recover().await.unwrap();
        assert!(exists().await, "a run may ask for it");
        setting.cluster.delete_repository(&website());
        while exists().await {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        }
    });
}
