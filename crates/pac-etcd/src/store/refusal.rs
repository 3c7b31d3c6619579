//! Why a commit did not happen.

use std::time::Duration;

use pac_core::driver::CommitOutcome;
use pac_core::state::Snapshot;
use pac_core::{RepositoryKey, SessionId};
use tokio::time::timeout;

use crate::client::failure::Effect;
use crate::client::{KeyValue, Operation, Page, Step, Transaction};
use crate::store::batch::{Prepared, Verdict};
use crate::store::{
    PAGE, Store, all_pages, decode_head, entry_range, malformed, one, one_key, revision,
    revision_of,
};

/// Most changed entries that come with a conflict; who is further behind reads.
const SENT_ALONG: usize = 100;

/// How long the other commits of a batch wait for the reasons of those that were refused.
const PATIENCE: Duration = Duration::from_secs(1);

impl Store {
    /// What tells why a commit did not happen: the head, and who is alive.
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

    /// The same, and what has changed: for that the server looks at all entries.
    fn all_reasons(&self, commit: &Prepared) -> Vec<Operation> {
        let mut reasons = self.reasons(&commit.repository, &commit.alive);
        let mut changed = entry_range(
            &self.keys.entries(&commit.repository),
            revision_of(commit.expected).saturating_add(1),
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
                operations += commit.all_reasons();
                operations <= self.max_operations
            });
            // One always fits: its commit did.
            let rest = part.split_off(fit.count().max(1));
            // Not nested: only plain reads stay out of etcd's log (`IsTxnReadonly`).
            let reasons = part.iter().flat_map(|commit| self.all_reasons(commit));
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
                let steps: Vec<_> = steps.by_ref().take(commit.all_reasons()).collect();
                let verdict = self.explained(&commit, steps, session);
                told.push((commit, verdict));
            }
            part = rest;
        }
        told
    }

    /// What came of a commit that did not happen, by [`all_reasons`](Self::all_reasons).
    fn explained(&self, commit: &Prepared, mut reasons: Vec<Step>, session: SessionId) -> Verdict {
        let Some(Step::Got(changed)) = reasons.pop() else {
            return Verdict::Outcome(CommitOutcome::Conflict(None));
        };
        match self.refused(commit, reasons, session) {
            Refused::For(verdict) => verdict,
            Refused::Overtaken(head) => {
                let latest = self.latest(commit, head.as_ref(), &changed);
                Verdict::Outcome(CommitOutcome::Conflict(latest))
            }
        }
    }

    /// What a conflict is told with, if it can be told from a read.
    fn latest(
        &self,
        commit: &Prepared,
        head: Option<&KeyValue>,
        changed: &Page,
    ) -> Option<Snapshot> {
        let head = head.filter(|head| !changed.more && !is_another(commit, head))?;
        let entries = changed.entries.iter();
        let entries = entries.map(|entry| self.entry(&commit.repository, entry));
        Some(Snapshot {
            since: Some(commit.expected),
            exists: true,
            head: decode_head(head).ok()?.head,
            entries: entries.collect::<Result<_, _>>().ok()?,
        })
    }

    /// The same by the [`reasons`](Self::reasons) that it told itself, and the stream of
    /// changes. `None` if that does not tell enough.
    pub(super) async fn told(
        &self,
        commit: &Prepared,
        reasons: Vec<Step>,
        session: SessionId,
    ) -> Option<Verdict> {
        let head = match self.refused(commit, reasons, session) {
            Refused::For(verdict) => return Some(verdict),
            Refused::Overtaken(head) => head,
        };
        let head = head.filter(|head| !is_another(commit, head))?;
        let at = revision(head.modified);
        let changes = self
            .recent
            .changes(&commit.repository, commit.expected, at)
            .await?;
        Some(Verdict::Outcome(CommitOutcome::Conflict(Some(changes))))
    }

    fn refused(&self, commit: &Prepared, reasons: Vec<Step>, session: SessionId) -> Refused {
        let mut pages = all_pages(reasons).into_iter();
        let Some(head) = pages.next() else {
            return Refused::For(Verdict::Outcome(CommitOutcome::Failed(malformed())));
        };
        let alive = commit.alive.iter().zip(pages);
        let dead = |(id, page): (&SessionId, Page)| page.entries.is_empty().then_some(*id);
        let dead = alive.filter_map(dead).next();
        let head = head.entries.into_iter().next();
        let unchanged = match &head {
            None => commit.absent,
            Some(head) => !commit.absent && revision(head.modified) == commit.expected,
        };
        match dead {
            Some(dead) if unchanged || dead == session => {
                Refused::For(Verdict::Outcome(CommitOutcome::SessionDead(dead)))
            }
            None if unchanged && commit.relies => {
                self.held.take_back(session, &commit.repository);
                Refused::For(Verdict::SayAgain)
            }
            _ => {
                self.recent.note(&commit.repository);
                Refused::Overtaken(head)
            }
        }
    }
}

/// Why a commit did not happen.
enum Refused {
    For(Verdict),
    /// Somebody else was faster; the head that is there now.
    Overtaken(Option<KeyValue>),
}

/// Whether the repository was removed meanwhile, and made anew.
fn is_another(commit: &Prepared, head: &KeyValue) -> bool {
    !commit.absent && revision(head.created) > commit.expected
}

impl Prepared {
    /// How many operations the [`Store::all_reasons`] of it are.
    pub(super) fn all_reasons(&self) -> usize {
        self.alive.len() + 2
    }
}
