//! Adding runs to a queue.

use std::collections::HashSet;

use pac_core::manager::{Admission, RepositoryStatus};
use pac_core::protocol::RunRequest;
use pac_core::state::RulesChange;
use pac_core::{ErrorKind, Limit, LimitVersion, PipelineRunKey, RepositoryKey};

use super::name::{Ask, RunName};
use super::{QueueManager, keep};
use crate::error::PipelinesError;
use crate::integration::Known;
use crate::model::RepositoryView;

impl QueueManager {
    /// Adds runs in their order, with the limit that is in force.
    pub(super) async fn add(
        &self,
        repository: &RepositoryView,
        runs: &[RunName],
    ) -> Result<(), PipelinesError> {
        let manager = &self.shared.manager;
        let status = manager.status(&repository.key).await?;
        let known = Known::all(&status, manager.session());
        let mut named = HashSet::new();
        let mut new = Vec::new();
        for run in runs.iter().filter(|run| named.insert(&run.key)) {
            match run.ask(known.get(&run.key).unwrap_or(&Known::Unknown))? {
                Ask::Nothing => {}
                Ask::Admit(uid) => new.push(RunRequest::durable(run.key.clone(), uid)),
                Ask::Readmit(uid) => {
                    let request = RunRequest::durable(run.key.clone(), uid);
                    self.readmit(&repository.key, request).await?;
                }
            }
        }
        self.admit(repository, &status, new).await
    }

    async fn admit(
        &self,
        repository: &RepositoryView,
        status: &RepositoryStatus,
        mut new: Vec<RunRequest>,
    ) -> Result<(), PipelinesError> {
        let manager = &self.shared.manager;
        let limit = repository.limit.unwrap_or(Limit::UNLIMITED);
        let version = repository.version.map(LimitVersion::from);
        if status.limit != limit && (new.is_empty() || version.is_none()) {
            manager.set_limit(&repository.key, limit, version).await?;
        }
        let announcement = version.map(|version| (RulesChange::limit(limit), version));
        let mut failed = Ok(());
        while !new.is_empty() {
            let rest = new.split_off(new.len().min(manager.most_at_once()));
            let admissions = manager
                .admit_each(&repository.key, announcement.clone(), new)
                .await?;
            for admission in admissions {
                match admission {
                    Ok(admission) => keep(admission),
                    // As many wait as may: it is not added, and may be when it is named again.
                    Err(error) if error.kind() == ErrorKind::QueueFull => {
                        tracing::info!(repository = %repository.key, %error, "not added");
                    }
                    Err(error) => failed = failed.and(Err(error)),
                }
            }
            new = rest;
        }
        Ok(failed?)
    }

    /// The run's slot was given up because no controller looked after it, and it never started: it
    /// is counted for a moment, so that its old place is known, and then queued there.
    async fn readmit(
        &self,
        repository: &RepositoryKey,
        request: RunRequest,
    ) -> Result<(), PipelinesError> {
        let manager = &self.shared.manager;
        let run: PipelineRunKey = request.run.clone();
        if let Admission::Started(lease) = manager.adopt(repository, request).await? {
            tracing::debug!(%run, "it comes back to its old place");
            if let Some(admission) = manager.requeue(lease).await? {
                keep(admission);
            }
        }
        Ok(())
    }
}
