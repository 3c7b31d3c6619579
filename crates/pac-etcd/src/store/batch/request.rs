//! The transactions that a batch is sent as: its commits in groups, each of which happens or not as
//! a whole.
//!
//! Mostly nobody contends for a repository. The commits to such repositories share a group: the
//! conditions of all of them, then the writes of all of them, which costs etcd less than a
//! transaction for each. If a condition does not hold, each is sent again in a group of its own,
//! and so is from the beginning what may be refused. Such a group reads why it did not happen.

use pac_core::SessionId;
use pac_core::driver::CommitOutcome;
use pac_core::effect::Effect;
use tokio::time::Instant;

use super::{Prepared, Verdict};
use crate::client::failure::{Cause, Failure};
use crate::client::{Answer, Compare, Operation, Step, Transaction};
use crate::store::recent::TELLS_WITHIN;
use crate::store::{Store, malformed, revision};

/// A group of several commits has at most this part of the operations of a request, where there is
/// more than one group: etcd adds their number to the length of the longest.
const PART_OF_REQUEST: usize = 2;

/// Commits that go to the store with one transaction. If there are several groups, these are
/// nested in it.
#[derive(Default)]
pub(super) struct Request {
    groups: Vec<Group>,
    /// The place of the group that takes further commits.
    shared: Option<usize>,
    /// The length of the longest list of operations of any group.
    widest: usize,
    bytes: usize,
}

/// Commits that happen or not as a whole.
struct Group {
    commits: Vec<Prepared>,
    conditions: usize,
    writes: usize,
}

impl Group {
    fn of(commit: Prepared) -> Self {
        Self {
            conditions: commit.conditions(),
            writes: commit.writes(),
            commits: vec![commit],
        }
    }

    fn add(&mut self, commit: Prepared) {
        self.conditions += commit.conditions();
        self.writes += commit.writes();
        self.commits.push(commit);
    }

    /// The length of its longest list of operations with this commit in it.
    fn width_with(&self, commit: &Prepared) -> usize {
        let conditions = self.conditions + commit.conditions();
        conditions.max(self.writes + commit.writes())
    }

    fn transaction(&self, store: &Store) -> Transaction {
        if let [alone] = self.commits.as_slice() {
            return Transaction {
                otherwise: store.reasons(&alone.repository, &alone.alive),
                ..alone.transaction.clone()
            };
        }
        let mut all = Transaction {
            when: Vec::with_capacity(self.conditions + 1),
            then: Vec::with_capacity(self.writes),
            otherwise: Vec::new(),
        };
        for commit in &self.commits {
            all.when.extend_from_slice(&commit.transaction.when);
            all.then.extend_from_slice(&commit.transaction.then);
        }
        all
    }
}

impl Request {
    /// The place of the group that a commit goes into: the next one for a group of its own. `None`
    /// if the request has no room for it; the first one always goes in.
    fn place(&self, commit: &Prepared, store: &Store) -> Option<usize> {
        let (most, next) = (store.max_operations, self.groups.len());
        // The transaction around all groups, and in it the one that checks the session.
        let fits = |groups: usize, width: usize| 1 + groups + self.widest.max(width) <= most;
        if next > 0 && self.bytes + commit.bytes > store.max_bytes {
            return None;
        }
        let shared = self.shared.filter(|_| !commit.apart);
        let has_room = |at: &usize| {
            let width = self.groups.get(*at).map(|group| group.width_with(commit));
            width.is_some_and(|width| width <= most / PART_OF_REQUEST && fits(next, width))
        };
        let may_be_next = next == 0 || fits(next + 1, commit.width());
        shared
            .filter(has_room)
            .or_else(|| may_be_next.then_some(next))
    }

    fn add(&mut self, place: usize, commit: Prepared) {
        self.bytes += commit.bytes;
        match self.groups.get_mut(place) {
            Some(group) => {
                self.widest = self.widest.max(group.width_with(&commit));
                group.add(commit);
            }
            None => {
                self.widest = self.widest.max(commit.width());
                self.shared = if commit.apart {
                    self.shared
                } else {
                    Some(self.groups.len())
                };
                self.groups.push(Group::of(commit));
            }
        }
    }

    fn into_commits(self) -> Vec<Prepared> {
        let groups = self.groups.into_iter();
        groups.flat_map(|group| group.commits).collect()
    }

    fn transaction(&self, store: &Store, session: SessionId) -> Transaction {
        let is_alive = Compare::Exists(store.keys.alive(session));
        if let [group] = self.groups.as_slice() {
            let mut transaction = group.transaction(store);
            transaction.when.push(is_alive);
            return transaction;
        }
        let groups = self.groups.iter();
        let if_alive = Transaction {
            when: vec![is_alive],
            then: groups
                .map(|group| Operation::Transaction(group.transaction(store)))
                .collect(),
            otherwise: Vec::new(),
        };
        Transaction {
            when: Vec::new(),
            then: vec![Operation::Transaction(if_alive)],
            // etcd checks its quota against the writes of the outermost transaction alone, but
            // counts those that do not happen too (`costTxn` in etcd's server/storage/quota.go).
            // This one never happens.
            otherwise: vec![Operation::Put {
                key: store.keys.never(),
                value: Vec::new(),
                lease: 0,
            }],
        }
    }
}

impl Prepared {
    fn conditions(&self) -> usize {
        self.transaction.when.len()
    }

    fn writes(&self) -> usize {
        self.transaction.then.len()
    }

    /// The length of the longest list of operations of a group with this commit alone.
    fn width(&self) -> usize {
        let operations = self.conditions().max(self.writes());
        operations.max(self.reasons())
    }
}

impl Store {
    /// Splits a batch into requests that etcd takes. It adds up the levels of a transaction: its
    /// own operations, and those of the largest that is nested in it.
    pub(super) fn requests(&self, batch: Vec<Prepared>) -> Vec<Request> {
        let in_one_group = self.is_one_group(&batch);
        let mut requests = Vec::new();
        let mut request = Request::default();
        for commit in batch {
            let place = if in_one_group {
                0
            } else {
                request.place(&commit, self).unwrap_or_else(|| {
                    requests.push(std::mem::take(&mut request));
                    0
                })
            };
            request.add(place, commit);
        }
        if !request.groups.is_empty() {
            requests.push(request);
        }
        requests
    }

    fn is_one_group(&self, batch: &[Prepared]) -> bool {
        let sum = |of: fn(&Prepared) -> usize| batch.iter().map(of).sum::<usize>();
        // One more condition is that of the session.
        let operations = (1 + sum(Prepared::conditions)).max(sum(Prepared::writes));
        let fits =
            operations <= self.max_operations && sum(|commit| commit.bytes) <= self.max_bytes;
        batch.len() == 1 || fits && !batch.iter().any(|commit| commit.apart)
    }

    pub(super) async fn send(
        &self,
        request: Request,
        session: SessionId,
    ) -> Result<Vec<(Prepared, Verdict)>, (Vec<Prepared>, Failure)> {
        let transaction = request.transaction(self, session);
        let answer = match self.cluster.transact(&transaction, Effect::Write).await {
            Ok(answer) => answer,
            Err(failure) if failure.cause == Cause::NoLease => {
                self.finished.lose_lease();
                let busy = Failure::new(Cause::Busy, "the lease of finished runs was revoked");
                return Err((request.into_commits(), busy));
            }
            Err(failure) => return Err((request.into_commits(), failure)),
        };
        let at = revision(answer.revision);
        let all = |request: Request, outcome: &dyn Fn() -> CommitOutcome| {
            let commits = request.into_commits().into_iter();
            commits
                .map(|commit| (commit, Verdict::Outcome(outcome())))
                .collect()
        };
        let answers = if request.groups.len() == 1 {
            vec![Some(answer)]
        } else {
            match nested_answers(answer).into_iter().next().flatten() {
                Some(answer) if answer.succeeded => nested_answers(answer),
                Some(_) => return Ok(all(request, &|| CommitOutcome::SessionDead(session))),
                None => return Ok(all(request, &|| CommitOutcome::Failed(malformed()))),
            }
        };
        let until = Instant::now() + TELLS_WITHIN;
        let mut verdicts = Vec::new();
        for (group, answer) in request.groups.into_iter().zip(answers) {
            let (succeeded, mut reasons) = match answer {
                Some(answer) => (Some(answer.succeeded), answer.steps),
                None => (None, Vec::new()),
            };
            let is_shared = group.commits.len() > 1;
            for mut commit in group.commits {
                let verdict = match succeeded {
                    Some(true) => self.committed(&mut commit, at, session),
                    Some(false) if is_shared => Verdict::SendApart,
                    Some(false) => {
                        let reasons = std::mem::take(&mut reasons);
                        self.refused(&commit, reasons, session, until).await
                    }
                    None => Verdict::Outcome(CommitOutcome::Failed(malformed())),
                };
                verdicts.push((commit, verdict));
            }
        }
        Ok(verdicts)
    }
}

/// The answers of the nested transactions, in order; `None` for a step that is none.
fn nested_answers(answer: Answer) -> Vec<Option<Answer>> {
    let nested = answer.steps.into_iter().map(|step| match step {
        Step::Transaction(answer) => Some(answer),
        Step::Got(_) | Step::Written => None,
    });
    nested.collect()
}
