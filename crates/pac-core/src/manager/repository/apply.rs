//! Brings the cached state up to a snapshot, and tells waiters, holders and listeners what that
//! means for them.

use std::sync::Arc;

use super::Repository;
use super::effects::{Effects, EndOfWaiting, Grant};
use super::env::{Env, Port};
use super::holders::{asked_slot, tell_holders};
use super::request::Planned;
use crate::error::Error;
use crate::event::Event;
use crate::name::{PipelineRunKey, Uid};
use crate::protocol::{Command, Plan};
use crate::state::{Absorb, Entry, EntryState, RepositoryState, RunKind, RunOutcome, Snapshot};
use crate::value::{SessionId, Ticket, Version};

/// Where a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// This manager wrote it: its askers learn of it from their replies, so no event is raised.
    Commit,
    /// It came with a hint, which may be late.
    Hint,
    /// It was read. With the newest version that was known as the read began.
    Read(Version),
}

/// What an entry means for those who wait for its run.
#[derive(Debug)]
pub(super) enum Standing {
    /// It has a slot of this manager's.
    Started(Grant),
    /// There is nothing to wait for.
    Over(EndOfWaiting),
    /// It waits in the name of a session that is over.
    Reclaim,
}

/// A run that those who wait have to hear of, and its entry as it is now.
type Changed = (Arc<Entry>, Option<Arc<Entry>>);

impl<P: Port> Repository<P> {
    /// Brings the cached state up to a snapshot. The caller sees to [`Absorb::Incomplete`].
    pub(super) fn apply_snapshot(
        &mut self,
        env: &Env,
        snapshot: &Snapshot,
        source: Source,
        effects: &mut Effects<P>,
    ) -> Result<Absorb, Error> {
        if let Source::Read(above) = source {
            self.notice_rewind(snapshot.head.version(), above, effects);
        }
        if self.state.is_none() && snapshot.since.is_some() {
            // The state was forgotten while this was on its way.
            return Ok(Absorb::Incomplete);
        }
        if self.state.is_none() && snapshot.head.revision < self.floor.revision {
            // An answer from before what was known since: it tells nothing of today.
            return Ok(Absorb::Stale);
        }
        let full = snapshot.since.is_none();
        let (applied, changes) = self.absorb(env, snapshot, source, effects)?;
        if applied == Absorb::Applied {
            self.floor = snapshot.head.version();
            self.forget_old(env, snapshot);
            effects.stepped = true;
            effects.timed = self.first_deadline().or(effects.timed);
            if full {
                self.recount();
                if let Some(state) = self.state.as_ref().filter(|_| !self.shared.is_empty()) {
                    self.shared.keep_held(state);
                }
                self.end_unknown_waiters(effects);
            }
        }
        let mut reclaims = Vec::new();
        for (entry, after) in changes {
            let awaited = self.waiters.awaited(&entry.run);
            match self.standing(env, awaited, after.as_ref()) {
                Some(Standing::Over(why)) => self.end_waiters(&entry.run, &why, effects),
                Some(Standing::Started(grant)) => self.started(grant, effects),
                Some(Standing::Reclaim) => reclaims.extend(self.reclaim_of(env, &entry)),
                None => {}
            }
        }
        self.inbox.add_all(reclaims);
        if applied == Absorb::Applied {
            self.promote_own(env);
            self.count_on();
        }
        Ok(applied)
    }

    /// The bookkeeping of a snapshot: says which runs those who wait have to hear of, with the
    /// entry as it is now.
    fn absorb(
        &mut self,
        env: &Env,
        snapshot: &Snapshot,
        source: Source,
        effects: &mut Effects<P>,
    ) -> Result<(Absorb, Vec<Changed>), Error> {
        let session = Some(env.session);
        let is_own = |entry: Option<&Arc<Entry>>| entry.and_then(|e| e.owner()) == session;
        let mut owned = self.owned_count;
        let mut of_interest = Vec::new();
        let read = source != Source::Commit;
        let state = self.state.get_or_insert_with(|| RepositoryState::absent(0));
        let (waiters, forgotten) = (&self.waiters, &mut self.forgotten);
        let (in_flight, holders, key) = (&self.inbox.in_flight, &mut self.holders, &self.key);
        let shared = &mut self.shared;
        let mut heard = |before: Option<&Arc<Entry>>, after: Option<&Arc<Entry>>| {
            let Some(entry) = after.or(before) else {
                return;
            };
            let waited_for = !waiters.is_empty() && waiters.knows(&entry.run);
            // A run that one commit gave back and granted again, or that was taken over, has a slot
            // that nobody knows of, as one that waited has.
            let again = is_own(after) && has_another_slot(before, after);
            // Snapshots overlap: a slot that is shown once more is no news.
            let held = is_own(before) && after.is_some_and(|after| after.is_started());
            let known = held && is_own(after) && !again;
            let waited = before.is_some_and(|before| before.is_queued());
            if (waited_for && !known) || again || waited {
                of_interest.push((Arc::clone(entry), after.cloned()));
            }
            if !holders.is_empty() {
                tell_holders(holders, &entry.run, after.map(AsRef::as_ref), effects);
            }
            if !shared.is_empty() {
                shared.forget_ended(before.map(AsRef::as_ref), after.map(AsRef::as_ref));
            }
            let is_news = read || after.is_some_and(|after| is_beside(after));
            let taken = is_own(before) && is_news && !is_ended_by(in_flight, &entry.run);
            effects.events.extend(event_of(key, taken, before, after));
            effects.events.extend(asked_to_end(key, before, after));
        };
        let absorbed = state.absorb(snapshot, |before, after| {
            owned = owned.saturating_sub(usize::from(is_own(before))) + usize::from(is_own(after));
            let known = match after {
                Some(after) if before.is_none() && !forgotten.is_empty() => {
                    forgotten.remove(&after.run)
                }
                _ => None,
            };
            heard(before.or(known.as_ref()), after);
        });
        if absorbed == Ok(Absorb::Applied) && snapshot.since.is_none() {
            // They were there when the state was forgotten, and are not any more.
            for (_, gone) in std::mem::take(forgotten) {
                heard(Some(&gone), None);
            }
        }
        match absorbed {
            Ok(absorbed) => {
                self.owned_count = owned;
                Ok((absorbed, of_interest))
            }
            Err(reason) => {
                self.forget();
                // It will not mend by itself: the next asker reads again.
                self.recheck = false;
                Err(self.corrupt(reason))
            }
        }
    }

    /// Drops finished runs that are older than the store keeps them.
    fn forget_old(&mut self, env: &Env, snapshot: &Snapshot) {
        let ends = snapshot.entries.iter();
        let latest = ends.filter_map(|entry| entry.finished.at()).max();
        if let (Some(latest), Some(state)) = (latest, &mut self.state) {
            let before = latest.minus(env.retention.age);
            state.forget_finished(before, env.retention.per_repository, |_| ());
        }
    }

    /// Goes on where an earlier commit was not large enough for all that could start.
    fn promote_own(&mut self, env: &Env) {
        let Some(state) = self.state.as_ref().filter(|s| s.head().queued > 0) else {
            return;
        };
        let mut plan = Plan::new(state, env.issuer(), 1).without(&self.dead);
        if plan.could_start_own() {
            self.inbox.add(Command::Promote);
        }
    }

    fn end_unknown_waiters(&mut self, effects: &mut Effects<P>) {
        if let Some(state) = &self.state {
            let ends = |run: &PipelineRunKey, _| {
                let gone = state.entry(run).is_none();
                gone.then_some(EndOfWaiting::Gone)
            };
            self.waiters.end_where(ends, effects);
        }
    }

    pub(super) fn end_waiters(
        &mut self,
        run: &PipelineRunKey,
        why: &EndOfWaiting,
        effects: &mut Effects<P>,
    ) {
        let again = || match why {
            EndOfWaiting::Ended(outcome) => EndOfWaiting::Ended(*outcome),
            EndOfWaiting::Lost(session) => EndOfWaiting::Lost(*session),
            EndOfWaiting::Gone => EndOfWaiting::Gone,
            EndOfWaiting::TakenOver => EndOfWaiting::TakenOver,
            EndOfWaiting::Failed(error) => EndOfWaiting::Failed(error.replicate()),
        };
        self.waiters.end(run, again, effects);
    }

    /// A run of this manager's has a slot: the answer to a request for it that is in flight
    /// carries it, else its waiter hears of it, else the stream of grants.
    fn started(&mut self, grant: Grant, effects: &mut Effects<P>) {
        if self.inbox.may_have_asked_for(&grant.entry) {
            self.deferred.push(grant);
        } else {
            self.deliver(grant, effects);
        }
    }

    /// To the waiter of the run, else to the stream of grants; to nobody where the run is about to
    /// be given up.
    pub(super) fn deliver(&mut self, grant: Grant, effects: &mut Effects<P>) {
        if self.inbox.gives_up(&grant.entry) {
            return;
        }
        let unawaited = self.waiters.start(grant, effects);
        effects.grants.extend(unawaited);
    }

    /// What those who wait for a run have to hear, if their waiting is over.
    pub(super) fn standing(
        &self,
        env: &Env,
        awaited: Option<(&Uid, Ticket)>,
        after: Option<&Arc<Entry>>,
    ) -> Option<Standing> {
        let is_it = |after: &&Arc<Entry>| {
            awaited.is_none_or(|(uid, ticket)| ticket == after.ticket && *uid == after.uid)
        };
        let Some(after) = after.filter(is_it) else {
            return Some(Standing::Over(EndOfWaiting::Gone));
        };
        match after.state {
            EntryState::Queued { owner } if owner == Some(env.session) && !env.session_lost => None,
            EntryState::Queued { owner } if owner.is_none_or(|of| self.was_ours(env, of)) => {
                match after.kind {
                    // A manager that closes does not take back what it gives up.
                    RunKind::Durable => (!env.closing).then_some(Standing::Reclaim),
                    // It ends with its session, which will be recorded; its waiter need not
                    // wait for that.
                    RunKind::Ephemeral => {
                        let lost = owner.unwrap_or(env.session);
                        Some(Standing::Over(EndOfWaiting::Lost(lost)))
                    }
                }
            }
            EntryState::Queued { .. } => Some(Standing::Over(EndOfWaiting::TakenOver)),
            EntryState::Started {
                token,
                session: holder,
                orphaned,
            } if holder == env.session && !orphaned => Some(Standing::Started(Grant {
                entry: Arc::clone(after),
                token,
                session: holder,
                running: false,
            })),
            EntryState::Started {
                session: holder, ..
            } if self.was_ours(env, holder) => Some(Standing::Over(EndOfWaiting::Lost(holder))),
            EntryState::Started { .. } => Some(Standing::Over(EndOfWaiting::TakenOver)),
            EntryState::Finished { outcome, .. } => {
                Some(Standing::Over(EndOfWaiting::Ended(outcome)))
            }
        }
    }

    /// The command that goes on waiting for a run of this manager's in the name of the session
    /// that it has now, unless the run is nobody's here.
    pub(super) fn reclaim_of(&self, env: &Env, entry: &Entry) -> Option<Command> {
        let former = entry.owner().filter(|owner| self.was_ours(env, *owner));
        (former.is_some() || self.waiters.knows(&entry.run)).then(|| Command::Reclaim {
            run: entry.run.clone(),
            uid: entry.uid.clone(),
            former: former.unwrap_or(env.session),
        })
    }

    /// The manager has a new session: what still waits is waited for in its name, and what was
    /// ephemeral has ended. As [`submit`](Self::submit) else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn on_session_opened(&mut self, env: &Env, effects: &mut Effects<P>) -> bool {
        self.note_session(env);
        self.recheck = true;
        self.see_to_waiting(env, effects);
        self.needs_attention(effects)
    }

    /// The session of this manager is over: waiters of ephemeral runs, which end with it, hear
    /// of it now, and not only when the store can be reached again. Once there is another session,
    /// [its opening](Self::on_session_opened) tells those that waited in the name of this one.
    pub fn on_session_lost(&mut self, env: &Env, session: SessionId, effects: &mut Effects<P>) {
        self.note_session(env);
        if env.session != session {
            return;
        }
        let ends = |_: &PipelineRunKey, kind| {
            (kind == RunKind::Ephemeral).then_some(EndOfWaiting::Lost(session))
        };
        self.waiters.end_where(ends, effects);
    }

    fn see_to_waiting(&mut self, env: &Env, effects: &mut Effects<P>) {
        let queued = self.state.iter().flat_map(RepositoryState::queue);
        let mut reclaims = Vec::new();
        for entry in queued.cloned().collect::<Vec<_>>() {
            match self.standing(env, None, Some(&entry)) {
                Some(Standing::Reclaim) => reclaims.extend(self.reclaim_of(env, &entry)),
                Some(Standing::Over(why)) => self.end_waiters(&entry.run, &why, effects),
                Some(Standing::Started(_)) | None => {}
            }
        }
        self.inbox.add_all(reclaims);
    }
}

/// Whether a commit of this manager's that is on its way is about a run: what becomes of the run
/// is then its own doing.
fn is_ended_by<P: Port>(in_flight: &[Planned<P>], run: &PipelineRunKey) -> bool {
    let mut requests = in_flight.iter();
    requests.any(|planned| planned.request.command.run() == Some(run))
}

/// Whether a run was ended by a command about another run, or about none: whoever issued that does
/// not hear of it in the answer.
fn is_beside(after: &Entry) -> bool {
    match after.state {
        EntryState::Finished { outcome, .. } => {
            matches!(outcome, RunOutcome::Superseded | RunOutcome::TimedOut)
        }
        EntryState::Queued { .. } | EntryState::Started { .. } => false,
    }
}

/// Whether a run had a slot before, and has another one since.
fn has_another_slot(before: Option<&Arc<Entry>>, after: Option<&Arc<Entry>>) -> bool {
    let slot = |entry: &Arc<Entry>| entry.token().filter(|_| entry.is_started());
    match (before.and_then(slot), after.and_then(slot)) {
        (Some(before), Some(after)) => before != after,
        _ => false,
    }
}

/// What everybody hears of a change; `taken` when another process made it to a run that was this
/// manager's.
fn event_of(
    key: &crate::name::RepositoryKey,
    taken: bool,
    before: Option<&Arc<Entry>>,
    after: Option<&Arc<Entry>>,
) -> Option<Event> {
    let entry = after.or(before)?;
    let was = |state: EntryState| before.is_some_and(|before| before.state == state);
    let replaced = after.is_some_and(|after| {
        before.is_some_and(|before| {
            let same = before.ticket == after.ticket && before.uid == after.uid;
            !same && !before.is_finished()
        })
    });
    let (repository, run) = (|| key.clone(), || entry.run.clone());
    let ended = |outcome| Event::Ended {
        repository: repository(),
        run: run(),
        outcome,
    };
    match after.map(|after| after.state) {
        _ if replaced && taken => Some(ended(None)),
        Some(state @ EntryState::Queued { owner: None }) if !was(state) => Some(Event::OwnerLost {
            repository: repository(),
            run: run(),
        }),
        Some(state @ EntryState::Started { orphaned: true, .. }) if !was(state) => {
            Some(Event::Orphaned {
                repository: repository(),
                run: run(),
            })
        }
        Some(EntryState::Finished { outcome, .. }) if taken => Some(ended(Some(outcome))),
        None if before.is_some_and(|before| !before.is_finished()) => Some(ended(None)),
        _ => None,
    }
}

/// What everybody hears when a run is asked to end.
fn asked_to_end(
    key: &crate::name::RepositoryKey,
    before: Option<&Arc<Entry>>,
    after: Option<&Arc<Entry>>,
) -> Option<Event> {
    let token = after.and_then(|after| asked_slot(after))?;
    if before.and_then(|before| asked_slot(before)) == Some(token) {
        return None;
    }
    Some(Event::CancelRequested {
        repository: key.clone(),
        run: after?.run.clone(),
        token,
    })
}
