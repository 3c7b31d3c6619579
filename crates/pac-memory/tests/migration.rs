//! Migrations between stores in memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, Lease, ManagerOptions};
use pac_core::migration::{
    Action, ClusterFacts, LegacyKey, LegacyState, SlotRow, adopt_legacy, copy_state, etcd_v2,
    postgresql, preview_copy, preview_legacy, remove_copied,
};
use pac_core::protocol::RunRequest;
use pac_core::state::{RepositoryState, RunOutcome};
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
