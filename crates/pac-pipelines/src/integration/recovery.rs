//! Recovery: the store is compared with the cluster's lists, and both are brought together.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use pac_core::RepositoryKey;
use pac_core::manager::RepositorySummary;
use pac_core::state::Rules;
use tokio::time::Instant;

use super::engine::Engine;
use super::options::Mode;
use super::pass::Report;
use super::work::Dirty;
use crate::cluster::Unreadable;
use crate::error::PipelinesError;
use crate::policy::PauseStep;
use crate::sections::is_section;

/// Repositories that the store is asked for at once.
const PAGE: usize = 1_000;

/// What a recovery found and did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// The Repositories of the cluster.
    pub repositories: usize,
    /// The PipelineRuns of the cluster.
    pub runs: usize,
    /// The Repositories that were looked at: those with runs, or of which the store knew some.
    pub looked_at: usize,
    /// The runs that were running and not counted, and are now.
    pub adopted: usize,
    /// The runs that were started or queued.
    pub admitted: usize,
    /// The runs whose slot or place was freed.
    pub ended: usize,
    /// The objects that cannot be understood; all others were seen to.
    pub unreadable: Vec<Unreadable>,
    /// The Repositories that could not be seen to; they are tried again.
    pub failed: Vec<(RepositoryKey, PipelinesError)>,
}

impl Engine {
    /// Compares the store with the cluster's lists, and sees to what differs. Two requests (or
    /// their pages; three, where Namespaces count) to the cluster, however many runs there are, and
    /// one for each run that holds a slot or a place and is not in the list.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<Recovery, PipelinesError> {
        let begun = Instant::now();
        let namespaces = match self.options.mode {
            Mode::Gate => self.cluster.list_namespaces().await?,
            Mode::Alone | Mode::Takeover | Mode::Observe => None,
        };
        let repositories = self.cluster.list_repositories().await?;
        let runs = self.cluster.list_runs().await?;
        let mut recovery = Recovery {
            repositories: repositories.items.len(),
            runs: runs.items.len(),
            ..Recovery::default()
        };
        let unreadable = repositories.unreadable.iter().chain(&runs.unreadable);
        recovery.unreadable = unreadable.cloned().collect();
        if let Some(namespaces) = namespaces {
            self.seen().replace_namespaces(&namespaces);
        }
        self.seen().replace(repositories, runs);
        // Set already, from the second time on.
        let _ = self.listed.set(());
        let concerned = self.concerned().await?;
        recovery.looked_at = concerned.len();
        let at_once = self.options.concurrent_repositories.max(1);
        let mut passes = stream::iter(concerned)
            .map(|repository| {
                let engine = Arc::clone(self);
                async move {
                    let result = engine.claimed_pass(&repository, Dirty::listed()).await;
                    (repository, result)
                }
            })
            .buffer_unordered(at_once);
        while let Some((repository, result)) = passes.next().await {
            match result {
                Ok(report) => recovery.count(report),
                Err(error) => recovery.failed.push((repository, error)),
            }
        }
        tracing::info!(
            repositories = recovery.repositories,
            runs = recovery.runs,
            adopted = recovery.adopted,
            admitted = recovery.admitted,
            ended = recovery.ended,
            unreadable = recovery.unreadable.len(),
            failed = recovery.failed.len(),
            took = ?begun.elapsed(),
            "the store was compared with the cluster"
        );
        Ok(recovery)
    }

    /// Waits until the cluster's lists have been taken once; takes them if no other task does.
    pub(super) async fn listed(self: &Arc<Self>) -> Result<(), PipelinesError> {
        if self.listed.initialized() {
            return Ok(());
        }
        self.recover().await.map(drop)
    }

    /// Looks at a Repository as soon as no other task does.
    async fn claimed_pass(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        dirty: Dirty,
    ) -> Result<Report, PipelinesError> {
        // What was marked is a part of all.
        let failures = self.work.claim(repository).await.failures;
        self.look(repository, Dirty { failures, ..dirty }).await
    }

    /// Looks at a Repository that this task has claimed, and gives it back. What fails is tried
    /// again.
    pub(super) async fn look(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        dirty: Dirty,
    ) -> Result<Report, PipelinesError> {
        let _claim = Claim {
            engine: self,
            repository,
        };
        let result = self.pass(repository, &dirty).await;
        if let Err(error) = &result {
            tracing::warn!(%repository, %error, "could not see to a Repository; trying again");
            self.retry(repository, dirty);
        }
        result
    }

    /// The Repositories with runs, on either side, and those whose limit differs.
    async fn concerned(&self) -> Result<BTreeSet<RepositoryKey>, PipelinesError> {
        let mut concerned: BTreeSet<RepositoryKey> = {
            let seen = self.seen();
            let with_runs = seen.repositories().filter(|(_, runs)| *runs > 0);
            let with_runs = with_runs.map(|(key, _)| key.clone());
            with_runs.chain(seen.sections()).collect()
        };
        let mut after: Option<RepositoryKey> = None;
        let mut known = BTreeSet::new();
        loop {
            let page = self.manager.list(after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|summary| summary.repository.clone());
            let ours = page.into_iter();
            let ours = ours.filter(|summary| self.cluster.follows(summary.repository.namespace()));
            for summary in ours {
                if self.is_of_interest(&summary) {
                    concerned.insert(summary.repository.clone());
                }
                known.insert(summary.repository);
            }
            if is_last {
                break;
            }
        }
        self.retain_missing(|key| known.contains(key) && !self.seen().is_known(key));
        Ok(concerned)
    }

    fn is_of_interest(&self, summary: &RepositorySummary) -> bool {
        let seen = self.seen();
        if is_section(&summary.repository) {
            // An empty one is kept as long as its namespace may use it.
            let is_in_use = summary.running > 0 || summary.queued > 0;
            return is_in_use || !seen.has_repositories_in(summary.repository.namespace());
        }
        if !seen.is_known(&summary.repository) {
            return true;
        }
        let limit = seen.limit(&summary.repository);
        let differs = limit.is_some_and(|effective| {
            let mut known = Rules::limit(summary.limit);
            known.max_queued = summary.max_queued;
            // A summary does not say it, and it is announced with the next runs: it orders those.
            known.backfill = effective.backfill;
            effective.is_news_to(&known)
        });
        let policies = seen.queue_policies(&summary.repository);
        let pause = summary.pause.as_ref().map(|pause| pause.reason.as_ref());
        let pauses =
            policies.is_some_and(|policies| policies.about_pause(pause) != PauseStep::Nothing);
        summary.running > 0 || summary.queued > 0 || differs || pauses
    }
}

impl Recovery {
    fn count(&mut self, report: Report) {
        self.adopted += report.adopted;
        self.admitted += report.admitted;
        self.ended += report.ended;
    }
}

/// Gives a Repository back, also when the task that looks at it is dropped.
struct Claim<'a> {
    engine: &'a Engine,
    repository: &'a RepositoryKey,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.engine.work.release(self.repository);
    }
}
