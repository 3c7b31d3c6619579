//! Runs that were asked in the store to end, and held ones that end before they start.

use std::sync::Arc;

use pac_core::RepositoryKey;
use pac_core::state::RunOutcome;

use super::decide::Known;
use super::ends::end_of;
use super::engine::Engine;
use super::notices::What;
use super::start::StartClaim;
use crate::cluster::EndOutcome;
use crate::error::{ClusterError, PipelinesError};
use crate::model::{RunView, SpecStatus};

impl Engine {
    /// Asks the cluster to end a run that was asked to in the store, as Pipelines-as-Code does: its
    /// `finally` tasks run if it has started. It keeps its slot until it has ended.
    pub(super) async fn ask_to_end(
        &self,
        repository: &RepositoryKey,
        seen: &RunView,
    ) -> Result<(), ClusterError> {
        let Some(now) = self.unchanged(seen).await? else {
            return Ok(());
        };
        tracing::info!(run = %now.key, "asked to end: the cluster is asked to end it");
        let asked = self.cluster.request_end(&now.key, &now.uid, end_of(&now));
        if asked.await? == EndOutcome::Requested {
            let runs = now.has_started();
            self.tell_of(repository, &now, What::AskedToEnd { runs });
        }
        Ok(())
    }

    /// Has those runs ended at once that were granted slots and asked to end before they started, and
    /// frees their slots. None of them is started meanwhile: one whose start is on its way is asked
    /// to end when that is settled. Answers with how many ended.
    pub(super) async fn end_before_start(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        runs: &[(Arc<RunView>, Known)],
    ) -> Result<usize, PipelinesError> {
        let mut ended = 0;
        for (view, known) in runs {
            let Some(claim) = StartClaim::take(self, repository, &view.key) else {
                continue;
            };
            if self.end_held(view).await? {
                let outcome = RunOutcome::Cancelled;
                self.end(repository, &view.key, known, outcome).await?;
                self.tell_of(repository, view, What::AskedToEnd { runs: false });
                ended += 1;
            }
            if claim.end() {
                self.look_at(repository, view.key.clone());
            }
        }
        Ok(ended)
    }

    /// Has a run ended that is held back: at once, so that its `finally` tasks never run. False where
    /// it is not held back any more.
    pub(super) async fn end_held(&self, seen: &RunView) -> Result<bool, ClusterError> {
        let held = self.unchanged(seen).await?;
        let Some(now) = held.filter(|now| now.spec_status == SpecStatus::Pending) else {
            return Ok(false);
        };
        let asked = self
            .cluster
            .request_end(&now.key, &now.uid, SpecStatus::Cancelled);
        Ok(asked.await? == EndOutcome::Requested)
    }
}
