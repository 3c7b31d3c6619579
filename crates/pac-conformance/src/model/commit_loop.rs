//! The commit loop, step by step as `pac_core::manager` has it: [`Controller::see_to`] is `plan`
//! there, the others bear the same names.

use std::sync::Arc;

use pac_core::protocol::{Admitted, Changes, Command, Death, Ended, Outcome, recognise};
use pac_core::state::{Entry, EntryState, RunKind};
use pac_core::{Revision, SessionId};

use super::book::Book;
use super::controller::{Controller, Lease, Terms, Wire};
use super::invariant::{Broken, Invariant};
use super::request::Request;
use super::store::{Answer, Parcel, Store};
use super::variant::Variant;
use super::witness::Witness;
use crate::rules::Rules;

impl Controller {
    /// Plans what is pending, until a commit is to be sent or nothing is left.
    pub(super) fn see_to<R: Rules>(
        &mut self,
        terms: &Terms<R>,
        store: &Store,
        broken: &mut Broken,
    ) {
        // One read covers every question that is pending: a second one in vain is a loop.
        let mut reads = 0;
        loop {
            let unknown = !self.pending.is_empty() && self.cache.is_none();
            if self.recheck || unknown {
                self.read(terms, store, broken);
            }
            let Some(cache) = self.cache.clone() else {
                return;
            };
            if self.pending.is_empty() {
                return;
            }
            let commands: Vec<_> = self.pending.iter().map(|r| r.command.clone()).collect();
            let issuer = self.issuer(terms);
            let dead: &[SessionId] = match terms.variant {
                Variant::PlansForTheDead => &[],
                _ => &self.dead,
            };
            let (outcomes, changes) = terms.rules.plan(cache.state(), issuer, dead, &commands);
            let planned = self.pending.drain(..outcomes.len());
            self.in_flight.extend(planned.zip(outcomes));
            self.hand_over(terms, broken);
            if let Some(changes) = changes {
                self.send(terms, &cache, changes, broken);
                return;
            }
            let from_cache = terms.variant == Variant::AnswersFromTheCache;
            let is_covered =
                |(request, _): &&(Request, _)| !request.reply || request.covered || from_cache;
            let early = self.in_flight.iter().take_while(is_covered).count();
            for (request, _) in self.in_flight.drain(early..).rev() {
                self.pending.insert(0, request);
            }
            if early == 0 {
                reads += 1;
                if reads > 1 {
                    broken.by(Invariant::ComesToRest);
                    return;
                }
                self.read(terms, store, broken);
            } else {
                self.expiry_is_recorded();
                self.answer(terms, false, broken);
                self.hand_over(terms, broken);
            }
        }
    }

    /// Takes in the answer to a commit.
    pub(super) fn settle<R: Rules>(
        &mut self,
        terms: &Terms<R>,
        sender: SessionId,
        answer: Answer,
        broken: &mut Broken,
    ) {
        match answer {
            Answer::Committed(book) => {
                self.hear(terms, &book, broken);
                self.expiry_is_recorded();
                self.answer(terms, true, broken);
            }
            Answer::Conflict(_) if terms.variant == Variant::AnswersConflictsFromThePlan => {
                self.answer(terms, true, broken);
            }
            Answer::Conflict(book) => {
                terms.witnesses.saw(Witness::Conflict);
                if terms.variant == Variant::HandsOverOnlyWhenFresh {
                    for (request, _) in &mut self.in_flight {
                        request.again = true;
                    }
                }
                self.put_back();
                self.hear(terms, &book, broken);
            }
            Answer::SessionDead(dead) if dead == sender => {
                self.lost |= dead == self.session;
                self.put_back();
            }
            Answer::SessionDead(dead) => {
                terms.witnesses.saw(Witness::GrantToTheDeadRefused);
                self.put_back();
                if !self.dead.contains(&dead) && terms.variant != Variant::ForgetsTheDead {
                    self.dead.push(dead);
                    let death = Death::Session;
                    let expire = Command::Expire {
                        session: dead,
                        death,
                    };
                    self.pending.insert(0, Request::of(expire));
                }
            }
        }
        self.hand_over(terms, broken);
    }

    /// Takes in that nobody knows what came of a commit.
    pub(super) fn unsettled<R: Rules>(&mut self, terms: &Terms<R>, broken: &mut Broken) {
        match terms.variant {
            Variant::TakesLostForFailed => {
                for (request, _) in std::mem::take(&mut self.in_flight) {
                    if request.reply && request.landed.is_some() {
                        broken.by(Invariant::UnknownIsNotFailed);
                    }
                }
            }
            Variant::RetriesBlindly => {}
            _ => {
                for (request, outcome) in &mut self.in_flight {
                    request.uncertain.get_or_insert_with(|| outcome.clone());
                }
                self.recheck = true;
            }
        }
        self.put_back();
        self.hand_over(terms, broken);
    }

    /// Takes in a newer state, by whatever way it came.
    pub(super) fn hear<R: Rules>(&mut self, terms: &Terms<R>, book: &Book, broken: &mut Broken) {
        self.absorb(terms, book, broken);
        let known = self.cache.as_ref().map(Book::revision).unwrap_or_default();
        for request in &mut self.pending {
            if request.asked_at <= known {
                request.asked_at = Revision::default();
            }
        }
    }

    fn send<R: Rules>(
        &mut self,
        terms: &Terms<R>,
        cache: &Book,
        mut changes: Changes,
        broken: &mut Broken,
    ) {
        if let [(request, _)] = &*self.in_flight
            && request.is_done_already(cache, self.session)
        {
            // Only by an old token could there have been something to end.
            let old = matches!(
                request.command,
                Command::Release { .. } | Command::Requeue { .. }
            );
            broken.by(if old {
                Invariant::Fencing
            } else {
                Invariant::Idempotent
            });
        }
        if changes
            .alive
            .iter()
            .any(|session| self.dead.contains(session))
        {
            // It can only be refused, for a reason that is known: two such plans in turn, and
            // the dead hand each other their slots without an end.
            broken.by(Invariant::ComesToRest);
        }
        let again = self.in_flight.iter().any(|(request, _)| request.again);
        if again && terms.variant == Variant::HandsOverOnlyWhenFresh {
            keep_slots(cache, &mut changes);
        }
        if self.in_flight.len() > 1 {
            terms.witnesses.saw(Witness::Combined);
        }
        let commands = self.in_flight.iter();
        let commands =
            commands.map(|(request, outcome)| (request.command.clone(), outcome.clone()));
        self.wire = Wire::Sent(Arc::new(Parcel {
            session: self.session,
            changes,
            commands: commands.collect(),
        }));
    }

    /// Reads the repository. In one step: what happens between question and answer might as
    /// well happen before or after.
    fn read<R: Rules>(&mut self, terms: &Terms<R>, store: &Store, broken: &mut Broken) {
        self.recheck = false;
        for request in &mut self.pending {
            request.covered |= request.reply;
        }
        self.hear(terms, &store.book, broken);
    }

    fn put_back(&mut self) {
        while let Some((request, _)) = self.in_flight.pop() {
            self.pending.insert(0, request);
        }
    }

    fn expiry_is_recorded(&mut self) {
        for (request, _) in &self.in_flight {
            if let Command::Expire { session, .. } = request.command {
                self.dead.retain(|dead| *dead != session);
            }
        }
    }

    /// Answers everything in flight, according to the state as it is now.
    fn answer<R: Rules>(&mut self, terms: &Terms<R>, written: bool, broken: &mut Broken) {
        for (request, outcome) in std::mem::take(&mut self.in_flight) {
            let carried = self
                .deferred
                .iter()
                .position(|grant| request.asks_for(&grant.request));
            if let Some(at) = carried {
                terms.witnesses.saw(Witness::AnswerCarriesGrant);
                self.deferred.swap_remove(at);
            }
            if !request.reply {
                continue;
            }
            let run = request.command.run();
            let entry = run.and_then(|run| self.cache.as_ref()?.entry(run)).cloned();
            let outcome = match &request.uncertain {
                Some(before) => {
                    if request.landed.is_some() {
                        terms.witnesses.saw(Witness::LostAnswerRecognised);
                    }
                    let entry = entry.as_deref();
                    recognise(&request.command, before, outcome, entry, self.session)
                }
                None => outcome,
            };
            let known = self.cache.as_ref().map(Book::revision);
            if !written && Some(request.asked_at) > known {
                broken.by(Invariant::AnswersAreCurrent);
            }
            if !request.may_hear(&outcome, entry.as_deref(), self.session) {
                broken.by(Invariant::UnknownIsNotFailed);
            }
            if matches!(
                outcome,
                Outcome::Ended {
                    ended: Ended::Stale(_),
                    ..
                }
            ) {
                terms.witnesses.saw(Witness::OldTokenRefused);
            }
            if let (Outcome::Admitted { admitted, .. }, Some(entry)) = (&outcome, entry) {
                self.admission(terms, *admitted, &entry);
            }
        }
    }

    /// The application hears where its run stands by now.
    fn admission<R>(&mut self, terms: &Terms<R>, admitted: Admitted, entry: &Arc<Entry>) {
        match entry.state {
            _ if !admitted.has_a_place() => {}
            EntryState::Queued { .. } => self.wait_for(terms, entry),
            EntryState::Started { token, session, .. } => {
                self.waiting.retain(|(run, _)| *run != entry.run);
                let is_ours = session == self.session
                    || (self.was(session) && entry.kind == RunKind::Durable);
                let lease = Lease::of(entry, token, session);
                // Asked for again, it is the same lease.
                if is_ours && !self.leases.contains(&lease) {
                    self.leases.push(lease);
                    self.leases.sort_unstable_by_key(|lease| lease.token);
                }
            }
            EntryState::Finished { .. } => {}
        }
    }
}

/// Takes the grants out of a commit.
fn keep_slots(cache: &Book, changes: &mut Changes) {
    changes.entries.retain(|entry| {
        let waited = cache
            .entry(&entry.run)
            .is_some_and(|known| known.is_queued());
        let granted = waited && entry.is_started();
        if granted {
            changes.head.started -= 1;
            changes.head.queued += 1;
        }
        !granted
    });
}
