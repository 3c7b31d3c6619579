//! Commits a batch, with one request for all that fits into one: prepares each commit, and takes in
//! what came of it. What is sent is made in [`request`].

mod request;

use std::sync::Arc;

use pac_core::driver::{BatchOutcome, CommitOutcome, RepositoryCommit, check_slots};
use pac_core::effect::Effect;
use pac_core::protocol::Changes;
use pac_core::state::Snapshot;
use pac_core::{Error, ErrorKind, RepositoryKey, Revision, SessionId, Version};
use tokio::time::Instant;

use crate::client::failure::{Cause, Failure};
use crate::client::{Compare, Operation, Transaction};
use crate::clock;
use crate::record::{StoredHead, encode_entry, is_stamped, new_stamp};
use crate::store::{Store, malformed, revision_of};

/// The most bytes that etcd's encoding adds to a key and its value.
const OVERHEAD: usize = 32;

/// The part of the time of a request after which the removals of a batch end.
const REMOVALS_UNTIL: f64 = 0.75;

/// A commit to one repository, ready to be prepared.
struct Ready {
    /// Its place in the batch.
    index: usize,
    commit: RepositoryCommit,
    /// See [`Prepared::apart`].
    apart: bool,
}

/// A commit to one repository, ready to be sent.
pub(super) struct Prepared {
    /// Its place in the batch.
    index: usize,
    pub(super) repository: RepositoryKey,
    pub(super) expected: Version,
    pub(super) absent: bool,
    /// The sessions that must be alive, the committing one first.
    pub(super) alive: Vec<SessionId>,
    /// What is written, with its times; the revision comes with the answer.
    snapshot: Snapshot,
    /// Whether it writes the session's `held` key for the repository.
    writes_held: bool,
    /// Whether it relies on an earlier commit having written that key.
    pub(super) relies_on_held: bool,
    /// How many of its entries are those of finished runs.
    ended: usize,
    /// Whether it has a transaction of its own, because it may be refused: another commit was
    /// faster lately in its repository, or in one that it was sent together with.
    apart: bool,
    /// What it writes and on which conditions, but for that of the committing session.
    transaction: Transaction,
    /// Of that, and of the reads of its reasons.
    bytes: usize,
}

/// The result of one commit.
pub(super) enum Verdict {
    Outcome(CommitOutcome),
    /// The commit relied on the session's `held` key, but the repository was removed and created
    /// again since that was written. To be prepared anew, so that it writes the key.
    PrepareAgain,
    /// It was sent together with others, and the conditions of one of them did not hold. Nothing
    /// was written; to be sent again, apart.
    SendApart,
}

impl Store {
    /// Commits a batch with one request for all that fits into one. After a conflict with another
    /// commit, what was sent together with the one that lost takes one more. Removals have requests
    /// of their own, and come last: none of the others waits for them before it is sent. Those for
    /// which there is no time fail as `Unavailable`.
    ///
    /// # Errors
    /// `SessionLost`; and what all commits failed with, if that is of one kind.
    pub(crate) async fn commit(
        &self,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        let begun = Instant::now();
        let mut outcomes: Vec<Option<CommitOutcome>> = batch.iter().map(|_| None).collect();
        let mut put = |index: usize, outcome: CommitOutcome| {
            if let Some(place) = outcomes.get_mut(index) {
                *place = Some(outcome);
            }
        };
        let batch = batch.into_iter().enumerate();
        let (removals, others): (Vec<_>, Vec<_>) =
            batch.partition(|(_, commit)| commit.changes.remove);
        let is_shared = others.len() > 1;
        let ready = others.into_iter().map(|(index, commit)| Ready {
            index,
            apart: is_shared && self.recent.expects_conflict(&commit.repository),
            commit,
        });
        let mut ready: Vec<_> = ready.collect();
        let mut prepared = Vec::with_capacity(ready.len());
        while !(ready.is_empty() && prepared.is_empty()) {
            for commit in ready.drain(..) {
                let index = commit.index;
                match self.prepare(session, commit).await {
                    Ok(commit) => prepared.push(commit),
                    Err(refused) => put(index, refused),
                }
            }
            for request in self.requests(std::mem::take(&mut prepared)) {
                match self.send(request, session).await {
                    Ok(verdicts) => {
                        for (commit, verdict) in verdicts {
                            match verdict {
                                Verdict::Outcome(outcome) => put(commit.index, outcome),
                                Verdict::PrepareAgain => ready.push(commit.again()),
                                Verdict::SendApart => prepared.push(commit.apart()),
                            }
                        }
                    }
                    Err((commits, failure)) => {
                        for commit in commits {
                            let error = failure.error("commit", Effect::Write);
                            put(commit.index, CommitOutcome::Failed(error));
                        }
                    }
                }
            }
        }
        // The others' outcomes come with the same answer, which has to come in time.
        let until = begun + self.cluster.request_timeout().mul_f64(REMOVALS_UNTIL);
        for (index, commit) in removals {
            put(index, self.remove(session, &commit, until).await);
        }
        let outcomes: Option<Vec<_>> = outcomes.into_iter().collect();
        let outcomes = outcomes.ok_or_else(malformed)?;
        if is_over(&outcomes, session) {
            self.held.forget(session);
            return Err(Error::session_lost("commit", session));
        }
        all_failed(outcomes)
    }

    async fn prepare(&self, session: SessionId, ready: Ready) -> Result<Prepared, CommitOutcome> {
        let changes = &ready.commit.changes;
        if let Err(refused) = may_be_written(changes) {
            return Err(CommitOutcome::Refused(refused));
        }
        let ended = changes.entries.iter().filter(|e| e.is_finished()).count();
        let lease = match ended {
            0 => 0,
            _ => self.retention_lease(ended).await.map_err(|failure| {
                // Nothing that could change the repository has been sent yet.
                CommitOutcome::Failed(failure.error("commit", Effect::Read))
            })?,
        };
        let prepared = self.prepared(session, ready, (lease, ended));
        let prepared = prepared.map_err(CommitOutcome::Refused)?;
        if prepared.bytes > self.max_bytes {
            let failure = Failure::new(Cause::TooLarge, "");
            let error = failure.error("commit", Effect::Write);
            return Err(CommitOutcome::Refused(error));
        }
        Ok(prepared)
    }

    fn prepared(
        &self,
        session: SessionId,
        ready: Ready,
        (lease, ended): (i64, usize),
    ) -> Result<Prepared, Error> {
        let Ready {
            index,
            commit,
            apart,
        } = ready;
        let RepositoryCommit {
            repository,
            changes,
        } = commit;
        let Changes {
            expected,
            mut head,
            mut entries,
            alive: others,
            ..
        } = changes;
        let absent = self.is_absent_at(expected);
        let head_key = self.keys.head(&repository);
        let alive: Vec<_> = std::iter::once(session).chain(others).collect();

        let at = revision_of(expected.revision);
        let mut when = if absent {
            vec![
                Compare::Absent(head_key.clone()),
                Compare::ModifiedAt(self.keys.floor(), at),
            ]
        } else {
            vec![Compare::ModifiedAt(head_key.clone(), at)]
        };
        if expected != Version::default() {
            let stamped = if absent {
                &self.keys.floor()
            } else {
                &head_key
            };
            when.extend(is_stamped(stamped, expected.stamp));
        }
        // Whether the committing session is alive is checked once for the whole batch.
        let others = alive.iter().skip(1);
        when.extend(others.map(|id| Compare::Exists(self.keys.alive(*id))));

        let now = clock::now(&entries);
        head.stamp(Version::new(expected.revision, new_stamp()), now);
        let stored = StoredHead {
            head: head.clone(),
            previous: expected,
            by: session,
        };
        let mut then = vec![Operation::Put {
            key: head_key.clone(),
            value: stored.encode()?,
            lease: 0,
        }];
        for entry in &mut entries {
            let entry = Arc::make_mut(entry);
            entry.stamp(expected.revision, now);
            then.push(Operation::Put {
                key: self.keys.entry(&repository, &entry.run),
                value: encode_entry(entry)?,
                lease: if entry.is_finished() { lease } else { 0 },
            });
        }
        let written_at = self
            .held
            .written_at(session, &repository)
            .filter(|_| !absent);
        let owned = entries.iter().any(|entry| entry.owner() == Some(session));
        let writes_held = owned && written_at.is_none();
        if writes_held {
            then.push(Operation::Put {
                key: self.keys.held(session, &repository),
                value: Vec::new(),
                lease: 0,
            });
        }
        let relied_on = written_at.filter(|_| owned);
        when.extend(relied_on.map(|at| Compare::CreatedBy(head_key.clone(), at)));

        let transaction = Transaction {
            when,
            then,
            otherwise: Vec::new(),
        };
        let reasons = head_key.len() + alive.len() * self.keys.alive(session).len();
        let reasons = reasons + (1 + alive.len()) * OVERHEAD;
        Ok(Prepared {
            index,
            bytes: size_of(&transaction) + reasons,
            expected,
            absent,
            alive,
            snapshot: Snapshot {
                since: Some(expected),
                exists: true,
                head,
                entries,
            },
            writes_held,
            relies_on_held: relied_on.is_some(),
            ended,
            apart,
            transaction,
            repository,
        })
    }

    fn committed(&self, commit: &mut Prepared, at: Revision, session: SessionId) -> Verdict {
        if commit.writes_held {
            self.held.note_written(session, &commit.repository, at);
        }
        self.finished.due.note(&commit.repository, commit.ended);
        let mut snapshot = std::mem::replace(&mut commit.snapshot, Snapshot::absent(0));
        snapshot.head.revision = at;
        for entry in &mut snapshot.entries {
            Arc::make_mut(entry).revision = at;
        }
        Verdict::Outcome(CommitOutcome::Committed(snapshot))
    }
}

impl Prepared {
    fn apart(self) -> Self {
        Self {
            apart: true,
            ..self
        }
    }

    /// The commit as it was before it was prepared.
    fn again(self) -> Ready {
        let changes = Changes {
            expected: self.expected,
            head: self.snapshot.head,
            // Each head is written with its policy.
            policy_before: None,
            entries: self.snapshot.entries,
            alive: self.alive.into_iter().skip(1).collect(),
            // What is adopted, and what is granted, was judged before; its times stand by now.
            adopted: Vec::new(),
            remove: false,
        };
        Ready {
            index: self.index,
            commit: RepositoryCommit {
                repository: self.repository,
                changes,
            },
            apart: self.apart,
        }
    }
}

/// Whether the committing session is dead, and nothing was or may be written for it.
fn is_over(outcomes: &[CommitOutcome], session: SessionId) -> bool {
    let is_dead = |o: &CommitOutcome| matches!(o, CommitOutcome::SessionDead(id) if *id == session);
    let is_written =
        |o: &CommitOutcome| matches!(o, CommitOutcome::Committed(_) | CommitOutcome::Failed(_));
    outcomes.iter().any(is_dead) && !outcomes.iter().any(is_written)
}

/// The outcomes; or their error, if all of them are failures of one kind: a store that gives no
/// answer at all is told by the answer to the batch.
fn all_failed(mut outcomes: Vec<CommitOutcome>) -> BatchOutcome {
    let kind_of = |outcome: &CommitOutcome| match outcome {
        CommitOutcome::Failed(error) => Some(error.kind()),
        _ => None,
    };
    let kind = outcomes.first().and_then(kind_of);
    let is_alike = kind.is_some() && outcomes.iter().all(|outcome| kind_of(outcome) == kind);
    match outcomes.pop_if(|_| is_alike) {
        Some(CommitOutcome::Failed(error)) => Err(error),
        _ => Ok(outcomes),
    }
}

/// # Errors
/// `Corrupt` for counters that no store may hold, and for runs that would be started beyond the limit.
pub(super) fn may_be_written(changes: &Changes) -> Result<(), Error> {
    let refused = |reason| Error::new(ErrorKind::Corrupt, "commit", reason);
    changes.check_counters().map_err(refused)?;
    check_slots(changes).map_err(refused)
}

fn size_of(transaction: &Transaction) -> usize {
    let compares = transaction.when.iter().map(|compare| match compare {
        Compare::ModifiedAt(key, _)
        | Compare::CreatedBy(key, _)
        | Compare::Exists(key)
        | Compare::Absent(key) => key.len(),
        Compare::ValueAfter(key, value) | Compare::ValueBefore(key, value) => {
            key.len() + value.len()
        }
    });
    let operations = transaction.then.iter().chain(&transaction.otherwise);
    let operations = operations.map(|operation| match operation {
        Operation::Get(range) => range.key.len() + range.end.len(),
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Delete(key) => key.len(),
        Operation::DeleteRange(start, end) => start.len() + end.len(),
        Operation::Transaction(nested) => size_of(nested),
    });
    compares.chain(operations).map(|size| size + OVERHEAD).sum()
}
