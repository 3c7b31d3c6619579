//! Pushes at random, and whatever else goes wrong meanwhile.

use std::time::Duration;

use pac_conformance::Fixture;
use pac_pipelines::testing::{ClusterFaults, TektonMode};
use pac_pipelines::vocabulary;
use tokio::time::sleep;

use crate::support::{Setting, run, website};
use crate::{PUSHED, alone};

cases! {
    pushes_at_random_never_run_more_than_may_nor_finally_tasks_of_what_was_held,
}

mod cases {
    use super::*;

    /// Two controllers, starts that fail, answers that are lost, and events out of order: pushes
    /// to three pull requests supersede each other, and other runs come between them.
    pub(super) async fn pushes_at_random_never_run_more_than_may_nor_finally_tasks_of_what_was_held(
        fixture: &Fixture,
    ) {
        let setting = Setting::new(fixture, 2);
        setting.cluster.set_tekton(TektonMode::Manual);
        let _controllers = [setting.controller().await, setting.controller().await];
        let faults = ClusterFaults::default()
            .with_ambiguous_starts(0.1)
            .with_conflicts(0.1)
            .with_disorder(0.2)
            .with_latency(Duration::from_millis(20));
        setting.cluster.set_faults(faults);
        let mut chance = fastrand::Rng::with_seed(7);
        let mut names = Vec::new();
        for number in 0..150 {
            let name = format!("r{number}");
            let pull_request = chance.u32(..5).to_string();
            let mut marks = PUSHED.to_vec();
            marks[1].1 = &pull_request;
            match pull_request.as_str() {
                "3" => marks.clear(),
                "4" => marks[3] = (vocabulary::SUPERSEDE, "waiting"),
                _ => {}
            }
            alone(&setting, &name, &marks);
            names.push(name);
            sleep(Duration::from_millis(chance.u64(..1_500))).await;
            while chance.bool() && setting.cluster.tekton() {}
            let running = setting.running_in_cluster(&website());
            if let Some(name) = chance.choice(&running).filter(|_| number % 3 == 0) {
                setting.cluster.finish(&run(name), chance.bool());
            }
        }
        setting.cluster.set_faults(ClusterFaults::default());
        setting.cluster.cut_watches();
        for _ in 0..200 {
            while setting.cluster.tekton() {}
            for name in setting.running_in_cluster(&website()) {
                setting.cluster.finish(&run(&name), true);
            }
            sleep(Duration::from_secs(2)).await;
        }
        let (mut ended, mut superseded) = (0, 0);
        let started = setting.cluster.started();
        for name in &names {
            assert!(setting.view(name).is_done(), "{name} has not ended");
            let has_run = started.contains(&run(name));
            let ran_finally = setting.cluster.ran_finally(&run(name));
            assert!(has_run || !ran_finally, "{name} never ran");
            superseded += usize::from(!has_run);
            ended += usize::from(ran_finally);
        }
        assert!(ended > 0 && superseded > 5, "{ended} and {superseded}");
        setting.comes_to(&[], &[]).await;
        setting.audit();
    }
}
