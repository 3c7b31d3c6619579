//! The ends of runs and Repositories, in the store and in the cluster.

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use pac_core::manager::{Admission, RepositoryStatus, RunStatus};
use pac_core::protocol::Ended;
use pac_core::state::{RunKind, RunOutcome};
use pac_core::{Error, PipelineRunKey, RepositoryKey};

use super::decide::Known;
use super::engine::{Engine, READS_AT_ONCE};
use super::notices::What;
use super::pass::Report;
use super::phase::Phase;
use crate::cluster::EndOutcome;
use crate::error::{ClusterError, PipelinesError};
use crate::model::{RunView, SpecStatus};

impl Engine {
    /// Asks the cluster to end runs at once that would still run their `finally` tasks. Those for
    /// which it does leave their slots and places; one that runs, or may yet, keeps what it has.
    pub(super) async fn end_at_once(
        &self,
        repository: &RepositoryKey,
        runs: Vec<(Arc<RunView>, Known)>,
        ends: &mut Vec<(PipelineRunKey, Known, RunOutcome)>,
    ) -> Result<(), ClusterError> {
        let asks = runs.iter().map(|(view, _)| {
            let form = SpecStatus::Cancelled;
            self.cluster.request_end(&view.key, &view.uid, form)
        });
        let answers = join_all(asks).await;
        let mut failed = Ok(());
        for ((view, known), answer) in runs.into_iter().zip(answers) {
            match answer {
                Ok(EndOutcome::Runs) => self.look_later(repository, view.key.clone()),
                Ok(_) => ends.push((view.key.clone(), known, RunOutcome::Cancelled)),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Reads runs that hold a slot or a place and that the cluster does not seem to have: what is
    /// recorded as cancelled is ended in the cluster, should it be there after all. Those that are
    /// gone are to end; those that are there, with their ends if they are done, are looked at with
    /// the next look.
    pub(super) async fn make_sure(
        &self,
        repository: &RepositoryKey,
        runs: Vec<(PipelineRunKey, Known)>,
        ends: &mut Vec<(PipelineRunKey, Known, RunOutcome)>,
    ) -> Result<(), ClusterError> {
        let reads = runs.into_iter().map(|(run, known)| async move {
            // The semaphore is never closed.
            let _permit = self.reads.acquire().await.ok();
            let now = self.cluster.read(&run).await;
            (run, known, now)
        });
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut failed = Ok(());
        while let Some((run, known, now)) = reads.next().await {
            match now {
                Ok(Some(now)) if known.uid() == Some(&now.uid) => {
                    let is_here = self.seen().queue_of(&now).as_ref() == Some(repository);
                    // Where it belongs by now it is counted, and from there it may come back.
                    let outcome = match Phase::in_mode(&now, true, self.options.mode) {
                        Phase::Done(outcome) => outcome,
                        _ => RunOutcome::LeaseLost,
                    };
                    let touched = self.seen().is_back(now);
                    self.touched(touched);
                    if !is_here {
                        ends.push((run, known, outcome));
                    }
                }
                Ok(_) => ends.push((run, known, RunOutcome::Cancelled)),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Has a run ended in the cluster that was ended in the store alone, by an operator, by a newer
    /// run of its group or because its time was over: it must neither wait for ever nor start.
    /// Without a slot, `finally` tasks are run only of what runs. True when the cluster was asked to.
    /// What the store has of it decides: a slot that was lost or given up, or that another run of the
    /// name has by now, is no end.
    pub(super) async fn end_in_cluster(
        &self,
        repository: &RepositoryKey,
        seen: &RunView,
    ) -> Result<bool, PipelinesError> {
        if seen.spec_status.is_cancel() {
            return Ok(false);
        }
        let status = self.manager.run_status(repository, &seen.key).await?;
        let known = Known::of(&status, self.manager.session());
        let ends = match &known {
            Known::Finished { uid, outcome } if *uid == seen.uid => match outcome {
                RunOutcome::Cancelled | RunOutcome::Superseded | RunOutcome::TimedOut => true,
                RunOutcome::LeaseLost => false,
                // It was released before it started.
                RunOutcome::Completed | RunOutcome::Failed | RunOutcome::QueueFull => {
                    !seen.has_started() && seen.spec_status == SpecStatus::Pending
                }
            },
            _ => false,
        };
        if !ends {
            if !is_over(&known, seen) {
                self.look_later(repository, seen.key.clone());
            }
            return Ok(false);
        }
        let why = |runs| why_ended(&status, runs);
        Ok(self.request_end(repository, seen, why).await?)
    }

    /// Takes a run out of its slot or out of the queue, so that it may ask again.
    pub(super) async fn give_up(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
    ) -> Result<(), Error> {
        match self.ask_again(repository, view).await?.admission {
            Some(Admission::Started(lease)) => {
                let never_looked_after = RunOutcome::LeaseLost;
                self.manager.release(lease, never_looked_after).await?;
            }
            // Its place goes with it.
            Some(Admission::Queued(waiter)) => drop(waiter),
            Some(Admission::Finished(_)) | None => {}
        }
        Ok(())
    }

    /// Takes a run out of a queue that it has left for another one, where it is counted from now on.
    pub(super) async fn leave(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
        known: &Known,
    ) -> Result<(), Error> {
        let outcome = match Phase::in_mode(view, true, self.options.mode) {
            Phase::Done(outcome) => outcome,
            // It may come back, and ask again.
            _ if matches!(known, Known::Queued { .. }) => {
                return self.give_up(repository, view).await;
            }
            _ => RunOutcome::LeaseLost,
        };
        self.end(repository, &view.key, known, outcome).await
    }

    /// Whether there is nothing to be done in a lane that has no runs in the cluster. One that
    /// stays empty is forgotten: its name may never come again.
    pub(super) async fn is_forgotten(&self, lane: &RepositoryKey) -> Result<bool, PipelinesError> {
        if self.seen().is_known(lane) {
            return Ok(false);
        }
        let status = self.manager.status(lane).await?;
        if !status.running.is_empty() || !status.queued.is_empty() {
            return Ok(false);
        }
        if status.exists && self.is_missing_for_good(lane) {
            self.remove(lane).await?;
        }
        Ok(true)
    }

    /// Ends what the store knows of a run, in its slot or in the queue.
    pub(super) async fn end(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        known: &Known,
        outcome: RunOutcome,
    ) -> Result<(), Error> {
        let Some(uid) = known.uid() else {
            return Ok(());
        };
        let ending = self
            .manager
            .release_run(repository, run, uid, None, outcome)
            .await?;
        if ending.ended == Ended::NotStarted {
            self.manager.cancel(repository, run, Some(uid)).await?;
        }
        Ok(())
    }

    /// Forgets a Repository that the cluster's lists have not had for the grace period, if the
    /// queue is one of PipelineRuns: others, as `pac exec`, have queues of their own names.
    pub(super) async fn remove_missing(
        &self,
        repository: &RepositoryKey,
    ) -> Result<Report, PipelinesError> {
        if !self.is_missing_for_good(repository) {
            return Ok(Report::default());
        }
        let status = self.manager.status(repository).await?;
        if !is_of_pipelines(&status) {
            return Ok(Report::default());
        }
        self.remove(repository).await
    }

    /// Forgets a Repository that is gone, its queue and its slots.
    pub(super) async fn remove(
        &self,
        repository: &RepositoryKey,
    ) -> Result<Report, PipelinesError> {
        // Every controller hears of it: most find nothing left.
        if !self.manager.status(repository).await?.exists {
            return Ok(Report::default());
        }
        let ended = self.manager.remove_repository(repository).await?;
        if !ended.is_empty() {
            let runs = ended.len();
            tracing::info!(%repository, runs, "the Repository is gone; so is its queue");
        }
        Ok(Report {
            ended: ended.len(),
            ..Report::default()
        })
    }
}

/// Whether all that waits or holds a slot is as controllers put it there; where nothing does, whether
/// a controller has announced the limit.
fn is_of_pipelines(status: &RepositoryStatus) -> bool {
    let running = status.running.iter().map(|run| run.kind);
    let mut kinds = running.chain(status.queued.iter().map(|run| run.kind));
    let is_durable = |kind| kind == RunKind::Durable;
    match kinds.next() {
        Some(first) => is_durable(first) && kinds.all(is_durable),
        None => status.limit_version.is_some(),
    }
}

/// What people are told of a run that was ended in the store.
fn why_ended(status: &RunStatus, runs: bool) -> What {
    match status {
        RunStatus::Finished(run) if run.outcome == RunOutcome::Superseded => What::Superseded {
            group: run.terms().group.clone(),
        },
        RunStatus::Finished(run) if run.outcome == RunOutcome::TimedOut => What::TimedOut {
            runs: run.started_at.is_some(),
        },
        _ => What::CancelledInStore { runs },
    }
}

/// Whether the store has this very run as ended by itself.
fn is_over(known: &Known, seen: &RunView) -> bool {
    match known {
        Known::Finished { uid, outcome } => *uid == seen.uid && *outcome != RunOutcome::LeaseLost,
        _ => false,
    }
}
