//! The ends of runs and Repositories, in the store and in the cluster.

use std::sync::Arc;

use futures_util::future::join_all;
use pac_core::manager::Admission;
use pac_core::protocol::Ended;
use pac_core::state::RunOutcome;
use pac_core::{Error, PipelineRunKey, RepositoryKey};

use super::decide::Known;
use super::engine::Engine;
use super::notices::What;
use super::pass::Report;
use crate::cluster::ClusterEvent;
use crate::error::{ClusterError, PipelinesError};
use crate::model::{RunView, SpecStatus};

impl Engine {
    /// Asks the cluster to end runs at once that would still run their `finally` tasks. Those for
    /// which it does leave their slots and places; one that may yet run keeps what it has.
    pub(super) async fn end_at_once(
        &self,
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
                Ok(_) => ends.push((view.key.clone(), known, RunOutcome::Cancelled)),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Has a run ended in the cluster that was ended in the store alone, by an operator: it must
    /// neither wait for ever nor start. Without a slot, `finally` tasks are run only of what runs.
    pub(super) async fn end_in_cluster(&self, seen: &RunView) -> Result<(), ClusterError> {
        let Some(now) = self.cluster.read(&seen.key).await? else {
            return Ok(());
        };
        let same = |view: &RunView| (view.uid.clone(), view.spec_status.clone(), view.started);
        if same(&now) != same(seen) {
            // What was decided was decided about an older state: it is looked at again.
            self.observe(ClusterEvent::RunApplied(now));
            return Ok(());
        }
        if now.is_done() || now.spec_status.is_cancel() {
            return Ok(());
        }
        tracing::info!(run = %now.key, "the store has it as ended: the cluster is asked to end it");
        let form = if now.has_started() {
            SpecStatus::CancelledRunFinally
        } else {
            SpecStatus::Cancelled
        };
        let asked = self.cluster.request_end(&now.key, &now.uid, form);
        asked.await?;
        if let Some(repository) = now.repository() {
            let runs = now.has_started();
            self.tell_of(&repository, &now, What::CancelledInStore { runs });
        }
        Ok(())
    }

    /// Takes a run out of its slot or out of the queue, so that it may ask again.
    pub(super) async fn give_up(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
    ) -> Result<(), Error> {
        match self
            .manager
            .admit(repository, self.request(repository, view))
            .await?
        {
            Admission::Started(lease) => {
                let never_looked_after = RunOutcome::Expired;
                self.manager.release(lease, never_looked_after).await?;
            }
            // Its place goes with it.
            Admission::Queued(waiter) => drop(waiter),
            Admission::Finished(_) => {}
        }
        Ok(())
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
