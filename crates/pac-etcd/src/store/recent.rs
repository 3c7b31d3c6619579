//! The latest commits of other sessions, as the stream of changes has told them. A read of what
//! changed is expensive: etcd has no index of revisions, and looks at every entry of the
//! repository.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::hints::merged;
use pac_core::state::Snapshot;
use pac_core::{RepositoryKey, Version};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::store::revision_of;

/// How many commits are kept, over all repositories: more than other processes make while one
/// answer is on its way.
const KEPT: usize = 512;

/// How long to wait for the stream to tell of a commit before reading instead. The stream usually
/// tells of it about when the commit is answered.
pub(super) const TELLS_WITHIN: Duration = Duration::from_millis(50);

/// For how many commits in batches of several a repository counts as contested after another commit
/// was faster.
const WARY: u8 = 64;

/// Most repositories that are remembered as contested.
const REMEMBERED: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Recent {
    /// Commits of other sessions, in the order of their revisions.
    changes: Mutex<VecDeque<(RepositoryKey, Snapshot)>>,
    /// The revision up to which the stream has told everything; `None` while there is no stream.
    told: watch::Sender<Option<i64>>,
    /// Contested repositories: another commit was faster there. Each with the number of commits
    /// until it no longer counts as contested.
    contested: Mutex<HashMap<RepositoryKey, u8>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            changes: Mutex::default(),
            told: watch::Sender::new(None),
            contested: Mutex::default(),
        }
    }
}

impl Recent {
    /// Notes that another commit was faster in this repository.
    pub(super) fn note_conflict(&self, repository: &RepositoryKey) {
        let mut contested = self.contested();
        if contested.len() >= REMEMBERED {
            contested.clear();
        }
        contested.insert(repository.clone(), WARY);
    }

    /// Whether the repository is contested, so that the commit that is about to be sent together with
    /// others should not share its conditions with them. Counts that commit.
    pub(super) fn expects_conflict(&self, repository: &RepositoryKey) -> bool {
        let mut contested = self.contested();
        let Some(left) = contested.get_mut(repository) else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            contested.remove(repository);
        }
        true
    }

    /// Notes that there is a stream, which tells every change after this revision.
    pub(crate) fn begin(&self, at: i64) {
        self.told.send_replace(Some(at));
    }

    /// Notes that the stream is interrupted, so that nothing waits for it.
    pub(crate) fn pause(&self) {
        self.told.send_replace(None);
    }

    /// Drops all commits: the next stream does not continue where the last one ended.
    pub(crate) fn forget(&self) {
        self.changes().clear();
    }

    /// Adds a commit of another session.
    pub(crate) fn add(&self, repository: &RepositoryKey, change: &Snapshot) {
        let mut changes = self.changes();
        if changes.len() >= KEPT {
            changes.pop_front();
        }
        changes.push_back((repository.clone(), change.clone()));
    }

    /// Notes that every change up to this revision has been added.
    pub(crate) fn told(&self, at: i64) {
        self.told.send_modify(|told| {
            if let Some(told) = told {
                *told = at.max(*told);
            }
        });
    }

    /// What changed in a repository after `since`, up to `to` or a later version; `None` if the
    /// stream has not told all of it, or has told of another state at the revision of `to`: one that
    /// a restored store has lost. Waits for the stream to come to `to`, no longer than `until`.
    pub(super) async fn between(
        &self,
        repository: &RepositoryKey,
        since: Version,
        to: Version,
        until: Instant,
    ) -> Option<Snapshot> {
        let at = revision_of(to.revision);
        let mut told = self.told.subscribe();
        let far_enough = told.wait_for(|told| told.is_none_or(|told| told >= at));
        (*timeout_at(until, far_enough).await.ok()?.ok()?)?;
        let links = self.links(repository, since)?;
        if !links.iter().any(|link| link.head.version() == to) {
            return None;
        }
        links.into_iter().map(Some).reduce(|a, b| merged(a?, b?))?
    }

    /// The commits after `since`; `None` if one is missing. The first must have been planned at
    /// `since`, and each of the others at the version of the one before.
    fn links(&self, repository: &RepositoryKey, since: Version) -> Option<Vec<Snapshot>> {
        let changes = self.changes();
        let of_it = changes.iter().filter(|(key, _)| key == repository);
        let later = of_it.filter(|(_, change)| change.head.revision > since.revision);
        let mut at = since;
        let linked = later.map(|(_, change)| {
            let follows = change.since == Some(at);
            at = change.head.version();
            follows.then(|| change.clone())
        });
        linked.collect()
    }

    fn changes(&self) -> MutexGuard<'_, VecDeque<(RepositoryKey, Snapshot)>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn contested(&self) -> MutexGuard<'_, HashMap<RepositoryKey, u8>> {
        self.contested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pac_core::state::Head;
    use pac_core::{Revision, Stamp};

    fn change(since: u64, to: u64) -> Snapshot {
        Snapshot {
            since: Some(Version::new(Revision::new(since), Stamp::default())),
            exists: true,
            head: Head {
                revision: Revision::new(to),
                ..Head::absent(0)
            },
            entries: Vec::new(),
        }
    }

    async fn between(recent: &Recent, since: u64, at: u64) -> Option<(u64, u64)> {
        let since = Version::new(Revision::new(since), Stamp::default());
        let at = Version::new(Revision::new(at), Stamp::default());
        let until = Instant::now() + TELLS_WITHIN;
        let found = recent.between(&web(), since, at, until).await?;
        Some((found.since?.revision.get(), found.head.revision.get()))
    }

    fn web() -> RepositoryKey {
        "team/web".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_without_a_gap_is_told() {
        let recent = Recent::default();
        assert_eq!(between(&recent, 1, 1).await, None, "no stream");
        recent.begin(4);
        for (since, to) in [(4, 6), (6, 7), (9, 11), (11, 12)] {
            recent.add(&web(), &change(since, to));
            recent.add(&"team/api".parse().unwrap(), &change(to - 2, to + 2));
            recent.told(i64::try_from(to).unwrap());
        }
        assert_eq!(between(&recent, 11, 12).await, Some((11, 12)));
        assert_eq!(between(&recent, 9, 11).await, Some((9, 12)));
        // The commit between the revisions 7 and 9 is missing, and none was planned at 10.
        for since in [4, 6, 7, 10] {
            assert_eq!(between(&recent, since, 12).await, None, "{since}");
        }
        assert_eq!(between(&recent, 12, 13).await, None, "not told in time");
        for n in 0..1_000 {
            recent.add(&web(), &change(20 + n, 21 + n));
        }
        assert_eq!(recent.changes().len(), KEPT);
        assert_eq!(between(&recent, 11, 12).await, None, "too long ago");
    }

    /// A store that was restored from an older copy comes to the same revisions again.
    #[tokio::test(start_paused = true)]
    async fn what_another_history_had_at_the_same_revision_is_not_told() {
        let recent = Recent::default();
        recent.begin(4);
        recent.add(&web(), &change(4, 6));
        recent.told(6);
        let since = Version::new(Revision::new(4), Stamp::default());
        let until = Instant::now() + TELLS_WITHIN;
        for (stamp, is_told) in [(Stamp::default(), true), (Stamp::new(7), false)] {
            let to = Version::new(Revision::new(6), stamp);
            let found = recent.between(&web(), since, to, until).await;
            assert_eq!(found.is_some(), is_told, "{stamp}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_before_an_interruption_is_not_told() {
        let recent = Recent::default();
        recent.begin(4);
        recent.add(&web(), &change(4, 6));
        let (found, ()) = tokio::join!(between(&recent, 4, 6), async {
            recent.pause();
            recent.forget();
            recent.begin(7);
        });
        assert_eq!(found, None);
        recent.add(&web(), &change(7, 9));
        recent.pause();
        assert_eq!(between(&recent, 7, 9).await, None, "no stream");
        // The new stream continues where the last one ended.
        recent.begin(9);
        assert_eq!(between(&recent, 7, 9).await, Some((7, 9)));
    }

    #[test]
    fn a_repository_is_contested_for_a_while() {
        let recent = Recent::default();
        assert!(!recent.expects_conflict(&web()));
        recent.note_conflict(&web());
        for _ in 0..WARY {
            assert!(recent.expects_conflict(&web()));
        }
        assert!(!recent.expects_conflict(&web()));
    }
}
