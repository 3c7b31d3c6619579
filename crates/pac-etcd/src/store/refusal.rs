//! Why a commit did not happen.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::driver::CommitOutcome;
use pac_core::state::Snapshot;
use pac_core::{RepositoryKey, Revision, SessionId};
use tokio::time::timeout;

use crate::client::failure::Effect;
use crate::client::{Operation, Page, Step, Transaction};
use crate::store::batch::{Prepared, Verdict};
use crate::store::{
    PAGE, Store, all_pages, decode_head, entry_range, malformed, one, one_key, revision,
    revision_of,
};

/// Most changed entries that come with a conflict; who is further behind reads.
const SENT_ALONG: usize = 100;

/// How long the other commits of a batch wait for the reasons of those that were refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// Commits to a repository that tell by themselves what they conflict with, after one did.
const WARY: u8 = 16;

/// Repositories of which that is remembered.
const REMEMBERED: usize = 10_000;

/// Repositories in which somebody else was faster lately.
#[derive(Debug, Default)]
pub(crate) struct Contested(Mutex<HashMap<RepositoryKey, u8>>);

impl Contested {
    /// Whether the next commit had better tell what it conflicts with.
    pub(super) fn expects(&self, repository: &RepositoryKey) -> bool {
        let mut all = self.all();
        let Some(left) = all.get_mut(repository) else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            all.remove(repository);
        }
        true
    }

    fn note(&self, repository: &RepositoryKey) {
        let mut all = self.all();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(repository.clone(), WARY);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RepositoryKey, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// What tells why a commit did not happen: the head, who is alive, and what has changed.
    pub(super) fn reasons(
        &self,
        repository: &RepositoryKey,
        alive: &[SessionId],
        expected: Revision,
    ) -> Vec<Operation> {
        let mut reasons = vec![Operation::Get(one(self.keys.head(repository)))];
        reasons.extend(
            alive
                .iter()
                .map(|id| Operation::Get(one_key(self.keys.alive(*id)))),
        );
        let mut changed = entry_range(
            &self.keys.entries(repository),
            revision_of(expected).saturating_add(1),
        );
        changed.limit = SENT_ALONG.min(PAGE);
        reasons.push(Operation::Get(changed));
        reasons
    }

    /// Asks why commits did not happen. Whatever was the reason then is one still.
    pub(super) async fn explain(
        &self,
        mut part: Vec<Prepared>,
        session: SessionId,
    ) -> Vec<(Prepared, Verdict)> {
        let mut told = Vec::with_capacity(part.len());
        while !part.is_empty() {
            let mut operations = 0;
            let fit = part.iter().take_while(|commit| {
                operations += commit.reasons();
                operations <= self.max_operations
            });
            // One always fits: its commit did.
            let rest = part.split_off(fit.count().max(1));
            // Not nested: only plain reads stay out of etcd's log (`IsTxnReadonly`).
            let reasons = part.iter().flat_map(|commit| {
                self.reasons(&commit.repository, &commit.alive, commit.expected)
            });
            let transaction = Transaction {
                then: reasons.collect(),
                ..Transaction::default()
            };
            let asked = self.cluster.transact(&transaction, Effect::Read);
            let mut steps = match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => answer.steps,
                // It is certain that they did not happen, and whoever reads will see why.
                Ok(Err(_)) | Err(_) => Vec::new(),
            }
            .into_iter();
            for commit in part {
                let steps: Vec<_> = steps.by_ref().take(commit.reasons()).collect();
                let verdict = if steps.is_empty() {
                    Verdict::Outcome(CommitOutcome::Conflict(None))
                } else {
                    self.refused(&commit, steps, session)
                };
                told.push((commit, verdict));
            }
            part = rest;
        }
        told
    }

    /// What came of a commit that did not happen, by its [`reasons`](Self::reasons).
    pub(super) fn refused(
        &self,
        commit: &Prepared,
        reasons: Vec<Step>,
        session: SessionId,
    ) -> Verdict {
        let mut pages = all_pages(reasons).into_iter();
        let (Some(head), Some(changed)) = (pages.next(), pages.next_back()) else {
            return Verdict::Outcome(CommitOutcome::Failed(malformed()));
        };
        let alive = commit.alive.iter().zip(pages);
        let dead = |(id, page): (&SessionId, Page)| page.entries.is_empty().then_some(*id);
        let dead = alive.filter_map(dead).next();
        let unchanged = match head.entries.first() {
            None => commit.absent,
            Some(head) => !commit.absent && revision(head.modified) == commit.expected,
        };
        match dead {
            Some(dead) if unchanged || dead == session => {
                Verdict::Outcome(CommitOutcome::SessionDead(dead))
            }
            None if unchanged && commit.relies => {
                self.held.take_back(session, &commit.repository);
                Verdict::SayAgain
            }
            _ => {
                self.contested.note(&commit.repository);
                let latest = self.latest(commit, &head, &changed);
                Verdict::Outcome(CommitOutcome::Conflict(latest))
            }
        }
    }

    /// What a conflict is told with, if it can be told from the answer.
    fn latest(&self, commit: &Prepared, head: &Page, changed: &Page) -> Option<Snapshot> {
        let kv = head.entries.first()?;
        let again = !commit.absent && revision(kv.created) > commit.expected;
        if changed.more || again {
            return None;
        }
        let entries = changed.entries.iter();
        let entries = entries.map(|entry| self.entry(&commit.repository, entry));
        Some(Snapshot {
            since: Some(commit.expected),
            exists: true,
            head: decode_head(kv).ok()?.head,
            entries: entries.collect::<Result<_, _>>().ok()?,
        })
    }
}

impl Prepared {
    /// How many operations the [`Store::reasons`] of it are.
    pub(super) fn reasons(&self) -> usize {
        self.alive.len() + 2
    }
}
