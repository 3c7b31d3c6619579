//! Looking at one Repository: plan, and carry the plan out.

use std::sync::Arc;

use futures_util::future::join_all;
use pac_core::{PipelineRunKey, RepositoryKey};
use tokio::time::Instant;

use super::Shared;
use super::objects::Standing;
use super::queue::{Circumstances, Plan, Queue, Start};
use crate::cluster::{ClusterEvent, StartOutcome};
use crate::error::{ClusterError, ClusterErrorKind, PipelinesError};
use crate::integration::Phase;
use crate::model::{PacState, RunView, SpecStatus};
use crate::vocabulary;

/// What came of asking for a start.
enum Answer {
    /// It runs. Where the mark could not be written, why not.
    Started(Result<(), ClusterError>),
    /// It will never start: its object shows it, or is gone.
    Over(Result<(), ClusterError>),
    /// It certainly did not start.
    NotStarted(ClusterError),
    /// Nothing is known: its slot is kept.
    Unknown(ClusterError),
}

impl Shared {
    /// Looks at a Repository. One task at a time looks at one.
    ///
    /// Dropped in flight, it leaves the starts that it has asked for in the queue, as starts of
    /// which nothing is known.
    pub(super) async fn look(&self, repository: &RepositoryKey) -> Result<(), PipelinesError> {
        let queue = self.queue(repository);
        let mut queue = queue.lock().await;
        let plan = {
            let objects = self.objects();
            let Standing::Limit(limit) = objects.standing(repository) else {
                *queue = Queue::default();
                return Ok(());
            };
            let runs = objects.runs_of(repository);
            let circumstances = Circumstances::new(limit, self.now(), self.options.order_wait);
            queue.plan(&runs, circumstances, |run| objects.seen_for(&run.key))
        };
        if let Some(left) = plan.next_due {
            self.mark_dirty(repository, Instant::now() + left);
        }
        let result = self.carry_out(&mut queue, plan).await;
        result.map_err(PipelinesError::from)
    }

    /// Carries a plan out, all of it; answers with the first failure.
    async fn carry_out(&self, queue: &mut Queue, plan: Plan) -> Result<(), ClusterError> {
        let ends = plan.end_at_once.iter().map(|run| self.end_at_once(run));
        let starts = plan.start.iter().map(|start| self.start(start));
        let marks = plan.mark.iter().map(|(run, state)| self.write(run, *state));
        let (ends, starts, marks) = tokio::join!(join_all(ends), join_all(starts), join_all(marks));
        let mut result = Ok(());
        for (start, answer) in plan.start.iter().zip(starts) {
            let key = &start.run.key;
            let failed = match answer {
                Answer::Started(marked) => {
                    queue.started(key);
                    marked
                }
                Answer::Over(ended) => ended,
                Answer::NotStarted(error) => {
                    queue.not_started(key);
                    Err(error)
                }
                Answer::Unknown(error) => Err(error),
            };
            result = result.and(failed);
        }
        ends.into_iter().chain(marks).fold(result, Result::and)
    }

    async fn start(&self, start: &Start) -> Answer {
        let (run, uid) = (&start.run.key, &start.run.uid);
        let Ok(_permit) = self.starts.acquire().await else {
            return Answer::NotStarted(failure(run, "the controller has ended"));
        };
        let mut outcome = self.cluster.start(run, uid, start.token).await;
        let mut is_ambiguous = start.is_again;
        if outcome == StartOutcome::Unknown {
            is_ambiguous = true;
            outcome = match self.find_out(&start.run).await {
                Ok(outcome) => outcome,
                Err(error) => return Answer::Unknown(error),
            };
        }
        match outcome {
            StartOutcome::Started | StartOutcome::AlreadyStarted => {
                tracing::info!(%run, "started");
                Answer::Started(self.write(&start.run, PacState::Started).await)
            }
            StartOutcome::Cancelled => Answer::Over(self.end_at_once(&start.run).await),
            StartOutcome::Gone => {
                self.observe(ClusterEvent::RunDeleted(RunView::clone(&start.run)));
                Answer::Over(Ok(()))
            }
            StartOutcome::StillPending if !is_ambiguous => {
                Answer::NotStarted(failure(run, "the run is still held back; trying again"))
            }
            // The request may still be on its way.
            StartOutcome::StillPending | StartOutcome::Unknown => {
                let message = "it is not known whether the run has started; its slot is kept";
                Answer::Unknown(failure(run, message))
            }
        }
    }

    /// Reads what has become of a start whose answer was lost.
    async fn find_out(&self, run: &RunView) -> Result<StartOutcome, ClusterError> {
        let Some(now) = self.cluster.read(&run.key).await? else {
            return Ok(StartOutcome::Gone);
        };
        let is_other = now.uid != run.uid;
        let phase = Phase::of(&now, true);
        self.observe(ClusterEvent::RunApplied(now));
        Ok(match phase {
            _ if is_other => StartOutcome::Gone,
            Phase::Running | Phase::Done(_) => StartOutcome::AlreadyStarted,
            Phase::Ending { .. } => StartOutcome::Cancelled,
            _ => StartOutcome::StillPending,
        })
    }

    /// A run that never started must not run its `finally` tasks.
    async fn end_at_once(&self, run: &RunView) -> Result<(), ClusterError> {
        let form = SpecStatus::Cancelled;
        self.cluster.request_end(&run.key, &run.uid, form).await?;
        // Its object has changed, and the event may take its time.
        self.read_again(&run.key).await
    }

    /// Writes a state on a run.
    pub(super) async fn write(&self, run: &RunView, state: PacState) -> Result<(), ClusterError> {
        let state = (vocabulary::STATE, Some(state.as_str()));
        self.annotate(run, &[state]).await
    }

    /// Writes annotations on a run, and takes in what it is then.
    pub(super) async fn annotate(
        &self,
        run: &RunView,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<(), ClusterError> {
        let now = self.cluster.annotate(&run.key, &run.uid, annotations);
        self.observe(match now.await? {
            Some(now) => ClusterEvent::RunApplied(now),
            None => ClusterEvent::RunDeleted(run.clone()),
        });
        Ok(())
    }

    async fn read_again(&self, run: &PipelineRunKey) -> Result<(), ClusterError> {
        if let Some(now) = self.cluster.read(run).await? {
            self.observe(ClusterEvent::RunApplied(now));
        }
        Ok(())
    }

    fn queue(&self, repository: &RepositoryKey) -> Arc<tokio::sync::Mutex<Queue>> {
        let mut queues = self.queues();
        Arc::clone(queues.entry(repository.clone()).or_default())
    }
}

fn failure(run: &PipelineRunKey, message: &'static str) -> ClusterError {
    ClusterError::new(ClusterErrorKind::Conflict, "start", run.as_str(), message)
}
