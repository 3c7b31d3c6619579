//! Superseding more runs than one commit can change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_core::driver::{Driver, Retention};
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, RepositoryStatus, Turn};
use pac_core::protocol::{RunRequest, Supersedes};
use pac_core::state::{EntryState, RepositoryState, RunOutcome, Weight};
use pac_core::{Limit, RepositoryKey};
use pac_memory::{MemoryDriver, MemoryOptions};

/// Runs that a manager changes in one commit; a commit takes twice as many.
const BUDGET: usize = 2;

fn web() -> RepositoryKey {
    "ci/web".parse().unwrap()
}

fn durable(name: &str) -> RunRequest {
    RunRequest::durable(
        format!("ci/{name}").parse().unwrap(),
        "uid".parse().unwrap(),
    )
}

fn of_main(name: &str, supersedes: Supersedes) -> RunRequest {
    let request = durable(name).in_group("main".parse().unwrap());
    request.superseding(supersedes)
}

struct Setting {
    store: Arc<dyn Driver>,
    faults: Arc<Faults>,
    /// The runs that were asked for, in order.
    admissions: Vec<Admission>,
}

impl Setting {
    /// Two that run, one of them of the group, and 23 that wait, 20 of them of the group.
    async fn new() -> (Self, ConcurrencyManager) {
        let store: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
        let faults = Faults::none();
        faults.describe(|inner| inner.with_batches_of(1, 2 * BUDGET));
        let mut setting = Self {
            store,
            faults,
            admissions: Vec::new(),
        };
        let manager = setting.manager().await;
        manager
            .set_limit(&web(), Limit::new(2), None)
            .await
            .unwrap();
        setting.admit(&manager, durable("runs")).await;
        let none = Supersedes::None;
        setting.admit(&manager, of_main("old", none)).await;
        setting.admit(&manager, durable("first")).await;
        for at in 0..20 {
            if at == 10 {
                setting.admit(&manager, durable("second")).await;
            }
            let name = format!("old-{at}");
            setting.admit(&manager, of_main(&name, none)).await;
        }
        setting.admit(&manager, durable("third")).await;
        (setting, manager)
    }

    async fn manager(&self) -> ConcurrencyManager {
        let store = self.faults.over(&self.store);
        ConcurrencyManager::open(store, ManagerOptions::default())
            .await
            .unwrap()
    }

    async fn admit(&mut self, manager: &ConcurrencyManager, request: RunRequest) {
        let admission = manager.admit(&web(), request).await.unwrap();
        self.admissions.push(admission);
    }

    async fn state(&self) -> RepositoryState {
        let snapshot = self.store.load(&web(), None).await.unwrap();
        RepositoryState::from_snapshot(&snapshot).unwrap()
    }

    /// All of the group have ended or were asked to, and the new run has their place.
    async fn is_superseded_by(&self, new: &str) {
        let state = self.state().await;
        let waiting: Vec<_> = state.queue().map(|entry| entry.run.name()).collect();
        assert_eq!(waiting, ["first", new, "second", "third"]);
        let old = state
            .entries()
            .filter(|old| old.run.name().starts_with("old-"));
        let ended = old.map(|old| match old.state {
            EntryState::Finished { outcome, .. } => outcome,
            other => panic!("{} is {other:?}", old.run),
        });
        assert_eq!(ended.collect::<Vec<_>>(), [RunOutcome::Superseded; 20]);
        let old = state.entry(&"ci/old".parse().unwrap()).unwrap();
        assert!(old.is_started() && old.is_asked_to_end(), "{old:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_the_group_end_and_the_newcomer_has_their_place() {
    let (mut setting, manager) = Setting::new().await;
    setting
        .admit(&manager, of_main("new", Supersedes::All))
        .await;
    setting.is_superseded_by("new").await;
    for admission in setting.admissions.drain(..) {
        let Admission::Queued(waiter) = admission else {
            continue;
        };
        if waiter.run().name().starts_with("old-") {
            let turn = waiter.await;
            assert!(
                matches!(turn, Ok(Turn::Ended(RunOutcome::Superseded))),
                "{turn:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_that_are_admitted_together_supersede_in_rounds() {
    let (mut setting, manager) = Setting::new().await;
    let requests = ["newer", "newest"].map(|name| of_main(name, Supersedes::All));
    let admitted = manager.admit_all(&web(), None, requests.into()).await;
    setting.admissions.extend(admitted.unwrap());
    setting.is_superseded_by("newest").await;
}

#[tokio::test(start_paused = true)]
async fn many_that_run_are_all_asked_to_end() {
    let (mut setting, manager) = Setting::new().await;
    let limit = Limit::new(30);
    manager.set_limit(&web(), limit, None).await.unwrap();
    let all_run = |status: &RepositoryStatus| status.queued.is_empty();
    while !all_run(&manager.status(&web()).await.unwrap()) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    setting
        .admit(&manager, of_main("new", Supersedes::All))
        .await;
    let state = setting.state().await;
    let asked = state.entries().filter(|entry| entry.is_asked_to_end());
    assert_eq!(asked.count(), 21);
}

#[tokio::test(start_paused = true)]
async fn another_process_goes_on_where_one_has_died_between_two_rounds() {
    let (setting, manager) = Setting::new().await;
    setting
        .faults
        .inject([Request::Commit], Fault::Hang, When::Every(4));
    let request = of_main("new", Supersedes::All);
    let web = web();
    let admission = manager.admit(&web, request.clone());
    let answered = tokio::time::timeout(Duration::from_secs(1), admission).await;
    assert!(answered.is_err());
    setting.faults.clear();
    let waiting = setting.state().await.head().queued;
    assert!((4..23).contains(&waiting), "{waiting} wait");
    let other = setting.manager().await;
    let _admission = other.admit(&web, request).await.unwrap();
    setting.is_superseded_by("new").await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_not_let_in_ends_nobody() {
    let (setting, manager) = Setting::new().await;
    let before = setting.state().await.head().clone();
    let heavy = of_main("new", Supersedes::All).with_weight(Weight::new(3).unwrap());
    assert!(manager.admit(&web(), heavy).await.is_err());
    assert_eq!(*setting.state().await.head(), before);
}

#[tokio::test(start_paused = true)]
async fn thousands_hear_that_they_were_superseded_whichever_manager_has_them() {
    const MANY: usize = 6_000;
    // With fewer, those that hear of it from another manager may hear that the run is gone.
    let retention = Retention::new(Duration::from_secs(60 * 60), MANY);
    let store: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions {
        retention,
        ..MemoryOptions::default()
    }));
    let mut managers = Vec::new();
    for _ in 0..3 {
        let options = ManagerOptions::default();
        let manager = ConcurrencyManager::open(Arc::clone(&store), options);
        managers.push(manager.await.unwrap());
    }
    managers[0]
        .set_limit(&web(), Limit::new(1), None)
        .await
        .unwrap();
    let _runs = managers[0].admit(&web(), durable("runs")).await.unwrap();
    let mut waiters = Vec::new();
    for at in 0..MANY {
        let request = of_main(&format!("old-{at}"), Supersedes::None);
        let admission = managers[at % 3].admit(&web(), request).await.unwrap();
        let Admission::Queued(waiter) = admission else {
            panic!("{admission:?}");
        };
        waiters.push(waiter);
    }
    let new = of_main("new", Supersedes::Waiting);
    let _new = managers[1].admit(&web(), new).await.unwrap();
    for waiter in waiters {
        let turn = tokio::time::timeout(Duration::from_secs(60), waiter).await;
        assert!(
            matches!(turn, Ok(Ok(Turn::Ended(RunOutcome::Superseded)))),
            "{turn:?}"
        );
    }
}
