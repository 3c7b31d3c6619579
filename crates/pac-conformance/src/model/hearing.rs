//! What a newer state means to a controller, as in `pac_core::manager`'s `absorb` and `waiting`.

use std::sync::Arc;

use pac_core::protocol::{Command, Outcome};
use pac_core::state::{Entry, EntryState, RunKind};
use pac_core::{PipelineRunKey, Ticket};

use super::book::Book;
use super::controller::{Controller, Lease, Terms};
use super::invariant::{Broken, Invariant};
use super::variant::Variant;
use super::witness::Witness;
use crate::rules::Rules;

enum Concern {
    Started(Lease),
    Over,
    Reclaim,
}

impl Controller {
    /// Brings the cached state up to `book`, unless it is newer already.
    pub(super) fn absorb<R: Rules>(&mut self, terms: &Terms<R>, book: &Book, broken: &mut Broken) {
        let before = self.cache.take();
        if before
            .as_ref()
            .is_some_and(|before| before.revision() >= book.revision())
        {
            self.cache = before;
            return;
        }
        let mut concerned = Vec::new();
        for entry in book.entries() {
            let known = before.as_ref().and_then(|before| before.entry(&entry.run));
            if known.is_some_and(|known| known.revision == entry.revision) {
                continue;
            }
            let ticket = self.ticket(&entry.run);
            if (ticket.is_some() || known.is_some_and(|known| known.is_queued()))
                && let Some(concern) = self.concern(ticket, entry)
            {
                concerned.push((Arc::clone(entry), concern));
            }
        }
        self.cache = Some(book.clone());
        if self.could_start_own(terms, book) {
            self.add(Command::Promote);
        }
        for (entry, concern) in concerned {
            match concern {
                Concern::Over => self.end_waiting(&entry.run),
                Concern::Started(grant) => self.started(terms, grant, broken),
                Concern::Reclaim if terms.variant == Variant::ForgetsItsWaiters => {}
                Concern::Reclaim => self.reclaim_one(&entry),
            }
        }
    }

    /// A new session has been opened: what waits is waited for in its name.
    pub(super) fn reclaim<R>(&mut self, terms: &Terms<R>) {
        self.recheck = true;
        let cached = self.cache.clone();
        if terms.variant == Variant::ForgetsItsWaiters {
            return;
        }
        for entry in cached.iter().flat_map(|cache| cache.state().queue()) {
            match self.concern(None, entry) {
                Some(Concern::Reclaim) => {
                    terms.witnesses.saw(Witness::Reclaimed);
                    self.reclaim_one(entry);
                }
                Some(Concern::Over) => self.end_waiting(&entry.run),
                Some(Concern::Started(_)) | None => {}
            }
        }
    }

    /// Has the application wait for the turn of a queued run; for nothing, if it is not ours.
    pub(super) fn wait_for<R>(&mut self, terms: &Terms<R>, entry: &Arc<Entry>) {
        self.end_waiting(&entry.run);
        let concern = self.concern(None, entry);
        if !matches!(concern, Some(Concern::Over)) {
            self.waiting.push((entry.run.clone(), entry.ticket));
            self.waiting.sort_unstable();
        }
        let forgets = terms.variant == Variant::ForgetsLateWaiters;
        if matches!(concern, Some(Concern::Reclaim)) && !forgets {
            self.reclaim_one(entry);
        }
    }

    /// Hands over the grants that no answer is left to carry.
    pub(super) fn hand_over<R>(&mut self, terms: &Terms<R>, broken: &mut Broken) {
        for grant in std::mem::take(&mut self.deferred) {
            if self.is_asked_for(&grant) {
                self.deferred.push(grant);
            } else {
                self.deliver(terms, grant, broken);
            }
        }
    }

    fn is_asked_for(&self, grant: &Lease) -> bool {
        let in_flight = self.in_flight.iter().map(|(request, _)| request);
        let mut requests = in_flight.chain(&self.pending);
        requests.any(|request| request.asks_for(&grant.request))
    }

    fn started<R>(&mut self, terms: &Terms<R>, grant: Lease, broken: &mut Broken) {
        let mut in_flight = self.in_flight.iter();
        if in_flight.any(|(request, _)| request.asks_for(&grant.request)) {
            self.deferred.push(grant);
        } else if self.gives_up(&grant) {
            terms.witnesses.saw(Witness::GivenUpInTime);
        } else {
            self.deliver(terms, grant, broken);
        }
    }

    fn gives_up(&self, grant: &Lease) -> bool {
        let in_flight = self.in_flight.iter().map(|(request, _)| request);
        let mut requests = in_flight.chain(&self.pending);
        requests.any(|request| match &request.command {
            Command::Abandon { run, uid, .. } => {
                *run == grant.request.run && *uid == grant.request.uid
            }
            _ => false,
        })
    }

    /// To the waiter of the run, else to the stream of grants: in either case the application.
    fn deliver<R>(&mut self, terms: &Terms<R>, grant: Lease, broken: &mut Broken) {
        let awaited = self.ticket(&grant.request.run).is_some();
        self.end_waiting(&grant.request.run);
        if !awaited && terms.variant == Variant::DropsGrants {
            return;
        }
        if self.leases.contains(&grant) {
            broken.by(Invariant::Idempotent);
            return;
        }
        self.leases.push(grant);
        self.leases.sort_unstable_by_key(|lease| lease.token);
    }

    fn ticket(&self, run: &PipelineRunKey) -> Option<Ticket> {
        let waiter = self.waiting.iter().find(|(waits, _)| waits == run);
        waiter.map(|(_, ticket)| *ticket)
    }

    fn end_waiting(&mut self, run: &PipelineRunKey) {
        self.waiting.retain(|(waits, _)| waits != run);
    }

    fn concern(&self, ticket: Option<Ticket>, entry: &Arc<Entry>) -> Option<Concern> {
        if ticket.is_some_and(|ticket| ticket != entry.ticket) {
            return Some(Concern::Over);
        }
        match entry.state {
            EntryState::Queued { owner } if owner == Some(self.session) => None,
            EntryState::Queued { owner } if owner.is_none_or(|owner| self.was(owner)) => {
                (entry.kind == RunKind::Durable).then_some(Concern::Reclaim)
            }
            EntryState::Started { token, session, .. } if session == self.session => {
                Some(Concern::Started(Lease::of(entry, token, session)))
            }
            EntryState::Queued { .. }
            | EntryState::Started { .. }
            | EntryState::Finished { .. } => Some(Concern::Over),
        }
    }

    fn reclaim_one(&mut self, entry: &Entry) {
        let former = entry.owner().filter(|owner| self.was(*owner));
        if former.is_some() || self.ticket(&entry.run).is_some() {
            self.add(Command::Reclaim {
                run: entry.run.clone(),
                uid: entry.uid.clone(),
                former: former.unwrap_or(self.session),
            });
        }
    }

    /// Whether an earlier commit left a run of ours waiting that could start.
    fn could_start_own<R: Rules>(&self, terms: &Terms<R>, book: &Book) -> bool {
        let head = book.head();
        if head.queued == 0 || !head.limit.admits(head.started) {
            return false;
        }
        let (outcomes, changes) = terms.rules.plan(
            book.state(),
            self.issuer(terms),
            &self.dead,
            &[Command::Promote],
        );
        let Some(Outcome::Swept { promoted, .. }) = outcomes.first() else {
            return false;
        };
        let first = changes.iter().flat_map(|changes| &changes.entries);
        let mut first = first.filter(|entry| Some(&entry.run) == promoted.first());
        first.any(|entry| entry.owner() == Some(self.session))
    }
}
