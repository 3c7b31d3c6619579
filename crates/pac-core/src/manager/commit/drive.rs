//! Sees to a repository: plan, commit, settle, and what comes next. A store without round trips
//! takes the same way with nothing to wait for, in the caller's own time.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::batcher;
use super::token::Token;
use crate::driver::{BatchOutcome, Commit, CommitOutcome, RepositoryCommit};
use crate::error::{Error, ErrorKind};
use crate::manager::engine::Engine;
use crate::manager::notify::dispatch::{Caller, Input, Time, again};
use crate::manager::registry::Cell;
use crate::manager::repository::effects::Action;
use crate::manager::store::checked;
use crate::value::{SessionId, Version};

/// Commits that a caller carries out for others after its own answer is there, before a task of
/// the manager's goes on with them.
const COURTESY: usize = 16;

/// How far a repository of a store without round trips has come under its lock.
#[derive(Debug)]
pub(in crate::manager) enum Step {
    /// This is to be done next.
    Then(Action),
    /// A commit in the name of this session was answered, and not with plain success: the outcome
    /// for the repository, or the failure of the batch.
    Answered(SessionId, Result<Option<CommitOutcome>, Error>),
    /// The answer to such a commit comes later.
    Sent(SessionId, Commit),
}

impl Engine {
    /// Sees to a repository: as far as nothing has to be waited for at once and in the caller's
    /// own time, then in a task of the manager's, which no caller can drop.
    pub(in crate::manager) fn attend(self: &Arc<Self>, token: Token) {
        if self.store.is_in_process() {
            self.drive(token, Step::Then(Action::Plan), None);
            return;
        }
        let first = token
            .cell()
            .and_then(|cell| cell.lock().machine.read_first());
        match first {
            // What waits for the answer of this need not wait for a worker.
            Some(load) => self.resume(token, &load),
            None => self.enqueue(token),
        }
    }

    /// The same without anything happening before this returns: for destructors, and for threads
    /// that are not the store's.
    pub(in crate::manager) fn attend_later(self: &Arc<Self>, token: Token) {
        let engine = Arc::clone(self);
        self.executor.spawn(async move { engine.attend(token) });
    }

    fn enqueue(self: &Arc<Self>, token: Token) {
        if self.queue.push(token) {
            batcher::start(self);
        }
    }

    /// Sees to a repository of a store without round trips, after a first `step`. The answers to
    /// `asking`, whose caller this is, are put there; those that take longer get a channel.
    pub(in crate::manager) fn drive(
        self: &Arc<Self>,
        token: Token,
        mut step: Step,
        mut asking: Option<&mut dyn Caller>,
    ) {
        let mut courtesy = 0;
        while let Some(cell) = token.cell() {
            step = match step {
                Step::Then(Action::Rest) => return token.done(),
                Step::Then(Action::Plan) => {
                    if asking.as_ref().is_none_or(|asking| asking.is_answered()) {
                        courtesy += 1;
                    }
                    if courtesy > COURTESY {
                        self.attend_later(token);
                        return;
                    }
                    let step = |input: &mut Input<'_>| self.step(input);
                    self.input_for(cell, Time::Now, step, again(&mut asking))
                }
                Step::Answered(session, mut answer) => {
                    self.heard(session, answer.as_ref().err());
                    let outcome = answer.as_mut().map(Option::take).map_err(|error| &*error);
                    Step::Then(self.settle_one(session, cell, outcome, again(&mut asking)))
                }
                Step::Sent(session, commit) => {
                    listen_from_here(asking, cell);
                    return self.follow(session, token, commit);
                }
                Step::Then(action) => {
                    listen_from_here(asking, cell);
                    return self.resume(token, &action);
                }
            };
        }
    }

    /// Plans for a repository of a store without round trips, commits, and takes the answer in,
    /// all under the repository's lock, so that no other thread finds it busy: to hand a request
    /// over and be woken with the answer costs several times as much as the command.
    ///
    /// Whatever is no plain success is left to the caller, to be dealt with after the lock is
    /// released.
    pub(in crate::manager) fn step(&self, input: &mut Input<'_>) -> Step {
        let (env, effects) = (input.env, &mut *input.effects);
        let (session, commit) = match input.machine.plan(env, effects) {
            Action::Commit(session, commit) => (session, commit as Box<[RepositoryCommit]>),
            action => return Step::Then(action),
        };
        let answer = match self.store.commit(session, commit.into_vec()) {
            Commit::Done(answer) => answer,
            commit @ Commit::Pending(_) => return Step::Sent(session, commit),
        };
        self.store.contact.heard(&answer);
        match checked(answer, 1) {
            Ok(mut outcomes) => match outcomes.pop() {
                Some(outcome @ CommitOutcome::Committed(_)) => {
                    Step::Then(input.machine.on_commit(env, session, outcome, effects))
                }
                outcome => Step::Answered(session, Ok(outcome)),
            },
            Err(error) => Step::Answered(session, Err(error)),
        }
    }

    /// Waits for the answer to a commit in a task.
    fn follow(self: &Arc<Self>, session: SessionId, token: Token, commit: Commit) {
        let engine = Arc::clone(self);
        self.executor.spawn(async move {
            let answer = engine.store.answer(commit, 1).await;
            engine.settle(session, vec![token], answer, |token, action| {
                engine.resume(token, &action);
            });
        });
    }

    /// Plans for a repository.
    pub(super) fn plan(self: &Arc<Self>, cell: &Arc<Cell>) -> Action {
        self.input(cell, |input| input.machine.plan(input.env, input.effects))
    }

    /// Takes notice of what the failure of a batch, if it failed, says of the session.
    fn heard(&self, session: SessionId, failure: Option<&Error>) {
        if failure.is_some_and(|error| error.kind() == ErrorKind::SessionLost) {
            self.fence.lose(session);
        }
    }

    /// Brings the answer to a batch back to its repositories, and gives each one's token to
    /// `next` with what is to be done.
    pub(super) fn settle(
        self: &Arc<Self>,
        session: SessionId,
        leaving: Vec<Token>,
        answer: BatchOutcome,
        mut next: impl FnMut(Token, Action),
    ) {
        self.heard(session, answer.as_ref().err());
        let mut outcomes = answer.map(Vec::into_iter);
        for token in leaving {
            let Some(cell) = token.cell() else {
                continue;
            };
            let outcome = outcomes
                .as_mut()
                .map(Iterator::next)
                .map_err(|error| &*error);
            let action = self.settle_one(session, cell, outcome, None);
            next(token, action);
        }
    }

    /// Brings the outcome of a commit, or the failure of its batch, back to one repository.
    fn settle_one(
        self: &Arc<Self>,
        session: SessionId,
        cell: &Arc<Cell>,
        outcome: Result<Option<CommitOutcome>, &Error>,
        asking: Option<&mut dyn Caller>,
    ) -> Action {
        let time = match &outcome {
            // When it succeeded changes nothing.
            Ok(Some(CommitOutcome::Committed(_))) => Time::NoMatter,
            _ => Time::Now,
        };
        let settle = |input: &mut Input<'_>| {
            let (env, effects) = (input.env, &mut *input.effects);
            match outcome {
                Ok(Some(outcome)) => input.machine.on_commit(env, session, outcome, effects),
                Ok(None) => {
                    let message = "the driver gave no outcome for this repository";
                    let error = Error::new(ErrorKind::Indeterminate, "commit", message);
                    input.machine.on_commit_failed(env, &error, effects)
                }
                Err(error) => input.machine.on_commit_failed(env, error, effects),
            }
        };
        self.input_for(cell, time, settle, asking)
    }

    /// Does what has to be done next for a repository, in a task if it has to be waited for.
    pub(super) fn resume(self: &Arc<Self>, token: Token, action: &Action) {
        match *action {
            Action::Rest => token.done(),
            // What was planned is planned again, where it is committed.
            Action::Plan | Action::Commit(..) => self.attend(token),
            // Nobody is left to keep its session, nor to hear of it.
            Action::PlanAfter(_) if self.lifecycle.gives_up(self.fence.ttl().session) => {
                drop(token);
            }
            Action::PlanAfter(delay) => {
                let engine = Arc::clone(self);
                self.executor.spawn(async move {
                    engine.store.contact.pause(delay).await;
                    engine.attend(token);
                });
            }
            Action::Load(since) => {
                let loading = load(Arc::clone(self), token, since);
                self.executor.run(loading);
            }
            Action::Hold(until) => {
                let holding = hold_back(Arc::clone(self), token, until);
                self.executor.run(holding);
            }
        }
    }
}

/// From here on the answers come by another way.
fn listen_from_here(asking: Option<&mut dyn Caller>, cell: &Cell) {
    if let Some(asking) = asking {
        asking.listen(cell);
    }
}

/// Reads a repository, then sees to it again.
async fn load(engine: Arc<Engine>, token: Token, since: Option<Version>) {
    let Some(cell) = token.cell() else {
        return;
    };
    let asked = async {
        // A request that comes from now on wakes this.
        while !cell.lock().machine.is_asked() {
            cell.wake.notified().await;
        }
    };
    let answer = engine.store.load_for(cell.key(), since, asked).await;
    let action = engine.input(cell, |input| {
        input.machine.on_loaded(input.env, answer, input.effects)
    });
    engine.resume(token, &action);
}

/// Waits for something urgent that held-back admissions can go along with.
async fn hold_back(engine: Arc<Engine>, token: Token, until: Instant) {
    let Some(cell) = token.cell() else {
        return;
    };
    let _ = timeout_at(until, cell.wake.notified()).await;
    engine.attend(token);
}
