//! Judges every commit by what was there before and what is there now. Shares no code with the
//! protocol.

use std::sync::Arc;

use pac_core::protocol::{Command, Death, Ended, Outcome};
use pac_core::state::{Entry, EntryState, Moment, RunKind, RunOutcome};
use pac_core::{FencingToken, PipelineRunKey, SessionId};

use super::book::Book;
use super::controller::Terms;
use super::invariant::{Broken, Invariant};
use super::store::{Parcel, Store};
use super::witness::Witness;

/// A commit that was done.
pub(super) struct Deed<'a> {
    /// As it was at that moment; its book is the one before.
    pub(super) store: &'a Store,
    pub(super) after: &'a Book,
    pub(super) parcel: &'a Parcel,
    /// Commits are small, and what could start may start with a later one.
    pub(super) stops_early: bool,
}

impl Deed<'_> {
    pub(super) fn judge(&self, broken: &mut Broken) {
        let verdicts = [
            (Invariant::Limit, self.keeps_the_limit()),
            (Invariant::Order, self.keeps_the_order()),
            (Invariant::NothingLost, self.loses_nothing()),
            (Invariant::NoIdleSlot, self.leaves_no_slot_idle()),
            (Invariant::Fencing, self.fences()),
            (Invariant::LivingOwners, self.grants_to_living_owners()),
        ];
        for (invariant, holds) in verdicts {
            if !holds {
                broken.by(invariant);
            }
        }
    }

    fn before(&self) -> &Book {
        &self.store.book
    }

    /// The same run as it was before.
    fn known(&self, entry: &Entry) -> Option<&Arc<Entry>> {
        let known = self.before().entry(&entry.run);
        known.filter(|known| known.uid == entry.uid)
    }

    /// The entries that hold a slot now by a token that they did not have before.
    fn grants(&self) -> impl Iterator<Item = (&Arc<Entry>, FencingToken, SessionId)> {
        self.after.entries().iter().filter_map(|entry| {
            let known = self.known(entry).filter(|known| known.is_started());
            match entry.state {
                EntryState::Started { token, session, .. }
                    if known.and_then(|known| known.token()) != Some(token) =>
                {
                    Some((entry, token, session))
                }
                _ => None,
            }
        })
    }

    fn has(&self, is: impl Fn(&Command) -> bool) -> bool {
        self.parcel.commands.iter().any(|sent| is(&sent.command))
    }

    fn adopts(&self, run: &PipelineRunKey) -> bool {
        self.has(|command| matches!(command, Command::Adopt(request) if request.run == *run))
    }

    /// Counts the slots itself, and has no trust in the head's count.
    fn keeps_the_limit(&self) -> bool {
        let slots = |book: &Book| book.entries().iter().filter(|e| e.is_started()).count();
        let more = self.grants().filter(|(entry, ..)| {
            let held = self.known(entry).is_some_and(|known| known.is_started());
            !held && !self.adopts(&entry.run)
        });
        let adopted = self.grants().filter(|(entry, ..)| self.adopts(&entry.run));
        // A limit that is lowered in the same commit, after a grant, has been kept, too.
        let limits = [self.before(), self.after].map(|book| book.head().limit.get());
        let sets = self.has(|command| matches!(command, Command::SetLimit { .. }));
        let limit = match limits {
            [Some(before), Some(after)] if sets => Some(before.max(after)),
            [None, _] if sets => None,
            [_, after] => after,
        };
        let within =
            limit.is_none_or(|limit| slots(self.after) - adopted.count() <= limit as usize);
        let counts = self.after.head().started as usize == slots(self.after);
        // A grant may go before a pause, or after its end, in one commit.
        let paused = [self.before(), self.after].map(|book| book.head().pause().is_some());
        let resumes = self.has(|command| matches!(command, Command::Resume { .. }));
        let none = more.count() == 0;
        counts && (none || (within && (paused != [true, true] || resumes)))
    }

    fn keeps_the_order(&self) -> bool {
        let outranks = |waiter: &Entry, other: &Entry| {
            let rank = |entry: &Entry| (-i64::from(entry.priority.get()), entry.ticket);
            rank(waiter) < rank(other)
        };
        let fair = |(granted, ..): (&Arc<Entry>, _, _)| {
            self.adopts(&granted.run)
                || self.known(granted).is_some_and(|known| known.is_started())
                || self.waiters().all(|waiter| {
                    // Of those that came with this commit, the ones before it came first.
                    let came_first = self.known(waiter).is_some() || waiter.ticket < granted.ticket;
                    !came_first || !outranks(waiter, granted)
                })
        };
        let last = self.before().head().last_ticket;
        let keeps = |entry: &Arc<Entry>| match self.known(entry) {
            Some(known) if !known.is_finished() || entry.is_finished() => {
                let again = entry.ticket > last && self.is_abandoned(known);
                known.ticket == entry.ticket || again
            }
            // Adopted or admitted again after its end.
            Some(known) => known.ticket == entry.ticket || entry.ticket > last,
            None => entry.ticket > last || self.has_the_place_of_another(entry),
        };
        self.grants().all(fair) && self.after.entries().iter().all(keeps)
    }

    /// Whether a run has the place of one that it superseded.
    fn has_the_place_of_another(&self, entry: &Entry) -> bool {
        self.after.entries().iter().any(|other| {
            other.ticket == entry.ticket
                && other.run != entry.run
                && is_superseded(other)
                && self.known(other).is_some_and(|known| known.is_queued())
        })
    }

    /// Whether a run was given up, and may be asked for again by the same commit.
    fn is_abandoned(&self, known: &Entry) -> bool {
        self.has(|command| {
            matches!(command, Command::Abandon { run, ticket, .. }
                if *run == known.run && *ticket == known.ticket)
        })
    }

    /// Who still waits although it could be granted a slot.
    fn waiters(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.after
            .entries()
            .iter()
            .filter(|entry| match entry.state {
                EntryState::Queued { owner } => {
                    let takes = self.parcel.takes_ownerless && entry.kind == RunKind::Durable;
                    owner.map_or(takes, |owner| self.store.is_alive(owner))
                }
                _ => false,
            })
    }

    fn leaves_no_slot_idle(&self) -> bool {
        let head = self.after.head();
        let limit = head.limit.get();
        let paused = head.pause().is_some();
        let is_free = !paused && limit.is_none_or(|limit| head.started < limit);
        let owned = |entry: &&Arc<Entry>| entry.owner().is_some();
        !is_free || self.stops_early || self.waiters().filter(owned).count() == 0
    }

    fn loses_nothing(&self) -> bool {
        let stays = |known: &Arc<Entry>| {
            let Some(now) = self.after.entry(&known.run) else {
                return self.parcel.changes.remove;
            };
            if now.uid != known.uid {
                return known.is_finished() || self.replaces(now);
            }
            if now.ticket > self.before().head().last_ticket && self.is_abandoned(known) {
                return true;
            }
            match (known.state, now.state) {
                (EntryState::Finished { .. }, EntryState::Finished { .. }) => {
                    known.state == now.state
                }
                (EntryState::Finished { outcome, .. }, _) => {
                    known.is_abandoned()
                        || (outcome == RunOutcome::LeaseLost && self.adopts(&now.run))
                }
                (_, EntryState::Finished { outcome, .. }) => self.may_end(known, outcome),
                (EntryState::Queued { owner }, EntryState::Queued { owner: now }) => {
                    self.may_own(owner, now)
                }
                (EntryState::Started { token, .. }, EntryState::Queued { .. }) => {
                    self.has(|command| match command {
                        Command::Requeue {
                            run, token: held, ..
                        }
                        | Command::Disown {
                            run, token: held, ..
                        } => *run == known.run && *held == token,
                        _ => false,
                    })
                }
                _ => true,
            }
        };
        self.before().entries().iter().all(stays)
    }

    /// Whether a run was asked for that takes the name of another one.
    fn replaces(&self, now: &Entry) -> bool {
        self.has(|command| match command {
            Command::Admit(request) | Command::Adopt(request) => {
                request.run == now.run && request.uid == now.uid
            }
            _ => false,
        })
    }

    /// Whether a live run may end so.
    fn may_end(&self, known: &Entry, outcome: RunOutcome) -> bool {
        match outcome {
            RunOutcome::LeaseLost if self.gives_up_for(known) => true,
            RunOutcome::LeaseLost => {
                let (holder, needed) = match (known.state, known.kind) {
                    (EntryState::Started { session, .. }, RunKind::Durable) => {
                        (Some(session), Death::Lease)
                    }
                    (EntryState::Started { session, .. }, _) => (Some(session), Death::Session),
                    (EntryState::Queued { owner }, RunKind::Ephemeral) => (owner, Death::Session),
                    _ => return false,
                };
                let death = holder.and_then(|holder| self.death(holder));
                death.is_some_and(|death| death >= needed)
            }
            RunOutcome::Cancelled => self.has(|command| {
                let ends = matches!(command, Command::Cancel { .. } | Command::Abandon { .. });
                ends && command.run() == Some(&known.run)
            }),
            RunOutcome::Superseded => {
                let newer = |command: &Command| {
                    let Command::Admit(request) = command else {
                        return false;
                    };
                    let group = request.terms().and_then(|terms| terms.group.as_ref());
                    group.is_some() && group == known.group() && request.run != known.run
                };
                known.is_queued() && self.has(newer)
            }
            // No scenario asks for what ends a run so.
            RunOutcome::TimedOut | RunOutcome::QueueFull => false,
            RunOutcome::Completed | RunOutcome::Failed => self.has(|command| {
                matches!(command, Command::Release { .. }) && command.run() == Some(&known.run)
            }),
        }
    }

    /// Whether a process gives up a run that it had in the name of a former session.
    fn gives_up_for(&self, known: &Entry) -> bool {
        self.has(|command| match command {
            Command::Abandon { run, owner, .. } => {
                *run == known.run && *owner != self.parcel.session
            }
            _ => false,
        })
    }

    /// How long a session has been dead; one that gives back what it has counts as dead.
    fn death(&self, session: SessionId) -> Option<Death> {
        let ends = |command: &Command| matches!(command, Command::Expire { session: of, .. } if *of == session);
        let gives_back = session == self.parcel.session && self.has(ends);
        self.store
            .death(session)
            .or_else(|| gives_back.then_some(Death::Session))
    }

    /// Whether a waiter's owner may change so.
    fn may_own(&self, owner: Option<SessionId>, now: Option<SessionId>) -> bool {
        now == owner
            || now == Some(self.parcel.session)
            || (now.is_none() && owner.is_some_and(|owner| self.death(owner).is_some()))
    }

    fn fences(&self) -> bool {
        let last = self.before().head().last_token;
        let mut tokens: Vec<_> = self.grants().map(|(_, token, _)| token).collect();
        let granted = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        let newest = tokens.last().copied().unwrap_or(last);
        let increase = tokens.iter().all(|token| *token > last)
            && tokens.len() == granted
            && self.after.head().last_token >= newest.max(last);
        // A slot that is given back by its token is given back by the newest one.
        let fenced = self.before().entries().iter().all(|known| {
            let now = self.after.entry(&known.run);
            let now = now.filter(|now| now.uid == known.uid);
            let ended = now.is_some_and(|now| now.is_finished());
            !(known.is_started() && ended) || self.may_release(known)
        });
        increase && fenced
    }

    fn may_release(&self, known: &Entry) -> bool {
        let by_old = self.has(|command| {
            matches!(command, Command::Release { run, token: Some(token), .. }
                if *run == known.run && Some(*token) != known.token())
        });
        let otherwise = self.has(|command| match command {
            Command::Release { run, token, .. } if *run == known.run => {
                token.is_none() || *token == known.token()
            }
            Command::Cancel { .. } | Command::Abandon { .. } => command.run() == Some(&known.run),
            Command::Expire { .. } => true,
            _ => false,
        });
        !by_old || otherwise
    }

    /// Slots are granted to the owner of the waiting run, or to the session that asks for it by this
    /// commit.
    fn grants_to_living_owners(&self) -> bool {
        self.grants().all(|(entry, _, session)| {
            let owner = match self.known(entry).map(|known| known.state) {
                Some(EntryState::Queued { owner }) => owner,
                _ => None,
            };
            let asked = self.has(|command| command.run() == Some(&entry.run));
            let is_owners =
                owner.is_none_or(|owner| owner == session || asked || !self.store.is_alive(owner));
            is_owners && self.store.is_alive(session)
        })
    }

    /// Notes what has been reached with this.
    pub(super) fn witness(&self, terms: &Terms) {
        let saw = |witness| terms.witnesses.saw(witness);
        let head = self.after.head();
        let limit = head.limit.get().unwrap_or(u32::MAX);
        if head.started > limit {
            saw(Witness::AboveTheLimit);
        }
        let all = (head.started + head.queued) as usize == terms.scenario.runs.len();
        if head.started == limit && all {
            saw(Witness::FullQueue);
        }
        for sent in &self.parcel.commands {
            match (&sent.command, &sent.outcome) {
                (Command::Expire { session, .. }, _) if *session == self.parcel.session => {
                    saw(Witness::ClosedInOrder);
                }
                (Command::Disown { .. }, Outcome::Admitted { admitted, .. })
                    if admitted.has_a_place() =>
                {
                    saw(Witness::GivenBack);
                }
                (Command::Reclaim { .. }, Outcome::Admitted { admitted, .. })
                    if admitted.has_a_place() =>
                {
                    saw(Witness::Reclaimed);
                }
                (Command::Abandon { .. }, Outcome::Ended { ended, .. })
                    if sent.asker.is_none() && *ended == Ended::Done =>
                {
                    saw(Witness::TakenBack);
                }
                (Command::Promote, Outcome::Swept { promoted, .. })
                    if self.stops_early && !promoted.is_empty() =>
                {
                    saw(Witness::Continued);
                }
                _ => {}
            }
        }
        if head.pause().is_some() && head.queued > 0 && head.started < limit {
            saw(Witness::PauseKept);
        }
        let expires = self.has(|command| matches!(command, Command::Expire { .. }));
        for entry in self.after.entries() {
            if is_superseded(entry) {
                saw(Witness::Superseded);
            }
            if entry.is_started() && entry.terms().asked != Moment::NEVER {
                saw(Witness::AskedToEnd);
            }
            let known = self.known(entry).map(|known| known.state);
            match known {
                Some(EntryState::Queued { owner }) if entry.is_started() => {
                    if owner.is_none() {
                        saw(Witness::OwnerlessTaken);
                    }
                    if expires {
                        saw(Witness::ExpiryHandsOver);
                    }
                }
                _ => {}
            }
        }
    }
}

fn is_superseded(entry: &Entry) -> bool {
    matches!(
        entry.state,
        EntryState::Finished {
            outcome: RunOutcome::Superseded,
            ..
        }
    )
}
