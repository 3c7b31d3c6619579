//! A repository as a value: for checks that go through all of its states, and so copy, compare
//! and hash it.

use tokio::time::Instant;

use super::env::Port;
use super::inbox::Inbox;
use super::request::{Basis, Listener, Planned, Request, Uncertain};
use super::shared::SharedSlots;
use super::waiters::{Waiter, Waiters};
use super::{Holder, Repository};
use crate::name::PipelineRunKey;
use crate::protocol::{Command, Outcome};
use crate::state::{Entry, Head, RunKind};
use crate::value::{FencingToken, Revision, SessionId, Ticket, Version};

/// All of a repository that decides what it does from here on. Two repositories with equal views
/// answer equal inputs alike, as long as no time passes.
///
/// Left out are pauses and delays, and numbers: those of requests and waiters say no more than
/// their order. `A` is where answers go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the fields are those of the repository")]
pub struct Canonical<'a, A> {
    pub state: Option<(bool, &'a Head, Vec<&'a Entry>)>,
    pub floor: Version,
    /// Only if the state is older. What is wanted beside a newer state would matter to a state
    /// that is forgotten later, which is then read anew in any case.
    pub wanted: Option<Revision>,
    pub recheck: bool,
    pub reading: (bool, Version),
    pub forgotten: Vec<&'a Entry>,
    pub given_out: Option<(Ticket, FencingToken)>,
    pub dead: Vec<SessionId>,
    pub session: SessionId,
    pub former: &'a [SessionId],
    pub pending: Vec<CanonicalRequest<'a, A>>,
    pub in_flight: Vec<CanonicalPlanned<'a, A>>,
    /// Nothing while nothing is in flight.
    pub planned_at: Option<(Version, bool)>,
    pub deferred: Vec<(&'a Entry, FencingToken, SessionId, bool)>,
    pub waiters: Vec<(&'a PipelineRunKey, Vec<(Ticket, RunKind)>)>,
    pub detached: Vec<u64>,
    pub shared: &'a SharedSlots,
    pub holders: Vec<(&'a PipelineRunKey, FencingToken)>,
    pub watchers: usize,
    pub busy: bool,
    pub ended: bool,
}

/// A request in a [`Canonical`] view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the fields are those of the request")]
pub struct CanonicalRequest<'a, A> {
    pub command: &'a Command,
    pub listener: &'a Listener<A>,
    pub group: usize,
    /// The last read began after it was submitted.
    pub is_covered: bool,
    /// Whether its deadline has passed, if it has one.
    pub late: Option<bool>,
    pub uncertain: Option<&'a Uncertain>,
    pub inherits: bool,
}

/// A request in the commit that is on its way, in a [`Canonical`] view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the fields are those of the request")]
pub struct CanonicalPlanned<'a, A> {
    pub request: CanonicalRequest<'a, A>,
    pub outcome: &'a Outcome,
    pub basis: &'a Basis,
    pub takes_over: bool,
}

impl<P: Port> Repository<P> {
    /// The repository as it matters, at the moment `now`.
    #[must_use]
    pub fn canonical(&self, now: Instant) -> Canonical<'_, P::Asker> {
        let inbox = &self.inbox;
        let in_flight = inbox.in_flight.iter().map(|planned| CanonicalPlanned {
            request: inbox.canonical(&planned.request, now),
            outcome: &planned.outcome,
            basis: &planned.basis,
            takes_over: planned.takes_over,
        });
        let pending = inbox.pending.iter();
        let deferred = self.deferred.iter();
        let mut dead = self.dead.clone();
        dead.sort_unstable();
        let holders = self.holders.iter();
        let mut holders: Vec<_> = holders.map(|held| (&held.run, held.token)).collect();
        holders.sort_unstable();
        Canonical {
            state: self.state.as_ref().map(|state| {
                let entries = state.entries().map(AsRef::as_ref);
                (state.exists(), state.head(), by_run(entries))
            }),
            floor: self.floor,
            wanted: self.is_behind().then_some(self.wanted),
            recheck: self.recheck,
            reading: (self.asked_all, self.asked_above),
            forgotten: by_run(self.forgotten.values().map(AsRef::as_ref)),
            given_out: self.given_out.as_deref().copied(),
            dead,
            session: self.session,
            former: &self.former,
            pending: pending.map(|of| inbox.canonical(of, now)).collect(),
            in_flight: in_flight.collect(),
            planned_at: (!inbox.in_flight.is_empty()).then_some((inbox.planned_at, inbox.more)),
            deferred: deferred
                .map(|grant| (&*grant.entry, grant.token, grant.session, grant.running))
                .collect(),
            waiters: self.waiters.canonical(),
            detached: {
                let mut detached: Vec<_> = self.waiters.detached.iter().copied().collect();
                detached.sort_unstable();
                detached
            },
            shared: &self.shared,
            holders,
            watchers: self.watchers,
            busy: self.busy,
            ended: self.ended.is_some(),
        }
    }
}

impl<P: Port> Inbox<P> {
    fn canonical<'a>(&self, of: &'a Request<P>, now: Instant) -> CanonicalRequest<'a, P::Asker> {
        CanonicalRequest {
            command: &of.command,
            listener: &of.listener,
            group: of.group,
            is_covered: self.is_covered(of),
            late: of.deadline.map(|deadline| deadline <= now),
            uncertain: of.uncertain.as_deref(),
            inherits: of.inherits,
        }
    }
}

impl<P: Port> Waiters<P> {
    fn canonical(&self) -> Vec<(&PipelineRunKey, Vec<(Ticket, RunKind)>)> {
        let of = |waiter: &Waiter<P>| (waiter.ticket, waiter.kind);
        let by_run = self.by_run.iter();
        let mut all: Vec<_> = by_run
            .map(|(run, waiters)| (run, waiters.iter().map(of).collect()))
            .collect();
        all.sort_unstable_by_key(|(run, _)| *run);
        all
    }
}

fn by_run<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<&'a Entry> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable_by(|a, b| a.run.cmp(&b.run));
    entries
}

// Derived, these would ask for a `P` that can be cloned, and not for its handles.

impl<P: Port<Asker: Clone, Notice: Clone, Loss: Clone>> Clone for Repository<P> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            state: self.state.clone(),
            floor: self.floor,
            wanted: self.wanted,
            recheck: self.recheck,
            reading: self.reading,
            asked_all: self.asked_all,
            asked_above: self.asked_above,
            owned_count: self.owned_count,
            forgotten: self.forgotten.clone(),
            given_out: self.given_out.clone(),
            dead: self.dead.clone(),
            session: self.session,
            former: self.former.clone(),
            inbox: self.inbox.clone(),
            retry: self.retry.clone(),
            deferred: self.deferred.clone(),
            waiters: self.waiters.clone(),
            shared: self.shared.clone(),
            holders: self.holders.clone(),
            next_holder: self.next_holder,
            watchers: self.watchers,
            busy: self.busy,
            ended: self.ended.as_ref().map(|why| Box::new(why.replicate())),
        }
    }
}

impl<P: Port<Loss: Clone>> Clone for Holder<P> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            run: self.run.clone(),
            token: self.token,
            loss: self.loss.clone(),
        }
    }
}

impl<P: Port<Asker: Clone>> Clone for Inbox<P> {
    fn clone(&self) -> Self {
        Self {
            pending: self.pending.clone(),
            in_flight: self.in_flight.clone(),
            planned_at: self.planned_at,
            more: self.more,
            read_before: self.read_before,
            next: self.next,
        }
    }
}

impl<P: Port<Asker: Clone>> Clone for Request<P> {
    fn clone(&self) -> Self {
        Self {
            command: self.command.clone(),
            id: self.id,
            group: self.group,
            listener: self.listener.clone(),
            deadline: self.deadline,
            uncertain: self.uncertain.clone(),
            inherits: self.inherits,
        }
    }
}

impl<P: Port<Asker: Clone>> Clone for Planned<P> {
    fn clone(&self) -> Self {
        Self {
            request: self.request.clone(),
            outcome: self.outcome.clone(),
            basis: self.basis.clone(),
            takes_over: self.takes_over,
        }
    }
}

impl<P: Port<Notice: Clone>> Clone for Waiters<P> {
    fn clone(&self) -> Self {
        Self {
            by_run: self.by_run.clone(),
            detached: self.detached.clone(),
            next: self.next,
        }
    }
}

impl<P: Port<Notice: Clone>> Clone for Waiter<P> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            uid: self.uid.clone(),
            ticket: self.ticket,
            kind: self.kind,
            notice: self.notice.clone(),
        }
    }
}
