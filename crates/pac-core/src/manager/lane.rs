//! Group commit. A lane carries one batch at a time to the store; while all lanes are under
//! way, repositories with something to commit gather for the next batch, and go on being
//! combined until it leaves. An idle system adds no delay but a few yields to nobody.
//! Where other processes commit to the same repository, what need not hurry waits for what does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout_at};

use super::repository::{Hold, Next, Repository};
use super::request::{Answer, Reply};
use super::round::Step;
use super::shared::Shared;
use crate::driver::{BatchOutcome, Commit, CommitOutcome, RepositoryCommit};
use crate::error::{Error, ErrorKind};
use crate::protocol::{Changes, Command};
use crate::value::{Revision, SessionId};

/// A batch leaves when nothing more has come while a lane yielded so often: who was answered, or
/// granted a slot, has the next command at hand soon, but may first be taken up by another
/// thread. A yield with nobody to yield to takes about a microsecond.
const QUIET_YIELDS: usize = 3;
/// And at the latest after so many yields.
const MOST_YIELDS: usize = 32;

/// The obligation to see to what is pending at a repository. Exactly one exists while its desk
/// says that it is attended; it ends with [`Duty::done`], or everybody who waits hears of it.
#[derive(Debug)]
pub(super) struct Duty(Option<Arc<Repository>>);

impl Duty {
    /// For whoever was told by the desk to see to it.
    pub(super) fn new(repository: Arc<Repository>) -> Self {
        Self(Some(repository))
    }

    /// What is to be seen to.
    fn repository(&self) -> Option<&Arc<Repository>> {
        self.0.as_ref()
    }

    /// The desk knows already that nobody attends to it.
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        let Some(repository) = self.0.take() else {
            return;
        };
        let ended = Error::new(
            ErrorKind::Closed,
            "commit",
            "the work on this repository ended before the answer came: the runtime was shut \
             down, or there is a bug; what was asked for may have happened",
        )
        .in_repository(repository.key());
        let mut desk = repository.desk();
        desk.attended = false;
        desk.put_back();
        for request in std::mem::take(&mut desk.pending) {
            request.fail(&ended);
        }
    }
}

/// How many lanes are under way, and what gathers meanwhile.
#[derive(Debug)]
pub(super) struct Lanes {
    most: usize,
    queue: Mutex<Gathering>,
}

#[derive(Debug, Default)]
struct Gathering {
    under_way: usize,
    ready: VecDeque<Duty>,
}

impl Lanes {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            queue: Mutex::default(),
        }
    }

    /// A store that never makes anybody wait: nothing gathers, and nobody need count.
    pub(super) fn are_unlimited(&self) -> bool {
        self.most == usize::MAX
    }

    fn queue(&self) -> MutexGuard<'_, Gathering> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a command: here, or to come.
pub(super) enum Carried {
    /// `None` only if there is a bug.
    Out(Option<Reply>),
    Later(Answer),
}

/// A lane under way; when it ends, by a panic too, another one takes what has gathered.
struct Lane(Arc<Shared>);

impl Drop for Lane {
    fn drop(&mut self) {
        let mut queue = self.0.lanes.queue();
        let next = queue.ready.pop_front();
        if next.is_none() {
            queue.under_way -= 1;
        }
        drop(queue);
        if let Some(duty) = next {
            let lane = Lane(Arc::clone(&self.0));
            self.0.spawn(run_lane(lane, duty));
        }
    }
}

impl Shared {
    /// Sees to a repository: at once and in the caller's own time as far as nothing has to be
    /// waited for, then in a task of the manager's, which no caller can drop.
    pub(super) fn attend(self: &Arc<Self>, duty: Duty) {
        if self.lanes.are_unlimited() {
            self.attend_alone(duty);
        } else if let Some(Step::Load(since)) = duty.repository().and_then(|r| r.read_first()) {
            // Who waits for a word of this need not wait for a lane.
            self.run(load(Arc::clone(self), duty, since));
        } else if let Some((lane, duty)) = self.enter(duty) {
            self.run(run_lane(lane, duty));
        }
    }

    /// For a store without round trips: no batch, no lane, and no task unless it has to wait
    /// after all.
    fn attend_alone(self: &Arc<Self>, mut duty: Duty) {
        while let Some(repository) = duty.repository() {
            let issuer = self.issuer();
            let changes = match repository.plan(self, issuer) {
                Step::Rest => return duty.done(),
                Step::Load(since) => return self.run(load(Arc::clone(self), duty, since)),
                Step::Hold(hold) => return self.run(hold_back(Arc::clone(self), duty, hold)),
                Step::Commit(changes) => changes,
            };
            let commit = self.commit_alone(issuer.session, repository, changes);
            match self.conclude(duty, issuer.session, commit) {
                Some(again) => duty = again,
                None => return,
            }
        }
    }

    fn commit_alone(
        &self,
        session: SessionId,
        repository: &Repository,
        changes: Changes,
    ) -> Commit {
        let repository = repository.key().clone();
        let commit = RepositoryCommit {
            repository,
            changes,
        };
        self.driver.commit(session, vec![commit])
    }

    /// Sees to what comes of a commit to one repository. Gives the duty back when there is more
    /// to plan at once.
    fn conclude(self: &Arc<Self>, duty: Duty, session: SessionId, commit: Commit) -> Option<Duty> {
        let repository = Arc::clone(duty.repository()?);
        let next = match commit {
            Commit::Done(answer) => {
                let answer = self.heard(session, answer);
                settle_one(self, session, &repository, answer)
            }
            Commit::Pending(_) => {
                let shared = Arc::clone(self);
                self.spawn(async move {
                    let answer = shared.committed(session, commit).await;
                    let next = settle_one(&shared, session, &repository, answer);
                    resume(&shared, duty, next);
                });
                return None;
            }
        };
        if next == Next::Plan {
            return Some(duty);
        }
        resume(self, duty, next);
        None
    }

    /// Carries out one command. On a store without round trips, at a repository that nobody
    /// else is at, the answer is there at once: it needs neither queue nor channel.
    pub(super) fn carry_out(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        command: Command,
    ) -> Carried {
        if !self.lanes.are_unlimited() {
            return Carried::Later(self.submit(repository, command));
        }
        let issuer = self.issuer();
        let changes = match repository.plan_alone(self, issuer, command) {
            Ok(changes) => changes,
            Err(command) => return Carried::Later(self.submit(repository, command)),
        };
        let duty = Duty::new(Arc::clone(repository));
        let commit = self.commit_alone(issuer.session, repository, changes);
        if let Commit::Done(Ok(outcomes)) = &commit
            && let [CommitOutcome::Committed(written)] = outcomes.as_slice()
        {
            let (reply, next) = repository.settle_alone(self, written);
            resume(self, duty, next);
            return Carried::Out(reply);
        }
        let (asker, answer) = oneshot::channel();
        repository.answer_later(asker);
        if let Some(duty) = self.conclude(duty, issuer.session, commit) {
            self.attend_alone(duty);
        }
        Carried::Later(answer)
    }

    /// The same without anything happening before this returns: for destructors and threads
    /// that are not the store's.
    pub(super) fn attend_later(self: &Arc<Self>, duty: Duty) {
        let shared = Arc::clone(self);
        self.spawn(async move { shared.attend(duty) });
    }

    /// A lane to start now; else `duty` goes with the next batch.
    fn enter(self: &Arc<Self>, duty: Duty) -> Option<(Lane, Duty)> {
        let mut queue = self.lanes.queue();
        if queue.under_way >= self.lanes.most {
            queue.ready.push_back(duty);
            return None;
        }
        queue.under_way += 1;
        drop(queue);
        Some((Lane(Arc::clone(self)), duty))
    }
}

async fn run_lane(lane: Lane, first: Duty) {
    let shared = &lane.0;
    let mut work = vec![first];
    loop {
        gather(shared, &mut work).await;
        if work.is_empty() {
            return;
        }
        let issuer = shared.issuer();
        let mut batch = Vec::with_capacity(work.len());
        let mut leaving = Vec::with_capacity(work.len());
        for duty in work.drain(..) {
            let Some(repository) = duty.repository() else {
                continue;
            };
            match repository.plan(shared, issuer) {
                Step::Rest => duty.done(),
                Step::Load(since) => shared.run(load(Arc::clone(shared), duty, since)),
                Step::Hold(hold) => shared.run(hold_back(Arc::clone(shared), duty, hold)),
                Step::Commit(changes) => {
                    batch.push(RepositoryCommit {
                        repository: repository.key().clone(),
                        changes,
                    });
                    leaving.push(duty);
                }
            }
        }
        if !batch.is_empty() {
            commit(shared, issuer.session, batch, leaving, &mut work).await;
        }
    }
}

/// Takes along what has gathered, and what comes while others have their turn.
async fn gather(shared: &Shared, work: &mut Vec<Duty>) {
    let most = shared.descriptor.repositories_per_batch;
    let (mut known, mut quiet) = ((0, 0), 0);
    for _ in 0..MOST_YIELDS {
        tokio::task::yield_now().await;
        let mut queue = shared.lanes.queue();
        let gathered = queue.ready.len().min(most.saturating_sub(work.len()));
        work.extend(queue.ready.drain(..gathered));
        drop(queue);
        let asked = match work.as_slice() {
            [Duty(Some(only))] => only.desk().pending.len(),
            _ => 0,
        };
        let more = work.len() > known.0 || asked > known.1;
        known = (work.len(), asked);
        quiet = if more { 0 } else { quiet + 1 };
        if quiet == QUIET_YIELDS || work.len() == most {
            return;
        }
    }
}

/// Commits a batch, and puts back to `work` what has to be planned again.
async fn commit(
    shared: &Arc<Shared>,
    session: SessionId,
    batch: Vec<RepositoryCommit>,
    leaving: Vec<Duty>,
    work: &mut Vec<Duty>,
) {
    let commit = shared.driver.commit(session, batch);
    let answer = shared.committed(session, commit).await;
    let mut outcomes = checked(answer, leaving.len()).map(Vec::into_iter);
    for duty in leaving {
        let Some(repository) = duty.repository() else {
            continue;
        };
        let next = match &mut outcomes {
            Ok(outcomes) => match outcomes.next() {
                Some(outcome) => repository.settle(shared, session, outcome),
                None => Next::Plan,
            },
            Err(error) => repository.unsettled(shared, error),
        };
        match next {
            Next::Plan => work.push(duty),
            next => resume(shared, duty, next),
        }
    }
}

fn settle_one(
    shared: &Shared,
    session: SessionId,
    repository: &Arc<Repository>,
    answer: BatchOutcome,
) -> Next {
    match checked(answer, 1).map(|mut outcomes| outcomes.pop()) {
        Ok(Some(outcome)) => repository.settle(shared, session, outcome),
        Ok(None) => Next::Plan,
        Err(error) => repository.unsettled(shared, &error),
    }
}

fn checked(answer: BatchOutcome, asked: usize) -> BatchOutcome {
    match answer {
        Ok(outcomes) if outcomes.len() != asked => Err(Error::new(
            ErrorKind::Internal,
            "commit",
            "the driver answered for another number of repositories than it was asked",
        )),
        answer => answer,
    }
}

/// Reads a repository, then sees to it again.
async fn load(shared: Arc<Shared>, duty: Duty, since: Option<Revision>) {
    let Some(repository) = duty.repository() else {
        return;
    };
    let answer = shared.load(repository.key(), since).await;
    let next = repository.loaded(&shared, answer);
    resume(&shared, duty, next);
}

/// Waits for something that has to hurry, to go along with it.
async fn hold_back(shared: Arc<Shared>, duty: Duty, hold: Hold) {
    let Some(repository) = duty.repository() else {
        return;
    };
    while timeout_at(hold.until, hold.nudge.notified()).await.is_ok() {
        if !repository.desk().may_be_held_back() {
            break;
        }
    }
    resume(&shared, duty, Next::Plan);
}

fn resume(shared: &Arc<Shared>, duty: Duty, next: Next) {
    match next {
        // Nobody is left to keep its session, nor to hear of it.
        Next::PlanAfter(_) if shared.is_gone() && shared.session.remaining().is_zero() => {
            drop(duty);
        }
        Next::Rest => duty.done(),
        Next::Plan => shared.attend(duty),
        Next::PlanAfter(delay) => {
            let shared = Arc::clone(shared);
            Arc::clone(&shared).spawn(async move {
                sleep(delay).await;
                shared.attend(duty);
            });
        }
    }
}
