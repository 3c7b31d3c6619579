//! What a new state means for whom: waiters, the stream of grants, listeners.

use std::sync::Arc;

use super::event::Event;
use super::repository::{Desk, Repository};
use super::request::Request;
use super::shared::Shared;
use super::waiting::{Farewell, Grant};
use crate::error::Error;
use crate::name::PipelineRunKey;
use crate::protocol::{Command, Plan};
use crate::state::{Absorb, Entry, EntryState, RepositoryState, RunKind, Snapshot};
use crate::value::Ticket;

/// Where a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It is what this manager has just written: whom it concerns is told by the answers, as
    /// far as they asked for it.
    Commit,
    /// It was read, or sent along by the watch.
    Read,
}

/// What an entry means for those who wait for its run.
#[derive(Debug)]
pub(super) enum Concern {
    Started(Grant),
    Over(Farewell),
    /// It waits in the name of a session that is over.
    Reclaim,
}

impl Repository {
    /// Brings the cached state up to a snapshot, and tells whom it concerns. The caller looks
    /// after [`Absorb::Incomplete`], and after commands that this puts in.
    pub(super) fn absorb(
        self: &Arc<Self>,
        desk: &mut Desk,
        shared: &Shared,
        snapshot: &Snapshot,
        source: Source,
    ) -> Result<Absorb, Error> {
        if desk.state.is_none() && snapshot.since.is_some() {
            // Forgotten while this was on its way.
            return Ok(Absorb::Incomplete);
        }
        let session = shared.session.id();
        let full = snapshot.since.is_none();
        let mut concerned = Vec::new();
        let mut own = desk.own;
        let state = desk.state.get_or_insert_with(|| RepositoryState::absent(0));
        let waiting = &mut desk.waiting;
        let in_flight = &desk.in_flight;
        // What a commit of ours that is on its way does, nobody else has done.
        let ending = |run: &PipelineRunKey| {
            let mut requests = in_flight.iter();
            requests.any(|(request, _)| request.command.run() == Some(run))
        };
        let absorbed = state.absorb(snapshot, |before, after| {
            let is_own =
                |entry: Option<&Arc<Entry>>| entry.and_then(|e| e.owner()) == Some(session);
            own = own.saturating_sub(usize::from(is_own(before))) + usize::from(is_own(after));
            let Some(entry) = after.or(before) else {
                return;
            };
            let waited_for = !waiting.is_empty() && waiting.knows(&entry.run);
            let was_queued = match before {
                Some(before) => before.is_queued(),
                None => waiting.find_again(&entry.run),
            };
            if waited_for || was_queued {
                let ticket = waiting.ticket(&entry.run);
                if let Some(concern) = self.concern(shared, ticket, after) {
                    concerned.push((Arc::clone(entry), concern));
                }
            }
            let taken = is_own(before) && source == Source::Read && !ending(&entry.run);
            if let Some(event) = self.event_of(taken, before, after) {
                shared.tell(event);
            }
        });
        let absorbed = match absorbed {
            Ok(absorbed) => absorbed,
            Err(reason) => {
                desk.forget();
                // It will not mend by itself: whoever asks next, reads again.
                desk.recheck = false;
                return Err(self.corrupt(reason));
            }
        };
        desk.own = own;
        if absorbed == Absorb::Applied {
            Self::tidy(desk, shared, snapshot);
            if full {
                desk.lost_track = false;
                desk.recount(session);
                if let Some(state) = &desk.state {
                    desk.waiting.end_unknown(|run| state.entry(run).is_some());
                }
            }
        }
        for (entry, concern) in concerned {
            match concern {
                Concern::Over(over) => desk.waiting.end(&entry.run, over),
                Concern::Started(grant) => self.started(desk, shared, grant),
                Concern::Reclaim => desk.reclaim(shared, &entry),
            }
        }
        Ok(absorbed)
    }

    /// A new session has been opened: what still waits is waited for in its name.
    pub(super) fn reclaim(self: &Arc<Self>, shared: &Shared) -> bool {
        let mut desk = self.desk();
        let desk = &mut *desk;
        desk.recount(shared.session.id());
        desk.recheck = true;
        let queued = desk.state.iter().flat_map(RepositoryState::queue);
        for entry in queued.cloned().collect::<Vec<_>>() {
            match self.concern(shared, None, Some(&entry)) {
                Some(Concern::Reclaim) => desk.reclaim(shared, &entry),
                Some(Concern::Over(over)) => desk.waiting.end(&entry.run, over),
                Some(Concern::Started(_)) | None => {}
            }
        }
        desk.needs_attention()
    }

    /// Forgets what is too old, wakes watchers, and starts what an earlier commit left waiting.
    fn tidy(desk: &mut Desk, shared: &Shared, snapshot: &Snapshot) {
        let Some(state) = desk.state.as_mut() else {
            return;
        };
        let ends = snapshot
            .entries
            .iter()
            .filter_map(|entry| entry.finished.at());
        if let Some(latest) = ends.max() {
            let retention = shared.descriptor.retention;
            let before = latest.minus(retention.age);
            state.forget_finished(before, retention.per_repository, |_| ());
        }
        if let Some(steps) = &desk.steps {
            steps.send_modify(|step| *step += 1);
        }
        if state.head().queued > 0 {
            let mut plan = Plan::new(state, shared.issuer(), 1).without(&desk.dead);
            if plan.could_start_own() {
                desk.add(Command::Promote);
            }
        }
    }

    /// A run of ours has a slot: whoever asks for it just now hears of it with the answer, else
    /// its waiter, else the stream of grants.
    fn started(self: &Arc<Self>, desk: &mut Desk, shared: &Shared, grant: Grant) {
        let asks = |(request, _): &(Request, _)| request.asks_for(&grant.entry);
        if desk.in_flight.iter().any(asks) {
            desk.deferred.push(grant);
        } else if !desk.gives_up(&grant.entry) {
            self.deliver(desk, shared, grant);
        }
    }

    /// To the waiter of the run, else to the stream of grants.
    pub(super) fn deliver(self: &Arc<Self>, desk: &mut Desk, shared: &Shared, grant: Grant) {
        if let Some(grant) = desk.waiting.start(grant) {
            shared.grants.push(grant);
        }
    }

    /// What those who wait for a run are to hear, if their waiting is over.
    pub(super) fn concern(
        self: &Arc<Self>,
        shared: &Shared,
        ticket: Option<Ticket>,
        after: Option<&Arc<Entry>>,
    ) -> Option<Concern> {
        let session = shared.session.id();
        let Some(after) = after.filter(|after| ticket.is_none_or(|t| t == after.ticket)) else {
            return Some(Concern::Over(Farewell::Gone));
        };
        match after.state {
            EntryState::Queued { owner } if owner == Some(session) => None,
            EntryState::Queued { owner } if owner.is_none_or(|of| shared.session.was(of)) => {
                // An ephemeral one ends with its session; that is news of its own. And a manager
                // that closes does not take back what it disowns.
                let reclaim = after.kind == RunKind::Durable && !shared.is_gone();
                reclaim.then_some(Concern::Reclaim)
            }
            EntryState::Queued { .. } => Some(Concern::Over(Farewell::TakenOver)),
            EntryState::Started {
                token,
                session: holder,
                ..
            } if holder == session => Some(Concern::Started(Grant {
                repository: Arc::clone(self),
                entry: Arc::clone(after),
                token,
                session,
            })),
            EntryState::Started {
                session: holder, ..
            } if shared.session.was(holder) => Some(Concern::Over(Farewell::Lost(holder))),
            EntryState::Started { .. } => Some(Concern::Over(Farewell::TakenOver)),
            EntryState::Finished { outcome, .. } => Some(Concern::Over(Farewell::Ended(outcome))),
        }
    }

    /// What everybody is to hear of a change; `taken` when somebody else made it to a run that
    /// was ours.
    fn event_of(
        &self,
        taken: bool,
        before: Option<&Arc<Entry>>,
        after: Option<&Arc<Entry>>,
    ) -> Option<Event> {
        let entry = after.or(before)?;
        let was = |state: EntryState| before.is_some_and(|before| before.state == state);
        let replaced = after.is_some_and(|after| {
            before.is_some_and(|before| before.ticket != after.ticket && !before.is_finished())
        });
        let (repository, run) = (|| self.key().clone(), || entry.run.clone());
        let ended = |outcome| Event::Ended {
            repository: repository(),
            run: run(),
            outcome,
        };
        match after.map(|after| after.state) {
            _ if replaced && taken => Some(ended(None)),
            Some(state @ EntryState::Queued { owner: None }) if !was(state) => {
                Some(Event::OwnerLost {
                    repository: repository(),
                    run: run(),
                })
            }
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
}

impl Desk {
    /// Goes on waiting for a run of ours in the name of the session that there is now.
    pub(super) fn reclaim(&mut self, shared: &Shared, entry: &Entry) {
        let former = entry.owner().filter(|owner| shared.session.was(*owner));
        let ours = former.is_some() || self.waiting.knows(&entry.run);
        // Put in twice, the second changes nothing.
        if ours {
            self.add(Command::Reclaim {
                run: entry.run.clone(),
                uid: entry.uid.clone(),
                former: former.unwrap_or_else(|| shared.session.id()),
            });
        }
    }
}
