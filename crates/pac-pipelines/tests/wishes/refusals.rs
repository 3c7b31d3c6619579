//! Runs that cannot have what they ask for now, and those that wait beside them.

use super::*;

cases! {
    a_weight_that_is_raised_beyond_the_limit_holds_up_nobody_else,
    a_run_that_has_become_too_heavy_is_looked_after_all_the_same,
    a_repository_that_cannot_be_understood_keeps_what_its_runs_wait_with,
    a_newer_run_that_does_not_get_in_takes_nobodys_place,
    the_runs_of_one_event_are_of_the_same_age,
}

/// Is told of a run that its weight has to be lowered.
async fn told_too_heavy(notices: &mut Notices, name: &str) {
    told(notices, name, |what| match what {
        What::Refused { message } => message.contains("at most 1, the limit of ci/website"),
        _ => false,
    })
    .await;
}

mod cases {
    use super::*;

    pub(super) async fn a_weight_that_is_raised_beyond_the_limit_holds_up_nobody_else(
        fixture: &Fixture,
    ) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        setting.event(&["a", "b", "c"]);
        setting.comes_to(&["a"], &["b", "c"]).await;
        setting.cluster.mark(&run("b"), vocabulary::WEIGHT, "2");
        told_too_heavy(&mut notices, "b").await;
        setting.event(&["d"]);
        setting.comes_to(&["a"], &["b", "c", "d"]).await;
        setting.cluster.tekton();
        setting.cluster.finish(&run("a"), true);
        // It keeps its place, and the weight that it had.
        setting.comes_to(&["b"], &["c", "d"]).await;
        // One that another queue takes leaves this one.
        setting.cluster.mark(&run("c"), vocabulary::WEIGHT, "2");
        told_too_heavy(&mut notices, "c").await;
        let paused = SpecStatus::Unknown("Paused".to_owned());
        assert!(setting.cluster.set_status(&run("c"), paused));
        setting.comes_to(&["b"], &["d"]).await;
        setting.audit();
    }

    pub(super) async fn a_run_that_has_become_too_heavy_is_looked_after_all_the_same(
        fixture: &Fixture,
    ) {
        let (setting, first) = setting(fixture, 1).await;
        setting.event(&["a", "b", "c"]);
        setting.comes_to(&["a"], &["b", "c"]).await;
        first.close().await;
        setting.cluster.mark(&run("b"), vocabulary::WEIGHT, "2");
        let second = setting.controller().await;
        let mut notices = second.controller.notices();
        told_too_heavy(&mut notices, "b").await;
        setting.cluster.tekton();
        setting.cluster.finish(&run("a"), true);
        setting.comes_to(&["b"], &["c"]).await;
        setting.audit();
    }

    pub(super) async fn a_repository_that_cannot_be_understood_keeps_what_its_runs_wait_with(
        fixture: &Fixture,
    ) {
        let setting = Setting::new(fixture, 4);
        setting.cluster.set_tekton(TektonMode::Manual);
        setting
            .cluster
            .annotate_repository(&website(), vocabulary::WEIGHT, "2");
        let running = setting.controller().await;
        setting.event(&["a", "b", "c", "d"]);
        setting.comes_to(&["a", "b"], &["c", "d"]).await;
        setting.cluster.break_repository(&website());
        sleep(Duration::from_secs(2)).await;
        let has_weights = async |running: &Running| {
            let status = running.manager().status(&website()).await.unwrap();
            let of_waiting = status.queued.iter().map(|run| run.terms().weight.get());
            assert_eq!(of_waiting.collect::<Vec<_>>(), [2, 2]);
        };
        has_weights(&running).await;
        // Nor does a controller that has never understood it.
        running.close().await;
        let second = setting.controller().await;
        sleep(Duration::from_secs(2)).await;
        has_weights(&second).await;
        setting.cluster.tekton();
        setting.cluster.finish(&run("a"), true);
        setting.comes_to(&["b", "c"], &["d"]).await;
        setting.audit();
    }

    pub(super) async fn a_newer_run_that_does_not_get_in_takes_nobodys_place(fixture: &Fixture) {
        let (setting, running) = setting(fixture, 1).await;
        let mut notices = running.controller.notices();
        setting.event(&["a"]);
        setting.comes_to(&["a"], &[]).await;
        without_order(&setting, "p1", PUSHED);
        sleep(Duration::from_secs(2)).await;
        alone(
            &setting,
            "p2",
            &[PUSHED, &[(vocabulary::WEIGHT, "2")]].concat(),
        );
        told_too_heavy(&mut notices, "p2").await;
        setting.cluster.set_order(&[run("p1")]);
        setting.comes_to(&["a"], &["p1"]).await;
        assert_eq!(setting.view("p1").spec_status, SpecStatus::Pending);
    }

    pub(super) async fn the_runs_of_one_event_are_of_the_same_age(fixture: &Fixture) {
        let (setting, _running) = setting(fixture, 1).await;
        without_order(&setting, "second", IN_TURN);
        sleep(Duration::from_secs(2)).await;
        without_order(&setting, "first", IN_TURN);
        setting.cluster.set_order(&[run("first"), run("second")]);
        setting.comes_to(&["first"], &["second"]).await;
        setting.audit();
    }
}
