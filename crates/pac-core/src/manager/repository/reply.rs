//! An outcome → the answers, and what is undone for askers that have gone.

use std::sync::Arc;

use super::Repository;
use super::apply::Standing;
use super::effects::{Answer, Effects, EndOfWaiting, Grant, Place, Reply, TurnMessage, WaiterId};
use super::env::{Env, Port};
use super::request::{Asked, Planned, RequestId};
use super::shared::{Left, Owed};
use crate::protocol::{Admitted, Command, Ended, Outcome, recognise};
use crate::state::{Entry, EntryState, RepositoryState, RunKind, RunOutcome, Snapshot};
use crate::status::queued_run;
use crate::value::{FencingToken, SessionId};

impl<P: Port> Repository<P> {
    /// Answers everything in flight, in order, according to the state as it is now, or to what
    /// was written if there is no state. If an asker has gone, a later request for the same run
    /// may take over.
    pub(super) fn answer(
        &mut self,
        env: &Env,
        written: Option<&Snapshot>,
        effects: &mut Effects<P>,
    ) {
        // Answered ones are taken out from the back, so that the rest can be looked through.
        self.inbox.in_flight.reverse();
        while let Some(mut planned) = self.inbox.in_flight.pop() {
            if planned.request.is_own() {
                continue;
            }
            let id = planned.request.id;
            let asker = planned.request.take_asker();
            let stays = planned.request.stays_unanswered();
            let heard = asker.is_some();
            let mut reply = self.reply(env, &mut planned, written, heard, effects);
            match asker {
                None if stays => {
                    if let Some(grant) = reply.carries.take() {
                        self.deliver(grant, effects);
                    }
                }
                Some(asker) => {
                    self.end_earlier_waiters(&reply, effects);
                    self.note_asker(env, &reply, effects);
                    effects.replies.push(Answer {
                        request: id,
                        asker,
                        result: Ok(reply),
                    });
                }
                None => self.undo(env, &mut reply, false, effects),
            }
        }
    }

    fn reply(
        &mut self,
        env: &Env,
        planned: &mut Planned<P>,
        written: Option<&Snapshot>,
        heard: bool,
        effects: &mut Effects<P>,
    ) -> Box<Reply<P>> {
        let request = &planned.request;
        let nothing = Outcome::Removed(Vec::new());
        let outcome = std::mem::replace(&mut planned.outcome, nothing);
        let entry = entry_of(&request.command, self.state.as_ref(), written);
        let outcome = match &request.uncertain {
            Some(before) => {
                let entry = entry.as_deref().filter(|entry| before.may_mean(entry));
                let command = &request.command;
                recognise(command, &before.outcome, outcome, entry, env.session)
            }
            None => outcome,
        };
        let outcome = match outcome {
            Outcome::Admitted { admitted, created } => Outcome::Admitted {
                admitted,
                created: created || request.inherits,
            },
            outcome => outcome,
        };
        let uid = request.command.uid();
        let other = |entry: &Arc<Entry>| uid.is_some_and(|uid| entry.uid != *uid);
        let (entry, outcome) = if request.admits() && entry.as_ref().is_some_and(other) {
            if outcome.has_a_place() {
                // A new run has taken the name already, and ended this one with that.
                let admitted = Admitted::Finished(RunOutcome::Cancelled);
                let created = false;
                (None, Outcome::Admitted { admitted, created })
            } else {
                (None, outcome)
            }
        } else {
            (entry, outcome)
        };
        let admits = outcome.has_a_place();
        let mut deferred = self.deferred.iter();
        let is_its = |grant: &Grant| request.asks_for(&grant.entry) && !self.is_past(&grant.entry);
        // One that is refused takes nothing away from the others.
        let carries = deferred.position(is_its).filter(|_| admits);
        let carries = carries.map(|at| self.deferred.swap_remove(at));
        if self.state.is_none()
            && let Some(entry) = entry.as_ref().filter(|e| e.owner() == Some(env.session))
        {
            // Nothing is known of the rest, but this is held.
            self.forgotten.insert(entry.run.clone(), Arc::clone(entry));
        }
        let took_over = planned.takes_over || {
            // Of an attempt whose answer was lost.
            let before = request
                .uncertain
                .as_ref()
                .is_some_and(|before| before.takes_over);
            let ours =
                |entry: &Arc<Entry>| entry.is_started() && entry.owner() == Some(env.session);
            before && entry.as_ref().is_some_and(ours)
        };
        let place = match &entry {
            Some(entry) if entry.is_queued() && admits && heard => {
                Some(self.queue(env, entry, effects))
            }
            _ => None,
        };
        Box::new(Reply {
            asked: request.asked(),
            waits: self.waits(&request.command, &outcome, entry.as_ref()),
            outcome,
            entry,
            place,
            carries,
            took_over,
        })
    }

    /// Adds a waiter for the turn of a queued run; for nothing, if it is not this manager's any
    /// more.
    fn queue(&mut self, env: &Env, entry: &Arc<Entry>, effects: &mut Effects<P>) -> Place<P> {
        let place = self.waiters.add(entry);
        match self.standing(env, None, Some(entry)) {
            Some(Standing::Over(why)) => self.end_waiters(&entry.run, &why, effects),
            // Its session died, and that was recorded, before this answer came.
            Some(Standing::Reclaim) => {
                if let Some(reclaim) = self.reclaim_of(env, entry) {
                    self.inbox.add(reclaim);
                }
            }
            Some(Standing::Started(_)) | None => {}
        }
        place
    }

    /// How a run waits that was to be released, or was moved.
    fn waits(
        &self,
        command: &Command,
        outcome: &Outcome,
        entry: Option<&Arc<Entry>>,
    ) -> Option<Box<crate::status::QueuedRun>> {
        let moved = matches!(command, Command::Bump { .. });
        let not_started = moved
            || matches!(
                outcome,
                Outcome::Ended {
                    ended: Ended::NotStarted,
                    ..
                }
            );
        let (state, entry) = (self.state.as_ref()?, entry.filter(|_| not_started)?);
        let ahead = state.position(&entry.run)?;
        queued_run(state, entry, ahead).map(Box::new)
    }

    /// A run was given to the last asker: earlier waiters hear that it is not theirs.
    fn end_earlier_waiters(&mut self, reply: &Reply<P>, effects: &mut Effects<P>) {
        let (Outcome::Admitted { .. }, Some(entry)) = (&reply.outcome, &reply.entry) else {
            return;
        };
        if self.waiters.is_empty() {
            return;
        }
        if entry.is_started() {
            let taken_over = || EndOfWaiting::TakenOver;
            self.waiters.end(&entry.run, taken_over, effects);
        }
    }

    /// An asker has gone before it was `answered`, or with its answer unread. A slot or a place
    /// that it did not have before, and nobody else has or waits for, is taken back, before it
    /// is asked for anew; else the run stays as it is.
    fn undo(&mut self, env: &Env, reply: &mut Reply<P>, answered: bool, effects: &mut Effects<P>) {
        let (Outcome::Admitted { admitted, created }, Some(entry)) = (&reply.outcome, &reply.entry)
        else {
            return;
        };
        let place = reply.place.as_ref();
        let waited =
            place.is_some_and(|place| self.waiters.remove(&entry.run, place.waiter).is_some());
        let mut grant = reply.carries.take();
        if answered && entry.is_queued() && !waited && grant.is_none() {
            // Its waiting is over: the run is another waiter's, or has ended, or its turn is on
            // its way and comes back. A run that was there before then stays for the stream of
            // grants.
            let durable = entry.kind == RunKind::Durable;
            if let Some(place) = place.filter(|_| !*created && durable) {
                self.waiters.detach_late(place.waiter);
            }
            return;
        }
        let adopts = reply.asked == Asked::Other;
        if let Some(grant) = &mut grant {
            grant.running |= reply.took_over || adopts;
        }
        let owes = match &grant {
            _ if *created && reply.asked == Asked::Admission => Some(Owed::Run),
            Some(grant) => Some(Owed::Slot {
                running: grant.running,
            }),
            None => None,
        };
        let given = grant.as_ref().map_or(entry, |grant| &grant.entry);
        if self.is_past(given) {
            return;
        }
        let left = match given.state {
            // An asker that was refused had no slot; a run that was adopted goes on.
            EntryState::Started { token, .. } if answered && !adopts && admitted.has_a_place() => {
                self.shared.leave(token, owes)
            }
            EntryState::Started { token, .. } => self.shared.pass_by(token, owes),
            _ => Left::Nobody(owes),
        };
        let Left::Nobody(owes) = left else {
            return;
        };
        let taken_back = owes == Some(Owed::Run);
        let given = Arc::clone(given);
        if let Some(Owed::Slot { running }) = owes {
            grant = Grant::of(&given, running);
        }
        if let Some(claimant) = self.inbox.next_claimant(entry) {
            // What was adopted is nobody's to take back.
            claimant.inherits |= taken_back;
            self.deferred.extend(grant);
            return;
        }
        let alone = !self.waiters.knows(&entry.run);
        let ephemeral = entry.kind == RunKind::Ephemeral;
        match (reply.asked, grant) {
            _ if taken_back && alone => self.inbox.add_first(abandon(&given, env.session)),
            (Asked::Requeue, _) if ephemeral && alone && admitted.has_a_place() => {
                self.inbox.add_first(abandon(entry, env.session));
            }
            (_, Some(grant)) => self.deliver(grant, effects),
            // It has changed nothing, or the slot is another asker's.
            (_, None) => {}
        }
    }

    /// The asker of a request has gone. False when its answer is on its way already, and will
    /// be [undeliverable](Self::on_reply_undelivered).
    pub fn on_asker_gone(&mut self, request: RequestId) -> bool {
        self.inbox.asker_is_gone(request)
    }

    /// An answer found nobody. True when the caller gets the combiner's right with that.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn on_reply_undelivered(
        &mut self,
        env: &Env,
        mut reply: Box<Reply<P>>,
        effects: &mut Effects<P>,
    ) -> bool {
        self.note_session(env);
        self.undo(env, &mut reply, true, effects);
        self.needs_attention(effects)
    }

    /// The end of waiting found nobody. As [`on_reply_undelivered`](Self::on_reply_undelivered)
    /// else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn on_turn_undelivered(
        &mut self,
        env: &Env,
        waiter: WaiterId,
        message: TurnMessage,
        effects: &mut Effects<P>,
    ) -> bool {
        self.note_session(env);
        let detached = self.waiters.was_detached(waiter);
        if let TurnMessage::Started(grant) = message
            && !self.is_past(&grant.entry)
        {
            if detached {
                effects.grants.push(grant);
            } else if let Some(grant) = self.waiters.start(grant, effects) {
                self.take_back(env, &grant, Owed::Run);
            }
        }
        self.needs_attention(effects)
    }

    /// A grant that nobody takes is given back: its run is queued again in its old place,
    /// without an owner, or is an orphan if it is running. As
    /// [`on_reply_undelivered`](Self::on_reply_undelivered) else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn give_back(&mut self, env: &Env, grant: &Grant, effects: &mut Effects<P>) -> bool {
        self.note_session(env);
        let owes = match grant.entry.kind {
            RunKind::Ephemeral => Owed::Run,
            RunKind::Durable => Owed::Slot {
                running: grant.running,
            },
        };
        self.take_back(env, grant, owes);
        self.needs_attention(effects)
    }

    /// A grant found nobody: does what is owed for it, unless another asker of the same run was
    /// answered with the slot, or is about to be.
    fn take_back(&mut self, env: &Env, grant: &Grant, owes: Owed) {
        if self.is_past(&grant.entry) {
            return;
        }
        match self.shared.leave(grant.token, Some(owes)) {
            Left::Others | Left::Nobody(None) => {}
            Left::Nobody(Some(Owed::Run)) => {
                if !self.is_inherited(&grant.entry) {
                    self.inbox.add_first(abandon(&grant.entry, env.session));
                }
            }
            Left::Nobody(Some(Owed::Slot { running })) => {
                if self.inbox.next_claimant(&grant.entry).is_some() {
                    self.deferred.extend(Grant::of(&grant.entry, running));
                } else {
                    self.inbox.add_first(Command::Disown {
                        run: grant.entry.run.clone(),
                        token: grant.token,
                        running,
                    });
                }
            }
        }
    }

    /// A waiter gives up the place of `entry`, or the slot that it was `granted` in this
    /// instant, unless another waiter waits for the same run, or another asker was answered with
    /// the slot. The request that takes the run
    /// back answers to `asker`, and is tried until it succeeds; `None` when there is nothing to
    /// take back.
    pub fn give_up(
        &mut self,
        env: &Env,
        entry: &Entry,
        waiter: WaiterId,
        granted: Option<FencingToken>,
        asker: P::Asker,
        effects: &mut Effects<P>,
    ) -> Option<bool> {
        self.note_session(env);
        let last = self.waiters.remove(&entry.run, waiter) == Some(true);
        let given = last || granted.is_some_and(|token| self.is_given_up(entry, token));
        if !given || self.ended.is_some() || self.is_inherited(entry) {
            return None;
        }
        let listener = super::request::Listener::Channel(asker);
        let command = self.give_up_of(env, entry);
        self.inbox
            .push_first(super::request::Request::new(command, listener, None));
        Some(self.needs_attention(effects))
    }

    /// Whether a slot that a waiter gives up is there to be taken back.
    fn is_given_up(&mut self, waited: &Entry, token: FencingToken) -> bool {
        let past = self.state.is_some() && !self.is_held(&waited.run, token);
        !past && self.shared.leave(token, Some(Owed::Run)) != Left::Others
    }

    /// The command that gives up what a waiter waited for; the run may have another session of this
    /// manager's as its owner since.
    fn give_up_of(&self, env: &Env, waited: &Entry) -> Command {
        let now = self
            .state
            .as_ref()
            .and_then(|state| state.entry(&waited.run));
        let now = now.filter(|now| now.ticket == waited.ticket);
        let ours = now
            .and_then(|now| now.owner())
            .filter(|owner| *owner == env.session || self.was_ours(env, *owner));
        abandon_of(waited, ours.or(waited.owner()).unwrap_or(env.session))
    }

    /// Whether another asker is about to be answered with this run; it has from now on what the
    /// one before gave up.
    fn is_inherited(&mut self, entry: &Entry) -> bool {
        let claimant = self.inbox.next_claimant(entry);
        claimant.is_some_and(|claimant| {
            claimant.inherits = true;
            true
        })
    }

    /// A waiter leaves its run in the queue. False when its waiting has ended, and it may not
    /// have heard of that yet.
    pub fn detach(&mut self, entry: &Entry, waiter: WaiterId) -> bool {
        self.waiters.remove(&entry.run, waiter).is_some()
    }

    /// The end of waiting is on its way to a waiter that was detached.
    pub fn detach_late(&mut self, waiter: WaiterId) {
        self.waiters.detach_late(waiter);
    }

    /// Delivers the grants that no answer is left to carry.
    #[inline]
    pub(super) fn hand_over(&mut self, effects: &mut Effects<P>) {
        if !self.deferred.is_empty() {
            self.hand_over_deferred(effects);
        }
    }

    fn hand_over_deferred(&mut self, effects: &mut Effects<P>) {
        for grant in self.inbox.undelivered(&mut self.deferred) {
            if !self.is_past(&grant.entry) {
                self.deliver(grant, effects);
            }
        }
    }

    /// Whether a slot or a place is known to be nobody's any more: its run has ended, or has
    /// another slot since.
    fn is_past(&self, given: &Entry) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        let now = state.entry(&given.run);
        now.is_none_or(|now| match given.state {
            EntryState::Started { token, .. } => !super::holders::holds(now, token),
            _ => {
                let same = now.ticket == given.ticket && now.uid == given.uid;
                !same || now.is_finished()
            }
        })
    }
}

/// The command that takes back a run which was asked for in this manager's name.
pub fn abandon(entry: &Entry, session: SessionId) -> Command {
    abandon_of(entry, entry.owner().unwrap_or(session))
}

fn abandon_of(entry: &Entry, owner: SessionId) -> Command {
    Command::Abandon {
        run: entry.run.clone(),
        uid: entry.uid.clone(),
        owner,
        ticket: entry.ticket,
        token: entry.token(),
    }
}

/// The entry that a command was about: as it is now, or as it was written if nothing is known.
fn entry_of(
    command: &Command,
    state: Option<&RepositoryState>,
    written: Option<&Snapshot>,
) -> Option<Arc<Entry>> {
    let run = command.run()?;
    match (state, written) {
        (Some(state), _) => state.entry(run).cloned(),
        (None, Some(written)) => {
            let mut entries = written.entries.iter();
            entries.find(|entry| entry.run == *run).cloned()
        }
        (None, None) => None,
    }
}
