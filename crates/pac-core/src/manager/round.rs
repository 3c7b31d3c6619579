//! One round of a repository: plan what is pending, commit it, make of the answer what it is.

use std::sync::Arc;

use super::admission::{Grant, Notice};
use super::event::Event;
use super::repository::{Desk, Next, Reply, Repository, Request};
use super::shared::Shared;
use crate::driver::CommitOutcome;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Admitted, Changes, Command, Death, Ended, Outcome, Plan};
use crate::state::{Absorb, Entry, EntryState, RepositoryState, RunOutcome, Snapshot};
use crate::value::{Revision, SessionId};

/// What has to be done next for a repository.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing; the duty is over.
    Rest,
    /// Read what changed since, or all.
    Load(Option<Revision>),
    /// Commit.
    Commit(Changes),
}

impl Repository {
    /// Plans all that is pending, up to the size of a commit.
    pub(super) fn plan(self: &Arc<Self>, shared: &Shared) -> Step {
        let mut desk = self.desk();
        let desk = &mut *desk;
        loop {
            let known = desk.state.as_ref();
            let behind = known.is_none_or(|state| state.head().revision < desk.wanted);
            let asked = !desk.pending.is_empty() || desk.wanted > Revision::default();
            if desk.recheck || (behind && asked) {
                return desk.load();
            }
            let Some(state) = known else {
                return desk.rest();
            };
            let mut plan = Plan::new(state, shared.issuer(), shared.descriptor.entries_per_commit);
            while let Some(next) = desk.pending.front() {
                let alone = matches!(next.command, Command::RemoveRepository);
                let room = shared
                    .descriptor
                    .entries_per_commit
                    .saturating_sub(plan.len());
                if !desk.in_flight.is_empty() && (next.group > room || alone) {
                    break;
                }
                let Some(request) = desk.pending.pop_front() else {
                    break;
                };
                if request.is_moot() {
                    continue;
                }
                let outcome = plan.apply(&request.command);
                desk.in_flight.push((request, outcome));
                if alone {
                    break;
                }
            }
            let more = plan.has_more();
            let changes = plan.finish();
            if more {
                desk.expire_the_rest();
            }
            if let Some(changes) = changes {
                return Step::Commit(changes);
            }
            if desk.in_flight.is_empty() {
                return desk.rest();
            }
            // Nothing to write: then only a state read after the question is an answer to it.
            let covered = desk.covered;
            let is_covered = |(request, _): &(Request, Outcome)| {
                request.reply.is_none() || request.serial < covered
            };
            let early = desk
                .in_flight
                .iter()
                .take_while(|sent| is_covered(sent))
                .count();
            for (request, _) in desk.in_flight.drain(early..).rev() {
                desk.pending.push_front(request);
            }
            if early == 0 {
                return desk.load();
            }
            self.answer(desk, shared);
        }
    }

    /// Takes in what the watch sent along.
    pub(super) fn told(self: &Arc<Self>, shared: &Shared, snapshot: &Snapshot) {
        let mut desk = self.desk();
        if !matches!(
            self.absorb(&mut desk, shared, snapshot, false),
            Ok(Absorb::Applied | Absorb::Stale)
        ) {
            desk.recheck = true;
        }
    }

    /// Takes in what was read for a look at the state. `None` when all has to be read for that.
    pub(super) fn shown<T>(
        self: &Arc<Self>,
        shared: &Shared,
        snapshot: &Snapshot,
        view: impl Fn(&RepositoryState) -> T,
    ) -> Result<Option<T>, Error> {
        let mut desk = self.desk();
        let absorbed = self.absorb(&mut desk, shared, snapshot, false)?;
        if absorbed == Absorb::Incomplete {
            desk.forget();
            return Ok(None);
        }
        Ok(desk.state.as_ref().map(view))
    }

    /// Takes in what was read.
    pub(super) fn loaded(
        self: &Arc<Self>,
        shared: &Shared,
        answer: Result<Snapshot, Error>,
    ) -> Next {
        let mut desk = self.desk();
        match answer.and_then(|snapshot| self.absorb(&mut desk, shared, &snapshot, false)) {
            Ok(Absorb::Applied | Absorb::Stale) => {
                desk.backoff = None;
                // A hint that came before the question is answered by it.
                if desk.wanted == desk.asked_for {
                    desk.wanted = Revision::default();
                }
                Next::Plan
            }
            Ok(Absorb::Incomplete) => {
                desk.forget();
                desk.recheck = true;
                Next::Plan
            }
            Err(error) => {
                desk.covered = 0;
                desk.recheck = true;
                desk.failed(shared.options.command_timeout, &error)
            }
        }
    }

    /// Takes in the answer to a commit of this repository.
    pub(super) fn settle(self: &Arc<Self>, shared: &Shared, outcome: CommitOutcome) -> Next {
        let mut desk = self.desk();
        match outcome {
            CommitOutcome::Committed(snapshot) => {
                let absorbed = self.absorb(&mut desk, shared, &snapshot, true);
                self.answer(&mut desk, shared);
                desk.backoff = None;
                if !matches!(absorbed, Ok(Absorb::Applied | Absorb::Stale)) {
                    desk.forget();
                }
                if desk.pending.is_empty() && !desk.recheck && desk.wanted == Revision::default() {
                    desk.attended = false;
                    return Next::Rest;
                }
                Next::Plan
            }
            CommitOutcome::Conflict(snapshot) => {
                desk.put_back();
                desk.recheck = true;
                if let Some(snapshot) = snapshot {
                    let absorbed = self.absorb(&mut desk, shared, &snapshot, false);
                    desk.recheck = !matches!(absorbed, Ok(Absorb::Applied));
                }
                let contended = Error::new(
                    ErrorKind::Contended,
                    "commit",
                    "other controllers changed the repository at every attempt; try again",
                );
                desk.failed(
                    shared.options.command_timeout,
                    &contended.in_repository(self.key()),
                )
            }
            CommitOutcome::SessionDead(session) => {
                desk.put_back();
                let expire = Command::Expire {
                    session,
                    death: Death::Session,
                };
                desk.pending.push_front(Request::new(expire, None));
                Next::Plan
            }
            CommitOutcome::Refused(error) => {
                desk.put_back();
                desk.forget();
                desk.failed(
                    shared.options.command_timeout,
                    &error.in_repository(self.key()),
                )
            }
        }
    }

    /// Takes in that the whole batch came to nothing, or that nobody knows.
    pub(super) fn unsettled(&self, shared: &Shared, error: &Error) -> Next {
        let mut desk = self.desk();
        if error.kind() == ErrorKind::Indeterminate {
            // Read what is there, then ask again: commands know what they have done already.
            for (request, _) in &mut desk.in_flight {
                request.uncertain = true;
            }
            desk.recheck = true;
        }
        desk.put_back();
        desk.failed(shared.options.command_timeout, error)
    }

    /// Answers everything in flight, according to the state as it is now.
    fn answer(&self, desk: &mut Desk, shared: &Shared) {
        let session = shared.session.id();
        let mut answered = std::mem::take(&mut desk.in_flight);
        for (request, outcome) in answered.drain(..) {
            let admits = request.admits().is_some();
            let Request {
                command,
                reply: Some(reply),
                uncertain,
                ..
            } = request
            else {
                continue;
            };
            let state = desk.state.as_ref();
            let entry = command.run().and_then(|run| state?.entry(run)).cloned();
            let outcome = if uncertain {
                recognise(&command, outcome, entry.as_deref(), session)
            } else {
                outcome
            };
            let fresh = matches!(outcome, Outcome::Admitted { fresh: true, .. });
            let place = match &entry {
                Some(entry) if admits && entry.is_queued() && !reply.is_closed() => {
                    Some(desk.wait(&entry.run, entry.owner() == Some(session)))
                }
                _ => None,
            };
            let unheard = reply.send(Ok(Reply {
                outcome,
                entry,
                place,
            }));
            if let Err(Ok(Reply {
                entry: Some(entry), ..
            })) = unheard
                && fresh
            {
                // Whoever asked has gone: nobody else would end this run.
                desk.add(Command::Abandon {
                    run: entry.run.clone(),
                    uid: entry.uid.clone(),
                });
            }
        }
        // Keeps its capacity for the next round.
        desk.in_flight = answered;
    }

    /// Brings the cached state up to a snapshot, and tells whom it concerns.
    fn absorb(
        self: &Arc<Self>,
        desk: &mut Desk,
        shared: &Shared,
        snapshot: &Snapshot,
        ours: bool,
    ) -> Result<Absorb, Error> {
        let session = shared.session.id();
        let Desk {
            state,
            waiters,
            in_flight,
            steps,
            own,
            ..
        } = desk;
        if state.is_none() && snapshot.since.is_some() {
            return Ok(Absorb::Incomplete);
        }
        let known = state.get_or_insert_with(|| RepositoryState::absent(0));
        let absorbed = known.absorb(snapshot, |before, after| {
            let Some(entry) = after.or(before) else {
                return;
            };
            let is_own =
                |entry: Option<&Arc<Entry>>| entry.and_then(|e| e.owner()) == Some(session);
            *own = own.saturating_sub(usize::from(is_own(before))) + usize::from(is_own(after));
            let waiter = if waiters.is_empty() {
                None
            } else {
                let notice = after.map_or(Some(Notice::Gone), |after| {
                    self.notice_for(session, before, after)
                });
                notice.and_then(|notice| Some((waiters.remove(&entry.run)?.1, notice)))
            };
            if let Some((waiter, notice)) = waiter {
                // One that was dropped gives its run up by itself.
                let _ = waiter.send(notice);
            } else if let Some(grant) = self.grant(session, before, after) {
                let asked =
                    |(request, _): &(Request, Outcome)| request.admits() == Some(&entry.run);
                if !in_flight.iter().any(asked) {
                    shared.grants.push(grant);
                }
            }
            if let Some(event) = self.event_of(is_own(before) && !ours, before, after) {
                shared.tell(event);
            }
        });
        match absorbed {
            Ok(absorbed) => {
                if absorbed == Absorb::Applied {
                    let now = snapshot
                        .entries
                        .iter()
                        .filter_map(|entry| entry.finished.at())
                        .max();
                    if let Some(now) = now {
                        let retention = shared.descriptor.retention;
                        let before = now.minus(retention.age);
                        known.forget_finished(before, retention.per_repository, |_| ());
                    }
                    if let Some(steps) = steps {
                        steps.send_modify(|step| *step += 1);
                    }
                    let waiting = known.head().queued > 0;
                    if waiting && Plan::new(known, shared.issuer(), 1).could_start_own() {
                        desk.add(Command::Promote);
                    }
                }
                Ok(absorbed)
            }
            Err(reason) => {
                desk.forget();
                Err(Error::new(ErrorKind::Corrupt, "read", reason).in_repository(self.key()))
            }
        }
    }

    /// What a waiter of this run is to hear, if its waiting is over.
    fn notice_for(
        self: &Arc<Self>,
        session: SessionId,
        before: Option<&Arc<Entry>>,
        after: &Arc<Entry>,
    ) -> Option<Notice> {
        if before.is_some_and(|before| before.ticket != after.ticket) {
            return Some(Notice::Gone);
        }
        match after.state {
            EntryState::Queued { owner } => match owner {
                Some(owner) if owner != session => Some(Notice::TakenOver),
                _ => None,
            },
            EntryState::Started {
                token,
                session: holder,
                ..
            } if holder == session => Some(Notice::Started(Grant {
                repository: Arc::clone(self),
                entry: Arc::clone(after),
                token,
                session,
            })),
            EntryState::Started { .. } => Some(Notice::TakenOver),
            EntryState::Finished { outcome, .. } => Some(Notice::Ended(outcome)),
        }
    }

    /// The slot that somebody's commit gave to a waiting run of ours.
    fn grant(
        self: &Arc<Self>,
        session: SessionId,
        before: Option<&Arc<Entry>>,
        after: Option<&Arc<Entry>>,
    ) -> Option<Grant> {
        let entry = after.filter(|_| before.is_some_and(|before| before.is_queued()))?;
        match entry.state {
            EntryState::Started {
                token,
                session: holder,
                ..
            } if holder == session => Some(Grant {
                repository: Arc::clone(self),
                entry: Arc::clone(entry),
                token,
                session,
            }),
            _ => None,
        }
    }

    /// What everybody is to hear of a change; `taken` when it was ours until then.
    fn event_of(
        &self,
        taken: bool,
        before: Option<&Arc<Entry>>,
        after: Option<&Arc<Entry>>,
    ) -> Option<Event> {
        let entry = after.or(before)?;
        let was_known = |state: EntryState| before.is_some_and(|before| before.state == state);
        let (repository, run) = (|| self.key().clone(), || entry.run.clone());
        match after.map(|after| after.state) {
            Some(state @ EntryState::Queued { owner: None }) if !was_known(state) => {
                Some(Event::OwnerLost {
                    repository: repository(),
                    run: run(),
                })
            }
            Some(state @ EntryState::Started { orphaned: true, .. }) if !was_known(state) => {
                Some(Event::Orphaned {
                    repository: repository(),
                    run: run(),
                })
            }
            Some(EntryState::Finished { outcome, .. }) if taken => Some(Event::Ended {
                repository: repository(),
                run: run(),
                outcome: Some(outcome),
            }),
            None if before.is_some_and(|before| !before.is_finished()) => Some(Event::Ended {
                repository: repository(),
                run: run(),
                outcome: None,
            }),
            _ => None,
        }
    }
}

impl Desk {
    fn rest(&mut self) -> Step {
        self.attended = false;
        Step::Rest
    }

    fn load(&mut self) -> Step {
        self.recheck = false;
        self.covered = self.next_serial;
        self.asked_for = self.wanted;
        Step::Load(self.state.as_ref().map(|state| state.head().revision))
    }

    /// A commit was not large enough for all runs of a dead session: the next one goes on.
    fn expire_the_rest(&mut self) {
        let unfinished = |(request, _): &(Request, Outcome)| match &request.command {
            Command::Expire { .. } => Some(request.command.clone()),
            _ => None,
        };
        let again: Vec<_> = self.in_flight.iter().filter_map(unfinished).collect();
        again.into_iter().for_each(|command| self.add(command));
    }
}

/// What the outcome of a command is when an earlier attempt, whose answer was lost, may have
/// carried it out: finding done what one asked for is success.
fn recognise(
    command: &Command,
    outcome: Outcome,
    entry: Option<&Entry>,
    session: SessionId,
) -> Outcome {
    let own = entry.is_some_and(|entry| entry.owner() == Some(session));
    match (command, outcome) {
        (
            Command::Release { outcome: asked, .. },
            Outcome::Ended {
                ended: Ended::Before(outcome),
                promoted,
            },
        ) if *asked == outcome => Outcome::Ended {
            ended: Ended::Done,
            promoted,
        },
        (
            Command::Cancel { .. } | Command::Abandon { .. },
            Outcome::Ended {
                ended: Ended::Before(RunOutcome::Cancelled),
                promoted,
            },
        ) => Outcome::Ended {
            ended: Ended::Done,
            promoted,
        },
        (
            Command::Requeue { .. },
            Outcome::Admitted {
                admitted: Admitted::NotHeld,
                ..
            },
        ) if own => Outcome::Admitted {
            admitted: entry.map_or(Admitted::NotHeld, Admitted::of),
            fresh: true,
        },
        (
            Command::SetLimit { limit: asked, .. },
            Outcome::LimitSet {
                limit, promoted, ..
            },
        ) => Outcome::LimitSet {
            limit,
            accepted: *asked == limit,
            promoted,
        },
        (_, Outcome::Admitted { admitted, .. }) => Outcome::Admitted {
            admitted,
            fresh: own,
        },
        (_, outcome) => outcome,
    }
}
