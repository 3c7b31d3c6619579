//! The system without a store, used while `concurrency-enabled` is `false`, which is the default:
//! states in annotations, the order of an event's runs in its execution order, and a queue in
//! memory for each Repository.
//!
//! One controller at a time may run it for a cluster. A queue is never more than what the cluster
//! shows: after a restart it is made anew from the objects, and goes on. What decides is the run
//! itself:
//!
//! - A run that runs has a slot, also beyond the limit; then nothing else starts. One that has
//!   ended has none, whatever its state annotation says.
//! - A run waits while it is held back, in the Repository that its annotation names, and in no
//!   other one of its namespace.
//! - Entries of an execution order that are no names are passed over. A run whose order does not
//!   come waits for it for a time, and is then taken by its creation and name.
//! - A start whose answer was lost keeps its slot until the run's object shows what has become of
//!   it; a start that certainly failed keeps its place.
//!
//! [`decide`] and [`Queue::plan`] decide, and ask nothing; the controller carries out.
//!
//! The final states are written by [`finish`](AnnotationController::finish), when the end has been
//! reported to the Git provider: slots do not wait for that.

mod decide;
mod follow;
mod look;
mod objects;
mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pac_core::state::RunOutcome;
use pac_core::{Limit, PipelineRunKey, RepositoryKey, Timestamp};
use tokio::sync::{Notify, OnceCell, Semaphore};
use tokio::time::Instant;

pub use decide::{Standing, decide};
pub use follow::Relisted;
pub use queue::{Circumstances, Plan, Queue, Start};

use follow::Dirty;
use objects::{Objects, Standing as Found};

use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterEvent, HoldOutcome};
use crate::error::PipelinesError;
use crate::integration::{ControllerOptions, Creation, Phase};
use crate::model::{ExecutionOrder, PacState, RunView, SpecStatus};
use crate::vocabulary;

/// The controller of the system without a store. Cheap to clone; all clones are the same
/// controller.
#[derive(Debug, Clone)]
pub struct AnnotationController {
    shared: Arc<Shared>,
}

/// A Repository as the controller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnotationStatus {
    /// The limit in force; `None` where the Repository is not there, or its limit cannot be
    /// understood.
    pub limit: Option<Limit>,
    /// The runs that have a slot.
    pub running: Vec<PipelineRunKey>,
    /// The runs that wait, next first.
    pub waiting: Vec<PipelineRunKey>,
}

#[derive(Debug)]
struct Shared {
    cluster: Arc<dyn Cluster>,
    options: ControllerOptions,
    clock: Clock,
    objects: Mutex<Objects>,
    /// Each is locked while its Repository is looked at.
    queues: Mutex<HashMap<RepositoryKey, Arc<tokio::sync::Mutex<Queue>>>>,
    dirty: Mutex<Dirty>,
    changed: Notify,
    starts: Semaphore,
    listed: OnceCell<()>,
}

impl AnnotationController {
    /// Over a cluster.
    #[must_use]
    pub fn new(cluster: Arc<dyn Cluster>, options: ControllerOptions) -> Self {
        let starts = options.concurrent_starts.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                cluster,
                clock: Clock::of(&options),
                objects: Mutex::new(Objects::new(options.global_repository.clone())),
                queues: Mutex::default(),
                dirty: Mutex::default(),
                changed: Notify::new(),
                starts: Semaphore::new(starts),
                listed: OnceCell::new(),
                options,
            }),
        }
    }

    /// Takes the runs of one event in, in their execution order, as they were just created. In a
    /// Repository with a limit they get the state `queued` and their order, are held back where
    /// they are not, and those that may start are started; without one they get the state
    /// `started`.
    ///
    /// Answers in the order of `runs`. What fails is tried again by [`run`](Self::run). Dropped in
    /// flight, it has done a part.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn create(&self, runs: Vec<RunView>) -> Result<Vec<Creation>, PipelinesError> {
        let shared = &self.shared;
        shared.listed().await?;
        let order = ExecutionOrder::of(runs.iter().map(|run| run.key.clone())).to_string();
        let mut repositories: Vec<RepositoryKey> = Vec::new();
        for run in &runs {
            shared.observe(ClusterEvent::RunApplied(run.clone()));
            let Some(repository) = run.repository() else {
                continue;
            };
            let found = shared.objects().standing(&repository);
            if let Found::Limit(limit) = found {
                shared.enter(run, limit, &order).await?;
            }
            if !repositories.contains(&repository) {
                repositories.push(repository);
            }
        }
        for repository in &repositories {
            shared.look_and_retry(repository).await?;
        }
        let mut answers = Vec::with_capacity(runs.len());
        for run in &runs {
            answers.push(shared.creation(run).await);
        }
        Ok(answers)
    }

    /// Writes the final state of a run, once its end was reported to the Git provider: `completed`,
    /// or `failed` where it could not be reported. Its slot has been free since it ended.
    ///
    /// # Errors
    /// Those of the cluster. Writing it again is harmless.
    pub async fn finish(&self, run: &RunView, reported: bool) -> Result<(), PipelinesError> {
        let state = if reported {
            PacState::Completed
        } else {
            PacState::Failed
        };
        Ok(self.shared.write(run, state).await?)
    }

    /// Takes something in that happened in the cluster, beside what [`run`](Self::run) hears of
    /// its own watch. Events may come twice, late and out of order.
    pub fn observe(&self, event: ClusterEvent) {
        self.shared.observe(event);
    }

    /// A Repository as it was looked at last.
    pub async fn status(&self, repository: &RepositoryKey) -> AnnotationStatus {
        let found = self.shared.objects().standing(repository);
        let queue = self.shared.queues().get(repository).cloned();
        let mut status = AnnotationStatus {
            limit: match found {
                Found::Limit(limit) => limit,
                Found::Missing => None,
            },
            running: Vec::new(),
            waiting: Vec::new(),
        };
        if let Some(queue) = queue {
            let queue = queue.lock().await;
            status.running = queue.running().cloned().collect();
            status.waiting = queue.waiting().cloned().collect();
        }
        status
    }
}

impl Shared {
    /// Brings a run that was just created into its queue.
    async fn enter(
        &self,
        run: &RunView,
        limit: Option<Limit>,
        order: &str,
    ) -> Result<(), PipelinesError> {
        if !matches!(Phase::of(run, true), Phase::Held | Phase::Running) {
            return Ok(());
        }
        if limit == Some(Limit::UNLIMITED) && run.spec_status == SpecStatus::None {
            return Ok(self.write(run, PacState::Started).await?);
        }
        if run.spec_status != SpecStatus::Pending {
            match self.cluster.hold(&run.key, &run.uid).await? {
                HoldOutcome::Held => {}
                // It runs, and is counted.
                HoldOutcome::TooLate => return Ok(self.write(run, PacState::Started).await?),
                HoldOutcome::Gone => {
                    self.observe(ClusterEvent::RunDeleted(run.clone()));
                    return Ok(());
                }
            }
        }
        let marks = [
            (vocabulary::STATE, Some(PacState::Queued.as_str())),
            (vocabulary::EXECUTION_ORDER, Some(order)),
        ];
        Ok(self.annotate(run, &marks).await?)
    }

    /// What has become of a run by now.
    async fn creation(&self, run: &RunView) -> Creation {
        let Some(repository) = run.repository() else {
            return Creation::LeftAlone;
        };
        let queue = self.queues().get(&repository).cloned();
        if let Some(queue) = queue {
            let queue = queue.lock().await;
            if queue.running().any(|other| *other == run.key) {
                return Creation::Started;
            }
            let position = queue.waiting().position(|other| *other == run.key);
            if let Some(at) = position {
                let position = Some(at + 1);
                return Creation::Queued { position };
            }
        }
        let objects = self.objects();
        match objects.run(&run.key).filter(|now| now.uid == run.uid) {
            None => Creation::Finished(RunOutcome::Cancelled),
            Some(now) => match Phase::of(now, true) {
                Phase::Done(outcome) => Creation::Finished(outcome),
                Phase::Ending { .. } => Creation::Finished(RunOutcome::Cancelled),
                Phase::Running => Creation::Started,
                Phase::Held => Creation::Queued { position: None },
                Phase::HeldByUser | Phase::LeftAlone => Creation::LeftAlone,
            },
        }
    }

    /// Takes an event in, and has looked at what it is about.
    fn observe(&self, event: ClusterEvent) {
        let touched = self.objects().observe(event);
        match touched {
            Some(repositories) => {
                for repository in repositories {
                    self.mark_dirty(&repository, Instant::now());
                }
            }
            None => self.relist(),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<RepositoryKey, Arc<tokio::sync::Mutex<Queue>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
