//! Creation: runs that a controller has just created ask for their slots.

use std::sync::Arc;

use pac_core::manager::Admission;
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, PipelineRunKey, RepositoryKey};

use super::PipelinesController;
use super::admit::Refusal;
use super::engine::Engine;
use super::phase::Phase;
use crate::cluster::{ClusterEvent, HoldOutcome};
use crate::error::PipelinesError;
use crate::model::{RunView, SpecStatus};

/// What became of a run that was just created.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Creation {
    /// It has a slot, or needs none: it is started if it was held back.
    Started,
    /// It waits, held back.
    Queued {
        /// Its position as far as is known: 1 is next.
        position: Option<usize>,
    },
    /// It has ended already, or is ended because as many wait as may.
    Finished(RunOutcome),
    /// It takes more slots than there are: it is held back, and waits for that to be mended.
    TooHeavy {
        /// Which annotation, and the cure.
        message: String,
    },
    /// Another controller decides about it, or it belongs to no Repository that is known: it was
    /// left as it is.
    LeftAlone,
}

impl PipelinesController {
    /// Takes the runs of one event in, in their execution order, as they were just created: in
    /// each Repository they are started or queued in one step, and no other run comes between
    /// them.
    ///
    /// Create runs of a Repository with a limit held back (`spec.status: PipelineRunPending`):
    /// then none of them can run before it has a slot, whatever fails. A run that was not is held
    /// back here if it has to wait; one that Tekton has begun with by then runs on, and is counted.
    ///
    /// Answers in the order of `runs`. Dropped in flight, it leaves runs that it has not got to
    /// yet to reconciliation, as any failure does.
    ///
    /// # Errors
    /// Those of the store, and of the cluster when a run could not be held back, or when nothing
    /// was listed yet and cannot be. The runs are seen to by reconciliation then.
    pub async fn create(&self, runs: Vec<RunView>) -> Result<Vec<Creation>, PipelinesError> {
        let engine = &self.engine;
        // Which limits there are has to be known once.
        engine.listed().await?;
        for run in &runs {
            engine.seen().observe(ClusterEvent::RunApplied(run.clone()));
        }
        let mut answers: Vec<Creation> = runs.iter().map(|_| Creation::LeftAlone).collect();
        let mut repositories: Vec<RepositoryKey> = Vec::new();
        let queues: Vec<_> = {
            let seen = engine.seen();
            runs.iter().map(|run| seen.queue_of(run)).collect()
        };
        for queue in queues.iter().flatten() {
            if !repositories.contains(queue) {
                repositories.push(queue.clone());
            }
        }
        for repository in repositories {
            let mine = runs.iter().zip(&mut answers).zip(&queues);
            let mine = mine.filter(|(_, queue)| queue.as_ref() == Some(&repository));
            let mine = mine.map(|(mine, _)| mine);
            if let Err(error) = engine.create_in(&repository, mine.collect()).await {
                let keys = runs.iter().map(|run| run.key.clone());
                engine.retry(&repository, super::work::Dirty::runs(keys));
                return Err(error);
            }
        }
        Ok(answers)
    }
}

impl Engine {
    async fn create_in(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        mut runs: Vec<(&RunView, &mut Creation)>,
    ) -> Result<(), PipelinesError> {
        let Some(effective) = self.seen().limit(repository) else {
            return Ok(());
        };
        let limited = effective.limit.get().is_some();
        runs.retain(|(run, _)| matches!(Phase::of(run, limited), Phase::Held | Phase::Running));
        runs.retain(|(run, _)| self.seen().refusal(repository, run).is_none());
        let requests = runs
            .iter()
            .map(|(run, _)| self.request(repository, run))
            .collect();
        let (admissions, failed) = self.admit_all(repository, effective, requests).await;
        let mut to_hold = Vec::new();
        let mut refused = Vec::new();
        for ((run, answer), admission) in runs.into_iter().zip(admissions) {
            self.tell_invalid(repository, run);
            let admission = match admission {
                Ok(admission) => admission,
                Err(error) => {
                    refused.push((run, answer, error));
                    continue;
                }
            };
            self.tell_queued(repository, run, &admission, false);
            match &admission {
                Admission::Started(_) => *answer = Creation::Started,
                Admission::Finished(outcome) => *answer = Creation::Finished(*outcome),
                Admission::Queued(waiter) => {
                    let position = waiter.position();
                    *answer = Creation::Queued { position };
                    if run.spec_status != SpecStatus::Pending {
                        to_hold.push((run, answer));
                    }
                }
            }
            let is_held = run.spec_status == SpecStatus::Pending;
            if is_held || matches!(admission, Admission::Queued(_)) {
                self.admitted(admission);
            }
        }
        failed?;
        for (run, answer, error) in refused {
            match error.kind() {
                ErrorKind::QueueFull => {
                    *answer = Creation::Finished(RunOutcome::QueueFull);
                }
                ErrorKind::InvalidInput => {
                    let message = self.too_heavy(repository, run, Some(effective), &error);
                    *answer = Creation::TooHeavy { message };
                }
                _ => return Err(error.into()),
            }
            if run.spec_status == SpecStatus::Pending {
                let refusal = Refusal::Store(error);
                self.refused(repository, run, Some(effective), refusal)
                    .await?;
            } else {
                // Held back, it is looked at, and asks again.
                to_hold.push((run, answer));
            }
        }
        for (run, answer) in to_hold {
            self.hold_back(repository, run, answer).await?;
        }
        Ok(())
    }

    /// Holds a queued run back that was created to run at once.
    async fn hold_back(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        run: &RunView,
        answer: &mut Creation,
    ) -> Result<(), PipelinesError> {
        match self.cluster.hold(&run.key, &run.uid).await? {
            HoldOutcome::Held => {}
            // It runs: it counts, also beyond the limit, until it has ended.
            HoldOutcome::TooLate => {
                let _ = self
                    .manager
                    .adopt(repository, self.request(repository, run))
                    .await?;
                *answer = Creation::Started;
                self.look_at(repository, run.key.clone());
            }
            HoldOutcome::Gone => {
                let key: &PipelineRunKey = &run.key;
                self.manager.cancel(repository, key, Some(&run.uid)).await?;
                *answer = Creation::Finished(RunOutcome::Cancelled);
            }
        }
        Ok(())
    }
}
