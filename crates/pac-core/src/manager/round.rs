//! One round of a repository: plan what is pending, commit it, make of the answer what it is.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::absorb::Source;
use super::repository::{Desk, Hold, Next, Repository};
use super::request::{Asker, Reply, Request};
use super::session::session_lost;
use super::shared::Shared;
use super::waiting::Farewell;
use crate::driver::CommitOutcome;
use crate::error::{Error, ErrorKind};
use crate::name::PipelineRunKey;
use crate::protocol::{Changes, Command, Death, Issuer, Outcome, Plan};
use crate::state::{Absorb, RepositoryState, Snapshot};
use crate::value::{Revision, SessionId};

/// What has to be done next for a repository.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing; the duty is over.
    Rest,
    /// Read what changed since, or all.
    Load(Option<Revision>),
    /// Wait a while for something to go along with.
    Hold(Hold),
    /// Commit.
    Commit(Changes),
}

impl Repository {
    /// Plans all that is pending, up to the size of a commit.
    pub(super) fn plan(self: &Arc<Self>, shared: &Shared, issuer: Issuer) -> Step {
        let mut desk = self.desk();
        let desk = &mut *desk;
        loop {
            if desk.has_to_read() {
                return Step::Load(desk.load());
            }
            // Where a commit takes no time, there is nothing to make room for.
            if !shared.lanes.are_unlimited()
                && let Some(hold) = desk.hold_back()
            {
                return Step::Hold(hold);
            }
            let Some(state) = desk.state.as_ref() else {
                return desk.rest();
            };
            let room = shared.room();
            let mut plan = Plan::new(state, issuer, room).without(&desk.dead);
            let mut together = 0;
            while let Some(next) = desk.pending.front() {
                let alone = matches!(next.command, Command::RemoveRepository);
                // What a commit grants, it grants under the limit that it writes.
                let first = alone || matches!(next.command, Command::SetLimit { .. });
                let full = plan.len().saturating_add(next.group) > room || first;
                if together == 0 && full && !desk.in_flight.is_empty() {
                    break;
                }
                let Some(request) = desk.pending.pop_front() else {
                    break;
                };
                together = request.group - 1;
                if request.is_moot() {
                    continue;
                }
                let outcome = plan.apply(&request.command);
                desk.in_flight.push((request, outcome));
                if alone {
                    break;
                }
            }
            desk.more = plan.has_more();
            desk.planned_at = state.head().revision;
            let changes = plan.finish();
            // A request that was moot may have been the one to carry a grant.
            self.hand_over(desk, shared);
            if let Some(changes) = changes {
                return Step::Commit(changes);
            }
            if desk.in_flight.is_empty() {
                return desk.rest();
            }
            // Nothing to write: then only a state read after the question is an answer to it.
            let covered = desk.covered;
            let is_covered = |(request, _): &&(Request, Outcome)| {
                request.reply.is_none() || request.serial < covered
            };
            let early = desk.in_flight.iter().take_while(is_covered).count();
            for (request, _) in desk.in_flight.drain(early..).rev() {
                desk.pending.push_front(request);
            }
            if early == 0 {
                return Step::Load(desk.load());
            }
            desk.expiry_is_recorded();
            self.answer(desk, shared, None);
            self.hand_over(desk, shared);
        }
    }

    /// What has to be read before anything can be planned.
    pub(super) fn read_first(&self) -> Option<Step> {
        let mut desk = self.desk();
        desk.has_to_read().then(|| Step::Load(desk.load()))
    }

    /// Plans one command, if nobody is at the repository, nothing has to be read, and the
    /// command changes something: the caller then has the duty to commit that. Else gives the
    /// command back.
    pub(super) fn plan_alone(
        &self,
        shared: &Shared,
        issuer: Issuer,
        command: Command,
    ) -> Result<Changes, Command> {
        let mut desk = self.desk();
        let desk = &mut *desk;
        let free = !desk.attended && desk.pending.is_empty() && !desk.recheck && !desk.is_behind();
        let Some(state) = desk.state.as_ref().filter(|_| free) else {
            return Err(command);
        };
        let mut plan = Plan::new(state, issuer, shared.room()).without(&desk.dead);
        let outcome = plan.apply(&command);
        let more = plan.has_more();
        let Some(changes) = plan.finish() else {
            return Err(command);
        };
        desk.more = more;
        desk.planned_at = state.head().revision;
        desk.attended = true;
        desk.in_flight.push((Request::new(command, None), outcome));
        Ok(changes)
    }

    /// The only request in flight is to be answered on a channel after all.
    pub(super) fn answer_later(&self, asker: Asker) {
        if let Some((request, _)) = self.desk().in_flight.first_mut() {
            request.reply = Some(asker);
        }
    }

    /// Takes in what was read.
    pub(super) fn loaded(
        self: &Arc<Self>,
        shared: &Shared,
        answer: Result<Snapshot, Error>,
    ) -> Next {
        let mut desk = self.desk();
        let asked_all = desk.asked_all;
        let absorbed = answer.and_then(|snapshot| {
            if asked_all && snapshot.since.is_some() {
                return Err(self.corrupt("the store answered with a part where all was asked for"));
            }
            self.absorb(&mut desk, shared, &snapshot, Source::Read)
        });
        let next = match absorbed {
            Ok(Absorb::Applied | Absorb::Stale) => Next::Plan,
            Ok(Absorb::Incomplete) => {
                desk.forget();
                Next::Plan
            }
            Err(error) => {
                let later = desk.take_uncovered();
                let next = desk.failed(shared.patience(), &error);
                // What cannot be read now is read again when somebody asks, or a hint comes.
                desk.recheck = next != Next::Plan || !later.is_empty();
                let at_once = !later.is_empty() && !error.is_retryable();
                desk.pending.extend(later);
                if at_once { Next::Plan } else { next }
            }
        };
        self.hand_over(&mut desk, shared);
        next
    }

    /// Takes in the answer to a commit of this repository by `session`.
    pub(super) fn settle(
        self: &Arc<Self>,
        shared: &Shared,
        session: SessionId,
        outcome: CommitOutcome,
    ) -> Next {
        if let CommitOutcome::Failed(error) = &outcome {
            return self.unsettled(shared, error);
        }
        let mut desk = self.desk();
        let desk = &mut *desk;
        let next = match outcome {
            CommitOutcome::Committed(snapshot) => {
                let known = self.written(desk, shared, &snapshot);
                self.answer(desk, shared, Some(&snapshot));
                desk.after_commit(known)
            }
            CommitOutcome::Conflict(snapshot) => {
                desk.put_back();
                desk.note_lost();
                let absorbed =
                    snapshot.map(|snapshot| self.absorb(desk, shared, &snapshot, Source::Read));
                match absorbed {
                    Some(Ok(Absorb::Applied)) => {}
                    Some(Ok(Absorb::Incomplete)) => desk.forget(),
                    // The watch has told it meanwhile.
                    None | Some(Ok(Absorb::Stale)) if desk.known() > desk.planned_at => {}
                    _ => desk.recheck = true,
                }
                desk.failed(shared.patience(), &self.contended())
            }
            CommitOutcome::SessionDead(dead) if dead == session => {
                let error = session_lost(session);
                shared.lost(session, &error);
                desk.put_back();
                desk.failed(shared.patience(), &error.in_repository(self.key()))
            }
            CommitOutcome::SessionDead(session) => {
                desk.put_back();
                let death = Death::Session;
                desk.bury(session, Command::Expire { session, death });
                desk.failed(shared.patience(), &self.contended())
            }
            CommitOutcome::Refused(error) | CommitOutcome::Failed(error) => {
                desk.put_back();
                desk.forget();
                desk.failed(shared.patience(), &error.in_repository(self.key()))
            }
        };
        self.hand_over(desk, shared);
        next
    }

    /// Takes in what a commit of ours has written. False when all has to be read anew.
    fn written(self: &Arc<Self>, desk: &mut Desk, shared: &Shared, written: &Snapshot) -> bool {
        let absorbed = match desk.state {
            Some(_) => self.absorb(desk, shared, written, Source::Commit),
            // Forgotten meanwhile; what was written is in the snapshot.
            None => Ok(Absorb::Incomplete),
        };
        desk.expiry_is_recorded();
        matches!(absorbed, Ok(Absorb::Applied | Absorb::Stale))
    }

    /// The same as [`Self::settle`] for the only request of a commit, whose answer goes to the
    /// caller.
    pub(super) fn settle_alone(
        self: &Arc<Self>,
        shared: &Shared,
        written: &Snapshot,
    ) -> (Option<Reply>, Next) {
        let mut desk = self.desk();
        let desk = &mut *desk;
        let known = self.written(desk, shared, written);
        let reply = desk.in_flight.pop().map(|(request, outcome)| {
            let reply = self.reply(desk, shared, &request, outcome, Some(written));
            let overtaken = desk.overtaken(&reply);
            desk.end_earlier_waiters(overtaken);
            reply
        });
        let next = desk.after_commit(known);
        self.hand_over(desk, shared);
        (reply, next)
    }

    /// Takes in that a request for this repository came to nothing, or that nobody knows.
    pub(super) fn unsettled(self: &Arc<Self>, shared: &Shared, error: &Error) -> Next {
        let mut desk = self.desk();
        if error.kind() == ErrorKind::Indeterminate {
            // Read what is there, then ask again: commands know what they have done already.
            for (request, outcome) in &mut desk.in_flight {
                request
                    .uncertain
                    .get_or_insert_with(|| Box::new(outcome.clone()));
            }
            desk.recheck = true;
        }
        desk.put_back();
        let next = desk.failed(shared.patience(), error);
        self.hand_over(&mut desk, shared);
        next
    }

    pub(super) fn corrupt(&self, reason: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Corrupt, "read", reason).in_repository(self.key())
    }

    fn contended(&self) -> Error {
        Error::new(
            ErrorKind::Contended,
            "commit",
            "other controllers changed the repository at every attempt; try again",
        )
        .in_repository(self.key())
    }
}

impl Desk {
    fn rest(&mut self) -> Step {
        self.attended = false;
        self.backoff = None;
        self.hold = None;
        Step::Rest
    }

    /// Whether something has to be read before anything can be planned.
    pub(super) fn has_to_read(&self) -> bool {
        let asked = !self.pending.is_empty() || self.wanted > Revision::default();
        self.recheck || self.is_behind() || (asked && self.state.is_none())
    }

    fn load(&mut self) -> Option<Revision> {
        // A hint that comes from here on may be of something that the answer does not show.
        self.recheck = false;
        self.wanted = Revision::default();
        self.covered = self.next_serial;
        self.asked_all = self.state.is_none();
        self.state.as_ref().map(|state| state.head().revision)
    }

    /// Nothing could be read: takes out what was asked for after that was tried, for which it is
    /// no answer.
    fn take_uncovered(&mut self) -> VecDeque<Request> {
        let covered = std::mem::take(&mut self.covered);
        let pending = std::mem::take(&mut self.pending).into_iter();
        let (before, after) =
            pending.partition(|request| request.reply.is_none() || request.serial < covered);
        self.pending = before;
        after
    }

    /// After a commit; `known` is false when all has to be read anew.
    fn after_commit(&mut self, known: bool) -> Next {
        self.backoff = None;
        self.hold = None;
        if !known {
            self.forget();
        }
        if self.pending.is_empty() && !self.recheck && !self.is_behind() {
            self.rest();
            Next::Rest
        } else {
            Next::Plan
        }
    }

    /// The run that an answer gives to who asked last, if others may wait for it.
    pub(super) fn overtaken(&self, reply: &Reply) -> Option<PipelineRunKey> {
        match (&reply.outcome, &reply.entry) {
            (Outcome::Admitted { .. }, Some(entry))
                if entry.is_started() && !self.waiting.is_empty() =>
            {
                Some(entry.run.clone())
            }
            _ => None,
        }
    }

    pub(super) fn end_earlier_waiters(&mut self, overtaken: Option<PipelineRunKey>) {
        if let Some(run) = overtaken {
            self.waiting.end(&run, Farewell::TakenOver);
        }
    }

    /// A commit went through: go on where it was not large enough, and forget who is dead once
    /// that stands in the entries.
    fn expiry_is_recorded(&mut self) {
        let more = std::mem::take(&mut self.more);
        for at in 0..self.in_flight.len() {
            let Some((request, _)) = self.in_flight.get(at) else {
                return;
            };
            if let Command::Expire { session, death } = request.command {
                if more {
                    self.add(Command::Expire { session, death });
                } else {
                    self.dead.retain(|dead| *dead != session);
                }
            }
        }
    }
}

/// A look at the state, after it was brought up to a snapshot.
impl Repository {
    /// `None` when all has to be read for that. The second part says whether the caller has to
    /// see to the repository.
    pub(super) fn shown<T>(
        self: &Arc<Self>,
        shared: &Shared,
        snapshot: &Snapshot,
        view: impl Fn(&RepositoryState) -> T,
    ) -> Result<(Option<T>, bool), Error> {
        let mut desk = self.desk();
        let absorbed = self.absorb(&mut desk, shared, snapshot, Source::Read)?;
        if absorbed == Absorb::Incomplete {
            desk.forget();
        }
        let shown = desk.state.as_ref().map(view);
        Ok((shown, desk.needs_attention()))
    }

    /// Takes in a hint, with what the watch sent along. True when the caller has to see to the
    /// repository.
    pub(super) fn hinted(
        self: &Arc<Self>,
        shared: &Shared,
        revision: Revision,
        snapshot: Option<&Snapshot>,
    ) -> bool {
        let mut desk = self.desk();
        let known = desk.state.as_ref().map(|state| state.head().revision);
        let follows =
            |snapshot: &&Snapshot| known.is_some_and(|known| snapshot.since <= Some(known));
        if let Some(snapshot) = snapshot.filter(follows)
            && !matches!(
                self.absorb(&mut desk, shared, snapshot, Source::Read),
                Ok(Absorb::Applied | Absorb::Stale)
            )
        {
            desk.forget();
        }
        desk.is_said_to_be_at(revision);
        desk.needs_attention()
    }
}
