//! Any interleaving of cluster events, crashes, outages of the store and answers of the API ends in
//! the state that a recovery from nothing gives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod moves;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_core::driver::{Driver, Placement};
use pac_core::manager::{ConcurrencyManager, KeepAliveOn, ManagerOptions};
use pac_core::{Limit, PipelineRunKey, RepositoryKey};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{ClusterFaults, MemoryCluster, NewRun, TektonMode};
use pac_pipelines::{ControllerOptions, PipelinesController};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use moves::{FORMS, Line, Move, REPOSITORIES, a_move};

#[test]
fn every_interleaving_ends_as_a_recovery_from_nothing() {
    nothing_found(1);
}

#[test]
fn every_interleaving_ends_as_a_recovery_from_nothing_again() {
    nothing_found(2);
}

/// The same moves every time, for a seed.
fn nothing_found(seed: u64) {
    let config = Config {
        cases: 60,
        failure_persistence: None,
        source_file: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let seeds = [seed; 4].map(u64::to_le_bytes).concat();
    let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &seeds);
    let cases = (any::<u64>(), prop::collection::vec(a_move(), 1..60));
    let found = TestRunner::new_with_rng(config, chance).run(&cases, |(seed, moves)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = runtime.block_on(async {
            let mut world = World::new(seed).await;
            for one in &moves {
                world.make(one).await;
            }
            world.heal().await;
            world.compare().await
        });
        outcome.map_err(TestCaseError::fail)
    });
    if let Err(found) = found {
        panic!("{found}");
    }
}

/// A controller that runs, and its connection to the store.
struct Running {
    controller: PipelinesController,
    store: Arc<Faults>,
    task: JoinHandle<()>,
}

impl Running {
    fn set(&self, line: Line) {
        self.store.clear();
        match line {
            Line::Open => self.store.open(),
            Line::Cut => self.store.cut(),
            Line::Held => self.store.hold(),
            Line::Lossy => {
                self.store.open();
                let lost = (Fault::LoseAnswer, When::Chance(0.3));
                self.store.inject([Request::Commit], lost.0, lost.1);
            }
        }
    }

    /// Ends in order, as far as the store can be reached.
    async fn close(self) {
        self.task.abort();
        let _ = self.controller.manager().close().await;
    }
}

struct World {
    cluster: MemoryCluster,
    driver: Arc<MemoryDriver>,
    controllers: Vec<Running>,
    faults: ClusterFaults,
    created: usize,
    /// Nothing has happened that lets more run than may, other than a fault of ours.
    is_strict: bool,
}

impl World {
    async fn new(seed: u64) -> Self {
        let cluster = MemoryCluster::new(seed, global());
        for (at, repository) in REPOSITORIES.iter().enumerate() {
            let limit = Limit::new(u32::try_from(at).unwrap() % 2 + 1);
            cluster.apply_repository(&repository.parse().unwrap(), limit);
        }
        let mut world = Self {
            cluster,
            driver: Arc::new(MemoryDriver::new(MemoryOptions::default())),
            controllers: Vec::new(),
            faults: ClusterFaults::default().with_latency(Duration::from_millis(20)),
            created: 0,
            is_strict: true,
        };
        world.cluster.set_faults(world.faults.clone());
        world.open().await;
        world
    }

    async fn make(&mut self, one: &Move) {
        match one {
            Move::Event {
                repository,
                runs,
                ordered,
            } => {
                let repository = key(*repository);
                let names: Vec<_> = (0..*runs).map(|_| self.name(&repository)).collect();
                for name in &names {
                    self.cluster.create(NewRun::held(name.clone(), &repository));
                }
                if *ordered {
                    self.cluster.set_order(&names);
                }
            }
            Move::Unheld { repository } => {
                self.is_strict = false;
                let repository = key(*repository);
                let name = self.name(&repository);
                self.cluster.create(NewRun::of(name, &repository));
            }
            Move::Finish { run, succeeded } => {
                let runs = self.cluster.views();
                let runs: Vec<_> = runs
                    .iter()
                    .filter(|run| run.has_started() && !run.is_done())
                    .collect();
                if let Some(run) = runs.get(run % runs.len().max(1)) {
                    self.cluster.finish(&run.key, *succeeded);
                }
            }
            Move::Cancel { run, form } => {
                if let Some(run) = self.pick(*run) {
                    self.is_strict &= *form == 0;
                    self.cluster.set_status(&run, FORMS[*form].clone());
                }
            }
            Move::StartByUser { run } => {
                if let Some(run) = self.pick(*run) {
                    let held = self.cluster.view(&run).unwrap().spec_status == SpecStatus::Pending;
                    if held {
                        self.is_strict = false;
                        self.cluster.set_status(&run, SpecStatus::None);
                    }
                }
            }
            Move::Delete { run } => {
                if let Some(run) = self.pick(*run) {
                    self.cluster.delete(&run);
                }
            }
            Move::Recreate { run } => {
                if let Some(run) = self.pick(*run)
                    && let Some(old) = self.cluster.delete(&run)
                {
                    let repository = old.repository().unwrap();
                    self.cluster.create(NewRun::held(run.clone(), &repository));
                    self.cluster.set_order(&[run]);
                }
            }
            Move::Limit { repository, limit } => {
                self.is_strict = false;
                self.cluster
                    .apply_repository(&key(*repository), Limit::new(*limit));
            }
            Move::GlobalLimit { limit } => {
                self.is_strict = false;
                self.cluster.apply_repository(&global(), Limit::new(*limit));
            }
            Move::DeleteRepository { repository } => {
                self.is_strict = false;
                self.cluster.delete_repository(&key(*repository));
            }
            Move::Fault(fault) => self.cluster.fail_next_start(*fault),
            Move::ApiAway(away) => {
                self.faults.away = *away;
                self.cluster.set_faults(self.faults.clone());
            }
            Move::Disorder(disorder) => {
                self.faults.disorder = if *disorder { 0.5 } else { 0.0 };
                self.cluster.set_faults(self.faults.clone());
            }
            Move::CutWatches => self.cluster.cut_watches(),
            Move::Tekton => {
                self.cluster.tekton();
            }
            Move::TektonIsManual(manual) => self.cluster.set_tekton(if *manual {
                TektonMode::Manual
            } else {
                TektonMode::Immediate
            }),
            Move::Store { controller, line } => {
                if let Some(one) = self.controllers.get(*controller) {
                    one.set(*line);
                }
            }
            Move::CancelInStore { run } => {
                if let Some(run) = self.pick(*run) {
                    self.is_strict = false;
                    self.cancel_in_store(&run).await;
                }
            }
            Move::Open if self.controllers.len() < 3 => self.open().await,
            Move::Open => {}
            Move::Crash => {
                if let Some(crashed) = self.controllers.pop() {
                    crashed.store.cut();
                    crashed.task.abort();
                }
            }
            Move::Close => {
                if let Some(closed) = self.controllers.pop() {
                    closed.close().await;
                }
            }
            Move::Wait { millis } => sleep(Duration::from_millis(*millis)).await,
        }
    }

    /// As `pac cancel` does, past all controllers.
    async fn cancel_in_store(&self, run: &PipelineRunKey) {
        let driver = Arc::clone(&self.driver) as Arc<dyn Driver>;
        let operator = ConcurrencyManager::open(driver, manager_options())
            .await
            .unwrap();
        let repository = self.cluster.view(run).and_then(|view| view.repository());
        if let Some(repository) = repository {
            operator.cancel(&repository, run, None).await.unwrap();
        }
        operator.close().await.unwrap();
    }

    /// Everything works again, for long enough.
    async fn heal(&mut self) {
        self.faults = ClusterFaults::default();
        self.cluster.set_faults(self.faults.clone());
        self.cluster.set_tekton(TektonMode::Immediate);
        self.controllers.iter().for_each(|one| one.set(Line::Open));
        if self.controllers.is_empty() {
            self.open().await;
        }
        sleep(Duration::from_secs(6 * 60)).await;
    }

    /// What the store has now, and what a controller makes of the same cluster from nothing.
    async fn compare(mut self) -> Result<(), String> {
        let evolved = self.books(&self.driver).await;
        for controller in self.controllers.drain(..) {
            controller.close().await;
        }
        let started = self.cluster.started();
        self.driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
        self.open().await;
        sleep(Duration::from_secs(30)).await;
        let fresh = self.books(&self.driver).await;
        let breaches = self.cluster.breaches();
        let breaches: Vec<_> = breaches
            .iter()
            .filter(|breach| self.is_strict || breach.contains("began"))
            .collect();
        if evolved != fresh {
            return Err(format!("it came to {evolved:#?}\nfrom nothing {fresh:#?}"));
        }
        if started != self.cluster.started() {
            return Err(format!(
                "a slot was idle: {started:?}, {:?}",
                self.cluster.started()
            ));
        }
        if !breaches.is_empty() {
            return Err(format!("{breaches:?}"));
        }
        Ok(())
    }

    /// What runs and what waits in each repository. In which order they wait depends on when
    /// each was heard of, which a recovery from nothing cannot know.
    async fn books(
        &self,
        driver: &MemoryDriver,
    ) -> Vec<(String, BTreeSet<String>, BTreeSet<String>)> {
        let mut books = Vec::new();
        for repository in REPOSITORIES {
            let repository = repository.parse::<RepositoryKey>().unwrap();
            let snapshot = driver.load(&repository, None).await.unwrap();
            let names = |started: bool| {
                let entries = snapshot.entries.iter();
                let entries = entries.filter(|entry| {
                    if started {
                        entry.is_started()
                    } else {
                        entry.is_queued()
                    }
                });
                entries
                    .map(|entry| format!("{} {}", entry.run, entry.uid))
                    .collect()
            };
            books.push((repository.to_string(), names(true), names(false)));
        }
        books
    }

    async fn open(&mut self) {
        let store = Faults::none();
        // Requests have deadlines: a line may hold them for ever.
        store.describe(|inner| {
            inner.with_placement(Placement::Remote {
                batches_in_flight: 1,
            })
        });
        let driver = store.over(&(Arc::clone(&self.driver) as Arc<dyn Driver>));
        let manager = ConcurrencyManager::open(driver, manager_options())
            .await
            .unwrap();
        let options = ControllerOptions::default()
            .with_epoch(self.cluster.now())
            .with_recovery_interval(Duration::from_secs(120));
        let cluster = Arc::new(self.cluster.clone());
        let controller = PipelinesController::new(manager, cluster, options);
        let running = controller.clone();
        let task = tokio::spawn(async move { running.run().await.unwrap() });
        self.controllers.push(Running {
            controller,
            store,
            task,
        });
    }

    fn name(&mut self, repository: &RepositoryKey) -> PipelineRunKey {
        self.created += 1;
        PipelineRunKey::new(repository.namespace(), &format!("run{}", self.created)).unwrap()
    }

    fn pick(&self, number: usize) -> Option<PipelineRunKey> {
        let runs = self.cluster.views();
        let run = runs.get(number % runs.len().max(1))?;
        Some(run.key.clone())
    }
}

fn key(repository: usize) -> RepositoryKey {
    REPOSITORIES[repository].parse().unwrap()
}

/// On paused time, nothing may wait for a clock of its own.
fn manager_options() -> ManagerOptions {
    ManagerOptions::default().with_keep_alive_on(KeepAliveOn::Task)
}

fn global() -> RepositoryKey {
    RepositoryKey::new("pipelines-as-code", "pipelines-as-code").unwrap()
}
