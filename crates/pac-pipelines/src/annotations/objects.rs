//! What has been seen of the cluster, as the queues in memory need it.

use std::sync::Arc;
use std::time::Duration;

use pac_core::{Limit, PipelineRunKey, RepositoryKey};

use crate::cluster::{ClusterEvent, Listing};
use crate::integration::seen::{RepositoryState, Seen, Touched};
use crate::model::{RepositoryView, RunView};

/// The latest state of every object.
#[derive(Debug)]
pub(super) struct Objects {
    seen: Seen,
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
            seen: Seen::new(global),
        }
    }

    /// Takes an event in. Answers with the Repositories that are to be looked at; `None` when
    /// everything has to be listed again.
    pub(super) fn observe(&mut self, event: ClusterEvent) -> Option<Vec<RepositoryKey>> {
        let touched = self.seen.observe(event);
        // Sections need a store.
        let _ = self.seen.take_changed_sections();
        match touched {
            Touched::Run(repository, _) => Some(vec![repository]),
            Touched::Moved(repositories, _) | Touched::Repositories(repositories) => {
                Some(repositories)
            }
            Touched::Nothing => Some(Vec::new()),
            Touched::Everything => None,
        }
    }

    /// Takes complete lists in: what is not in them is gone, unless it is newer than they are.
    pub(super) fn replace(
        &mut self,
        repositories: Listing<RepositoryView>,
        runs: Listing<RunView>,
    ) {
        self.seen.replace(repositories, runs);
    }

    /// The limit in force for a Repository: its own, else the global one's, else none.
    pub(super) fn standing(&self, key: &RepositoryKey) -> Standing {
        match self.seen.repository(key) {
            None | Some(RepositoryState::Deleted(_)) => Standing::Missing,
            Some(_) => Standing::Limit(self.seen.limit(key).map(|effective| effective.limit)),
        }
    }

    /// The runs of a Repository, by their Repository annotation.
    pub(super) fn runs_of(&self, repository: &RepositoryKey) -> Vec<Arc<RunView>> {
        self.seen.views_of(repository).cloned().collect()
    }

    /// For how long a run has been known.
    pub(super) fn seen_for(&self, run: &PipelineRunKey) -> Duration {
        self.seen.seen_for(run)
    }

    pub(super) fn run(&self, run: &PipelineRunKey) -> Option<&Arc<RunView>> {
        self.seen.run(run)
    }

    /// The Repositories that have runs.
    pub(super) fn with_runs(&self) -> Vec<RepositoryKey> {
        self.seen.with_runs()
    }
}
