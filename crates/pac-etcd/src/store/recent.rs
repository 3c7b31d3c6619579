//! What others have changed lately in repositories where they were faster, as the stream of
//! changes tells it. By a read it cannot be found out cheaply: etcd has no index of revisions,
//! and looks at every entry of the repository.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::hints::merged;
use pac_core::state::Snapshot;
use pac_core::{RepositoryKey, Revision};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::store::revision_of;

/// Repositories that are remembered.
const REMEMBERED: usize = 10_000;

/// Commits to a repository after which it is forgotten that somebody else was faster.
const WARY: u8 = 64;

/// Commits of others to one repository that are kept.
const KEPT: usize = 64;

/// The stream tells of a commit about when that is answered; who has waited for so long reads.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Recent {
    contested: Mutex<HashMap<RepositoryKey, Contested>>,
    /// The revision up to which the stream has told everything; `None` before there was one.
    told: watch::Sender<Option<i64>>,
}

#[derive(Debug)]
struct Contested {
    /// Commits until this is forgotten.
    left: u8,
    /// In the order of their revisions; each of one commit.
    changes: VecDeque<Snapshot>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            contested: Mutex::default(),
            told: watch::Sender::new(None),
        }
    }
}

impl Recent {
    fn contested(&self) -> MutexGuard<'_, HashMap<RepositoryKey, Contested>> {
        self.contested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody else was faster in this repository.
    pub(super) fn note(&self, repository: &RepositoryKey) {
        let mut contested = self.contested();
        if contested.len() >= REMEMBERED && !contested.contains_key(repository) {
            contested.clear();
        }
        let known = contested.entry(repository.clone());
        let known = known.or_insert_with(|| Contested {
            left: WARY,
            changes: VecDeque::new(),
        });
        known.left = WARY;
    }

    /// Whether the commit that is about to be sent had better tell what it conflicts with.
    pub(super) fn expects(&self, repository: &RepositoryKey) -> bool {
        let mut contested = self.contested();
        let Some(known) = contested.get_mut(repository) else {
            return false;
        };
        known.left -= 1;
        if known.left == 0 {
            contested.remove(repository);
        }
        true
    }

    pub(super) fn is_contested(&self, repository: &RepositoryKey) -> bool {
        self.contested().contains_key(repository)
    }

    /// There is a stream, which tells what comes after this revision, and nothing before.
    pub(crate) fn begin(&self, at: i64) {
        for known in self.contested().values_mut() {
            known.changes.clear();
        }
        self.told.send_replace(Some(at));
    }

    /// Somebody has committed this, or something that cannot be understood.
    pub(crate) fn add(&self, repository: &RepositoryKey, change: Option<&Snapshot>) {
        let mut contested = self.contested();
        let Some(known) = contested.get_mut(repository) else {
            return;
        };
        let Some(change) = change else {
            return known.changes.clear();
        };
        if known.changes.len() >= KEPT {
            known.changes.pop_front();
        }
        known.changes.push_back(change.clone());
    }

    /// All up to this revision has been added.
    pub(crate) fn told(&self, at: i64) {
        self.told.send_modify(|told| {
            if let Some(told) = told {
                *told = at.max(*told);
            }
        });
    }

    /// What has changed in a repository from `since` on until it was at `at`, or later; `None`
    /// if the stream does not tell. Waits until it has come so far, for [`PATIENCE`] at most.
    pub(super) async fn changes(
        &self,
        repository: &RepositoryKey,
        since: Revision,
        at: Revision,
    ) -> Option<Snapshot> {
        let at = revision_of(at);
        let mut told = self.told.subscribe();
        (*told.borrow())?;
        let far_enough = told.wait_for(|told| told.is_some_and(|told| told >= at));
        timeout(PATIENCE, far_enough).await.ok()?.ok()?;
        let contested = self.contested();
        let changes = &contested.get(repository)?.changes;
        let later = changes
            .iter()
            .skip_while(|change| change.head.revision <= since);
        let found = later.cloned().map(Some).reduce(|a, b| merged(a?, b?))??;
        let covers = found.since == Some(since) && revision_of(found.head.revision) >= at;
        covers.then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pac_core::state::Head;

    fn change(since: u64, to: u64) -> Snapshot {
        Snapshot {
            since: Some(Revision::new(since)),
            exists: true,
            head: Head {
                revision: Revision::new(to),
                ..Head::absent(0)
            },
            entries: Vec::new(),
        }
    }

    async fn between(recent: &Recent, since: u64, at: u64) -> Option<(u64, u64)> {
        let (since, at) = (Revision::new(since), Revision::new(at));
        let found = recent.changes(&web(), since, at).await?;
        Some((found.since?.get(), found.head.revision.get()))
    }

    fn web() -> RepositoryKey {
        "team/web".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_without_a_gap_is_told() {
        let recent = Recent::default();
        recent.note(&web());
        assert_eq!(between(&recent, 1, 1).await, None, "no stream");
        recent.begin(4);
        for (since, to) in [(4, 6), (6, 7), (9, 11), (11, 12)] {
            recent.add(&web(), Some(&change(since, to)));
            recent.told(i64::try_from(to).unwrap());
        }
        assert_eq!(between(&recent, 11, 12).await, Some((11, 12)));
        assert_eq!(between(&recent, 9, 11).await, Some((9, 12)));
        // Of who was at 7 and did not commit 9 itself, something is missing.
        for since in [4, 6, 7, 10] {
            assert_eq!(between(&recent, since, 12).await, None, "{since}");
        }
        assert_eq!(between(&recent, 12, 13).await, None, "not told in time");
        recent.add(&web(), None);
        assert_eq!(between(&recent, 11, 12).await, None, "not understood");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_before_an_interruption_is_not_told() {
        let recent = Recent::default();
        recent.note(&web());
        recent.begin(4);
        recent.add(&web(), Some(&change(4, 6)));
        let (found, ()) = tokio::join!(between(&recent, 4, 6), async {
            recent.begin(7);
        });
        assert_eq!(found, None);
    }

    #[test]
    fn a_repository_is_contested_for_a_while_and_keeps_so_many_changes() {
        let recent = Recent::default();
        assert!(!recent.expects(&web()));
        recent.note(&web());
        for n in 0..200 {
            recent.add(&web(), Some(&change(n, n + 1)));
        }
        let kept = recent.contested().get(&web()).unwrap().changes.len();
        assert_eq!(kept, KEPT);
        for _ in 0..WARY {
            assert!(recent.expects(&web()));
        }
        assert!(!recent.expects(&web()) && !recent.is_contested(&web()));
    }
}
