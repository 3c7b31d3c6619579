//! Migrations between stores in memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::faults::Faults;
use pac_core::driver::{Driver, Retention};
use pac_core::manager::{Admission, ConcurrencyManager, Lease, ManagerOptions};
use pac_core::migration::{
    Action, ClusterFacts, LegacyKey, LegacyState, SlotRow, adopt_legacy, copy_state, etcd_v2,
    postgresql, preview_copy, preview_legacy, remove_copied,
};
use pac_core::protocol::{Claim, RunRequest, Supersedes};
use pac_core::state::{Owner, RepositoryState, RulesChange, RunOutcome};
use pac_core::{Limit, RepositoryKey};
use pac_memory::{MemoryDriver, MemoryOptions};

fn store() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}

fn web() -> RepositoryKey {
    "ci/web".parse().unwrap()
}

fn durable(run: &str) -> RunRequest {
    RunRequest::durable(run.parse().unwrap(), "uid".parse().unwrap())
}

fn lease(admission: Admission) -> Lease {
    let Admission::Started(lease) = admission else {
        panic!("{admission:?}");
    };
    lease
}

async fn state(store: &Arc<dyn Driver>) -> RepositoryState {
    let snapshot = store.load(&web(), None).await.unwrap();
    RepositoryState::from_snapshot(&snapshot).unwrap()
}

async fn manager(store: &Arc<dyn Driver>) -> ConcurrencyManager {
    let options = ManagerOptions::default();
    ConcurrencyManager::open(Arc::clone(store), options)
        .await
        .unwrap()
}

fn waiting(state: &RepositoryState) -> Vec<String> {
    state
        .queue()
        .map(|entry| entry.run.name().to_owned())
        .collect()
}

fn legacy(running: usize, queued: usize) -> LegacyState {
    let slot = |run: String, state: &str| SlotRow {
        repository: "ci/web".to_owned(),
        run,
        state: state.to_owned(),
        is_past_expiry: true,
    };
    let running = (0..running).map(|at| slot(format!("ci/r{at}"), "running"));
    // Their names are in another order than their places.
    let queued = (0..queued)
        .rev()
        .map(|at| slot(format!("ci/q{at}"), "queued"));
    let slots: Vec<_> = running.chain(queued).collect();
    postgresql(&slots, &[], &ClusterFacts::default())
}

#[tokio::test]
async fn running_runs_are_adopted_and_waiting_ones_queued_in_their_order() {
    let store = store();
    let legacy = legacy(3, 2_500);
    let preview = preview_legacy(&*store, &legacy).await.unwrap();
    assert!(!state(&store).await.exists(), "a preview writes nothing");
    let report = adopt_legacy(&*store, &legacy).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(preview, report);
    let now = state(&store).await;
    // Nothing said the limit: no more run than before.
    assert!(report.repositories[0].limit_is_provisional);
    assert_eq!((now.head().limit, now.head().started), (Limit::new(3), 3));
    let expected: Vec<_> = (0..2_500).rev().map(|at| format!("q{at}")).collect();
    assert_eq!(waiting(&now), expected);

    let again = adopt_legacy(&*store, &legacy).await.unwrap();
    assert!(again.is_complete());
    let mut actions = again.repositories[0].runs.iter().map(|run| run.action);
    assert!(actions.all(|action| action == Action::Present));
    assert_eq!(
        state(&store).await.head(),
        now.head(),
        "nothing is written twice"
    );
}

#[tokio::test]
async fn an_interrupted_migration_goes_on_where_it_was() {
    let store = store();
    let whole = legacy(2, 1_500);
    let mut part = whole.clone();
    part.repositories
        .get_mut(&web())
        .unwrap()
        .queued
        .truncate(700);
    adopt_legacy(&*store, &part).await.unwrap();
    let report = adopt_legacy(&*store, &whole).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    let expected: Vec<_> = (0..1_500).rev().map(|at| format!("q{at}")).collect();
    assert_eq!(waiting(&state(&store).await), expected);
}

#[tokio::test]
async fn a_controller_takes_over_what_was_migrated() {
    let store = store();
    adopt_legacy(&*store, &legacy(1, 2)).await.unwrap();
    let manager = manager(&store).await;
    let lease = lease(manager.adopt(&web(), durable("ci/r0")).await.unwrap());
    manager.release(lease, RunOutcome::Completed).await.unwrap();
    let status = manager.status(&web()).await.unwrap();
    assert!(status.running.len() <= 1, "{status:?}");
    manager.close().await.unwrap();
}

#[tokio::test]
async fn a_lease_above_the_limit_of_a_known_repository_is_adopted_all_the_same() {
    let store = store();
    let manager = manager(&store).await;
    manager
        .set_limit(&web(), Limit::new(1), None)
        .await
        .unwrap();
    let _new = manager.admit(&web(), durable("ci/new")).await.unwrap();
    let keys = [
        "/pac/leases/ci/web/ci/a",
        "/pac/concurrency/ci/web/queue/ci/b",
    ];
    let keys = keys.map(|key| LegacyKey {
        key: key.to_owned(),
        value: String::new(),
        created: 1,
    });
    let legacy = etcd_v2(&keys, &ClusterFacts::default());
    let report = adopt_legacy(&*store, &legacy).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    let now = state(&store).await;
    assert_eq!((now.head().limit, now.head().started), (Limit::new(1), 2));
    assert_eq!(waiting(&now), ["b"]);
    manager.close().await.unwrap();
}

/// A store with running, waiting and finished runs, and with tokens that were given out.
async fn used() -> Arc<dyn Driver> {
    let store = store();
    let manager = manager(&store).await;
    manager
        .set_limit(&web(), Limit::new(2), None)
        .await
        .unwrap();
    let done = lease(manager.admit(&web(), durable("ci/done")).await.unwrap());
    manager.release(done, RunOutcome::Failed).await.unwrap();
    let mut kept = Vec::new();
    for run in ["ci/z", "ci/y", "ci/b", "ci/a"] {
        kept.push(manager.admit(&web(), durable(run)).await.unwrap());
    }
    let gone: RepositoryKey = "ci/gone".parse().unwrap();
    for run in 0..50 {
        let request = durable(&format!("ci/g{run}"));
        kept.push(manager.admit(&gone, request).await.unwrap());
    }
    manager.remove_repository(&gone).await.unwrap();
    manager.close().await.unwrap();
    store
}

#[tokio::test]
async fn between_stores_order_tickets_tokens_and_floors_stay() {
    let (from, to) = (used().await, store());
    let preview = preview_copy(&*from, &*to).await.unwrap();
    assert!(!state(&to).await.exists());
    let report = copy_state(&*from, &*to).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(preview, report);
    let (old, new) = (state(&from).await, state(&to).await);
    assert_eq!(waiting(&new), waiting(&old));
    assert_eq!(old.entries().count(), new.entries().count());
    for entry in old.entries() {
        let there = new.entry(&entry.run).unwrap();
        assert_eq!((there.token(), there.ticket), (entry.token(), entry.ticket));
        assert_eq!(
            (there.queued, there.finished),
            (entry.queued, entry.finished)
        );
    }
    assert!(new.head().last_token >= old.head().last_token);
    let absent: RepositoryKey = "ci/gone".parse().unwrap();
    let floor = |snapshot: pac_core::state::Snapshot| snapshot.head.last_token;
    let before = floor(from.load(&absent, None).await.unwrap());
    assert!(before.get() >= 50);
    assert!(floor(to.load(&absent, None).await.unwrap()) >= before);

    let again = copy_state(&*from, &*to).await.unwrap();
    assert!(again.is_complete(), "{again:?}");
    assert_eq!(state(&to).await.head(), new.head());
    assert_eq!(remove_copied(&*from, &again).await.unwrap(), []);
    assert!(!state(&from).await.exists());
}

#[tokio::test]
async fn a_target_with_a_history_of_its_own_is_left_alone() {
    let (from, to) = (used().await, used().await);
    let manager = manager(&to).await;
    manager.remove_repository(&web()).await.unwrap();
    let _other = manager.admit(&web(), durable("ci/other")).await.unwrap();
    let before = state(&to).await.head().clone();
    let report = copy_state(&*from, &*to).await.unwrap();
    assert!(!report.is_complete());
    assert!(report.repositories[0].problems[0].contains("pac cleanup ci/web"));
    assert_eq!(state(&to).await.head(), &before);
    assert!(remove_copied(&*from, &report).await.is_err());
    manager.close().await.unwrap();
}

#[tokio::test]
async fn what_a_process_runs_itself_is_not_moved() {
    let (from, to) = (used().await, store());
    let manager = manager(&from).await;
    let own = RunRequest::ephemeral("ci/own".parse().unwrap(), "u".parse().unwrap());
    let _held = manager.admit(&web(), own).await.unwrap();
    let report = copy_state(&*from, &*to).await.unwrap();
    assert!(
        report.repositories[0].problems[0].contains("pac exec"),
        "{report:?}"
    );
    assert!(!state(&to).await.exists());
    manager.close().await.unwrap();
}

/// The same store, which takes one run in a commit.
fn one_by_one(store: &Arc<dyn Driver>) -> Arc<dyn Driver> {
    let faults = Faults::none();
    faults.describe(|inner| inner.with_batches_of(1, 1));
    faults.over(store)
}

/// Keeps so many finished runs.
fn keeping(finished: usize) -> Arc<dyn Driver> {
    let day = Duration::from_secs(24 * 60 * 60);
    Arc::new(MemoryDriver::new(MemoryOptions {
        retention: Retention::new(day, finished),
        ..MemoryOptions::default()
    }))
}

fn superseding(run: &str) -> RunRequest {
    let request = durable(run).in_group("main".parse().unwrap());
    request.superseding(Supersedes::Waiting)
}

async fn admit(store: &Arc<dyn Driver>, requests: &[RunRequest]) {
    let manager = manager(store).await;
    let mut kept = Vec::new();
    for request in requests {
        kept.push(manager.admit(&web(), request.clone()).await.unwrap());
    }
    manager.close().await.unwrap();
}

/// A store with a run that runs, and two that wait: the second one is of a group.
async fn with_a_group() -> Arc<dyn Driver> {
    let store = store();
    let opened = manager(&store).await;
    opened.set_limit(&web(), Limit::new(1), None).await.unwrap();
    opened.close().await.unwrap();
    let runs = [durable("ci/runs"), durable("ci/waits"), superseding("ci/a")];
    admit(&store, &runs).await;
    store
}

#[tokio::test]
async fn a_run_that_the_target_has_superseded_is_not_brought_again() {
    // The target keeps the record of the superseded run, or has forgotten it.
    for kept in [100, 0] {
        let (from, to) = (with_a_group().await, keeping(kept));
        assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
        admit(&to, &[superseding("ci/b"), durable("ci/last")]).await;
        let before = state(&to).await;
        let [known, taken] =
            ["ci/a", "ci/b"].map(|run| before.entry(&run.parse().unwrap()).cloned());
        let ticket = state(&from)
            .await
            .entry(&"ci/a".parse().unwrap())
            .unwrap()
            .ticket;
        assert_eq!((known.is_some(), taken.unwrap().ticket), (kept > 0, ticket));

        let report = copy_state(&*from, &*to).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        let mut actions = report.repositories[0].runs.iter().map(|run| run.action);
        assert!(
            actions.all(|action| action == Action::Present),
            "{report:?}"
        );
        assert_eq!(state(&to).await.head(), before.head());
        assert_eq!(waiting(&state(&to).await), ["waits", "b", "last"]);
        assert_eq!(remove_copied(&*from, &report).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_run_that_was_superseded_in_the_source_between_two_copies_leaves_its_place_first() {
    for to in [store(), one_by_one(&store())] {
        let from = with_a_group().await;
        assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
        admit(&from, &[superseding("ci/b"), superseding("ci/c")]).await;
        let report = copy_state(&*from, &*to).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(waiting(&state(&to).await), ["waits", "c"]);
        let now = state(&to).await;
        for run in ["ci/a", "ci/b"] {
            let run = run.parse().unwrap();
            assert!(now.entry(&run).unwrap().is_finished());
        }
    }
}

#[tokio::test]
async fn a_run_that_both_stores_have_superseded_is_a_problem() {
    let (from, to) = (with_a_group().await, store());
    assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
    admit(&from, &[superseding("ci/b")]).await;
    admit(&to, &[superseding("ci/c")]).await;
    let report = copy_state(&*from, &*to).await.unwrap();
    assert!(!report.is_complete());
    assert_eq!(waiting(&state(&to).await), ["waits", "c"]);
}

#[tokio::test]
async fn rules_and_pauses_of_after_the_first_copy_are_brought_along() {
    let (from, to) = (with_a_group().await, store());
    assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
    let source = manager(&from).await;
    let reason = || Some("the store moves".parse().unwrap());
    source.pause(&web(), reason()).await.unwrap();
    let rules = RulesChange::limit(Limit::new(3)).with_max_queued(Some(9));
    source.set_rules(&web(), rules, Claim::Pin).await.unwrap();
    let preview = preview_copy(&*from, &*to).await.unwrap();
    assert_eq!(preview.repositories[0].limit, Limit::new(3));
    assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
    let there = state(&to).await.head().clone();
    assert_eq!(
        (there.limit, there.owner()),
        (Limit::new(3), Some(Owner::Pinned))
    );
    assert_eq!(there.pause().unwrap().reason, reason());

    source.unpin(&web()).await.unwrap();
    source.resume(&web()).await.unwrap();
    assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
    let there = state(&to).await.head().clone();
    assert_eq!(
        (there.limit, there.owner()),
        (Limit::new(1), Some(Owner::Set))
    );
    assert_eq!(there.pause(), None);

    // From now on the target decides.
    admit(&to, &[durable("ci/new")]).await;
    source.pause(&web(), None).await.unwrap();
    assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
    assert_eq!(state(&to).await.head().pause(), None);
    source.close().await.unwrap();
}

#[tokio::test]
async fn rules_that_may_be_newer_in_either_store_are_told() {
    let (from, to) = (with_a_group().await, store());
    let target = manager(&to).await;
    let gone: RepositoryKey = "ci/gone".parse().unwrap();
    for run in 0..20 {
        let run = durable(&format!("ci/g{run}"));
        let _ = target.admit(&gone, run).await.unwrap();
    }
    // What was removed there lets everything count on from there.
    target.remove_repository(&gone).await.unwrap();
    assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
    let source = manager(&from).await;
    let pinned = RulesChange::limit(Limit::new(3));
    source
        .set_rules(&web(), pinned.clone(), Claim::Pin)
        .await
        .unwrap();
    source.pause(&web(), None).await.unwrap();
    let report = copy_state(&*from, &*to).await.unwrap();
    let problems = report.repositories[0].problems.join("; ");
    assert!(problems.contains("its limit or a rule"), "{report:?}");
    assert!(problems.contains("its pause"), "{report:?}");

    source.resume(&web()).await.unwrap();
    target.set_rules(&web(), pinned, Claim::Pin).await.unwrap();
    assert!(copy_state(&*from, &*to).await.unwrap().is_complete());
    source.close().await.unwrap();
    target.close().await.unwrap();
}
