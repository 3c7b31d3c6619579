//! Rows Q1 to Q15: the queue manager.

use futures_util::future::join_all;
use pac_conformance::Fixture;
use pac_core::Limit;
use pac_pipelines::model::{RepositoryView, RunView, SpecStatus};
use pac_pipelines::queue_manager::is_waiting;
use pac_pipelines::testing::NewRun;
use pac_pipelines::vocabulary;

use super::bench::{Bench, global, limited, names, repository, run, website};

/// And once: upstream returns it with every call.
pub(crate) async fn q1_without_a_limit_every_run_is_acquired(fixture: &Fixture) {
    let bench = Bench::new(fixture, 0).await;
    let unlimited = bench.website().await;
    assert_eq!(bench.add(&unlimited, &["first"]).await, ["first"]);
    assert_eq!(bench.add(&unlimited, &["first"]).await, [""; 0]);
    bench.assert(&["first"], &[]).await;
}

/// Although there is no limit.
pub(crate) async fn q2_what_is_added_as_pending_is_not_started(fixture: &Fixture) {
    let bench = Bench::new(fixture, 0).await;
    let unlimited = bench.website().await;
    bench.pend(&unlimited, &["first"]).await;
    bench.assert(&[], &["first"]).await;
    assert_eq!(bench.acquire().await, ["first"]);
}

/// Rows Q3 to Q8 go on from each other.
async fn rows_3_to(last: u32, fixture: &Fixture) -> Bench {
    let bench = Bench::new(fixture, 1).await;
    let one = limited(1, 100);
    assert_eq!(bench.add(&one, &["first"]).await, ["first"]);
    if last == 3 {
        return bench;
    }
    assert_eq!(bench.take(&one, "first").await, "");
    if last == 4 {
        return bench;
    }
    assert_eq!(bench.add(&one, &["second", "third"]).await, ["second"]);
    if last == 5 {
        return bench;
    }
    assert_eq!(bench.add(&one, &["fourth", "fifth"]).await, [""; 0]);
    if last == 6 {
        return bench;
    }
    assert_eq!(bench.take(&one, "second").await, "third");
    if last == 7 {
        return bench;
    }
    let two = limited(2, 101);
    let acquired = bench.add(&two, &["sixth", "seventh", "eight"]).await;
    assert_eq!(acquired, ["fourth"]);
    bench
}

pub(crate) async fn q3_below_the_limit_a_run_is_acquired(fixture: &Fixture) {
    let bench = rows_3_to(3, fixture).await;
    bench.assert(&["first"], &[]).await;
}

pub(crate) async fn q4_the_end_of_the_only_run_starts_none(fixture: &Fixture) {
    let bench = rows_3_to(4, fixture).await;
    bench.assert(&[], &[]).await;
}

pub(crate) async fn q5_of_two_runs_the_first_is_acquired(fixture: &Fixture) {
    let bench = rows_3_to(5, fixture).await;
    bench.assert(&["second"], &["third"]).await;
}

pub(crate) async fn q6_at_the_limit_none_is_acquired(fixture: &Fixture) {
    let bench = rows_3_to(6, fixture).await;
    bench
        .assert(&["second"], &["third", "fourth", "fifth"])
        .await;
}

/// The fifth is the oldest, and is behind the fourth, as in its list.
pub(crate) async fn q7_the_list_decides_and_not_the_creation_time(fixture: &Fixture) {
    let bench = rows_3_to(7, fixture).await;
    bench.assert(&["third"], &["fourth", "fifth"]).await;
}

pub(crate) async fn q8_a_raised_limit_starts_a_run_that_is_not_in_the_list(fixture: &Fixture) {
    let bench = rows_3_to(8, fixture).await;
    let queued = ["fifth", "sixth", "seventh", "eight"];
    bench.assert(&["third", "fourth"], &queued).await;
    // An older version of the Repository changes nothing.
    let add = bench.add(&limited(5, 100), &["sixth"]).await;
    assert_eq!(add, [""; 0]);
    bench.assert(&["third", "fourth"], &queued).await;
}

async fn row_9(fixture: &Fixture) -> Bench {
    let bench = Bench::new(fixture, 2).await;
    let two = limited(2, 100);
    assert_eq!(bench.add(&two, &["r1", "r2", "r3"]).await, ["r1", "r2"]);
    for _ in 0..2 {
        assert_eq!(bench.add(&two, &["r1", "r2", "r3"]).await, [""; 0]);
    }
    bench.assert(&["r1", "r2"], &["r3"]).await;
    bench
}

pub(crate) async fn q9_the_same_list_again_acquires_none(fixture: &Fixture) {
    row_9(fixture).await;
}

pub(crate) async fn q10_another_list_goes_behind(fixture: &Fixture) {
    let bench = row_9(fixture).await;
    let add = bench.add(&limited(2, 100), &["r4", "r5", "r6"]).await;
    assert_eq!(add, [""; 0]);
    bench.assert(&["r1", "r2"], &["r3", "r4", "r5", "r6"]).await;
}

/// The third run is the oldest.
pub(crate) async fn q11_a_restart_takes_the_order_and_not_the_creation_time(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    for name in ["third", "second"] {
        bench
            .cluster
            .create(NewRun::held(run(name), &website()))
            .unwrap();
        bench.second().await;
    }
    bench.started(&website(), "first");
    let order = ["first", "second", "third"].map(run);
    bench.cluster.set_order(&order);
    let bench = bench.restarted(fixture).await;
    let rebuilt = bench.queues.init_queues(&bench.cluster).await.unwrap();
    assert_eq!((rebuilt.adopted, rebuilt.pending), (1, 2), "{rebuilt:?}");
    bench.assert(&["first"], &["second", "third"]).await;
    // Again, and nothing changes.
    let rebuilt = bench.queues.init_queues(&bench.cluster).await.unwrap();
    assert_eq!((rebuilt.adopted, rebuilt.ended), (0, 0), "{rebuilt:?}");
    bench.assert(&["first"], &["second", "third"]).await;
    let website = bench.website().await;
    assert!(bench.cluster.finish(&run("first"), true));
    let next = bench.take_view(&website, &bench.view("first")).await;
    assert_eq!(next, "second");
    bench.assert(&["second"], &["third"]).await;
}

/// Upstream gives each queue the runs of both (the watcher restarted beside two Repositories).
pub(crate) async fn q11_a_restart_keeps_the_repositories_of_a_namespace_apart(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let second = repository("second");
    bench.cluster.apply_repository(&second, Limit::new(1));
    for (repository, prefix) in [(&website(), "w"), (&second, "s")] {
        bench.started(repository, &format!("{prefix}1"));
        bench.event_in(repository, &[&format!("{prefix}2")]);
    }
    let bench = bench.restarted(fixture).await;
    bench.queues.init_queues(&bench.cluster).await.unwrap();
    bench.assert(&["w1"], &["w2"]).await;
    bench.assert_in(&second, &["s1"], &["s2"]).await;
}

/// One has a stale mark, one is gone from the cluster, and one ended while it was queued.
pub(crate) async fn q11_what_has_ended_takes_no_slot(fixture: &Fixture) {
    let bench = Bench::new(fixture, 2).await;
    bench.event(&["stale", "gone", "queued", "next"]);
    let website = bench.website().await;
    let add = bench.add(&website, &["stale", "gone", "queued"]).await;
    assert_eq!(add, ["stale", "gone"]);
    for name in ["stale", "queued"] {
        bench.cluster.set_status(&run(name), SpecStatus::None);
        bench.cluster.mark(&run(name), vocabulary::STATE, "started");
        assert!(bench.cluster.finish(&run(name), true));
    }
    bench.cluster.delete(&run("gone"));
    let bench = bench.restarted(fixture).await;
    let rebuilt = bench.queues.init_queues(&bench.cluster).await.unwrap();
    assert_eq!((rebuilt.ended, rebuilt.adopted), (3, 0), "{rebuilt:?}");
    assert_eq!(bench.acquire().await, ["next"]);
    bench.assert(&["next"], &[]).await;
}

/// Upstream rebuilds only Repositories with a limit of their own.
pub(crate) async fn q11_a_repository_that_inherits_its_limit_is_rebuilt(fixture: &Fixture) {
    let bench = Bench::new(fixture, 0).await;
    bench.cluster.apply_repository(&global(), Limit::new(1));
    bench.started(&website(), "a");
    bench.event(&["b"]);
    let bench = bench.restarted(fixture).await;
    bench.queues.init_queues(&bench.cluster).await.unwrap();
    bench.assert(&["a"], &["b"]).await;
    assert_eq!(bench.acquire().await, [""; 0]);
}

/// Else the slot that is freed would go to a run under the old limit.
pub(crate) async fn q11_a_limit_that_was_lowered_meanwhile_holds_at_once(fixture: &Fixture) {
    let bench = Bench::new(fixture, 2).await;
    bench.event(&["a", "b", "c"]);
    let website = bench.website().await;
    let add = bench.add(&website, &["a", "b", "c"]).await;
    assert_eq!(add, ["a", "b"]);
    for name in ["a", "b"] {
        bench.cluster.set_status(&run(name), SpecStatus::None);
    }
    assert!(bench.cluster.finish(&run("a"), true));
    bench.cluster.apply_repository(&website.key, Limit::new(1));
    // The one that queued the runs lives on, and would be granted the slot.
    let other = bench;
    let bench = Bench::over(fixture, other.cluster.clone()).await;
    bench.queues.init_queues(&bench.cluster).await.unwrap();
    assert_eq!(bench.acquire().await, [""; 0]);
    bench.assert(&["b"], &["c"]).await;
}

/// It is there, and may run.
pub(crate) async fn q11_a_run_that_cannot_be_understood_keeps_its_slot(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let website = bench.website().await;
    assert_eq!(bench.add(&website, &["a"]).await, ["a"]);
    bench.event(&["b"]);
    bench.cluster.add_unreadable_run(&run("a"));
    let rebuilt = bench.queues.init_queues(&bench.cluster).await.unwrap();
    assert_eq!(
        (rebuilt.ended, rebuilt.unreadable.len()),
        (0, 1),
        "{rebuilt:?}"
    );
    bench.assert(&["a"], &["b"]).await;
}

/// A run that was granted its slot, and not started before the controller died.
pub(crate) async fn q11_what_was_granted_and_not_started_is_handed_out(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a", "b"]);
    let website = bench.website().await;
    assert_eq!(bench.add(&website, &["a", "b"]).await, ["a"]);
    let bench = bench.restarted(fixture).await;
    bench.queues.init_queues(&bench.cluster).await.unwrap();
    assert_eq!(bench.acquire().await, ["a"]);
    bench.assert(&["a"], &["b"]).await;
}

pub(crate) async fn q12_only_what_is_queued_and_pending_waits(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["queued", "completed", "cancelled"]);
    bench
        .cluster
        .mark(&run("completed"), vocabulary::STATE, "completed");
    bench
        .cluster
        .set_status(&run("cancelled"), SpecStatus::Cancelled);
    let waits = |run: &RunView| is_waiting(run, &website(), true);
    let views = bench.cluster.views();
    let waiting: Vec<_> = views.iter().filter(|run| waits(run)).collect();
    let waiting: Vec<_> = waiting.iter().map(|run| run.key.name()).collect();
    assert_eq!(waiting, ["queued"]);
}

/// The runs without an order are not passed over: one runs, and one waits.
pub(crate) async fn q13_runs_without_an_order_do_not_stop_the_others(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.started(&website(), "old-started");
    let held = NewRun::held(run("old-queued"), &website());
    bench.cluster.create(held).unwrap();
    bench.second().await;
    bench.started(&website(), "started");
    bench
        .cluster
        .create(NewRun::held(run("queued"), &website()))
        .unwrap();
    bench.cluster.set_order(&["started", "queued"].map(run));
    let bench = bench.restarted(fixture).await;
    bench.queues.init_queues(&bench.cluster).await.unwrap();
    // Its order may still come.
    let running = ["old-started", "started"];
    bench.assert(&running, &["queued"]).await;
    bench.outlast_the_order().await;
    bench.queues.init_queues(&bench.cluster).await.unwrap();
    bench.assert(&running, &["queued", "old-queued"]).await;
    // Nothing starts until fewer run than may.
    let website = bench.website().await;
    for (name, next) in [("old-started", ""), ("started", "queued")] {
        assert!(bench.cluster.finish(&run(name), true));
        let taken = bench.take_view(&website, &bench.view(name)).await;
        assert_eq!(taken, next);
    }
}

pub(crate) async fn q14_many_callers_never_spoil_a_queue(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let repositories = 0..fixture.scaled(100);
    let views = repositories.map(|n| {
        let view = RepositoryView::new(repository(&format!("r{n}")));
        view.with_limit(Limit::new(1))
    });
    let views: Vec<_> = views.collect();
    let (bench, queues) = (&bench, &bench.queues);
    join_all(views.iter().map(|view| async move {
        tokio::join!(
            async {
                let runs = names(&["a", "b"]);
                let add = queues.add_list_to_running_queue(view, &runs);
                // Refused when the Repository is removed in that instant.
                let _ = add.await;
            },
            bench.take(view, "a"),
            async { queues.remove_repository(&view.key).await.unwrap() },
        );
    }))
    .await;
    for view in &views {
        queues.remove_repository(&view.key).await.unwrap();
        assert_eq!(bench.add(view, &["fresh"]).await, ["fresh"]);
    }
}

pub(crate) async fn q15_a_limit_that_is_removed_starts_every_waiter(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    assert_eq!(bench.add(&limited(1, 100), &["a", "b", "c"]).await, ["a"]);
    let unlimited = limited(0, 101);
    assert_eq!(bench.add(&unlimited, &[]).await, ["b", "c"]);
    assert_eq!(bench.add(&unlimited, &["d"]).await, ["d"]);
    // All are counted should there be a limit again.
    let three = limited(3, 102);
    assert_eq!(bench.add(&three, &["e"]).await, [""; 0]);
    bench.assert(&["a", "b", "c", "d"], &["e"]).await;
}
