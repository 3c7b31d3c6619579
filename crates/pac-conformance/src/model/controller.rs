//! A controller: the manager's state machine, the commit of it that is on its way, and what its
//! application asks for and believes to hold.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;
use pac_core::driver::Retention;
use pac_core::manager::machine::{Canonical, Env, Grant, WaiterId};
use pac_core::protocol::Command;
use pac_core::state::{Entry, Snapshot};
use pac_core::{RepositoryKey, Revision, SessionId, Version};
use tokio::time::Instant;

use super::ask::{Ask, Reader};
use super::book::Book;
use super::port::{Asker, Machine};
use super::scenario::Scenario;
use super::store::{Answer, Parcel};
use super::variant::Variant;
use super::witness::Witnesses;
use crate::names::repository;

/// What is the same for all states.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) variant: Variant,
    pub(super) scenario: Scenario,
    pub(super) witnesses: Witnesses,
    /// The only moment there is.
    pub(super) now: Instant,
}

#[derive(Clone)]
pub(super) struct Controller {
    pub(super) up: bool,
    pub(super) session: SessionId,
    /// It knows that its session is over, and has no other one yet.
    pub(super) lost: bool,
    /// What the machine was told of its session: which it is, and whether it is lost.
    pub(super) told: (SessionId, bool),
    pub(super) former: Vec<SessionId>,
    pub(super) machine: Arc<Machine>,
    pub(super) wire: Wire,
    /// What the application awaits the answer to.
    pub(super) asks: Vec<Ask>,
    /// What the application waits for.
    pub(super) waiting: Vec<Waiting>,
    /// What the application believes to hold.
    pub(super) leases: Vec<Lease>,
    /// Grants that found nobody, and have yet to come back.
    pub(super) returns: Vec<Return>,
    /// The application reads the stream of grants.
    pub(super) reads: bool,
    /// It is being closed in an orderly way.
    pub(super) closing: bool,
    /// For the monitor: sessions that the store has said to be dead.
    pub(super) known_dead: Vec<SessionId>,
    /// Runs of which one variant forgets that they have to be waited for in a new session.
    pub(super) left_behind: Vec<pac_core::PipelineRunKey>,
    /// Commands on their way that any controller may submit of its own accord.
    pub(super) sees_to: Vec<Command>,
    /// Of all that matters, as it was when the step ended.
    digest: u64,
}

/// What the combiner waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wire {
    /// Nothing is to be done.
    Idle,
    /// For a session.
    Parked,
    /// A question is on its way to the store.
    Reading(Option<Version>),
    /// Its answer is on its way back.
    Read(Arc<Read>),
    /// A commit is on its way to the store.
    Sent(Arc<Parcel>),
    /// Its answer is on its way.
    Answered(Arc<Parcel>, Answer),
}

/// A part of the repository as it was when a question came to the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read(pub(super) Snapshot);

impl Hash for Read {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Snapshot {
            since,
            exists,
            head,
            entries,
        } = &self.0;
        (since, exists, head, entries).hash(state);
    }
}

/// A place in the queue that the application has.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// No part of the state: those of one run are in the order of their numbers.
    pub(super) waiter: WaiterId,
    /// As it was when it was queued.
    pub(super) entry: Arc<Entry>,
    pub(super) state: WaitingState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum WaitingState {
    Waits,
    /// The application has gone, and is about to say so for this event.
    Leaves(usize),
    /// The answer with the place has not been read.
    Unread(Asker),
}

#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) grant: Grant,
    /// The place through which it came, if it may still be given up through that.
    pub(super) place: Option<Arc<Entry>>,
    /// Another asker was answered with this ephemeral run first: it ends with that one's lease.
    pub(super) is_second: bool,
    /// Another asker was answered with the same slot of a durable run: given up by one of them,
    /// it stays with the other.
    pub(super) is_shared: bool,
}

/// A grant that found nobody.
#[derive(Debug, Clone)]
pub(super) struct Return {
    pub(super) grant: Grant,
    /// The waiter that was to have it; `None` out of the stream of grants. No part of the state,
    /// but for whether there is one.
    pub(super) waiter: Option<WaiterId>,
}

impl Controller {
    pub(super) fn new(session: SessionId, terms: &Terms) -> Self {
        let machine = Machine::new(key(), session, Vec::new());
        let mut controller = Self {
            up: true,
            session,
            lost: false,
            told: (session, false),
            former: Vec::new(),
            machine: Arc::new(machine),
            wire: Wire::Idle,
            asks: Vec::new(),
            waiting: Vec::new(),
            leases: Vec::new(),
            returns: Vec::new(),
            reads: terms.scenario.takes_ownerless,
            closing: false,
            known_dead: Vec::new(),
            left_behind: Vec::new(),
            sees_to: Vec::new(),
            digest: 0,
        };
        controller.seal(terms);
        controller
    }

    pub(super) fn env(&self, terms: &Terms) -> Env {
        Env {
            session: self.session,
            session_lost: self.lost,
            takes_ownerless: self.reads && !self.closing,
            closing: self.closing,
            // Nothing is held back for a while.
            in_process: true,
            entry_budget: terms.scenario.entries_per_commit,
            retention: Retention::new(Duration::from_secs(1), usize::MAX),
            command_timeout: Duration::from_secs(1),
            now: terms.now,
        }
    }

    pub(super) fn ask(&self, asker: Asker) -> Option<&Ask> {
        self.asks.iter().find(|ask| ask.asker == asker)
    }

    pub(super) fn ask_mut(&mut self, asker: Asker) -> Option<&mut Ask> {
        self.asks.iter_mut().find(|ask| ask.asker == asker)
    }

    /// Whether a session is this controller's, or was.
    pub(super) fn was(&self, session: SessionId) -> bool {
        self.former.contains(&session) || (self.lost && self.session == session)
    }

    /// Whether it knows the repository as it was at an earlier revision, and hears of changes.
    pub(super) fn may_hear_of(&self, revision: Revision) -> bool {
        let listens = self.machine.is_of_interest() || self.machine.is_busy();
        let known = self.machine.revision();
        listens && known.is_some_and(|known| known < revision)
    }

    /// The end of a step: what follows from the rest is noted, and the whole is one value.
    pub(super) fn seal(&mut self, terms: &Terms) {
        let known = self.machine.revision().unwrap_or_default();
        for ask in &mut self.asks {
            if ask.asked_at <= known {
                ask.asked_at = Revision::default();
            }
        }
        self.asks.sort_unstable_by_key(|ask| ask.asker);
        self.waiting
            .sort_unstable_by(|a, b| (&a.entry.run, a.waiter).cmp(&(&b.entry.run, b.waiter)));
        self.leases.sort_unstable_by_key(|lease| lease.grant.token);
        let machine = self.machine.canonical(terms.now);
        let in_flight = machine.in_flight.iter().map(|planned| &planned.request);
        let on_the_way = in_flight.chain(&machine.pending);
        let sees_to = on_the_way
            .map(|request| request.command)
            .filter(|command| matches!(command, Command::Expire { .. } | Command::Promote));
        self.sees_to = sees_to.cloned().collect();
        let mut hasher = FixedState::default().build_hasher();
        machine.hash(&mut hasher);
        drop(machine);
        self.hash_rest(&mut hasher);
        self.digest = hasher.finish();
    }

    fn hash_rest(&self, hasher: &mut impl Hasher) {
        let flags = (self.up, self.lost, self.reads, self.closing);
        (flags, self.session, self.told, &self.former, &self.wire).hash(hasher);
        (&self.known_dead, &self.left_behind).hash(hasher);
        for ask in &self.asks {
            let Ask {
                asker,
                command,
                asked_at,
                landed,
                changed,
                lost,
                target,
                again,
                ..
            } = ask;
            (asker, command, asked_at, landed, changed).hash(hasher);
            (lost, target, again).hash(hasher);
            match &ask.reader {
                Reader::Listens => 0.hash(hasher),
                Reader::Stopped => 1.hash(hasher),
                Reader::Unheard(reply) => {
                    let carries = reply.carries.as_ref().map(|grant| grant.token);
                    (2, reply.asked, &reply.outcome, &reply.entry, carries).hash(hasher);
                    (reply.place.is_some(), reply.took_over).hash(hasher);
                }
            }
        }
        for waiting in &self.waiting {
            (3, &waiting.entry, waiting.state).hash(hasher);
        }
        for lease in &self.leases {
            hash_grant(&lease.grant, hasher);
            (4, &lease.place, lease.is_second, lease.is_shared).hash(hasher);
        }
        for back in &self.returns {
            hash_grant(&back.grant, hasher);
            (5, back.waiter.is_some()).hash(hasher);
        }
    }
}

fn hash_grant(grant: &Grant, hasher: &mut impl Hasher) {
    let Grant {
        entry,
        token,
        session,
        running,
    } = grant;
    (entry, token, session, running).hash(hasher);
}

/// The repository that all of this is about.
fn key() -> RepositoryKey {
    repository("model")
}

impl fmt::Debug for Controller {
    /// In short: a trace has many of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Canonical {
            pending, in_flight, ..
        } = self.machine.canonical(Instant::now());
        let pending: Vec<_> = pending.iter().map(|request| request.command).collect();
        let in_flight = in_flight.iter().map(|planned| planned.request.command);
        let in_flight: Vec<_> = in_flight.collect();
        f.debug_struct("Controller")
            .field("session", &self.session)
            .field("lost", &self.lost)
            .field("knows", &self.machine.state().map(Book::copy_of))
            .field("pending", &pending)
            .field("in_flight", &in_flight)
            .field("wire", &self.wire)
            .field("asks", &self.asks)
            .field("waiting", &self.waiting)
            .field("leases", &self.leases)
            .field("returns", &self.returns)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Controller {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Controller {}

impl Hash for Controller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}
