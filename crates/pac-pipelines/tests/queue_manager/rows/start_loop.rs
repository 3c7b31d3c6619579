//! Rows R1 to R20: the loop that starts what the queues hand out.

use pac_conformance::Fixture;
use pac_core::Limit;
use pac_pipelines::PipelinesError;
use pac_pipelines::model::{RunView, SpecStatus};
use pac_pipelines::queue_manager::{Found, StartReport};
use pac_pipelines::testing::{NewRun, StartFault};
use pac_pipelines::vocabulary;

use super::bench::{Bench, global, name_of, run, website};
use super::scripted::{Mishap, Request};

async fn queue(bench: &Bench, name: &str) -> StartReport {
    let repositories = bench.repositories().await;
    let view = bench.view(name);
    let reconciled = bench.start_loop().queue_run(&view, &repositories).await;
    reconciled.unwrap()
}

/// The end of a run that has started in the cluster.
async fn end(bench: &Bench, name: &str) -> StartReport {
    assert!(bench.cluster.finish(&run(name), true), "{name} runs");
    next(bench, &bench.view(name)).await
}

async fn next(bench: &Bench, ended: &RunView) -> StartReport {
    let website = bench.website().await;
    bench
        .start_loop()
        .start_next(&website, ended)
        .await
        .unwrap()
}

fn started(report: &StartReport) -> Vec<&str> {
    report.started.iter().map(name_of).collect()
}

fn removed(report: &StartReport) -> Vec<&str> {
    report.removed.iter().map(name_of).collect()
}

fn failed(report: &StartReport) -> Vec<&str> {
    report.failed.iter().map(|(run, _)| name_of(run)).collect()
}

/// `a` runs, and the others wait.
async fn one_runs(fixture: &Fixture, waiting: &[&str]) -> Bench {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a"]);
    assert_eq!(started(&queue(&bench, "a").await), ["a"]);
    bench.event(waiting);
    assert_eq!(started(&queue(&bench, waiting[0]).await), [""; 0]);
    bench.assert(&["a"], waiting).await;
    bench
}

/// Until the order has had its time: then the run is taken alone.
pub(crate) async fn r1_a_run_without_an_order_waits_for_it(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let held = NewRun::held(run("a"), &website());
    bench.cluster.create(held).unwrap();
    assert_eq!(started(&queue(&bench, "a").await), [""; 0]);
    bench.assert(&[], &[]).await;
    bench.outlast_the_order().await;
    assert_eq!(started(&queue(&bench, "a").await), ["a"]);
}

async fn refusal(bench: &Bench) -> String {
    let repositories = bench.repositories().await;
    let view = bench.view("a");
    let error = bench.start_loop().queue_run(&view, &repositories).await;
    let error = error.unwrap_err();
    assert!(matches!(error, PipelinesError::Model(_)), "{error:?}");
    error.to_string()
}

pub(crate) async fn r2_a_run_that_names_no_repository_is_an_error(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let held = NewRun::plain(run("a")).with_status(SpecStatus::Pending);
    bench.cluster.create(held).unwrap();
    bench.cluster.set_order(&[run("a")]);
    let error = refusal(&bench).await;
    assert!(error.contains("no such annotation found"), "{error}");
    assert!(error.contains(vocabulary::REPOSITORY), "{error}");
}

pub(crate) async fn r3_a_run_that_names_an_empty_repository_is_an_error(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a"]);
    bench.cluster.mark(&run("a"), vocabulary::REPOSITORY, "");
    let error = refusal(&bench).await;
    assert!(error.contains("is empty"), "{error}");
}

/// And its queue is dropped.
pub(crate) async fn r4_a_repository_that_is_gone_is_no_error(fixture: &Fixture) {
    let bench = one_runs(fixture, &["b"]).await;
    bench.cluster.delete_repository(&website());
    let report = queue(&bench, "b").await;
    assert_eq!(started(&report), [""; 0]);
    bench.assert(&[], &[]).await;
    assert!(!bench.has_started("b"));
}

pub(crate) async fn r5_the_global_limit_is_merged_and_the_list_stays_as_it_is(fixture: &Fixture) {
    let bench = Bench::new(fixture, 0).await;
    bench.cluster.apply_repository(&global(), Limit::new(1));
    bench.event(&["a", "b"]);
    let repositories = bench.repositories().await;
    for _ in 0..2 {
        let Found::Here(view) = repositories.get(&website()) else {
            panic!("ci/website is there");
        };
        assert_eq!(view.limit, Some(Limit::new(1)));
    }
    let found = bench.cluster.views();
    assert_eq!(found.len(), 2);
    assert_eq!(started(&queue(&bench, "a").await), ["a"]);
    bench.assert(&["a"], &["b"]).await;
    // A limit of its own beats it, and comes back when that is removed.
    bench.cluster.apply_repository(&website(), Limit::new(2));
    assert_eq!(started(&queue(&bench, "b").await), ["b"]);
    bench.cluster.apply_repository(&website(), Limit::UNLIMITED);
    bench.event(&["c"]);
    assert_eq!(started(&queue(&bench, "c").await), [""; 0]);
    // The end of the global one is newer than all of that.
    bench.cluster.delete_repository(&global());
    assert_eq!(started(&queue(&bench, "c").await), ["c"]);
}

pub(crate) async fn r6_nothing_acquired_is_no_error(fixture: &Fixture) {
    let bench = one_runs(fixture, &["b"]).await;
    let report = queue(&bench, "b").await;
    assert!(
        report.started.is_empty() && report.failed.is_empty(),
        "{report:?}"
    );
}

/// Upstream's queue returns it again and again.
pub(crate) async fn r7_an_absent_run_is_returned_once(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let website = bench.website().await;
    bench.pend(&website, &["absent"]).await;
    bench.event(&["a"]);
    let report = queue(&bench, "a").await;
    assert_eq!(removed(&report), ["absent"]);
    assert_eq!(started(&report), ["a"]);
    assert_eq!(failed(&report), [""; 0]);
}

/// It runs, whether it could be marked or not, or the answer came or not.
pub(crate) async fn r8_a_failure_after_the_start_keeps_the_slot(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a", "b"]);
    bench
        .scripted
        .next(Request::Annotate, &run("a"), Mishap::Fails);
    let report = queue(&bench, "a").await;
    assert_eq!((started(&report), failed(&report)), (vec!["a"], vec!["a"]));
    bench.assert(&["a"], &["b"]).await;
    // The mark is written with the next look.
    queue(&bench, "a").await;
    assert_eq!(
        bench.view("a").annotation(vocabulary::STATE),
        Some("started")
    );
    bench.cluster.fail_next_start(StartFault::AnswerLost);
    let report = end(&bench, "a").await;
    assert_eq!((started(&report), failed(&report)), (vec!["b"], vec![]));
    bench.assert(&["b"], &[]).await;
}

/// And may be done later: the slot is kept until that is known.
pub(crate) async fn r8_a_start_of_which_nothing_is_known_keeps_the_slot(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a", "b"]);
    bench.cluster.fail_next_start(StartFault::RequestLost);
    let report = queue(&bench, "a").await;
    assert_eq!((started(&report), failed(&report)), (vec![], vec!["a"]));
    let (_, error) = &report.failed[0];
    assert!(error.to_string().contains("slot is kept"), "{error}");
    assert!(!bench.has_started("b"));
    let report = queue(&bench, "a").await;
    assert_eq!(started(&report), ["a"]);
    bench.assert(&["a"], &["b"]).await;
}

pub(crate) async fn r9_a_run_that_vanished_frees_its_slot(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a", "b"]);
    bench
        .scripted
        .after(1, Request::Read, &run("a"), Mishap::Vanishes);
    let report = queue(&bench, "b").await;
    assert_eq!((removed(&report), started(&report)), (vec!["a"], vec!["b"]));
    bench.assert(&["b"], &[]).await;
    assert!(bench.is_out("a").await);
}

/// With its old place: nothing passes it.
pub(crate) async fn r10_a_start_that_failed_gives_the_slot_back(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a", "b"]);
    bench.cluster.fail_next_start(StartFault::Conflict);
    let report = queue(&bench, "a").await;
    assert_eq!((started(&report), failed(&report)), (vec![], vec!["a"]));
    bench.assert(&[], &["a", "b"]).await;
    assert_eq!(started(&queue(&bench, "b").await), ["a"]);
    bench.assert(&["a"], &["b"]).await;
}

/// While the list is made, the list ends before it: those behind it must not pass.
pub(crate) async fn r11_a_run_that_cannot_be_read_gives_the_slot_back(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a", "b"]);
    bench
        .scripted
        .after(1, Request::Read, &run("a"), Mishap::Fails);
    let report = queue(&bench, "a").await;
    assert_eq!((started(&report), failed(&report)), (vec![], vec!["a"]));
    bench.assert(&[], &["a", "b"]).await;
    assert_eq!(started(&queue(&bench, "a").await), ["a"]);
    bench.event(&["c", "d"]);
    bench.scripted.next(Request::Read, &run("c"), Mishap::Fails);
    let report = queue(&bench, "d").await;
    assert_eq!(failed(&report), ["c"]);
    bench.assert(&["a"], &["b"]).await;
    queue(&bench, "d").await;
    bench.assert(&["a"], &["b", "c", "d"]).await;
}

pub(crate) async fn r12_one_start_that_failed_does_not_stop_another(fixture: &Fixture) {
    let bench = Bench::new(fixture, 2).await;
    bench.event(&["first", "second"]);
    bench.cluster.fail_next_start(StartFault::Conflict);
    let report = queue(&bench, "first").await;
    assert_eq!(started(&report), ["second"]);
    let (failed, error) = &report.failed[0];
    assert_eq!((failed.name(), report.failed.len()), ("first", 1));
    assert!(error.to_string().contains("ci/first"), "{error}");
    bench.assert(&["second"], &["first"]).await;
    let second = bench.view("second");
    assert_eq!(second.annotation(vocabulary::STATE), Some("started"));
    assert_eq!(second.spec_status, SpecStatus::None);
    assert!(!bench.has_started("first"));
}

pub(crate) async fn r13_runs_that_vanish_after_the_list_are_no_error(fixture: &Fixture) {
    let bench = Bench::new(fixture, 2).await;
    bench.event(&["a", "b"]);
    for name in ["a", "b"] {
        bench
            .scripted
            .after(1, Request::Read, &run(name), Mishap::Vanishes);
    }
    let report = queue(&bench, "a").await;
    assert_eq!(
        (removed(&report), failed(&report)),
        (vec!["a", "b"], vec![])
    );
    bench.assert(&[], &[]).await;
}

pub(crate) async fn r14_a_candidate_that_is_gone_gives_way_to_the_next(fixture: &Fixture) {
    let bench = one_runs(fixture, &["b", "c"]).await;
    bench.cluster.delete(&run("b"));
    let report = end(&bench, "a").await;
    assert_eq!((removed(&report), started(&report)), (vec!["b"], vec!["c"]));
    bench.assert(&["c"], &[]).await;
}

/// It stays the next one: upstream drops it from the queue for good.
pub(crate) async fn r15_a_candidate_that_could_not_be_started_stays_the_next(fixture: &Fixture) {
    let bench = one_runs(fixture, &["b", "c"]).await;
    bench.cluster.fail_next_start(StartFault::Conflict);
    let report = end(&bench, "a").await;
    assert_eq!((started(&report), failed(&report)), (vec![], vec!["b"]));
    bench.assert(&[], &["b", "c"]).await;
    let report = next(&bench, &bench.view("a")).await;
    assert_eq!(started(&report), ["b"]);
    bench.assert(&["b"], &["c"]).await;
}

pub(crate) async fn r16_a_candidate_that_started_keeps_its_slot(fixture: &Fixture) {
    let bench = one_runs(fixture, &["b", "c"]).await;
    bench
        .scripted
        .next(Request::Annotate, &run("b"), Mishap::Fails);
    let report = end(&bench, "a").await;
    assert_eq!((started(&report), failed(&report)), (vec!["b"], vec!["b"]));
    bench.assert(&["b"], &["c"]).await;
    assert!(!bench.has_started("c"));
}

pub(crate) async fn r17_a_removed_run_is_not_returned_again(fixture: &Fixture) {
    let bench = one_runs(fixture, &["b", "c"]).await;
    for _ in 0..2 {
        assert!(bench.remove("b").await);
    }
    let report = end(&bench, "a").await;
    assert_eq!(started(&report), ["c"]);
    // Added again, it comes anew, behind the others.
    bench.event(&["d"]);
    queue(&bench, "d").await;
    queue(&bench, "b").await;
    bench.assert(&["c"], &["d", "b"]).await;
    assert_eq!(started(&end(&bench, "c").await), ["d"]);
    assert_eq!(started(&end(&bench, "d").await), ["b"]);
    assert_eq!(removed(&end(&bench, "b").await), [""; 0]);
}

pub(crate) async fn r18_a_malformed_entry_never_gets_into_the_queue(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    bench.event(&["a", "b"]);
    let order = "bad-key,ci/a,ci/x/y,,ci/b,\0";
    for name in ["a", "b"] {
        bench
            .cluster
            .mark(&run(name), vocabulary::EXECUTION_ORDER, order);
    }
    let report = queue(&bench, "b").await;
    assert_eq!((started(&report), failed(&report)), (vec!["a"], vec![]));
    bench.assert(&["a"], &["b"]).await;
}

/// It keeps its slot, since its start may be on its way, and is handed out again.
pub(crate) async fn r19_a_caller_that_is_dropped_leaves_its_candidate_to_the_next(
    fixture: &Fixture,
) {
    let bench = one_runs(fixture, &["b", "c"]).await;
    assert!(bench.cluster.finish(&run("a"), true));
    let website = bench.website().await;
    let ended = bench.view("a");
    for request in [Request::Read, Request::Start] {
        bench.scripted.next(request, &run("b"), Mishap::Hangs);
        let start_loop = bench.start_loop();
        tokio::select! {
            report = start_loop.start_next(&website, &ended) => panic!("{report:?}"),
            () = bench.scripted.hangs() => {}
        }
        bench.assert(&[], &["b", "c"]).await;
    }
    assert_eq!(started(&next(&bench, &ended).await), ["b"]);
    bench.assert(&["b"], &["c"]).await;
}

pub(crate) async fn r20_a_finished_and_an_absent_run_leave_nothing(fixture: &Fixture) {
    let bench = one_runs(fixture, &["absent"]).await;
    bench.cluster.delete(&run("absent"));
    let report = end(&bench, "a").await;
    assert_eq!(removed(&report), ["absent"]);
    bench.assert(&[], &[]).await;
    bench.event(&["fresh"]);
    assert_eq!(started(&queue(&bench, "fresh").await), ["fresh"]);
}
