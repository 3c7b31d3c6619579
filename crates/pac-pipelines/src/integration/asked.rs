//! Runs that the cluster is asked to end, in the form that fits each.

use std::sync::Arc;

use pac_core::RepositoryKey;
use pac_core::state::RunOutcome;

use super::decide::Known;
use super::engine::Engine;
use super::notices::What;
use super::start::StartClaim;
use crate::cluster::{ClusterEvent, EndOutcome};
use crate::error::{ClusterError, PipelinesError};
use crate::model::{RunView, SpecStatus};

impl Engine {
    /// Asks the cluster to end a run that is still as it was `seen`. Its `finally` tasks run if it has
    /// started, as Pipelines-as-Code does it, and it keeps its slot until it has ended; one that
    /// never started ends at once. Tells `why`, which is given whether it runs. True when the
    /// cluster was asked.
    pub(super) async fn request_end(
        &self,
        repository: &RepositoryKey,
        seen: &RunView,
        why: impl FnOnce(bool) -> What,
    ) -> Result<bool, ClusterError> {
        let Some(now) = self.unchanged(seen).await? else {
            return Ok(false);
        };
        let runs = now.has_started();
        let form = match runs {
            true => SpecStatus::CancelledRunFinally,
            false => SpecStatus::Cancelled,
        };
        let why = why(runs);
        tracing::info!(run = %now.key, ?why, "the cluster is asked to end a run");
        match self.cluster.request_end(&now.key, &now.uid, form).await? {
            EndOutcome::Requested => {
                self.tell_of(repository, &now, why);
                Ok(true)
            }
            // It has started since it was read.
            EndOutcome::Runs => {
                self.look_later(repository, now.key);
                Ok(false)
            }
            EndOutcome::Done | EndOutcome::Gone => Ok(false),
        }
    }

    /// Has a run ended that is held back: at once, so that its `finally` tasks never run. False where
    /// it is not held back any more.
    pub(super) async fn end_held(
        &self,
        repository: &RepositoryKey,
        seen: &RunView,
        why: What,
    ) -> Result<bool, ClusterError> {
        if seen.spec_status != SpecStatus::Pending {
            return Ok(false);
        }
        self.request_end(repository, seen, |_| why).await
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
            if self.end_held(repository, view, NEVER_STARTED).await? {
                let outcome = RunOutcome::Cancelled;
                self.end(repository, &view.key, known, outcome).await?;
                ended += 1;
            }
            if claim.end() {
                self.look_at(repository, view.key.clone());
            }
        }
        Ok(ended)
    }

    /// A run as it is now, past all caches; `None` where it has ended, is gone, or is not what was
    /// `seen`: then it is looked at again.
    async fn unchanged(&self, seen: &RunView) -> Result<Option<RunView>, ClusterError> {
        let Some(now) = self.cluster.read(&seen.key).await? else {
            return Ok(None);
        };
        let same = |view: &RunView| (view.uid.clone(), view.spec_status.clone(), view.started);
        if same(&now) != same(seen) {
            // What was decided was decided about an older state.
            self.observe(ClusterEvent::RunApplied(now));
            return Ok(None);
        }
        Ok(Some(now).filter(|now| !now.is_done()))
    }
}

/// What is told of a run that was granted a slot and asked to end before it started.
pub(super) const NEVER_STARTED: What = What::AskedToEnd { runs: false };
