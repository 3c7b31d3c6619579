//! Why a commit did not happen.

use pac_core::driver::CommitOutcome;
use pac_core::{RepositoryKey, SessionId, Version};
use tokio::time::Instant;

use crate::client::{KeyValue, Operation, Page, Step};
use crate::store::batch::{Prepared, Verdict};
use crate::store::{Store, all_pages, decode_head, one, one_key, revision};

impl Store {
    /// The reads that tell why a commit did not happen: of the head, and of the `alive` keys of the
    /// sessions that must be alive.
    pub(super) fn reasons(
        &self,
        repository: &RepositoryKey,
        alive: &[SessionId],
    ) -> Vec<Operation> {
        let mut reasons = vec![Operation::Get(one(self.keys.head(repository)))];
        let alive = alive.iter().map(|id| one_key(self.keys.alive(*id)));
        reasons.extend(alive.map(Operation::Get));
        reasons
    }

    /// The verdict on a commit that did not happen, from the answers to its
    /// [`reasons`](Self::reasons). After a conflict it waits for the stream of changes to tell what
    /// changed, no longer than `until`.
    pub(super) async fn refused(
        &self,
        commit: &Prepared,
        reasons: Vec<Step>,
        session: SessionId,
        until: Instant,
    ) -> Verdict {
        let head = match self.refusal(commit, reasons, session) {
            Refusal::For(verdict) => return verdict,
            Refusal::Overtaken(head) => head,
        };
        // If the repository was removed and created again since, the caller has to read all of it.
        let head =
            head.filter(|head| commit.absent || revision(head.created) <= commit.expected.revision);
        let to = head.and_then(|head| decode_head(&head).ok());
        let changes = match to.map(|stored| stored.head.version()) {
            Some(to) => {
                let (repository, since) = (&commit.repository, commit.expected);
                self.recent.between(repository, since, to, until).await
            }
            None => None,
        };
        Verdict::Outcome(CommitOutcome::Conflict(changes))
    }

    fn refusal(&self, commit: &Prepared, reasons: Vec<Step>, session: SessionId) -> Refusal {
        let mut pages = all_pages(reasons).into_iter();
        let Some(head) = pages.next() else {
            // The commit certainly did not happen. It counts as a conflict: the caller then reads
            // the repository, and learns why.
            return Refusal::Overtaken(None);
        };
        let alive = commit.alive.iter().zip(pages);
        let dead = |(id, page): (&SessionId, Page)| page.entries.is_empty().then_some(*id);
        let dead = alive.filter_map(dead).next();
        let head = head.entries.into_iter().next();
        let unchanged = match &head {
            None => commit.absent,
            Some(head) => !commit.absent && is_at(head, commit.expected),
        };
        match dead {
            Some(dead) if unchanged || dead == session => {
                Refusal::For(Verdict::Outcome(CommitOutcome::SessionDead(dead)))
            }
            None if unchanged && commit.relies_on_held => {
                self.held.note_deleted(session, &commit.repository);
                Refusal::For(Verdict::PrepareAgain)
            }
            _ => {
                // The removal of any repository refuses what was to be created at that moment: that
                // one does not contend.
                if !(commit.absent && unchanged) {
                    self.recent.note_conflict(&commit.repository);
                }
                Refusal::Overtaken(head)
            }
        }
    }
}

/// Whether a head, as it was read, is at this version.
pub(super) fn is_at(head: &KeyValue, expected: Version) -> bool {
    match decode_head(head) {
        Ok(stored) => stored.head.version() == expected,
        // The commit compares it, and does not decode it.
        Err(_) => revision(head.modified) == expected.revision,
    }
}

/// Why a commit did not happen.
enum Refusal {
    For(Verdict),
    /// Another commit was faster. With the head as it is now, if there is one and it could be read.
    Overtaken(Option<KeyValue>),
}

impl Prepared {
    /// The number of reads in its [`Store::reasons`].
    pub(super) fn reasons(&self) -> usize {
        self.alive.len() + 1
    }
}
