//! The answers of the store, taken in: to a read, to a commit, or from the stream of hints.

use super::Repository;
use super::apply::Source;
use super::effects::{Action, Effects, EndOfWaiting};
use super::env::{Env, Port};
use super::request::Request;
use super::retry::LONGEST_BACKOFF;
use crate::driver::CommitOutcome;
use crate::error::{Error, ErrorKind};
use crate::name::PipelineRunKey;
use crate::protocol::{Command, Death};
use crate::state::{Absorb, RepositoryState, Snapshot};
use crate::value::{Revision, SessionId, Version};

impl<P: Port> Repository<P> {
    /// The answer to a read that [`Action::Load`] asked for.
    #[must_use]
    pub fn on_loaded(
        &mut self,
        env: &Env,
        answer: Result<Snapshot, Error>,
        effects: &mut Effects<P>,
    ) -> Action {
        self.note_session(env);
        self.reading = false;
        let asked_all = std::mem::take(&mut self.asked_all);
        let source = Source::Read(std::mem::take(&mut self.asked_above));
        let applied = answer.and_then(|snapshot| {
            if asked_all && snapshot.since.is_some() {
                return Err(self.corrupt("the store answered with a part where all was asked for"));
            }
            self.apply_snapshot(env, &snapshot, source, effects)
        });
        let next = match applied {
            Ok(Absorb::Applied | Absorb::Stale) => Action::Plan,
            Ok(Absorb::Incomplete) => {
                self.forget();
                Action::Plan
            }
            Err(error) => {
                self.end_if_unreadable(&error, effects);
                // What was asked after the read began is not answered by its failure.
                let (before, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox.pending)
                    .into_iter()
                    .partition(|request| self.inbox.is_covered(request));
                self.inbox.pending.extend(before);
                let next = self.failed(env, &error, effects);
                // What cannot be read now is read again when somebody asks, or a hint comes.
                self.recheck = !matches!(next, Action::Plan) || !later.is_empty();
                let at_once = !later.is_empty() && !error.is_retryable();
                self.inbox.pending.extend(later);
                if at_once { Action::Plan } else { next }
            }
        };
        self.hand_over(effects);
        next
    }

    /// The answer to a commit of this repository's by `session`.
    #[must_use]
    pub fn on_commit(
        &mut self,
        env: &Env,
        session: SessionId,
        outcome: CommitOutcome,
        effects: &mut Effects<P>,
    ) -> Action {
        self.note_session(env);
        let next = match outcome {
            CommitOutcome::Failed(error) => return self.on_commit_failed(env, &error, effects),
            CommitOutcome::Committed(snapshot) => {
                let known = self.on_written(env, &snapshot, effects);
                self.answer(env, Some(&snapshot), effects);
                self.after_commit(known)
            }
            CommitOutcome::Conflict(snapshot) => self.on_conflict(env, snapshot, effects),
            CommitOutcome::SessionDead(dead) => self.on_session_dead(env, session, dead, effects),
            CommitOutcome::Refused(error) => self.on_refused(env, error, effects),
        };
        self.hand_over(effects);
        next
    }

    /// Another controller was faster; this is what it has made of the repository, if it is known.
    fn on_conflict(
        &mut self,
        env: &Env,
        snapshot: Option<Snapshot>,
        effects: &mut Effects<P>,
    ) -> Action {
        self.inbox.put_back();
        self.retry.lost(env.now);
        // It was read after the commit had been planned.
        let source = Source::Read(self.inbox.planned_at);
        let applied = snapshot.map(|snapshot| self.apply_snapshot(env, &snapshot, source, effects));
        match applied {
            Some(Ok(Absorb::Applied)) => {}
            Some(Ok(Absorb::Incomplete)) => self.forget(),
            // A hint has told it meanwhile.
            None | Some(Ok(Absorb::Stale)) if self.known() > self.inbox.planned_at.revision => {}
            _ => self.recheck = true,
        }
        let contended = self.contended();
        self.failed(env, &contended, effects)
    }

    /// A session is over: the one that committed, or one that the commit names.
    fn on_session_dead(
        &mut self,
        env: &Env,
        session: SessionId,
        dead: SessionId,
        effects: &mut Effects<P>,
    ) -> Action {
        self.inbox.put_back();
        let error = if dead == session {
            effects.session_lost = Some(session);
            Error::session_lost("commit", session).in_repository(&self.key)
        } else {
            if !self.dead.contains(&dead) {
                self.dead.push(dead);
                let (session, death) = (dead, Death::Session);
                self.inbox.add_first(Command::Expire { session, death });
            }
            self.contended()
        };
        self.failed(env, &error, effects)
    }

    /// The store takes exception to what was to be written.
    fn on_refused(&mut self, env: &Env, error: Error, effects: &mut Effects<P>) -> Action {
        // What was not in it is not meant.
        let later = std::mem::take(&mut self.inbox.pending);
        self.inbox.put_back();
        self.forget();
        let error = error.in_repository(&self.key);
        let next = self.failed(env, &error, effects);
        let at_once = !later.is_empty();
        self.inbox.pending.extend(later);
        match next {
            // What is read may bring forth the same commands again.
            Action::Plan if !at_once => Action::PlanAfter(LONGEST_BACKOFF),
            _ if at_once => Action::Plan,
            next => next,
        }
    }

    /// A commit of this repository's failed, or nobody knows what came of it.
    #[must_use]
    pub fn on_commit_failed(
        &mut self,
        env: &Env,
        error: &Error,
        effects: &mut Effects<P>,
    ) -> Action {
        self.note_session(env);
        if error.kind() == ErrorKind::Indeterminate {
            // Read what is there, then try again: what has been done already is recognised.
            for planned in &mut self.inbox.in_flight {
                planned.note_uncertain();
            }
            self.recheck = true;
        }
        self.inbox.put_back();
        let next = self.failed(env, error, effects);
        self.hand_over(effects);
        next
    }

    /// Takes in what a commit of this manager's has written. False when all has to be read anew.
    fn on_written(&mut self, env: &Env, written: &Snapshot, effects: &mut Effects<P>) -> bool {
        let applied = match self.state {
            Some(_) => self.apply_snapshot(env, written, Source::Commit, effects),
            // Forgotten meanwhile; what was written is in the snapshot.
            None => Ok(Absorb::Incomplete),
        };
        self.on_expiry_recorded();
        matches!(applied, Ok(Absorb::Applied | Absorb::Stale))
    }

    /// After a commit; `known` is false when all has to be read anew.
    fn after_commit(&mut self, known: bool) -> Action {
        self.retry.succeeded();
        if !known {
            self.forget();
        }
        if self.inbox.pending.is_empty() && !self.recheck && !self.is_behind() {
            self.busy = false;
            Action::Rest
        } else {
            Action::Plan
        }
    }

    /// What is in flight holds: go on where the commit was not large enough, and forget sessions
    /// whose death stands in the entries now.
    pub(super) fn on_expiry_recorded(&mut self) {
        let more = std::mem::take(&mut self.inbox.more);
        let recorded = |request: &Request<P>| match request.command {
            Command::Expire { session, death } => Some((session, death)),
            _ => None,
        };
        let in_flight = self.inbox.in_flight.iter();
        let expired: Vec<_> = in_flight.filter_map(|p| recorded(&p.request)).collect();
        for (session, death) in expired {
            if more {
                self.inbox.add(Command::Expire { session, death });
            } else {
                self.dead.retain(|dead| *dead != session);
            }
        }
    }

    /// Tells those who wait here, and those who follow the state, when the records cannot be
    /// understood: nothing would come for them before somebody has repaired those.
    fn end_if_unreadable(&mut self, error: &Error, effects: &mut Effects<P>) {
        if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) {
            return;
        }
        let error = error.replicate().in_repository(&self.key);
        let over = |_: &PipelineRunKey, _| Some(EndOfWaiting::Failed(error.replicate()));
        self.waiters.end_where(over, effects);
        effects.unreadable = Some(error);
    }

    fn contended(&self) -> Error {
        let message = "other controllers changed the repository at every attempt; try again";
        Error::new(ErrorKind::Contended, "commit", message).in_repository(&self.key)
    }

    /// Shows the state after bringing it up to a snapshot that was read from the store, for
    /// which `above` was the newest known version when it was asked for. `None` when all has
    /// to be read. The second part says whether the caller gets the combiner's right.
    ///
    /// # Errors
    /// `Corrupt` when the snapshot does not add up.
    pub fn on_read<T>(
        &mut self,
        env: &Env,
        snapshot: &Snapshot,
        above: Version,
        view: impl Fn(&RepositoryState) -> T,
        effects: &mut Effects<P>,
    ) -> Result<(Option<T>, bool), Error> {
        self.note_session(env);
        let applied = self.apply_snapshot(env, snapshot, Source::Read(above), effects)?;
        if applied == Absorb::Incomplete {
            self.forget();
        }
        let shown = self.state.as_ref().map(view);
        Ok((shown, self.needs_attention(effects)))
    }

    /// A hint: the store is at `revision`, or a later one; with what the watch sent along. True
    /// when the caller gets the combiner's right with that.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn on_hint(
        &mut self,
        env: &Env,
        revision: Revision,
        snapshot: Option<&Snapshot>,
        effects: &mut Effects<P>,
    ) -> bool {
        self.note_session(env);
        let known = self.version();
        // From exactly the known version on: from an earlier one it may be of another history, after
        // the store went back in time.
        let follows = |snapshot: &&Snapshot| {
            known.is_some_and(|known| snapshot.since.is_none_or(|since| since == known))
        };
        if let Some(snapshot) = snapshot.filter(follows) {
            let applied = self.apply_snapshot(env, snapshot, Source::Hint, effects);
            if !matches!(applied, Ok(Absorb::Applied | Absorb::Stale)) {
                self.forget();
            }
        }
        self.wanted = self.wanted.max(revision);
        self.needs_attention(effects)
    }
}
