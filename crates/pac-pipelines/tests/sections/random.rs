//! Whatever happens, in whatever order: no more runs are told that they are in a section than may be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use pac_pipelines::sections::Standing;
use pac_pipelines::testing::{ClusterFaults, NewRun};
use pac_pipelines::vocabulary;
use tokio::time::sleep;

use crate::setting::{Setting, Steps, flow, run, website};
use crate::support::Running;

const RUNS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const LIMIT: usize = 2;
const OPERATIONS: usize = 120;

#[test]
fn a_section_is_never_fuller_than_it_may_be_and_nobody_is_forgotten() {
    for seed in 0..12 {
        flow(async |fixture| {
            let setting = Setting::new(fixture, 0);
            let limits = format!("gpu={LIMIT}");
            let name = vocabulary::SECTION_LIMITS;
            setting
                .cluster
                .annotate_repository(&website(), name, &limits);
            let faults = ClusterFaults::default()
                .with_disorder(0.3)
                .with_latency(Duration::from_millis(20));
            setting.cluster.set_faults(faults);
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut controllers = vec![setting.controller().await, setting.controller().await];
            let mut most = 0;
            for _ in 0..OPERATIONS {
                step(&setting, &mut chance, &mut controllers).await;
                for _ in 0..chance.u32(..40) {
                    let inside = inside(&setting);
                    assert!(inside.len() <= LIMIT, "{seed}: {inside:?}");
                    most = most.max(inside.len());
                    sleep(Duration::from_millis(1)).await;
                }
            }
            // Everyone who still asks has a turn, and at the end nothing is left.
            setting.cluster.set_faults(ClusterFaults::default());
            setting.cluster.cut_watches();
            for _ in 0..RUNS.len() {
                let Some(name) = RUNS.into_iter().find(|name| waits(&setting, name)) else {
                    break;
                };
                for other in inside(&setting) {
                    assert!(setting.cluster.finish(&run(&other), true));
                }
                setting.enters(name).await;
                assert!(inside(&setting).len() <= LIMIT);
            }
            for name in RUNS {
                setting.cluster.delete(&run(name));
            }
            setting.section_is(&[], &[]).await;
            assert_eq!(most, LIMIT, "{seed}: so many were inside at once");
        });
    }
}

/// Something that people, Tekton or machines do.
async fn step(setting: &Setting<'_>, chance: &mut fastrand::Rng, controllers: &mut Vec<Running>) {
    let name = chance.choice(RUNS).unwrap();
    let runs = setting
        .cluster
        .view(&run(name))
        .is_some_and(|view| !view.is_done());
    match chance.u32(..20) {
        0 => drop(setting.cluster.delete(&run(name))),
        1 if runs => assert!(setting.cluster.finish(&run(name), chance.bool())),
        2 => setting.cluster.cut_watches(),
        3 => {
            let at = chance.usize(..controllers.len());
            controllers.swap_remove(at).close().await;
            controllers.push(setting.controller().await);
        }
        4..=8 if runs => setting.leaves(name).await,
        _ if runs => setting.asks(name).await,
        _ => {
            setting.cluster.delete(&run(name));
            setting.cluster.create(NewRun::of(run(name), &website()));
        }
    }
}

/// The runs that were told that they are in the section.
fn inside(setting: &Setting<'_>) -> Vec<String> {
    let names = RUNS.into_iter().filter(|name| {
        let there = setting.cluster.view(&run(name)).is_some();
        there && matches!(setting.standing(name), Standing::Granted(_))
    });
    names.map(str::to_owned).collect()
}

fn waits(setting: &Setting<'_>, name: &str) -> bool {
    let there = setting.cluster.view(&run(name)).is_some();
    there && setting.standing(name) == Standing::Waits
}
