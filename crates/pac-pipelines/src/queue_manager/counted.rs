//! What runs in the cluster, as far as that was seen or handed out. A slot whose controllers have
//! all been away for its lease TTL is freed by the store, and its run goes on: it is counted again
//! before anything is handed out in its place.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::manager::{Admission, RepositoryStatus};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{PipelineRunKey, RepositoryKey, Uid};

use super::{QueueManager, keep};
use crate::error::PipelinesError;

/// The runs that count, by repository, until they are taken out or have ended.
#[derive(Debug, Default)]
pub(super) struct Counted {
    all: Mutex<HashMap<RepositoryKey, HashMap<PipelineRunKey, Uid>>>,
}

impl Counted {
    pub(super) fn note(&self, repository: &RepositoryKey, run: &PipelineRunKey, uid: &Uid) {
        let mut all = self.all();
        let runs = all.entry(repository.clone()).or_default();
        runs.insert(run.clone(), uid.clone());
    }

    pub(super) fn forget(&self, repository: &RepositoryKey, run: &PipelineRunKey) {
        let mut all = self.all();
        if let Some(runs) = all.get_mut(repository) {
            runs.remove(run);
            if runs.is_empty() {
                all.remove(repository);
            }
        }
    }

    pub(super) fn forget_all(&self, repository: &RepositoryKey) {
        self.all().remove(repository);
    }

    /// Those whose slot has expired, as a state says. Forgets those that have ended.
    fn expired(&self, status: &RepositoryStatus) -> Vec<(PipelineRunKey, Uid)> {
        let mut all = self.all();
        let Some(runs) = all.get_mut(&status.repository) else {
            return Vec::new();
        };
        let mut expired = Vec::new();
        for end in status.finished.iter().filter(|end| !end.abandoned) {
            if runs.get(&end.run) != Some(&end.uid) {
                continue;
            }
            if end.outcome == RunOutcome::LeaseLost {
                expired.push((end.run.clone(), end.uid.clone()));
            } else {
                runs.remove(&end.run);
            }
        }
        expired
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RepositoryKey, HashMap<PipelineRunKey, Uid>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueManager {
    /// Counts again what runs on although its slot has expired, and gives back what was granted
    /// beyond the limit. Answers with the state as it is then; without a request where nothing has
    /// expired.
    pub(super) async fn count_again(
        &self,
        status: RepositoryStatus,
    ) -> Result<RepositoryStatus, PipelinesError> {
        let (manager, claims) = (&self.shared.manager, &self.shared.claims);
        let expired = self.shared.counted.expired(&status);
        if expired.is_empty() {
            return Ok(status);
        }
        let repository = status.repository;
        for (run, uid) in expired {
            let request = RunRequest::durable(run.clone(), uid);
            if let Admission::Started(lease) = manager.adopt(&repository, request).await?
                && lease.session() == manager.session()
            {
                tracing::info!(%run, "its slot has expired: it is counted again");
                claims.mark(&repository, &run, lease.token());
            }
        }
        let status = manager.status(&repository).await?;
        let limit = status
            .limit
            .get()
            .and_then(|limit| usize::try_from(limit).ok());
        let beyond = limit.map_or(0, |limit| status.running.len().saturating_sub(limit));
        let (open, _) = claims.split(&status, manager.session());
        for run in open.iter().rev().take(beyond) {
            let mut running = status.running.iter();
            let Some(granted) = running.find(|other| other.run == *run) else {
                continue;
            };
            let request = RunRequest::durable(run.clone(), granted.uid.clone());
            match manager.admit(&repository, request).await? {
                Admission::Started(lease) if lease.token() == granted.token => {
                    if let Some(admission) = manager.requeue(lease).await? {
                        keep(admission);
                    }
                }
                other => keep(other),
            }
        }
        Ok(manager.status(&repository).await?)
    }
}
