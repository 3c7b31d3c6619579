//! Why a commit did not happen.

use std::time::Duration;

use pac_core::driver::CommitOutcome;
use pac_core::{RepositoryKey, SessionId};
use tokio::time::{Instant, timeout};

use crate::client::failure::Effect;
use crate::client::{KeyValue, Operation, Page, Step, Transaction};
use crate::store::batch::{Prepared, Verdict};
use crate::store::{Store, all_pages, one, one_key, revision};

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

    /// Asks why commits did not happen. Whatever was the reason then is one still. Empty for
    /// those that this could not be found out for.
    pub(super) async fn ask_reasons(&self, refused: &[Prepared]) -> Vec<Vec<Step>> {
        let mut told = Vec::with_capacity(refused.len());
        let mut left = refused;
        while !left.is_empty() {
            let mut operations = 0;
            let fit = left.iter().take_while(|commit| {
                operations += commit.reasons();
                operations <= self.max_operations
            });
            // One always fits: its commit did.
            let (part, rest) = left.split_at(fit.count().max(1));
            // Not nested: only plain reads stay out of etcd's log (`IsTxnReadonly`).
            let reasons = part
                .iter()
                .flat_map(|commit| self.reasons(&commit.repository, &commit.alive));
            let transaction = Transaction {
                then: reasons.collect(),
                ..Transaction::default()
            };
            let asked = self.cluster.transact(&transaction, Effect::Read);
            let mut steps = match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => answer.steps,
                Ok(Err(_)) | Err(_) => Vec::new(),
            }
            .into_iter();
            let each = part.iter().map(Prepared::reasons);
            told.extend(each.map(|reasons| steps.by_ref().take(reasons).collect()));
            left = rest;
        }
        told
    }

    /// What came of a commit that did not happen, by its [`reasons`](Self::reasons). What it
    /// conflicts with, the stream of changes is waited for until then.
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
        // Of one that was removed meanwhile and made anew, all is to be read.
        let head = head.filter(|head| commit.absent || revision(head.created) <= commit.expected);
        let changes = match head {
            Some(head) => {
                let at = revision(head.modified);
                let (repository, since) = (&commit.repository, commit.expected);
                self.recent.between(repository, since, at, until).await
            }
            None => None,
        };
        Verdict::Outcome(CommitOutcome::Conflict(changes))
    }

    fn refusal(&self, commit: &Prepared, reasons: Vec<Step>, session: SessionId) -> Refusal {
        let mut pages = all_pages(reasons).into_iter();
        let Some(head) = pages.next() else {
            // It is certain that it did not happen, and whoever reads will see why.
            return Refusal::Overtaken(None);
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
                Refusal::For(Verdict::Outcome(CommitOutcome::SessionDead(dead)))
            }
            None if unchanged && commit.relies => {
                self.held.take_back(session, &commit.repository);
                Refusal::For(Verdict::SayAgain)
            }
            _ => {
                self.recent.note(&commit.repository);
                Refusal::Overtaken(head)
            }
        }
    }
}

/// Why a commit did not happen.
enum Refusal {
    For(Verdict),
    /// Somebody else was faster; the head that is there now.
    Overtaken(Option<KeyValue>),
}

impl Prepared {
    /// How many operations the [`Store::reasons`] of it are.
    pub(super) fn reasons(&self) -> usize {
        self.alive.len() + 1
    }
}
