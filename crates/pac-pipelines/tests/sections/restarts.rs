//! Controllers that end, crash and come back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::faults::Faults;
use pac_core::manager::Admission;
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_pipelines::sections::Standing;
use pac_pipelines::testing::ClusterFaults;
use pac_pipelines::{Noticed, PipelinesController, What};
use tokio::time::sleep;

use crate::setting::{Setting, Steps, flow, gpu, run, stored};

#[test]
fn a_controller_that_restarts_finds_slots_and_places_as_they_were() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let controller = setting.controller().await;
        setting.started(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            setting.asks(name).await;
        }
        setting.enters("a").await;
        setting.section_is(&["a"], &["b", "c"]).await;
        controller.close().await;
        let next = setting.controller().await;
        setting.section_is(&["a"], &["b", "c"]).await;
        setting.leaves("a").await;
        setting.enters("b").await;
        setting.section_is(&["b"], &["c"]).await;
        next.close().await;
        // What happens while nobody is there.
        assert!(setting.cluster.finish(&run("b"), false));
        setting.leaves("c").await;
        let _last = setting.controller().await;
        setting.section_is(&[], &[]).await;
    });
}

#[test]
fn what_runs_asked_for_while_nobody_was_there_is_granted() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        setting.started(&["a", "b"]);
        setting.asks("a").await;
        setting.asks("b").await;
        let _controller = setting.controller().await;
        setting.enters("a").await;
        setting.section_is(&["a"], &["b"]).await;
    });
}

#[test]
fn two_controllers_let_one_run_in() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _first = setting.controller().await;
        let _second = setting.controller().await;
        setting.started(&["a", "b", "c", "d"]);
        for name in ["a", "b", "c", "d"] {
            setting.asks(name).await;
        }
        let mut tokens = Vec::new();
        for (at, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            tokens.push(setting.enters(name).await);
            let waiting = &["a", "b", "c", "d"][at + 1..];
            setting.section_is(&[name], waiting).await;
            setting.leaves(name).await;
        }
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
        setting.section_is(&[], &[]).await;
    });
}

#[test]
fn a_controller_that_crashes_is_followed_by_another() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let connection = Faults::none();
        let doomed = setting.controller_behind(&connection).await;
        setting.started(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            setting.asks(name).await;
        }
        setting.enters("a").await;
        setting.section_is(&["a"], &["b", "c"]).await;
        let _next = setting.controller().await;
        connection.cut();
        drop(doomed.stop());
        setting.leaves("a").await;
        setting.enters("b").await;
        setting.leaves("b").await;
        setting.enters("c").await;
    });
}

/// All controllers are away for longer than their leases last.
#[test]
fn a_slot_that_was_lost_is_counted_again_and_the_loss_is_told() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let token = left_inside(&setting).await;
        // A sweeper that is no controller frees the slot.
        let sweeper = fixture.manager().await;
        while !fixture.view(&stored()).await.running_names().is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
        setting.asks("b").await;
        let idle = setting.idle().await;
        let mut notices = idle.notices();
        let running = idle.clone();
        let task = tokio::spawn(async move { running.run().await.unwrap() });
        let (before, now) = loop {
            match notices.next().await.unwrap() {
                Noticed::Notice(notice) => {
                    if let What::SectionLost { before, token } = notice.what {
                        assert_eq!(notice.run, run("a"));
                        break (before.get(), token.get());
                    }
                }
                Noticed::Missed(_) => panic!("nothing is missed"),
                _ => {}
            }
        };
        assert!(before == token && now > token, "{before} {now}");
        setting.section_is(&["a"], &["b"]).await;
        setting
            .until("the new token", || {
                let standing = setting.standing("a");
                matches!(standing, Standing::Granted(shown) if shown.get() == now)
            })
            .await;
        setting.leaves("a").await;
        assert!(setting.enters("b").await > now);
        task.abort();
        drop(sweeper);
    });
}

#[test]
fn a_run_is_not_told_of_a_slot_that_another_one_still_uses() {
    overtaken(&ClusterFaults::default());
}

#[test]
fn while_a_run_that_may_be_inside_cannot_be_read_no_other_is_told_of_a_slot() {
    overtaken(&ClusterFaults::default().with_failing_reads());
}

#[test]
fn what_others_put_into_the_queue_of_a_section_is_left_alone() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let others = fixture.manager().await;
        let request = RunRequest::ephemeral(run("deploy"), "d".parse().unwrap());
        let Admission::Started(lease) = others.admit(&stored(), request).await.unwrap() else {
            panic!("it waits");
        };
        let controller = setting.controller().await;
        setting.started(&["a"]);
        setting.asks("a").await;
        fixture.comes_to(&stored(), &["deploy"], &["a"]).await;
        for _ in 0..2 {
            controller.controller.recover().await.unwrap();
        }
        fixture.comes_to(&stored(), &["deploy"], &["a"]).await;
        others.release(lease, RunOutcome::Completed).await.unwrap();
        setting.enters("a").await;
    });
}

/// Has `a` enter, of two runs that run, by a controller that then dies without a word. Returns the
/// token.
async fn left_inside(setting: &Setting<'_>) -> u64 {
    let connection = Faults::none();
    let doomed = setting.controller_behind(&connection).await;
    setting.started(&["a", "b"]);
    setting.asks("a").await;
    let token = setting.enters("a").await;
    connection.cut();
    drop(doomed.stop());
    token
}

/// The slot that was lost is granted to the next run before any controller looks, and the first one
/// that does meets faults for a while.
fn overtaken(faults: &ClusterFaults) {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let token = left_inside(&setting).await;
        setting.asks("b").await;
        let manager = fixture.manager().await;
        let mut grants = manager.grants().unwrap();
        let view = setting.view("b");
        let asked = view.annotation(&gpu().request_annotation()).unwrap();
        let (id, _) = asked.split_once(' ').unwrap();
        let uid = format!("{}:{id}", view.uid).parse().unwrap();
        let request = RunRequest::durable(view.key, uid);
        match manager.admit(&stored(), request).await.unwrap() {
            Admission::Queued(waiter) => waiter.detach(),
            admission => panic!("{admission:?}"),
        }
        let lease = grants.next().await.unwrap();
        assert_eq!(*lease.run(), run("b"));
        drop(grants);
        let cluster = Arc::new(setting.cluster.clone());
        let controller = PipelinesController::new(manager, cluster, setting.options());
        let running = controller.clone();
        setting.cluster.set_faults(faults.clone());
        let task = tokio::spawn(async move { running.run().await.unwrap() });
        sleep(Duration::from_secs(5)).await;
        assert_eq!(setting.standing("b"), Standing::Waits);
        setting.cluster.set_faults(ClusterFaults::default());
        setting.section_is(&["a"], &["b"]).await;
        assert_eq!(setting.standing("b"), Standing::Waits);
        let now = setting.enters("a").await;
        assert!(now > token);
        setting.leaves("a").await;
        assert!(setting.enters("b").await > now);
        task.abort();
    });
}

#[test]
fn a_controller_that_sees_late_takes_nothing_from_a_run() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        setting.started(&["a"]);
        let old = setting.view("a");
        // It has seen the run before it asked, and hears of nothing since.
        let late = setting.idle().await;
        late.recover().await.unwrap();
        let controller = setting.controller().await;
        setting.asks("a").await;
        let token = setting.enters("a").await;
        late.observe(pac_pipelines::ClusterEvent::RunApplied(old));
        late.recover().await.unwrap();
        setting.section_is(&["a"], &[]).await;
        assert_eq!(setting.enters("a").await, token);
        // The request of before, heard of once more after the next one.
        let before = setting.view("a");
        setting.leaves("a").await;
        setting.asks("a").await;
        let second = setting.enters("a").await;
        assert!(second > token);
        for seen in [&late, &controller.controller] {
            seen.observe(pac_pipelines::ClusterEvent::RunApplied(before.clone()));
        }
        setting.quiet().await;
        setting.section_is(&["a"], &[]).await;
        assert_eq!(setting.enters("a").await, second);
        assert!(
            setting
                .view("a")
                .annotation(&gpu().answer_annotation())
                .is_some()
        );
    });
}
