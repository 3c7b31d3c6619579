//! Any interleaving of cluster events, crashes and answers of the API ends in the state that a
//! recovery from nothing gives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pac_core::driver::Driver;
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_core::{Limit, PipelineRunKey, RepositoryKey};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{ClusterFaults, MemoryCluster, NewRun, StartFault, TektonMode};
use pac_pipelines::{ControllerOptions, PipelinesController};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Something that happens.
#[derive(Debug, Clone)]
enum Move {
    /// An event makes runs; their order is written, or never.
    Event {
        repository: usize,
        runs: usize,
        ordered: bool,
    },
    /// A run that is to run at once.
    Unheld {
        repository: usize,
    },
    Finish {
        run: usize,
        succeeded: bool,
    },
    Cancel {
        run: usize,
        form: usize,
    },
    StartByUser {
        run: usize,
    },
    Delete {
        run: usize,
    },
    /// Deleted, and another of the same name created.
    Recreate {
        run: usize,
    },
    Limit {
        repository: usize,
        limit: u32,
    },
    GlobalLimit {
        limit: u32,
    },
    DeleteRepository {
        repository: usize,
    },
    Fault(StartFault),
    ApiAway(bool),
    Disorder(bool),
    CutWatches,
    Tekton,
    TektonIsManual(bool),
    /// Another controller.
    Open,
    /// A controller dies; its session runs out.
    Crash,
    /// A controller ends in order.
    Close,
    Wait {
        millis: u64,
    },
}

fn a_move() -> impl Strategy<Value = Move> {
    let repository = 0..REPOSITORIES.len();
    let run = 0..40_usize;
    prop_oneof![
        6 => (repository.clone(), 1..4_usize, prop::bool::weighted(0.8)).prop_map(
            |(repository, runs, ordered)| Move::Event { repository, runs, ordered }
        ),
        1 => repository.clone().prop_map(|repository| Move::Unheld { repository }),
        6 => (run.clone(), any::<bool>())
            .prop_map(|(run, succeeded)| Move::Finish { run, succeeded }),
        3 => (run.clone(), 0..3_usize).prop_map(|(run, form)| Move::Cancel { run, form }),
        1 => run.clone().prop_map(|run| Move::StartByUser { run }),
        2 => run.clone().prop_map(|run| Move::Delete { run }),
        1 => run.prop_map(|run| Move::Recreate { run }),
        2 => (repository.clone(), 0..4_u32)
            .prop_map(|(repository, limit)| Move::Limit { repository, limit }),
        1 => (0..3_u32).prop_map(|limit| Move::GlobalLimit { limit }),
        1 => repository.prop_map(|repository| Move::DeleteRepository { repository }),
        3 => prop_oneof![
            Just(StartFault::AnswerLost),
            Just(StartFault::RequestLost),
            Just(StartFault::Conflict)
        ]
        .prop_map(Move::Fault),
        2 => any::<bool>().prop_map(Move::ApiAway),
        1 => any::<bool>().prop_map(Move::Disorder),
        1 => Just(Move::CutWatches),
        3 => Just(Move::Tekton),
        1 => any::<bool>().prop_map(Move::TektonIsManual),
        1 => Just(Move::Open),
        1 => Just(Move::Crash),
        1 => Just(Move::Close),
        6 => prop_oneof![0..50_u64, 0..3_000_u64, 0..30_000_u64]
            .prop_map(|millis| Move::Wait { millis }),
    ]
}

/// Two of one namespace, and one of another.
const REPOSITORIES: [&str; 3] = ["ci/website", "ci/second", "team/website"];

const FORMS: [SpecStatus; 3] = [
    SpecStatus::Cancelled,
    SpecStatus::CancelledRunFinally,
    SpecStatus::StoppedRunFinally,
];

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
        cases: 100,
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

struct World {
    cluster: MemoryCluster,
    driver: Arc<MemoryDriver>,
    controllers: Vec<(PipelinesController, JoinHandle<()>)>,
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
            Move::Open if self.controllers.len() < 3 => self.open().await,
            Move::Open => {}
            Move::Crash => {
                if let Some((_, task)) = self.controllers.pop() {
                    task.abort();
                }
            }
            Move::Close => {
                if let Some((controller, task)) = self.controllers.pop() {
                    task.abort();
                    let _ = controller.manager().close().await;
                }
            }
            Move::Wait { millis } => sleep(Duration::from_millis(*millis)).await,
        }
    }

    /// Everything works again, for long enough.
    async fn heal(&mut self) {
        self.faults = ClusterFaults::default();
        self.cluster.set_faults(self.faults.clone());
        self.cluster.set_tekton(TektonMode::Immediate);
        if self.controllers.is_empty() {
            self.open().await;
        }
        sleep(Duration::from_secs(6 * 60)).await;
    }

    /// What the store has now, and what a controller makes of the same cluster from nothing.
    async fn compare(mut self) -> Result<(), String> {
        let evolved = self.books(&self.driver).await;
        for (controller, task) in self.controllers.drain(..) {
            task.abort();
            let _ = controller.manager().close().await;
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
        let driver = Arc::clone(&self.driver) as Arc<dyn Driver>;
        let manager = ConcurrencyManager::open(driver, ManagerOptions::default())
            .await
            .unwrap();
        let options = ControllerOptions::default()
            .with_epoch(self.cluster.now())
            .with_recovery_interval(Duration::from_secs(120));
        let cluster = Arc::new(self.cluster.clone());
        let controller = PipelinesController::new(manager, cluster, options);
        let running = controller.clone();
        let task = tokio::spawn(async move { running.run().await.unwrap() });
        self.controllers.push((controller, task));
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

fn global() -> RepositoryKey {
    RepositoryKey::new("pipelines-as-code", "pipelines-as-code").unwrap()
}
