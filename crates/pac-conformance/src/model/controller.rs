//! A controller: what it knows, what is asked of it, and what its application believes to hold.

use std::sync::Arc;

use pac_core::protocol::{Command, Issuer, Outcome, RunRequest};
use pac_core::state::Entry;
use pac_core::{FencingToken, PipelineRunKey, Revision, SessionId, Ticket};

use super::book::Book;
use super::request::Request;
use super::scenario::Scenario;
use super::store::{Answer, Parcel, Store};
use super::variant::Variant;
use super::witness::Witnesses;

/// What is the same for all states.
#[derive(Debug)]
pub(super) struct Terms<R> {
    pub(super) rules: R,
    pub(super) variant: Variant,
    pub(super) scenario: Scenario,
    pub(super) witnesses: Witnesses,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Controller {
    pub(super) up: bool,
    pub(super) session: SessionId,
    /// It knows that its session is over, and has no other one yet.
    pub(super) lost: bool,
    pub(super) former: Vec<SessionId>,
    pub(super) cache: Option<Book>,
    pub(super) recheck: bool,
    pub(super) pending: Vec<Request>,
    pub(super) in_flight: Vec<(Request, Outcome)>,
    pub(super) wire: Wire,
    pub(super) dead: Vec<SessionId>,
    pub(super) deferred: Vec<Lease>,
    /// What the application waits for.
    pub(super) waiting: Vec<(PipelineRunKey, Ticket)>,
    /// What the application believes to hold.
    pub(super) leases: Vec<Lease>,
}

/// Where the commit in flight is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wire {
    Idle,
    /// On its way to the store.
    Sent(Arc<Parcel>),
    /// Its answer is on its way.
    Answered(SessionId, Answer),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lease {
    pub(super) request: RunRequest,
    pub(super) ticket: Ticket,
    pub(super) token: FencingToken,
    pub(super) session: SessionId,
}

impl Controller {
    pub(super) fn new(session: SessionId) -> Self {
        Self {
            up: true,
            session,
            lost: false,
            former: Vec::new(),
            cache: None,
            recheck: false,
            pending: Vec::new(),
            in_flight: Vec::new(),
            wire: Wire::Idle,
            dead: Vec::new(),
            deferred: Vec::new(),
            waiting: Vec::new(),
            leases: Vec::new(),
        }
    }

    /// Puts a command in that somebody waits for.
    pub(super) fn submit(&mut self, command: Command, store: &Store) {
        let request = self.asked(command, store);
        self.pending.push(request);
    }

    /// The same for one that takes a run back, before those that may ask for it anew.
    pub(super) fn submit_first(&mut self, command: Command, store: &Store) {
        let request = self.asked(command, store);
        self.pending.insert(0, request);
    }

    fn asked(&self, command: Command, store: &Store) -> Request {
        let known = self.cache.as_ref().map(Book::revision);
        let now = store.book.revision();
        Request {
            reply: true,
            asked_at: if known == Some(now) {
                Revision::default()
            } else {
                now
            },
            ..Request::of(command)
        }
    }

    /// Puts a command of the manager's own in. One that waits already does for both.
    pub(super) fn add(&mut self, command: Command) {
        if self.pending.iter().all(|known| known.command != command) {
            self.pending.push(Request::of(command));
        }
    }

    pub(super) fn asks(&self, command: &Command) -> bool {
        self.requests().any(|request| request.command == *command)
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        let in_flight = self.in_flight.iter().map(|(request, _)| request);
        in_flight.chain(&self.pending)
    }

    /// Whether a session is this controller's, or was.
    pub(super) fn was(&self, session: SessionId) -> bool {
        self.former.contains(&session) || (self.lost && self.session == session)
    }

    /// Forgets sessions that nothing refers to any more.
    pub(super) fn forget_former(&mut self, book: &Book) {
        let Self {
            former,
            cache,
            wire,
            leases,
            ..
        } = self;
        former.retain(|session| {
            let sent = match wire {
                Wire::Idle => false,
                Wire::Sent(parcel) => parcel.session == *session,
                Wire::Answered(sender, _) => sender == session,
            };
            let cached = cache.as_ref().is_some_and(|cache| cache.names(*session));
            let held = leases.iter().any(|lease| lease.session == *session);
            sent || cached || held || book.names(*session)
        });
    }

    /// Whether hints matter to it.
    pub(super) fn is_interested(&self) -> bool {
        let own = |entry: &Arc<Entry>| entry.owner() == Some(self.session);
        !self.waiting.is_empty()
            || !self.leases.is_empty()
            || self
                .cache
                .as_ref()
                .is_some_and(|cache| cache.entries().iter().any(own))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.wire != Wire::Idle || !self.pending.is_empty()
    }

    /// Whether there is something to plan, and nothing in the way.
    pub(super) fn has_to_plan(&self) -> bool {
        let rereads = self.recheck && self.is_interested();
        let free = self.up && !self.lost && self.wire == Wire::Idle;
        free && (rereads || !self.pending.is_empty())
    }

    pub(super) fn issuer<R>(&self, terms: &Terms<R>) -> Issuer {
        Issuer {
            session: self.session,
            takes_ownerless: terms.scenario.takes_ownerless,
        }
    }

    /// For the monitor: a commit that carried these was done.
    pub(super) fn landed(&mut self, parcel: &Parcel) {
        if parcel.session != self.session && !self.former.contains(&parcel.session) {
            return;
        }
        for (command, outcome) in &parcel.commands {
            let in_flight = self.in_flight.iter_mut().map(|(request, _)| request);
            let mut requests = in_flight.chain(&mut self.pending);
            let of_it = |r: &&mut Request| r.reply && r.landed.is_none() && r.command == *command;
            if let Some(request) = requests.find(of_it) {
                request.landed = Some(outcome.clone());
            }
        }
    }
}

impl Lease {
    pub(super) fn of(entry: &Entry, token: FencingToken, session: SessionId) -> Self {
        Self {
            request: entry.request(),
            ticket: entry.ticket,
            token,
            session,
        }
    }
}
