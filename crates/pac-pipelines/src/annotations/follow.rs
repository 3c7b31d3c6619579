//! The controller's loop: it hears the cluster and the clock, and looks at what they are about.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use pac_core::RepositoryKey;
use tokio::time::{Instant, sleep, sleep_until};

use super::{AnnotationController, Shared};
use crate::cluster::{ClusterWatch, Unreadable};
use crate::error::PipelinesError;

/// How long a Repository waits that could not be seen to; doubled with every further failure.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// How long the loop sleeps at most when nothing is due.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// A look at a Repository, which it answers with, or at the lists.
type Work<'a> = Pin<Box<dyn Future<Output = Option<RepositoryKey>> + Send + 'a>>;

/// The Repositories that are to be looked at, and since or from when on.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    due: HashMap<RepositoryKey, Instant>,
    /// How often in a row looking has failed.
    failures: HashMap<RepositoryKey, u32>,
    everything: bool,
}

/// What a comparison with the cluster's lists found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Relisted {
    /// The Repositories of the cluster.
    pub repositories: usize,
    /// The PipelineRuns of the cluster.
    pub runs: usize,
    /// The objects that cannot be understood; all others were seen to.
    pub unreadable: Vec<Unreadable>,
    /// The Repositories that could not be seen to; they are tried again.
    pub failed: Vec<(RepositoryKey, PipelinesError)>,
}

impl AnnotationController {
    /// Does everything there is to do, for ever: takes the cluster's lists, follows its changes,
    /// starts what may start, and takes the lists again from time to time. What fails is logged
    /// and tried again. Dropped, it ends where it is; a later call, or another controller, goes on
    /// from what the cluster shows.
    pub async fn run(&self) {
        let shared = &self.shared;
        let mut failures = 0;
        loop {
            // The watch first: nothing that happens after the lists are taken is missed then.
            let watch = match shared.cluster.watch().await {
                Ok(watch) => self.recover().await.map(|_| watch),
                Err(error) => Err(error.into()),
            };
            match watch {
                Ok(mut watch) => {
                    failures = 0;
                    shared.follow(watch.as_mut()).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot follow the cluster; trying again");
                    sleep(backoff(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Takes the cluster's lists and sees to all Repositories, as [`run`](Self::run) does at its
    /// start and from time to time. Two requests, or their pages, beside those that change
    /// something.
    ///
    /// # Errors
    /// Those of listing. A Repository that cannot be seen to is no error: it is in
    /// [`Relisted::failed`].
    pub async fn recover(&self) -> Result<Relisted, PipelinesError> {
        let shared = &self.shared;
        let mut relisted = shared.list().await?;
        let repositories = shared.objects().with_runs();
        let at_once = shared.options.concurrent_repositories.max(1);
        let mut looks = stream::iter(repositories)
            .map(|repository| async move {
                let result = shared.look_and_retry(&repository).await;
                (repository, result)
            })
            .buffer_unordered(at_once);
        while let Some((repository, result)) = looks.next().await {
            if let Err(error) = result {
                relisted.failed.push((repository, error));
            }
        }
        Ok(relisted)
    }
}

impl Shared {
    /// Follows a watch until it ends.
    async fn follow(&self, watch: &mut dyn ClusterWatch) {
        let mut active = BTreeSet::new();
        let mut work: FuturesUnordered<Work<'_>> = FuturesUnordered::new();
        let mut is_listing = false;
        let mut next_list = Instant::now() + self.options.recovery_interval;
        loop {
            let most = self.options.concurrent_repositories.max(1);
            for repository in self.take_due(&active, most) {
                active.insert(repository.clone());
                work.push(Box::pin(async move {
                    // What fails is logged and tried again there.
                    let _ = self.look_and_retry(&repository).await;
                    Some(repository)
                }));
            }
            if !is_listing && (Instant::now() >= next_list || self.takes_everything()) {
                is_listing = true;
                next_list = Instant::now() + self.options.recovery_interval;
                work.push(Box::pin(async move {
                    self.list_again().await;
                    None
                }));
            }
            let wake = self.next_due(&active, most).min(next_list);
            tokio::select! {
                event = watch.next() => match event {
                    Some(event) => self.observe(event),
                    None => return,
                },
                Some(done) = work.next(), if !work.is_empty() => match done {
                    Some(repository) => {
                        active.remove(&repository);
                    }
                    None => is_listing = false,
                },
                () = self.changed.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes the lists, and has everything looked at; what fails is tried again soon.
    async fn list_again(&self) {
        match self.list().await {
            Ok(_) => {
                for repository in self.objects().with_runs() {
                    self.mark_dirty(&repository, Instant::now());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not take the cluster's lists; trying again");
                sleep(FIRST_RETRY).await;
                self.relist();
            }
        }
    }

    /// Takes the cluster's lists.
    async fn list(&self) -> Result<Relisted, PipelinesError> {
        let repositories = self.cluster.list_repositories().await?;
        let runs = self.cluster.list_runs().await?;
        let unreadable = repositories.unreadable.iter().chain(&runs.unreadable);
        let relisted = Relisted {
            repositories: repositories.items.len(),
            runs: runs.items.len(),
            unreadable: unreadable.cloned().collect(),
            failed: Vec::new(),
        };
        self.objects().replace(repositories, runs);
        // Set already, from the second time on.
        let _ = self.listed.set(());
        Ok(relisted)
    }

    /// Waits until the cluster's lists have been taken once; takes them if no other task has.
    pub(super) async fn listed(&self) -> Result<(), PipelinesError> {
        if self.listed.initialized() {
            return Ok(());
        }
        self.list().await.map(drop)
    }

    /// Looks at a Repository, and has it looked at again where that fails.
    pub(super) async fn look_and_retry(
        &self,
        repository: &RepositoryKey,
    ) -> Result<(), PipelinesError> {
        let result = self.look(repository).await;
        let mut dirty = self.dirty();
        match &result {
            Ok(()) => {
                dirty.failures.remove(repository);
            }
            Err(error) => {
                tracing::warn!(%repository, %error, "could not see to a Repository; trying again");
                let failures = dirty.failures.entry(repository.clone()).or_default();
                let wait = backoff(*failures);
                *failures = failures.saturating_add(1);
                dirty.mark(repository, Instant::now() + wait);
                drop(dirty);
                self.changed.notify_one();
            }
        }
        result
    }

    /// Has a Repository looked at, not before `at`.
    pub(super) fn mark_dirty(&self, repository: &RepositoryKey, at: Instant) {
        self.dirty().mark(repository, at);
        self.changed.notify_one();
    }

    /// Has the lists taken again.
    pub(super) fn relist(&self) {
        self.dirty().everything = true;
        self.changed.notify_one();
    }

    fn takes_everything(&self) -> bool {
        std::mem::take(&mut self.dirty().everything)
    }

    /// Takes Repositories that are due and that no task looks at, so that at most so many are
    /// looked at.
    fn take_due(&self, active: &BTreeSet<RepositoryKey>, most: usize) -> Vec<RepositoryKey> {
        let most = most.saturating_sub(active.len());
        let mut dirty = self.dirty();
        let now = Instant::now();
        let due = dirty.due.iter();
        let due = due.filter(|(key, at)| **at <= now && !active.contains(*key));
        let due: Vec<_> = due.map(|(key, _)| key.clone()).take(most).collect();
        for key in &due {
            dirty.due.remove(key);
        }
        due
    }

    /// When the next Repository is due that can be looked at.
    fn next_due(&self, active: &BTreeSet<RepositoryKey>, most: usize) -> Instant {
        let dirty = self.dirty();
        let due = dirty.due.iter().filter(|(key, _)| !active.contains(*key));
        // With as many as may be, the end of one is waited for.
        let next = due.map(|(_, at)| *at).min().filter(|_| active.len() < most);
        next.unwrap_or_else(|| Instant::now() + IDLE)
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dirty {
    fn mark(&mut self, repository: &RepositoryKey, at: Instant) {
        let due = self.due.entry(repository.clone()).or_insert(at);
        *due = at.min(*due);
    }
}

/// How long to wait after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures.min(16)));
    doubled.min(LONGEST_RETRY)
}
