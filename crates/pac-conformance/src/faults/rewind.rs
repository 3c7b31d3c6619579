//! A store that has gone back in time, as managers see it: the revisions of its repositories are
//! lower than they were, and the next commits make the same ones once more.

use std::collections::HashMap;
use std::sync::Arc;

use pac_core::driver::{CommitOutcome, Driver, ListFilter, RepositoryCommit, WatchEvent};
use pac_core::state::Snapshot;
use pac_core::{Error, RepositoryKey, Revision, Version};

use super::plan::Faults;

/// How many revisions each repository has gone back.
#[derive(Debug, Clone, Default)]
pub(super) struct Rewound(HashMap<RepositoryKey, u64>);

impl Faults {
    /// From now on the repositories that are in this store now are this many revisions back, or as
    /// many as they have, with what is in them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rewind(&self, driver: &Arc<dyn Driver>, by: u64) -> Result<(), Error> {
        let all = driver.list(ListFilter::All, None, usize::MAX).await?;
        let mut rewound = self.rewound();
        for (repository, head) in all {
            let known = rewound.0.entry(repository).or_default();
            // No further than to its first revision.
            let most = head.revision.get().saturating_sub(*known + 1);
            *known += by.min(most);
        }
        self.set_rewound(rewound);
        Ok(())
    }
}

impl Rewound {
    /// A version of the store's, for what managers know as this one.
    pub(super) fn inwards(&self, repository: &RepositoryKey, version: Version) -> Version {
        let by = self.0.get(repository).copied().unwrap_or(0);
        let revision = version.revision.get().saturating_add(by);
        Version::new(Revision::new(revision), version.stamp)
    }

    /// A revision that managers are told for this one of the store's.
    fn outwards(&self, repository: &RepositoryKey, revision: Revision) -> Revision {
        let by = self.0.get(repository).copied().unwrap_or(0);
        Revision::new(revision.get().saturating_sub(by))
    }

    /// A snapshot of the store's, as managers are told of it.
    pub(super) fn snapshot(&self, repository: &RepositoryKey, snapshot: &mut Snapshot) {
        if !self.0.contains_key(repository) {
            return;
        }
        let outwards = |revision: &mut Revision| *revision = self.outwards(repository, *revision);
        outwards(&mut snapshot.head.revision);
        if let Some(since) = &mut snapshot.since {
            outwards(&mut since.revision);
        }
        for entry in &mut snapshot.entries {
            outwards(&mut Arc::make_mut(entry).revision);
        }
    }

    pub(super) fn commits(&self, batch: &mut [RepositoryCommit]) {
        for commit in batch {
            let changes = &mut commit.changes;
            changes.expected = self.inwards(&commit.repository, changes.expected);
            changes.head.revision = changes.expected.revision;
            // What an entry takes the place of; 0 stands for nothing.
            for entry in &mut changes.entries {
                if entry.revision > Revision::new(0) {
                    let known = Version::new(entry.revision, changes.expected.stamp);
                    let revision = self.inwards(&commit.repository, known).revision;
                    Arc::make_mut(entry).revision = revision;
                }
            }
        }
    }

    pub(super) fn outcome(&self, repository: &RepositoryKey, outcome: &mut CommitOutcome) {
        if let CommitOutcome::Committed(snapshot) | CommitOutcome::Conflict(Some(snapshot)) =
            outcome
        {
            self.snapshot(repository, snapshot);
        }
    }

    pub(super) fn hint(&self, event: &mut WatchEvent) {
        if let WatchEvent::Changed {
            repository,
            revision,
            snapshot,
            ..
        } = event
        {
            *revision = self.outwards(repository, *revision);
            if let Some(snapshot) = snapshot {
                self.snapshot(repository, snapshot);
            }
        }
    }

    /// The revision of a head that is listed.
    pub(super) fn listed(&self, repository: &RepositoryKey, revision: &mut Revision) {
        *revision = self.outwards(repository, *revision);
    }
}
