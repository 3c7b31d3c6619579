//! The store is compared with what the cluster shows.

use std::time::Duration;

use pac_conformance::Fixture;
use pac_conformance::faults::Faults;
use pac_core::manager::Admission;
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion, RepositoryKey};
use pac_pipelines::ClusterEvent;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{ClusterFaults, NewRun};
use pac_pipelines::vocabulary;
use tokio::time::sleep;

use super::support::{Setting, global, repository, run, run_it, website};

fn request(setting: &Setting<'_>, name: &str) -> RunRequest {
    let view = setting.view(name);
    RunRequest::durable(view.key, view.uid)
}

/// (49) Nothing new starts until fewer run than may.
pub(crate) async fn what_runs_unknown_is_counted_beyond_the_limit(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    for name in ["r1", "r2", "r3"] {
        setting
            .cluster
            .create(NewRun::of(run(name), &website()))
            .unwrap();
    }
    setting.event(&["a"]);
    let _controller = setting.controller().await;
    setting.comes_to(&["r1", "r2", "r3"], &["a"]).await;
    for name in ["r1", "r2"] {
        assert!(setting.cluster.finish(&run(name), true));
    }
    setting.comes_to(&["r3", "a"], &[]).await;
}

/// The phases of a migration: the old runs go on, and what waited comes before what is new, all
/// under one limit.
pub(crate) async fn what_began_under_annotations_counts_beside_what_is_new(fixture: &Fixture) {
    let setting = Setting::new(fixture, 3);
    for name in ["o1", "o2"] {
        let old = NewRun::of(run(name), &website()).annotated(vocabulary::STATE, "started");
        setting.cluster.create(old).unwrap();
    }
    for name in ["o3", "o4"] {
        let old = NewRun::held(run(name), &website()).annotated(vocabulary::STATE, "queued");
        setting.cluster.create(old).unwrap();
    }
    setting.cluster.set_order(&[run("o3"), run("o4")]);
    let _controller = setting.controller().await;
    setting.comes_to(&["o1", "o2", "o3"], &["o4"]).await;
    setting.event(&["n1", "n2"]);
    setting
        .comes_to(&["o1", "o2", "o3"], &["o4", "n1", "n2"])
        .await;
    assert!(setting.cluster.finish(&run("o1"), true));
    setting.comes_to(&["o2", "o3", "o4"], &["n1", "n2"]).await;
    assert!(setting.cluster.finish(&run("o3"), true));
    setting.comes_to(&["o2", "o4", "n1"], &["n2"]).await;
    setting.audit();
}

/// (50) Another has started it.
pub(crate) async fn queued_here_and_running_there_is_started(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    assert!(setting.cluster.set_status(&run("c"), SpecStatus::None));
    setting.comes_to(&["a", "c"], &["b"]).await;
    assert!(setting.cluster.finish(&run("a"), true));
    setting.quiet().await;
    setting.comes_to(&["c"], &["b"]).await;
    controller.close().await;
}

/// (50) The controller that was granted the slot died before it started the run.
pub(crate) async fn started_here_and_held_there_is_started_there(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    setting.event(&["a", "b"]);
    let doomed = fixture.manager().await;
    let limit = Some((Limit::new(1), LimitVersion::new(1)));
    let requests = ["a", "b"].map(|name| request(&setting, name)).to_vec();
    let admissions = doomed.admit_all(&website(), limit, requests).await.unwrap();
    for admission in admissions {
        if let Admission::Queued(waiter) = admission {
            waiter.detach();
        }
    }
    doomed.close().await.unwrap();
    let _controller = setting.controller().await;
    setting.comes_to(&["a"], &["b"]).await;
    setting.audit();
}

/// (50) The slot of a run that has ended is free, and the next one starts.
pub(crate) async fn started_here_and_done_there_is_released(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    controller.close().await;
    assert!(setting.cluster.finish(&run("a"), true));
    let _next = setting.controller().await;
    setting.comes_to(&["b"], &[]).await;
    setting.audit();
}

/// (51) Each is read: it may be there all the same.
pub(crate) async fn what_is_gone_from_the_cluster_goes_at_once(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    setting.ghosts(1, &["g1", "g2"]).await;
    setting.event(&["a"]);
    let controller = setting.idle().await;
    // Without a reader, what it is granted would go back to the queue.
    let _reader = controller.manager().grants();
    let recovery = controller.recover().await.unwrap();
    assert_eq!(recovery.ended, 2, "{recovery:?}");
    fixture.comes_to(&website(), &["a"], &[]).await;
    assert_eq!(setting.cluster.take_requests().read, 2);
    controller.recover().await.unwrap();
    assert_eq!(setting.cluster.take_requests().read, 0);
}

/// The list has only what has not ended, as a selection by labels has.
pub(crate) async fn what_ended_beyond_the_list_frees_its_slot_at_once(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let controller = setting.controller().await;
    setting.event(&["a", "b", "c", "d"]);
    setting.comes_to(&["a", "b"], &["c", "d"]).await;
    controller.close().await;
    setting.cluster.list_the_unended();
    assert!(setting.cluster.finish(&run("a"), true));
    assert!(setting.cluster.finish(&run("b"), false));
    assert!(setting.cluster.delete(&run("c")).is_some());
    let _next = setting.controller().await;
    setting.comes_to(&["d"], &[]).await;
    assert_eq!(setting.outcome("a").await, RunOutcome::Completed);
    assert_eq!(setting.outcome("b").await, RunOutcome::Failed);
    assert_eq!(setting.outcome("c").await, RunOutcome::Cancelled);
    setting.audit();
}

/// Until it can be read; nothing starts in its place.
pub(crate) async fn what_cannot_be_read_keeps_its_slot(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    controller.close().await;
    setting.cluster.list_the_unended();
    let failing = ClusterFaults::default().with_failing_reads();
    setting.cluster.set_faults(failing);
    assert!(setting.cluster.finish(&run("a"), true));
    let _ = setting.cluster.take_requests();
    let _next = setting.controller().await;
    let is_read = || setting.cluster.take_requests().read > 0;
    setting.until("it is read", is_read).await;
    fixture.comes_to(&website(), &["a"], &["b"]).await;
    setting.until("it is read again", is_read).await;
    fixture.comes_to(&website(), &["a"], &["b"]).await;
    setting.cluster.set_faults(ClusterFaults::default());
    setting.comes_to(&["b"], &[]).await;
    assert_eq!(setting.outcome("a").await, RunOutcome::Completed);
    setting.audit();
}

/// The store may have very many that the cluster has not, as after a restored backup.
pub(crate) async fn what_is_gone_is_read_a_part_at_a_time_slots_first(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let names: Vec<_> = (0..100).rev().map(|at| format!("g{at:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    setting.ghosts(2, &names).await;
    let controller = setting.idle().await;
    controller.recover().await.unwrap();
    let read = setting.cluster.take_requests().read;
    assert!((2..100).contains(&read), "{read}");
    // By name they come last.
    for name in ["g99", "g98"] {
        assert_eq!(setting.outcome(name).await, RunOutcome::Cancelled, "{name}");
    }
    let _running = run_it(controller).await;
    setting.comes_to(&[], &[]).await;
    let rest = setting.cluster.take_requests().read;
    assert!(read + rest >= 100, "{read} and {rest}");
}

/// As `pac exec` does: in a queue of its own, and in that of a Repository.
pub(crate) async fn what_others_queue_in_the_store_is_left_alone(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let (deploy, others) = (repository("deploy"), fixture.manager().await);
    let ephemeral = |name: &str| RunRequest::ephemeral(run(name), name.parse().unwrap());
    let requests = vec![ephemeral("d1"), ephemeral("d2")];
    others
        .set_limit(&deploy, Limit::new(1), None)
        .await
        .unwrap();
    let mut held = others.admit_all(&deploy, None, requests).await.unwrap();
    held.push(others.admit(&website(), ephemeral("w1")).await.unwrap());
    setting.event(&["a"]);
    let options = setting.options().with_grace(Duration::ZERO);
    let controller = setting.controller_with(options).await;
    for _ in 0..3 {
        let recovery = controller.controller.recover().await.unwrap();
        assert_eq!(recovery.ended, 0, "{recovery:?}");
    }
    fixture.comes_to(&deploy, &["d1"], &["d2"]).await;
    fixture.comes_to(&website(), &["w1", "a"], &[]).await;
    // A limit that an operator has set stays, too, when nothing is in the queue.
    drop(held);
    fixture.comes_to(&deploy, &[], &[]).await;
    for _ in 0..2 {
        controller.controller.recover().await.unwrap();
    }
    let status = others.status(&deploy).await.unwrap();
    assert_eq!(status.limit, Limit::new(1));
}

/// Each namespace may have controllers of its own, on one store; the limit may be the global one.
pub(crate) async fn the_queues_of_other_namespaces_are_left_alone(fixture: &Fixture) {
    let setting = Setting::new(fixture, 0);
    setting.cluster.apply_repository(&global(), Limit::new(1));
    setting.cluster.follow_one_namespace("ci");
    let elsewhere: RepositoryKey = "cd/website".parse().unwrap();
    setting.cluster.apply_repository(&elsewhere, Limit::new(1));
    let others = fixture.manager().await;
    let runs = ["cd/x", "cd/y"].map(|name| {
        let uid = name.replace('/', "-").parse().unwrap();
        RunRequest::durable(name.parse().unwrap(), uid)
    });
    let limit = Some((Limit::new(1), LimitVersion::new(1)));
    let held = others.admit_all(&elsewhere, limit, runs.to_vec()).await;
    let options = setting.options().with_grace(Duration::ZERO);
    let controller = setting.controller_with(options).await;
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    let _ = setting.cluster.take_requests();
    for _ in 0..3 {
        controller.controller.recover().await.unwrap();
    }
    assert_eq!(setting.cluster.take_requests().read, 0);
    let status = others.status(&elsewhere).await.unwrap();
    assert_eq!((status.running.len(), status.queued.len()), (1, 1));
    drop(held);
}

/// Well before the next one is due by itself.
pub(crate) async fn a_comparison_that_failed_is_made_again(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let faults = Faults::none();
    let _controller = setting.controller_behind(&faults).await;
    setting.event(&["a"]);
    setting.comes_to(&["a"], &[]).await;
    setting.cluster.lose_events(true);
    setting.event(&["b"]);
    assert!(setting.cluster.finish(&run("a"), true));
    setting.cluster.lose_events(false);
    // The cluster says so while the store is away.
    faults.cut();
    setting.cluster.repeat(&ClusterEvent::Missed);
    sleep(Duration::from_secs(2)).await;
    faults.open();
    setting.comes_to(&["b"], &[]).await;
}

/// (52) An order that names nonsense, a run and a Repository that cannot be understood.
pub(crate) async fn one_malformed_object_stops_nothing(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let broken = repository("broken");
    setting.cluster.break_repository(&broken);
    setting.cluster.add_unreadable_run(&run("nonsense"));
    setting
        .cluster
        .create(NewRun::held(run("of-broken"), &broken))
        .unwrap();
    for name in ["a", "b"] {
        setting
            .cluster
            .create(NewRun::held(run(name), &website()))
            .unwrap();
        let order = "no-slash,ci/a,ci/x/y,,ci/b,\0";
        setting
            .cluster
            .mark(&run(name), vocabulary::EXECUTION_ORDER, order);
    }
    let controller = setting.idle().await;
    let recovery = controller.recover().await.unwrap();
    assert_eq!(recovery.unreadable.len(), 2, "{recovery:?}");
    assert!(recovery.failed.is_empty(), "{recovery:?}");
    setting.comes_to(&["a"], &["b"]).await;
}

/// No request per run, and none but the lists when there is nothing to do.
pub(crate) async fn two_requests_however_many_runs(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    for number in 0..fixture.scaled(100) {
        let repository = repository(&format!("r{number}"));
        setting.cluster.apply_repository(&repository, Limit::new(1));
        let names = [1, 2, 3].map(|run| format!("run{number}-{run}"));
        setting.event_in(&repository, &names.each_ref().map(String::as_str));
    }
    let runs = fixture.scaled(100);
    let controller = setting.idle().await;
    let recovery = controller.recover().await.unwrap();
    assert_eq!(
        (recovery.looked_at, recovery.admitted),
        (runs, runs * 3),
        "{recovery:?}"
    );
    setting
        .until("all have started", || {
            setting.cluster.started().len() == runs
        })
        .await;
    let requests = setting.cluster.take_requests();
    assert_eq!(
        (requests.total(), requests.start),
        (runs + 2, runs),
        "{requests:?}"
    );
    let recovery = controller.recover().await.unwrap();
    assert_eq!(
        (recovery.admitted, recovery.adopted, recovery.ended),
        (0, 0, 0)
    );
    assert_eq!(setting.cluster.take_requests().total(), 2);
    setting.audit();
}

/// Upstream gives each of them the runs of both.
pub(crate) async fn a_restart_keeps_two_repositories_of_a_namespace_apart(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let second = repository("second");
    setting.cluster.apply_repository(&second, Limit::new(1));
    let controller = setting.controller().await;
    setting.event_in(&second, &["s1", "s2"]);
    setting.event(&["w1", "w2"]);
    setting.comes_to(&["w1"], &["w2"]).await;
    setting.comes_to_in(second.clone(), &["s1"], &["s2"]).await;
    controller.close().await;
    sleep(Duration::from_millis(50)).await;
    let _next = setting.controller().await;
    setting.quiet().await;
    setting.comes_to(&["w1"], &["w2"]).await;
    setting.comes_to_in(second.clone(), &["s1"], &["s2"]).await;
    assert!(setting.cluster.finish(&run("w1"), true));
    setting.comes_to(&["w2"], &[]).await;
    setting.comes_to_in(second, &["s1"], &["s2"]).await;
    setting.audit();
}
