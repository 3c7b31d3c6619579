//! Upstream's queue manager: the interface of the queues of Pipelines-as-Code, over a
//! [`ConcurrencyManager`].
//!
//! A controller that is written against upstream's `ManagerInterface` keeps its calls and gets
//! queues that several controllers share, that outlive them, and that are never rebuilt from
//! guesses. A method that had no error has one here, since a store can fail; every method may be
//! called again, after an error too, and comes to the same state.
//!
//! The store grants a slot in the same commit that frees one, before any caller asks. For this
//! interface a run is *running* once it has been handed to the caller, by
//! [`add_list_to_running_queue`](QueueManager::add_list_to_running_queue) or
//! [`remove_and_take_item_from_queue`](QueueManager::remove_and_take_item_from_queue), and is
//! *queued* until then, whether it has its slot already or not. [`Wakes`] names the runs that got
//! their slot while no caller asked.
//!
//! [`StartLoop`] is the loop that upstream's reconciler runs over this interface.
//!
//! # Where it differs from upstream
//!
//! The rows are those of upstream's unit tests, by the names of the tests here. Where a row is
//! not named, both do the same.
//!
//! | Row | Upstream | Here | Why |
//! | --- | --- | --- | --- |
//! | Q1 | Without a limit every call returns all waiting runs again, and counts none. | Each is returned once, and is counted. | A run that is returned twice is started twice; a limit that is set later has to know what runs. |
//! | Q11, Q13 | The rebuild passes over runs without an execution order, started ones too. | What runs is counted. Runs that wait come by their creation and name once the order has had its time. | A slot that is not counted lets one run too many start. |
//! | Q13 | Started runs beyond the limit are put among the pending ones. | They are counted beyond the limit, and nothing starts until fewer run. | They run. |
//! | Q11 | The rebuild gives each queue the runs of all Repositories of its namespace. | Each run counts in the Repository of its annotation. | The queues of a namespace start each other's runs. |
//! | Q11 | The rebuild counts what the annotation calls started. | It counts what runs, and frees what has ended or is gone. | A run that has ended keeps its slot for ever. |
//! | Q11 | Repositories that inherit the global limit are not rebuilt. | They are. | The limit holds for them. |
//! | Q15 | Without a limit nothing is counted. | It is. | As Q1. |
//! | R1 | A run without an order waits for ever. | It waits for the order for a time ([`order_wait`](crate::ControllerOptions::order_wait)), then is taken alone. | The order is written once, and may be lost. |
//! | R7, R17 | The loop ends after six rounds, with an error. | It ends when a round brings nothing new. | A run that was removed is not returned again. |
//! | R8, R16 | A start whose answer is lost gives its slot back. | It keeps its slot until the truth is read. | It may have started. |
//! | R10, R11, R12 | The slot goes back, and the run to the end of its queue. | The run keeps its old place: it is the next one again. | A failure of the cluster is not the run's. |
//! | R11 | A run of the order that cannot be read is dropped from this round, and those behind it pass. | The list ends before it, and the call fails. | The order is the order. |
//! | R14, R15 | A candidate that cannot be read or started at once is dropped from the queue for good. | It keeps its place, and the call fails; nothing passes it. | It would wait for ever. |
//! | R19 | A cancelled caller hands the candidate back. | A caller that is dropped leaves it granted, and it is handed out again. | The start may have been asked for. |
//!
//! Use one system for a Repository at a time: this interface, or the
//! [controller](crate::integration).

mod claims;
mod counted;
mod fill;
mod init;
mod name;
mod repositories;
mod start_loop;
mod wakes;

use std::sync::Arc;

use pac_core::manager::{Admission, ConcurrencyManager, RunStatus};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{PipelineRunKey, RepositoryKey};

pub use init::Rebuilt;
pub use name::RunName;
pub use repositories::{Found, Repositories};
pub use start_loop::{StartLoop, StartReport, is_waiting};
pub use wakes::Wakes;

use claims::Claims;
use counted::Counted;
use wakes::Stream;

use crate::clock::Clock;
use crate::ending::end_run;
use crate::error::PipelinesError;
use crate::integration::{ControllerOptions, Known, Phase};
use crate::model::{RepositoryView, RunView};

/// Upstream's `ManagerInterface` over a [`ConcurrencyManager`]. Cheap to clone; all clones are the
/// same queue manager. Any number of them may share a store.
///
/// A [`RepositoryView`] that a method takes has the limit that is in force, as
/// [`Repositories::get`] answers it; a limit that is older than one announced before is passed
/// over.
#[derive(Debug, Clone)]
pub struct QueueManager {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manager: ConcurrencyManager,
    claims: Claims,
    counted: Counted,
    stream: Stream,
    options: ControllerOptions,
    clock: Clock,
}

impl QueueManager {
    /// Over a manager of its own, whose grants it reads: it takes over the runs of controllers
    /// that have died. Of `options` it uses the global Repository, the wait for the order, the
    /// number of Repositories that are seen to at once, and the epoch.
    #[must_use]
    pub fn new(manager: ConcurrencyManager, options: ControllerOptions) -> Self {
        let clock = Clock::of(&options);
        let stream = Stream::default();
        stream.open(&manager);
        Self {
            shared: Arc::new(Shared {
                manager,
                claims: Claims::default(),
                counted: Counted::default(),
                stream,
                options,
                clock,
            }),
        }
    }

    /// Adds runs to the queue of a Repository, in this order, and returns those that may start
    /// now: all runs of the Repository that got a slot and have not been handed out, oldest grant
    /// first, also runs that are not in the list. Known runs keep their places; a run that has
    /// ended is passed over. Announces the limit, if it is another one.
    ///
    /// A run that is returned is the caller's: it is to be started, or else to be given back by
    /// [`hand_back`](Self::hand_back), [`offer_again`](Self::offer_again) or
    /// [`remove_from_queue`](Self::remove_from_queue). Dropped in flight, it has handed out
    /// nothing; runs may have been added.
    ///
    /// # Errors
    /// Those of the store, and for a uid that is too long to be counted on.
    pub async fn add_list_to_running_queue(
        &self,
        repository: &RepositoryView,
        runs: &[RunName],
    ) -> Result<Vec<PipelineRunKey>, PipelinesError> {
        self.add(repository, runs).await?;
        self.take(&repository.key, usize::MAX).await
    }

    /// Adds runs to the queue of a Repository, in this order, and hands out none. Known runs keep
    /// their places. Dropped in flight, it may have added some.
    ///
    /// # Errors
    /// As of [`add_list_to_running_queue`](Self::add_list_to_running_queue).
    pub async fn add_to_pending_queue(
        &self,
        repository: &RepositoryView,
        runs: &[RunName],
    ) -> Result<(), PipelinesError> {
        self.add(repository, runs).await
    }

    /// Takes a run out of the queue or out of its slot; added again, it comes as the last. Hands
    /// out none: a run that gets the slot is handed out by the next call that hands out runs, and
    /// [`Wakes`] names it. True when the Repository has a queue, whether the run was in it or not. Dropped
    /// in flight, it is done or not done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn remove_from_queue(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Result<bool, PipelinesError> {
        self.shared.counted.forget(repository, run);
        let known = self.known(repository, run).await?;
        if known.is_live() {
            self.give_up(repository, run, &known).await?;
            return Ok(true);
        }
        Ok(self.shared.manager.status(repository).await?.exists)
    }

    /// Takes a run that has ended, or is gone, out of the queue or out of its slot, and returns at
    /// most one run that may start now: of those that got a slot and have not been handed out, the
    /// one that got it first. Called again for the same run, it returns the next one, if there is
    /// one. `None` without a queue.
    ///
    /// How the run ended is read from it: a run that has not ended is taken out as by
    /// [`remove_from_queue`](Self::remove_from_queue). A run that is returned is the caller's, as of
    /// [`add_list_to_running_queue`](Self::add_list_to_running_queue). Dropped in flight, it has
    /// handed out nothing; the run may have been removed.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn remove_and_take_item_from_queue(
        &self,
        repository: &RepositoryView,
        run: &RunView,
    ) -> Result<Option<PipelineRunKey>, PipelinesError> {
        self.leave(&repository.key, run).await?;
        Ok(self.take(&repository.key, 1).await?.pop())
    }

    /// Forgets a Repository: its queue, its limit, and its runs. Dropped in flight, it is
    /// done or not done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn remove_repository(
        &self,
        repository: &RepositoryKey,
    ) -> Result<(), PipelinesError> {
        self.shared.manager.remove_repository(repository).await?;
        self.shared.claims.forget(repository);
        self.shared.counted.forget_all(repository);
        Ok(())
    }

    /// The runs that wait, in the order in which they start; first those that have a slot and
    /// have not been handed out.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn queued(
        &self,
        repository: &RepositoryKey,
    ) -> Result<Vec<PipelineRunKey>, PipelinesError> {
        let status = self.shared.manager.status(repository).await?;
        let session = self.shared.manager.session();
        let (mut queued, _) = self.shared.claims.split(&status, session);
        queued.extend(status.queued.into_iter().map(|run| run.run));
        Ok(queued)
    }

    /// The runs that were handed out, here or to another controller, and hold their slots, in the
    /// order of their grants.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn running(
        &self,
        repository: &RepositoryKey,
    ) -> Result<Vec<PipelineRunKey>, PipelinesError> {
        let status = self.shared.manager.status(repository).await?;
        let session = self.shared.manager.session();
        Ok(self.shared.claims.split(&status, session).1)
    }

    /// Gives a run that was handed out back, because it certainly did not start: it gets its old
    /// place, and is handed out again when its turn comes, which may be at once. False when the
    /// caller does not have it, or its slot was lost.
    ///
    /// Dropped in flight, it is done or not done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn hand_back(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Result<bool, PipelinesError> {
        let (manager, claims) = (&self.shared.manager, &self.shared.claims);
        let Known::Started { uid, .. } = self.known(repository, run).await? else {
            return Ok(false);
        };
        let request = RunRequest::durable(run.clone(), uid);
        let lease = match manager.admit(repository, request).await? {
            Admission::Started(lease) => lease,
            other => {
                keep(other);
                return Ok(false);
            }
        };
        if claims.token(repository, run) != Some(lease.token()) {
            return Ok(false);
        }
        self.shared.counted.forget(repository, run);
        match manager.requeue(lease).await? {
            None => Ok(false),
            Some(admission) => {
                keep(admission);
                Ok(true)
            }
        }
    }

    /// Says that the caller does not look after a run any more that was handed out, and does not
    /// know whether it has started: it keeps its slot, and is handed out again.
    pub fn offer_again(&self, repository: &RepositoryKey, run: &PipelineRunKey) {
        self.shared.claims.unmark(repository, run);
    }

    /// The stream of runs that got a slot while no caller asked: read it, from after
    /// [`init_queues`](Self::init_queues) on, or ask for each Repository from time to time. `None`
    /// while another one lives, or another reader of the manager's grants.
    #[must_use]
    pub fn wakes(&self) -> Option<Wakes> {
        Wakes::of(&self.shared)
    }

    /// The manager below.
    #[must_use]
    pub fn manager(&self) -> &ConcurrencyManager {
        &self.shared.manager
    }

    async fn take(
        &self,
        repository: &RepositoryKey,
        most: usize,
    ) -> Result<Vec<PipelineRunKey>, PipelinesError> {
        let (manager, claims) = (&self.shared.manager, &self.shared.claims);
        let stream = &self.shared.stream;
        let before = stream.catch_up(manager);
        let status = self.count_again(manager.status(repository).await?).await?;
        let session = manager.session();
        let taken = claims.take(&status, session, most);
        for run in status.running.iter().filter(|run| taken.contains(&run.run)) {
            self.shared.counted.note(repository, &run.run, &run.uid);
        }
        let (open, _) = claims.split(&status, session);
        stream.forget(repository, before, |run| open.contains(run));
        Ok(taken)
    }

    async fn known(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Result<Known, PipelinesError> {
        let manager = &self.shared.manager;
        let status: RunStatus = manager.run_status(repository, run).await?;
        Ok(Known::of(&status, manager.session()))
    }

    /// Ends what the store has of a run that has ended; gives up what it has of another one.
    async fn leave(&self, repository: &RepositoryKey, run: &RunView) -> Result<(), PipelinesError> {
        self.shared.counted.forget(repository, &run.key);
        let known = self.known(repository, &run.key).await?;
        let is_it = known.uid().is_some_and(|uid| RunName::from(run).means(uid));
        if !is_it || !known.is_live() {
            return Ok(());
        }
        let outcome = match Phase::of(run, true) {
            Phase::Done(outcome) => outcome,
            Phase::Ending { .. } => RunOutcome::Cancelled,
            _ => return self.give_up(repository, &run.key, &known).await,
        };
        self.end(repository, &run.key, &known, outcome).await
    }

    /// Takes a run out of its slot or out of the queue and records no end: for a controller over
    /// the same store, a run that was cancelled there is to be ended in the cluster.
    async fn give_up(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        known: &Known,
    ) -> Result<(), PipelinesError> {
        if let Some(uid) = known.uid() {
            self.shared.manager.give_up(repository, run, uid).await?;
        }
        Ok(())
    }

    /// Ends a run of which the store knows this, in its slot or in the queue.
    async fn end(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        known: &Known,
        outcome: RunOutcome,
    ) -> Result<(), PipelinesError> {
        if let Some(uid) = known.uid() {
            end_run(&self.shared.manager, repository, run, uid, outcome).await?;
        }
        Ok(())
    }
}

/// What the store granted stays granted: the next call that hands out runs hands it out.
fn keep(admission: Admission) {
    if let Admission::Queued(waiter) = admission {
        waiter.detach();
    }
}
