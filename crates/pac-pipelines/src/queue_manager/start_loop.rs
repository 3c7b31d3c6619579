//! The loop of upstream's reconciler over the queues: what may start is started.

use std::collections::BTreeSet;
use std::sync::Arc;

use pac_core::{FencingToken, PipelineRunKey, RepositoryKey};

use super::repositories::{Found, Repositories};
use super::{QueueManager, RunName};
use crate::cluster::{Cluster, StartOutcome};
use crate::error::{ClusterError, ClusterErrorKind, ModelError, PipelinesError};
use crate::integration::Phase;
use crate::model::{ExecutionOrder, PacState, RepositoryView, RunView, SpecStatus};
use crate::vocabulary;

/// Starts the runs that the queues hand out, as upstream's `queuePipelineRun` and
/// `startNextPipelineRunInQueue` do.
///
/// Dropped in flight, a call leaves the run that it was about to start granted: it is handed out
/// again. A start is conditional on the run's uid and on being held back, so none starts twice.
#[derive(Debug, Clone)]
pub struct StartLoop {
    queues: QueueManager,
    cluster: Arc<dyn Cluster>,
}

/// What came of a call.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct StartReport {
    /// The runs that have started, in this order.
    pub started: Vec<PipelineRunKey>,
    /// The runs that left the queue: they are gone, have ended, or never will start.
    pub removed: Vec<PipelineRunKey>,
    /// The runs that could not be read, started or marked, and why: call again. A run that may
    /// have started keeps its slot; any other one has its old place.
    pub failed: Vec<(PipelineRunKey, PipelinesError)>,
}

/// How one run that was handed out was left.
#[derive(Debug)]
enum Left {
    Started,
    Removed,
    Failed(PipelinesError),
    /// It runs, and could not be marked.
    Unmarked(PipelinesError),
}

impl StartLoop {
    /// Over queues and the cluster whose runs they hold.
    #[must_use]
    pub fn new(queues: QueueManager, cluster: Arc<dyn Cluster>) -> Self {
        Self { queues, cluster }
    }

    /// Reconciles a run that waits: queues the runs of its order, and starts what may start, also
    /// runs of other events whose turn has come. Does nothing for a run whose order is to be
    /// waited for.
    ///
    /// # Errors
    /// [`PipelinesError::Model`] for a run that names no Repository, the store's, and that of
    /// marking a run that runs already. What goes wrong with single runs is in the report.
    pub async fn queue_run(
        &self,
        run: &RunView,
        repositories: &Repositories,
    ) -> Result<StartReport, PipelinesError> {
        let mut report = StartReport::default();
        if run.state() == Some(PacState::Queued) && Phase::of(run, true) == Phase::Running {
            // It was started, and the mark was lost.
            self.write_started(run).await?;
        }
        let Some(order) = self.order_of(run) else {
            return Ok(report);
        };
        let key = repository_of(run)?;
        let repository = match repositories.get(&key) {
            Found::Here(repository) => repository,
            // Nothing starts until its limit is known.
            Found::Unreadable => return Ok(report),
            Found::Missing => {
                self.queues.remove_repository(&key).await?;
                return Ok(report);
            }
        };
        let mut names = self.waiting(&order, &repository, &mut report).await;
        let mut tried = BTreeSet::new();
        loop {
            let acquired = self
                .queues
                .add_list_to_running_queue(&repository, &names)
                .await?;
            let mut is_new = false;
            // Those that a call cut short does not get to are handed out again.
            let offers = acquired.into_iter().map(|run| self.offer(&key, run));
            for offer in offers.collect::<Vec<_>>() {
                let run = offer.run.clone();
                if !tried.insert(run.clone()) {
                    // It was tried in this call, and failed: for the next call.
                    continue;
                }
                is_new = true;
                let left = self.start(offer).await;
                report.take(run.clone(), left);
                names.retain(|name| name.key != run);
            }
            if !is_new {
                return Ok(report);
            }
        }
    }

    /// A run has ended or is gone: frees its slot and starts the next one. A candidate that is gone
    /// gives way to the one behind it; one that could not be started does not, and has its old
    /// place.
    ///
    /// # Errors
    /// The store's. What goes wrong with the candidates is in the report.
    pub async fn start_next(
        &self,
        repository: &RepositoryView,
        ended: &RunView,
    ) -> Result<StartReport, PipelinesError> {
        let mut report = StartReport::default();
        let queues = &self.queues;
        loop {
            let next = queues
                .remove_and_take_item_from_queue(repository, ended)
                .await?;
            let Some(run) = next else {
                return Ok(report);
            };
            let left = self.start(self.offer(&repository.key, run.clone())).await;
            let is_over = !matches!(left, Left::Removed);
            report.take(run, left);
            if is_over {
                return Ok(report);
            }
        }
    }

    /// The order to take a run's event in; `None` while it is to be waited for.
    fn order_of(&self, run: &RunView) -> Option<ExecutionOrder> {
        let shared = &self.queues.shared;
        run.order().or_else(|| {
            let age = shared.clock.now().since(run.created?);
            let is_over = age >= shared.options.order_wait;
            is_over.then(|| ExecutionOrder::of([run.key.clone()]))
        })
    }

    /// The runs of an order that wait, up to the first one that cannot be read: those behind it
    /// must not pass it.
    async fn waiting(
        &self,
        order: &ExecutionOrder,
        repository: &RepositoryView,
        report: &mut StartReport,
    ) -> Vec<RunName> {
        let limited = repository.limit.is_some();
        let mut waiting = Vec::new();
        for key in order.runs() {
            match self.cluster.read(key).await {
                Ok(Some(run)) if is_waiting(&run, &repository.key, limited) => {
                    waiting.push(RunName::from(&run));
                }
                Ok(_) => {}
                Err(error) => {
                    report.failed.push((key.clone(), error.into()));
                    break;
                }
            }
        }
        waiting
    }

    /// Starts a run that was handed out.
    async fn start(&self, offer: Offer<'_>) -> Left {
        let (queues, cluster) = (&self.queues, &self.cluster);
        let (repository, run) = (offer.repository, offer.run.clone());
        let view = match cluster.read(&run).await {
            Ok(view) => view.filter(|view| view.repository().as_ref() == Some(repository)),
            Err(error) => return self.hand_back(offer, error).await,
        };
        let Some(view) = view else {
            return self.remove(offer).await;
        };
        match Phase::of(&view, true) {
            Phase::Held | Phase::HeldByUser => {}
            Phase::Running => return self.mark(offer, &view).await,
            Phase::Ending { .. } => return self.end(offer, &view).await,
            Phase::Done(_) => return self.leave(offer, &view).await,
            Phase::LeftAlone => return self.remove(offer).await,
        }
        let token = queues.shared.claims.token(repository, &run);
        let token = token.unwrap_or(FencingToken::new(0));
        let mut outcome = cluster.start(&run, &view.uid, token).await;
        if outcome == StartOutcome::Unknown {
            outcome = match cluster.read(&run).await {
                Ok(Some(now)) if now.uid == view.uid => match Phase::of(&now, true) {
                    Phase::Running | Phase::Done(_) => StartOutcome::Started,
                    Phase::Ending { .. } => StartOutcome::Cancelled,
                    // The request may still be on its way: the slot is kept.
                    _ => StartOutcome::Unknown,
                },
                Ok(_) => StartOutcome::Gone,
                Err(_) => StartOutcome::Unknown,
            };
        }
        match outcome {
            StartOutcome::Started | StartOutcome::AlreadyStarted => self.mark(offer, &view).await,
            StartOutcome::Cancelled => self.end(offer, &view).await,
            StartOutcome::Gone => self.remove(offer).await,
            StartOutcome::StillPending => {
                let message = "the run is still held back; it has its old place in the queue";
                let error = not_started(ClusterErrorKind::Conflict, &run, message);
                self.hand_back(offer, error).await
            }
            StartOutcome::Unknown => {
                let message = "it is not known whether the run has started; its slot is kept";
                Left::Failed(not_started(ClusterErrorKind::Indeterminate, &run, message).into())
            }
        }
    }

    /// It runs: its slot is its own, whatever becomes of the mark.
    async fn mark(&self, offer: Offer<'_>, run: &RunView) -> Left {
        offer.settle();
        match self.write_started(run).await {
            Ok(()) => Left::Started,
            Err(error) => Left::Unmarked(error.into()),
        }
    }

    async fn write_started(&self, run: &RunView) -> Result<(), ClusterError> {
        if run.state() != Some(PacState::Started) {
            let state = (vocabulary::STATE, Some(PacState::Started.as_str()));
            self.cluster.annotate(&run.key, &run.uid, &[state]).await?;
        }
        Ok(())
    }

    /// It never started, and a cancel form ends it: its `finally` tasks must not run.
    async fn end(&self, offer: Offer<'_>, run: &RunView) -> Left {
        let form = SpecStatus::Cancelled;
        if let Err(error) = self.cluster.request_end(&run.key, &run.uid, form).await {
            return Left::Failed(error.into());
        }
        self.remove(offer).await
    }

    /// It has ended, and is recorded so.
    async fn leave(&self, offer: Offer<'_>, run: &RunView) -> Left {
        match self.queues.leave(offer.repository, run).await {
            Ok(()) => {
                offer.settle();
                Left::Removed
            }
            Err(error) => Left::Failed(error),
        }
    }

    async fn remove(&self, offer: Offer<'_>) -> Left {
        let removed = self.queues.remove_from_queue(offer.repository, &offer.run);
        match removed.await {
            Ok(_) => {
                offer.settle();
                Left::Removed
            }
            Err(error) => Left::Failed(error),
        }
    }

    /// It certainly did not start.
    async fn hand_back(&self, offer: Offer<'_>, error: ClusterError) -> Left {
        match self.queues.hand_back(offer.repository, &offer.run).await {
            Ok(_) => {
                offer.settle();
                Left::Failed(error.into())
            }
            Err(error) => Left::Failed(error),
        }
    }

    fn offer<'a>(&'a self, repository: &'a RepositoryKey, run: PipelineRunKey) -> Offer<'a> {
        Offer {
            queues: &self.queues,
            repository,
            run,
            is_settled: false,
        }
    }
}

/// Whether a run waits in this Repository for its turn: it is held back, has not ended, and its
/// state annotation does not say that it has.
#[must_use]
pub fn is_waiting(run: &RunView, repository: &RepositoryKey, limited: bool) -> bool {
    let has_ended = matches!(run.state(), Some(PacState::Completed | PacState::Failed));
    Phase::of(run, limited) == Phase::Held
        && !has_ended
        && run.repository().as_ref() == Some(repository)
}

/// A run that was handed out to a [`StartLoop`]. Unless it is settled, it is handed out again.
struct Offer<'a> {
    queues: &'a QueueManager,
    repository: &'a RepositoryKey,
    run: PipelineRunKey,
    is_settled: bool,
}

impl Offer<'_> {
    fn settle(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.queues.offer_again(self.repository, &self.run);
        }
    }
}

impl StartReport {
    fn take(&mut self, run: PipelineRunKey, left: Left) {
        match left {
            Left::Started => self.started.push(run),
            Left::Removed => self.removed.push(run),
            Left::Failed(error) => self.failed.push((run, error)),
            Left::Unmarked(error) => {
                self.started.push(run.clone());
                self.failed.push((run, error));
            }
        }
    }
}

fn not_started(
    kind: ClusterErrorKind,
    run: &PipelineRunKey,
    message: &'static str,
) -> ClusterError {
    ClusterError::new(kind, "start", run.as_str(), message)
}

/// The Repository that a run names.
fn repository_of(run: &RunView) -> Result<RepositoryKey, ModelError> {
    run.repository().ok_or_else(|| {
        let field = format!("metadata.annotations[{}]", vocabulary::REPOSITORY);
        let rule = match run.annotation(vocabulary::REPOSITORY) {
            None => "no such annotation found; name the run's Repository in it",
            Some("") => "is empty; name the run's Repository in it",
            Some(_) => "is no name of a Repository; write the one in the run's namespace",
        };
        ModelError::new(format!("PipelineRun {}", run.key), field, rule)
    })
}
