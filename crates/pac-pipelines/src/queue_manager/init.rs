//! The queues after a start: the store is compared with what the cluster shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use pac_core::manager::{Admission, RepositoryStatus};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion, PipelineRunKey, RepositoryKey};

use super::repositories::{Found, Repositories};
use super::{QueueManager, RunName};
use crate::cluster::{Cluster, Unreadable, UnreadableObject};
use crate::error::PipelinesError;
use crate::integration::{Known, Phase, batches};
use crate::model::{RepositoryView, RunView, SpecStatus};

/// Repositories that the store is asked for at once.
const PAGE: usize = 1_000;

/// What [`QueueManager::init_queues`] found and did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Rebuilt {
    /// The Repositories that were looked at: those with runs, in the cluster or the store.
    pub repositories: usize,
    /// The runs that were running and not counted, and are now.
    pub adopted: usize,
    /// The runs that wait.
    pub pending: usize,
    /// The runs whose slot or place was freed: they have ended, or are gone.
    pub ended: usize,
    /// The objects that cannot be understood; all others were seen to.
    pub unreadable: Vec<Unreadable>,
    /// The Repositories that could not be seen to; another call tries them again.
    pub failed: Vec<(RepositoryKey, PipelinesError)>,
}

/// What the cluster shows of one Repository's runs, and whether it shows everything.
#[derive(Debug, Default)]
struct Shown {
    runs: Vec<Arc<RunView>>,
    /// Runs that are there and cannot be understood, in any Repository.
    unreadable: Arc<HashSet<PipelineRunKey>>,
}

impl QueueManager {
    /// Brings the queues to what the cluster shows: what runs is counted, also beyond the limit;
    /// what has ended, or is gone, frees its slot; what waits is queued, the runs of one event in
    /// their order. To be called at the start, before anything else, and again from time to time
    /// and when the manager has opened a new session. Two requests to the cluster, or their pages,
    /// and one for each run that only the store knows.
    ///
    /// Hands out no run: the next call that hands out runs hands out those that got a slot. Dropped
    /// in flight, it has seen to a part.
    ///
    /// # Errors
    /// Those of listing, in the cluster or the store. A Repository that cannot be seen to is no
    /// error: it is in [`Rebuilt::failed`].
    pub async fn init_queues(&self, cluster: &dyn Cluster) -> Result<Rebuilt, PipelinesError> {
        // The store first: what it knows of by now was in the cluster before the lists are taken.
        let mut known = self.live_repositories().await?;
        let repositories = cluster.list_repositories().await?;
        let runs = cluster.list_runs().await?;
        let mut rebuilt = Rebuilt::default();
        let unreadable = repositories.unreadable.iter().chain(&runs.unreadable);
        rebuilt.unreadable = unreadable.cloned().collect();
        let unreadable = runs.unreadable.iter().filter_map(|run| match &run.object {
            UnreadableObject::Run(key) => Some(key.clone()),
            _ => None,
        });
        let unreadable: Arc<HashSet<_>> = Arc::new(unreadable.collect());
        let mut shown: BTreeMap<RepositoryKey, Shown> = BTreeMap::new();
        for run in runs.items {
            if let Some(repository) = run.repository() {
                let shown = shown.entry(repository).or_default();
                shown.runs.push(Arc::new(run));
            }
        }
        for repository in known.keys() {
            shown.entry(repository.clone()).or_default();
        }
        let options = &self.shared.options;
        let repositories = Repositories::of(repositories, options.global_repository.as_ref());
        rebuilt.repositories = shown.len();
        let work = shown.into_iter().map(|(key, mut shown)| {
            shown.unreadable = Arc::clone(&unreadable);
            let status = known.remove(&key);
            let found = repositories.get(&key);
            async move {
                let result = self.rebuild(cluster, &key, found, shown, status).await;
                (key, result)
            }
        });
        let work: Vec<_> = work.collect();
        let mut work = stream::iter(work).buffer_unordered(options.concurrent_repositories.max(1));
        while let Some((repository, result)) = work.next().await {
            match result {
                Ok(part) => rebuilt.add(&part),
                Err(error) => {
                    tracing::warn!(%repository, %error, "could not rebuild a queue");
                    rebuilt.failed.push((repository, error));
                }
            }
        }
        Ok(rebuilt)
    }

    /// The repositories of which the store has runs that wait or hold a slot.
    async fn live_repositories(
        &self,
    ) -> Result<HashMap<RepositoryKey, RepositoryStatus>, PipelinesError> {
        let manager = &self.shared.manager;
        let mut live = Vec::new();
        let mut after: Option<RepositoryKey> = None;
        loop {
            let page = manager.list(after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|summary| summary.repository.clone());
            let has_runs = page.into_iter().filter(|s| s.running > 0 || s.queued > 0);
            live.extend(has_runs.map(|summary| summary.repository));
            if is_last {
                break;
            }
        }
        let at_once = self.shared.options.concurrent_repositories.max(1);
        let statuses = stream::iter(live)
            .map(|key| async move {
                let status = manager.status(&key).await?;
                Ok::<_, PipelinesError>((key, status))
            })
            .buffer_unordered(at_once);
        statuses.try_collect().await
    }

    async fn rebuild(
        &self,
        cluster: &dyn Cluster,
        repository: &RepositoryKey,
        found: Found,
        shown: Shown,
        status: Option<RepositoryStatus>,
    ) -> Result<Rebuilt, PipelinesError> {
        let mut part = Rebuilt::default();
        let view = match found {
            Found::Here(view) => Some(view),
            // What runs is counted; nothing else starts until the limit is known.
            Found::Unreadable => None,
            Found::Missing => {
                let Some(status) = status else {
                    return Ok(part);
                };
                self.remove_repository(repository).await?;
                part.ended = status.running.len() + status.queued.len();
                return Ok(part);
            }
        };
        let known = status.map(|status| Known::all(&status, self.shared.manager.session()));
        let known = known.unwrap_or_default();
        let limited = view.as_ref().is_none_or(|view| view.limit.is_some());
        // What runs is counted before anything else may start.
        for run in &shown.runs {
            if Phase::of(run, limited) == Phase::Running {
                part.adopted += self
                    .count_running(repository, run, known.get(&run.key))
                    .await?;
            }
        }
        if let Some(view) = &view {
            self.announce(view).await?;
        }
        for (run, known) in known.iter().filter(|(_, known)| known.is_live()) {
            part.ended += self.free(cluster, repository, run, known, &shown).await?;
        }
        if let Some(view) = &view {
            part.pending = self.queue_held(view, shown.runs).await?;
        }
        Ok(part)
    }

    /// Counts a run that the cluster runs, unless the store does so already.
    async fn count_running(
        &self,
        repository: &RepositoryKey,
        run: &RunView,
        known: Option<&Known>,
    ) -> Result<usize, PipelinesError> {
        let manager = &self.shared.manager;
        let name = RunName::from(run);
        // A run that came anew bears another uid in the store.
        let recorded = known.and_then(Known::uid).filter(|uid| name.means(uid));
        let uid = recorded.unwrap_or(&run.uid).clone();
        let is_new = !matches!(known, Some(Known::Started { uid, .. }) if name.means(uid));
        self.shared.counted.note(repository, &run.key, &uid);
        let request = RunRequest::durable(run.key.clone(), uid);
        if let Admission::Started(lease) = manager.adopt(repository, request).await?
            && lease.session() == manager.session()
        {
            self.shared.claims.mark(repository, &run.key, lease.token());
        }
        Ok(usize::from(is_new))
    }

    async fn announce(&self, view: &RepositoryView) -> Result<(), PipelinesError> {
        let manager = &self.shared.manager;
        let limit = view.limit.unwrap_or(Limit::UNLIMITED);
        if manager.status(&view.key).await?.limit != limit {
            let version = view.version.map(LimitVersion::from);
            manager.set_limit(&view.key, limit, version).await?;
        }
        Ok(())
    }

    /// Frees what a run has of the store that has ended, never starts, or is gone.
    async fn free(
        &self,
        cluster: &dyn Cluster,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        known: &Known,
        shown: &Shown,
    ) -> Result<usize, PipelinesError> {
        let view = shown.runs.iter().find(|view| view.key == *run);
        let means = |view: &&Arc<RunView>| {
            let name = RunName::from(view.as_ref());
            known.uid().is_some_and(|uid| name.means(uid))
        };
        let outcome = match view.filter(means) {
            Some(view) => match Phase::of(view, true) {
                Phase::Done(outcome) => outcome,
                Phase::Ending { graceful } => {
                    if graceful {
                        let form = SpecStatus::Cancelled;
                        cluster.request_end(&view.key, &view.uid, form).await?;
                    }
                    RunOutcome::Cancelled
                }
                Phase::LeftAlone => {
                    self.shared.counted.forget(repository, run);
                    self.give_up(repository, run, known).await?;
                    return Ok(1);
                }
                _ => return Ok(0),
            },
            None if shown.unreadable.contains(run) => return Ok(0),
            None => {
                // A list may be older than it says.
                let now = cluster.read(run).await?;
                let is_here = now.is_some_and(|now| {
                    let name = RunName::from(&now);
                    now.repository().as_ref() == Some(repository)
                        && known.uid().is_some_and(|uid| name.means(uid))
                });
                if is_here {
                    return Ok(0);
                }
                RunOutcome::Cancelled
            }
        };
        self.shared.counted.forget(repository, run);
        self.end(repository, run, known, outcome).await?;
        Ok(1)
    }

    /// Queues the runs that wait, each event's in their order.
    async fn queue_held(
        &self,
        repository: &RepositoryView,
        runs: Vec<Arc<RunView>>,
    ) -> Result<usize, PipelinesError> {
        let limited = repository.limit.is_some();
        let held: Vec<_> = runs
            .into_iter()
            .filter(|run| Phase::of(run, limited) == Phase::Held)
            .collect();
        let wait = self.shared.options.order_wait;
        let batches = batches(&held, self.shared.clock.now(), wait, |_| Duration::ZERO);
        let due = batches.due.iter().flatten();
        let names: Vec<_> = due.map(|run| RunName::from(run.as_ref())).collect();
        self.add(repository, &names).await?;
        Ok(names.len())
    }
}

impl Rebuilt {
    fn add(&mut self, part: &Self) {
        self.adopted += part.adopted;
        self.pending += part.pending;
        self.ended += part.ended;
    }
}
