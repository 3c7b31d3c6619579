//! Committing: one transaction for many repositories, nested in it one for each with its own
//! condition, which tells why if that does not hold.

use std::sync::Arc;

use pac_core::driver::{BatchOutcome, CommitOutcome, RepositoryCommit};
use pac_core::protocol::Changes;
use pac_core::state::Snapshot;
use pac_core::{Error, RepositoryKey, Revision, SessionId};

use crate::client::failure::{Cause, Effect, Failure};
use crate::client::{Answer, Compare, Operation, Page, Step, Transaction};
use crate::clock;
use crate::record::{StoredHead, encode_entry};
use crate::store::{
    PAGE, Store, all_pages, decode_head, entry_range, malformed, one, one_key, revision,
    revision_of,
};

/// Most changed entries that come with a conflict; who is further behind reads.
const SENT_ALONG: usize = 100;

/// What etcd's encoding may add to a key and its value.
const OVERHEAD: usize = 32;

/// A commit to one repository, ready to be sent.
struct Prepared {
    /// Its place in the batch.
    index: usize,
    repository: RepositoryKey,
    expected: Revision,
    absent: bool,
    /// The committer, then the others that must be alive.
    alive: Vec<SessionId>,
    /// What is written, stamped but for the revision.
    snapshot: Snapshot,
    /// Whether it says that the session has runs there.
    holds: bool,
    /// Whether it depends on that having been said.
    relies: bool,
    ended: usize,
    transaction: Transaction,
    bytes: usize,
}

/// What came of one.
enum Verdict {
    Outcome(CommitOutcome),
    /// The repository was removed and came again since this driver last said that the session
    /// has runs there.
    SayAgain,
}

impl Store {
    /// Commits a batch: one transaction for all that fits into one, one more for what does not
    /// and for every removal.
    pub(crate) async fn commit(
        &self,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        let mut outcomes: Vec<Option<CommitOutcome>> = batch.iter().map(|_| None).collect();
        let mut put = |index: usize, outcome: CommitOutcome| {
            if let Some(place) = outcomes.get_mut(index) {
                *place = Some(outcome);
            }
        };
        let mut requests = 0;
        let mut failed = None;
        let mut ready = Vec::new();
        for (index, commit) in batch.into_iter().enumerate() {
            if commit.changes.remove {
                requests += 1;
                let (outcome, failure) = self.remove(session, commit).await;
                failed = failure.or(failed);
                put(index, outcome);
            } else {
                ready.push((index, commit));
            }
        }
        while !ready.is_empty() {
            let mut prepared = Vec::with_capacity(ready.len());
            for (index, commit) in ready.drain(..) {
                match self.prepare(index, session, commit).await {
                    Ok(commit) => prepared.push(commit),
                    Err(refused) => put(index, refused),
                }
            }
            for part in self.parts(prepared) {
                requests += 1;
                match self.send(part, session).await {
                    Ok(verdicts) => {
                        for (commit, verdict) in verdicts {
                            match verdict {
                                Verdict::Outcome(outcome) => put(commit.index, outcome),
                                Verdict::SayAgain => ready.push((commit.index, commit.again())),
                            }
                        }
                    }
                    Err((part, failure)) => {
                        for commit in part {
                            let error = failure.error("commit", Effect::Write);
                            put(commit.index, CommitOutcome::Failed(error));
                        }
                        failed = Some(failure);
                    }
                }
            }
        }
        if let (1, Some(failure)) = (requests, failed) {
            return Err(failure.error("commit", Effect::Write));
        }
        let outcomes: Option<Vec<_>> = outcomes.into_iter().collect();
        let outcomes = outcomes.ok_or_else(malformed)?;
        let is_dead =
            |o: &CommitOutcome| matches!(o, CommitOutcome::SessionDead(id) if *id == session);
        let is_written =
            |o: &CommitOutcome| matches!(o, CommitOutcome::Committed(_) | CommitOutcome::Failed(_));
        if outcomes.iter().any(is_dead) && !outcomes.iter().any(is_written) {
            self.held.forget(session);
            return Err(Error::session_lost("commit", session));
        }
        Ok(outcomes)
    }

    async fn prepare(
        &self,
        index: usize,
        session: SessionId,
        commit: RepositoryCommit,
    ) -> Result<Prepared, CommitOutcome> {
        let RepositoryCommit {
            repository,
            changes,
        } = commit;
        let ended = changes.entries.iter().filter(|e| e.is_finished()).count();
        let lease = match ended {
            0 => 0,
            _ => self.retention_lease(ended).await.map_err(|failure| {
                // Nothing was sent yet that could change the repository.
                CommitOutcome::Failed(failure.error("commit", Effect::Read))
            })?,
        };
        let prepared = self.ready(index, session, repository, changes, (lease, ended));
        let prepared = prepared.map_err(CommitOutcome::Refused)?;
        if prepared.bytes > self.max_bytes {
            let failure = Failure::new(Cause::TooLarge, "");
            let error = failure.error("commit", Effect::Write);
            return Err(CommitOutcome::Refused(error));
        }
        Ok(prepared)
    }

    fn ready(
        &self,
        index: usize,
        session: SessionId,
        repository: RepositoryKey,
        changes: Changes,
        (lease, ended): (i64, usize),
    ) -> Result<Prepared, Error> {
        let Changes {
            expected,
            head,
            mut entries,
            alive: others,
            ..
        } = changes;
        let absent = self.is_absent_at(expected);
        let head_key = self.keys.head(&repository);
        let alive: Vec<_> = std::iter::once(session).chain(others).collect();

        let mut when = if absent {
            vec![
                Compare::Absent(head_key.clone()),
                Compare::ModifiedAt(self.keys.floor(), revision_of(expected)),
            ]
        } else {
            vec![Compare::ModifiedAt(head_key.clone(), revision_of(expected))]
        };
        when.extend(alive.iter().map(|id| Compare::Exists(self.keys.alive(*id))));

        let stored = StoredHead {
            head,
            previous: expected,
            by: session,
        };
        let mut then = vec![Operation::Put {
            key: head_key.clone(),
            value: stored.encode()?,
            lease: 0,
        }];
        let now = clock::now(&entries);
        for entry in &mut entries {
            let entry = Arc::make_mut(entry);
            entry.stamp(expected, now);
            then.push(Operation::Put {
                key: self.keys.entry(&repository, &entry.run),
                value: encode_entry(entry)?,
                lease: if entry.is_finished() { lease } else { 0 },
            });
        }
        let said = self.held.said(session, &repository).filter(|_| !absent);
        let owned = entries.iter().any(|entry| entry.owner() == Some(session));
        let holds = owned && said.is_none();
        if holds {
            then.push(Operation::Put {
                key: self.keys.held(session, &repository),
                value: Vec::new(),
                lease: 0,
            });
        }
        let relies = said.filter(|_| owned);
        when.extend(relies.map(|said| Compare::CreatedBy(head_key.clone(), said)));

        let mut otherwise = vec![Operation::Get(one(head_key))];
        otherwise.extend(
            alive
                .iter()
                .map(|id| Operation::Get(one_key(self.keys.alive(*id)))),
        );
        let mut changed = entry_range(
            &self.keys.entries(&repository),
            revision_of(expected).saturating_add(1),
        );
        changed.limit = SENT_ALONG.min(PAGE);
        otherwise.push(Operation::Get(changed));

        let transaction = Transaction {
            when,
            then,
            otherwise,
        };
        Ok(Prepared {
            index,
            bytes: size_of(&transaction),
            expected,
            absent,
            alive,
            snapshot: Snapshot {
                since: Some(expected),
                exists: true,
                head,
                entries,
            },
            holds,
            relies: relies.is_some(),
            ended,
            transaction,
            repository,
        })
    }

    /// Splits a batch into what fits into one request. etcd counts per level: the nested
    /// transactions, and on top of them the operations of each.
    fn parts(&self, batch: Vec<Prepared>) -> Vec<Vec<Prepared>> {
        let mut parts = Vec::new();
        let mut part = Vec::new();
        let (mut widest, mut bytes) = (0, 0);
        for commit in batch {
            let operations = widest.max(commit.transaction.operations());
            let fits = part.len() + 1 + operations <= self.max_operations
                && bytes + commit.bytes <= self.max_bytes;
            if !fits && !part.is_empty() {
                parts.push(std::mem::take(&mut part));
                (widest, bytes) = (0, 0);
            }
            widest = widest.max(commit.transaction.operations());
            bytes += commit.bytes;
            part.push(commit);
        }
        if !part.is_empty() {
            parts.push(part);
        }
        parts
    }

    async fn send(
        &self,
        mut part: Vec<Prepared>,
        session: SessionId,
    ) -> Result<Vec<(Prepared, Verdict)>, (Vec<Prepared>, Failure)> {
        let nested = part
            .iter_mut()
            .map(|commit| Operation::Transaction(std::mem::take(&mut commit.transaction)));
        let transaction = Transaction {
            when: Vec::new(),
            then: nested.collect(),
            // The quota of the database is held against the outermost writes alone, also
            // against those that do not happen (`costTxn` in etcd's server/storage/quota.go).
            otherwise: vec![Operation::Put {
                key: self.keys.never(),
                value: Vec::new(),
                lease: 0,
            }],
        };
        let answer = match self.cluster.transact(&transaction, Effect::Write).await {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.cause == Cause::NoLease {
                    self.finished.lose_lease();
                    let busy = Failure::new(Cause::Busy, "the lease of finished runs was revoked");
                    return Err((part, busy));
                }
                return Err((part, failure));
            }
        };
        let at = revision(answer.revision);
        let nested = answer.steps.into_iter().map(|step| match step {
            Step::Transaction(answer) => Some(answer),
            Step::Got(_) | Step::Written => None,
        });
        let verdicts = part.into_iter().zip(nested).map(|(mut commit, answer)| {
            let verdict = match answer {
                Some(answer) => self.verdict(&mut commit, answer, at, session),
                None => Verdict::Outcome(CommitOutcome::Failed(malformed())),
            };
            (commit, verdict)
        });
        Ok(verdicts.collect())
    }

    fn verdict(
        &self,
        commit: &mut Prepared,
        answer: Answer,
        at: Revision,
        session: SessionId,
    ) -> Verdict {
        if answer.succeeded {
            if commit.holds {
                self.held.say(session, &commit.repository, at);
            }
            self.finished.note(&commit.repository, commit.ended);
            let mut snapshot = std::mem::replace(&mut commit.snapshot, Snapshot::absent(0));
            snapshot.head.revision = at;
            for entry in &mut snapshot.entries {
                Arc::make_mut(entry).revision = at;
            }
            return Verdict::Outcome(CommitOutcome::Committed(snapshot));
        }
        let mut pages = all_pages(answer.steps).into_iter();
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
    /// The same to be prepared anew.
    fn again(self) -> RepositoryCommit {
        RepositoryCommit {
            changes: Changes {
                expected: self.expected,
                head: self.snapshot.head,
                entries: self.snapshot.entries,
                alive: self.alive.into_iter().skip(1).collect(),
                adopted: Vec::new(),
                remove: false,
            },
            repository: self.repository,
        }
    }
}

impl Transaction {
    fn operations(&self) -> usize {
        let longest = self.when.len().max(self.then.len());
        longest.max(self.otherwise.len())
    }
}

fn size_of(transaction: &Transaction) -> usize {
    let compares = transaction.when.iter().map(|compare| match compare {
        Compare::ModifiedAt(key, _)
        | Compare::CreatedBy(key, _)
        | Compare::Exists(key)
        | Compare::Absent(key) => key.len(),
    });
    let operations = transaction.then.iter().chain(&transaction.otherwise);
    let operations = operations.map(|operation| match operation {
        Operation::Get(range) => range.key.len() + range.end.len(),
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Delete(key) | Operation::DeletePrefix(key) => 2 * key.len(),
        Operation::Transaction(nested) => size_of(nested),
    });
    compares.chain(operations).map(|size| size + OVERHEAD).sum()
}
