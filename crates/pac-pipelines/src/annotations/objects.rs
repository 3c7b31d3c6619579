//! The latest state of every object of the cluster, whatever order the events came in.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pac_core::{Limit, PipelineRunKey, RepositoryKey, Uid};
use tokio::time::Instant;

use crate::cluster::{ClusterEvent, Listing, Unreadable, UnreadableObject};
use crate::model::{RepositoryView, ResourceVersion, RunView};

#[derive(Debug, Default)]
pub(super) struct Objects {
    global: Option<RepositoryKey>,
    runs: HashMap<PipelineRunKey, Seen>,
    by_repository: HashMap<RepositoryKey, BTreeSet<PipelineRunKey>>,
    repositories: HashMap<RepositoryKey, Known>,
    /// Runs that are gone, until the next list: what comes late of them is passed over.
    gone: HashSet<(PipelineRunKey, Uid)>,
}

#[derive(Debug)]
struct Seen {
    view: Arc<RunView>,
    since: Instant,
}

#[derive(Debug)]
enum Known {
    Here(RepositoryView),
    /// It is there, and its limit is not known.
    Unreadable,
    /// It was deleted; what is older comes late.
    Deleted(Option<ResourceVersion>),
}

/// A Repository, as far as its limit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not there: its runs are left alone.
    Missing,
    /// The limit in force; `None` where it cannot be understood.
    Limit(Option<Limit>),
}

impl Objects {
    pub(super) fn new(global: Option<RepositoryKey>) -> Self {
        Self {
            global,
            ..Self::default()
        }
    }

    /// Takes an event in. Answers with the Repositories that are to be looked at; `None` when
    /// everything has to be listed again.
    pub(super) fn observe(&mut self, event: ClusterEvent) -> Option<Vec<RepositoryKey>> {
        Some(match event {
            ClusterEvent::RunApplied(view) => self.apply_run(view),
            ClusterEvent::RunDeleted(view) => {
                self.gone.insert((view.key.clone(), view.uid.clone()));
                self.forget(&view.key, &view.uid)
            }
            ClusterEvent::RepositoryApplied(view) => {
                let (key, version) = (view.key.clone(), view.version);
                self.set(key, version, Known::Here(view))
            }
            ClusterEvent::RepositoryDeleted(view) => {
                let version = view.version;
                self.set(view.key, version, Known::Deleted(version))
            }
            ClusterEvent::Unreadable(unreadable) => self.unreadable(unreadable),
            ClusterEvent::Missed => return None,
        })
    }

    /// Takes complete lists in: what is not in them is gone, unless it is newer than they are.
    pub(super) fn replace(
        &mut self,
        repositories: Listing<RepositoryView>,
        runs: Listing<RunView>,
    ) {
        self.gone.clear();
        let listed: HashSet<_> = runs.items.iter().map(|run| run.uid.clone()).collect();
        let unreadable: HashSet<_> = runs
            .unreadable
            .iter()
            .filter_map(|unreadable| match &unreadable.object {
                UnreadableObject::Run(key) => Some(key.clone()),
                _ => None,
            })
            .collect();
        let missing: Vec<_> = self
            .runs
            .values()
            .filter(|seen| !listed.contains(&seen.view.uid))
            .filter(|seen| !unreadable.contains(&seen.view.key))
            .filter(|seen| !is_newer(seen.view.version, runs.version))
            .map(|seen| (seen.view.key.clone(), seen.view.uid.clone()))
            .collect();
        for (key, uid) in missing {
            self.forget(&key, &uid);
        }
        for run in runs.items {
            self.apply_run(run);
        }
        let listed: HashSet<_> = repositories.items.iter().map(|view| &view.key).collect();
        self.repositories.retain(|key, known| {
            listed.contains(key) || is_newer(known.version(), repositories.version)
        });
        for view in repositories.items {
            let (key, version) = (view.key.clone(), view.version);
            self.set(key, version, Known::Here(view));
        }
        for unreadable in repositories.unreadable {
            self.unreadable(unreadable);
        }
    }

    /// The limit in force for a Repository: its own, else the global one's, else none.
    pub(super) fn standing(&self, key: &RepositoryKey) -> Standing {
        let view = match self.repositories.get(key) {
            None | Some(Known::Deleted(_)) => return Standing::Missing,
            Some(Known::Unreadable) => return Standing::Limit(None),
            Some(Known::Here(view)) => view,
        };
        if view.limit.is_some() {
            return Standing::Limit(view.limit);
        }
        let global = self.global.as_ref();
        let global = global.and_then(|global| self.repositories.get(global));
        Standing::Limit(match global {
            Some(Known::Unreadable) => None,
            Some(Known::Here(global)) => Some(global.limit.unwrap_or(Limit::UNLIMITED)),
            Some(Known::Deleted(_)) | None => Some(Limit::UNLIMITED),
        })
    }

    /// The runs of a Repository, by their Repository annotation.
    pub(super) fn runs_of(&self, repository: &RepositoryKey) -> Vec<Arc<RunView>> {
        let keys = self.by_repository.get(repository).into_iter().flatten();
        keys.filter_map(|key| Some(Arc::clone(&self.runs.get(key)?.view)))
            .collect()
    }

    /// For how long a run has been known.
    pub(super) fn seen_for(&self, run: &PipelineRunKey) -> Duration {
        let seen = self.runs.get(run);
        seen.map_or(Duration::ZERO, |seen| seen.since.elapsed())
    }

    pub(super) fn run(&self, run: &PipelineRunKey) -> Option<&Arc<RunView>> {
        Some(&self.runs.get(run)?.view)
    }

    /// The Repositories that have runs.
    pub(super) fn with_runs(&self) -> Vec<RepositoryKey> {
        self.by_repository.keys().cloned().collect()
    }

    fn apply_run(&mut self, view: RunView) -> Vec<RepositoryKey> {
        if self.gone.contains(&(view.key.clone(), view.uid.clone())) {
            return Vec::new();
        }
        let mut since = Instant::now();
        let mut touched = Vec::new();
        if let Some(known) = self.runs.get(&view.key) {
            if is_newer(known.view.version, view.version) {
                return Vec::new();
            }
            if known.view.uid == view.uid {
                since = known.since;
            }
            let (key, uid) = (view.key.clone(), known.view.uid.clone());
            touched = self.forget(&key, &uid);
        }
        let repository = view.repository();
        let key = view.key.clone();
        let view = Arc::new(view);
        self.runs.insert(key.clone(), Seen { view, since });
        if let Some(repository) = repository {
            let runs = self.by_repository.entry(repository.clone()).or_default();
            runs.insert(key);
            if !touched.contains(&repository) {
                touched.push(repository);
            }
        }
        touched
    }

    fn forget(&mut self, key: &PipelineRunKey, uid: &Uid) -> Vec<RepositoryKey> {
        if self.runs.get(key).is_none_or(|seen| seen.view.uid != *uid) {
            return Vec::new();
        }
        let removed = self.runs.remove(key);
        let Some(repository) = removed.and_then(|seen| seen.view.repository()) else {
            return Vec::new();
        };
        if let Some(runs) = self.by_repository.get_mut(&repository) {
            runs.remove(key);
            if runs.is_empty() {
                self.by_repository.remove(&repository);
            }
        }
        vec![repository]
    }

    fn set(
        &mut self,
        key: RepositoryKey,
        version: Option<ResourceVersion>,
        known: Known,
    ) -> Vec<RepositoryKey> {
        let before = self.repositories.get(&key);
        if before.is_some_and(|before| is_newer(before.version(), version)) {
            return Vec::new();
        }
        self.repositories.insert(key.clone(), known);
        self.inheriting(key)
    }

    /// What can be understood no more keeps what is known of it, but for a limit.
    fn unreadable(&mut self, unreadable: Unreadable) -> Vec<RepositoryKey> {
        tracing::warn!(error = %unreadable.error, "an object cannot be understood");
        match unreadable.object {
            UnreadableObject::Repository(key) => {
                self.repositories.insert(key.clone(), Known::Unreadable);
                self.inheriting(key)
            }
            _ => Vec::new(),
        }
    }

    /// The Repositories whose limit depends on this one.
    fn inheriting(&self, key: RepositoryKey) -> Vec<RepositoryKey> {
        if self.global.as_ref() == Some(&key) {
            return self.with_runs();
        }
        vec![key]
    }
}

impl Known {
    fn version(&self) -> Option<ResourceVersion> {
        match self {
            Self::Here(view) => view.version,
            Self::Unreadable => None,
            Self::Deleted(version) => *version,
        }
    }
}

/// Whether one version is certainly newer than another.
fn is_newer(version: Option<ResourceVersion>, than: Option<ResourceVersion>) -> bool {
    matches!((version, than), (Some(version), Some(than)) if version > than)
}
