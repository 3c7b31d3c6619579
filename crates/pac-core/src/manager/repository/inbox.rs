//! The requests of one repository: those that wait to be planned, and those in the commit that
//! is on its way.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::effects::{Answer, Effects, Grant};
use super::env::Port;
use super::request::{Listener, Planned, Request, RequestId};
use crate::error::{Error, ErrorKind};
use crate::hash::HashSet;
use crate::protocol::Command;
use crate::state::Entry;
use crate::value::Version;

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox<P: Port> {
    /// In the order in which they came; those that take a run back go first.
    pub(super) pending: VecDeque<Request<P>>,
    /// In the commit that is on its way.
    pub(super) in_flight: Vec<Planned<P>>,
    /// The version that this commit was planned at.
    pub(super) planned_at: Version,
    /// This commit is not large enough for all that its commands would change.
    pub(super) more: bool,
    /// Requests before this one were submitted before the state was last read.
    pub(super) read_before: RequestId,
    pub(super) next: u64,
}

impl<P: Port> Default for Inbox<P> {
    fn default() -> Self {
        Self {
            pending: VecDeque::new(),
            in_flight: Vec::new(),
            planned_at: Version::default(),
            more: false,
            read_before: RequestId::default(),
            next: 0,
        }
    }
}

impl<P: Port> Inbox<P> {
    /// Adds a request behind the others; `group` counts it and those after it that are to be
    /// planned together with it.
    pub(super) fn push(&mut self, request: Request<P>, group: usize) -> RequestId {
        let id = self.next_id();
        self.pending.push_back(Request {
            id,
            group,
            ..request
        });
        id
    }

    /// Adds a request before the others.
    pub(super) fn push_first(&mut self, request: Request<P>) -> RequestId {
        let id = self.next_id();
        self.pending.push_front(Request { id, ..request });
        id
    }

    /// Adds a command of the manager's own, unless the same one waits already.
    pub(super) fn add(&mut self, command: Command) {
        if !self.has_pending(&command) {
            self.push(Request::own(command), 1);
        }
    }

    /// The same for many commands, no two of which are the same.
    pub(super) fn add_all(&mut self, commands: Vec<Command>) {
        let own = self.pending.iter().filter(|request| request.is_own());
        let there: HashSet<Command> = match commands.as_slice() {
            [] => return,
            _ => own.map(|request| request.command.clone()).collect(),
        };
        for command in commands {
            if !there.contains(&command) {
                self.push(Request::own(command), 1);
            }
        }
    }

    /// The same as [`add`](Self::add), before all others: for a command that takes a run back,
    /// which others may ask for anew.
    pub(super) fn add_first(&mut self, command: Command) {
        self.take_out(&command);
        self.push_first(Request::own(command));
    }

    /// Takes a command of the manager's own out that is to come earlier.
    fn take_out(&mut self, command: &Command) {
        if self.has_pending(command) {
            let same = |request: &Request<P>| request.is_own() && request.command == *command;
            self.pending.retain(|request| !same(request));
        }
    }

    fn has_pending(&self, command: &Command) -> bool {
        let mut own = self.pending.iter().filter(|request| request.is_own());
        own.any(|request| request.command == *command)
    }

    fn next_id(&mut self) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        id
    }

    /// The state is about to be read: what was submitted until now is answered by it.
    pub(super) fn reading(&mut self) {
        self.read_before = RequestId(self.next);
    }

    /// Whether the last read began after this was asked.
    pub(super) fn is_covered(&self, request: &Request<P>) -> bool {
        !request.is_awaited() || request.id < self.read_before
    }

    /// All requests, those in flight first.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request<P>> {
        let in_flight = self.in_flight.iter().map(|planned| &planned.request);
        in_flight.chain(&self.pending)
    }

    fn requests_mut(&mut self) -> impl Iterator<Item = &mut Request<P>> {
        let in_flight = self
            .in_flight
            .iter_mut()
            .map(|planned| &mut planned.request);
        in_flight.chain(&mut self.pending)
    }

    /// The first request in the in-flight commit that still has a listener and asks for this
    /// run; it inherits what another asker has gone from. One that is refused would leave it to
    /// nobody.
    pub(super) fn next_claimant(&mut self, entry: &Entry) -> Option<&mut Request<P>> {
        let refused = |planned: &Planned<P>| {
            let before = planned.request.uncertain.as_ref();
            let may_have_it = before.is_some_and(|before| before.may_mean(entry));
            !may_have_it && !planned.outcome.has_a_place()
        };
        let in_flight = self.in_flight.iter_mut();
        let requests = in_flight
            .filter(|planned| !refused(planned))
            .map(|planned| &mut planned.request);
        // While answers are given they are in reverse order.
        requests
            .filter(|request| request.is_awaited() && request.asks_for(entry))
            .min_by_key(|request| request.id)
    }

    /// Whether a request asks for this very run in the commit that is on its way, may have asked
    /// for it in one whose answer was lost, or has it from an earlier asker.
    pub(super) fn may_have_asked_for(&self, entry: &Entry) -> bool {
        let in_flight = self.in_flight.iter().map(|planned| &planned.request);
        let put_back = self.pending.iter();
        let may_have_it = put_back.filter(|of| of.uncertain.is_some() || of.inherits);
        let mut requests = in_flight.chain(may_have_it);
        requests.any(|request| request.asks_for(entry))
    }

    /// Whether runs are about to be ended whose time is over.
    pub(super) fn has_time_out(&self) -> bool {
        let mut requests = self.requests();
        requests.any(|request| matches!(request.command, Command::TimeOut { .. }))
    }

    /// Whether a command that gives up this very run is on its way.
    pub(super) fn gives_up(&self, entry: &Entry) -> bool {
        self.requests().any(|request| match &request.command {
            Command::Abandon {
                run,
                uid,
                ticket,
                token,
                ..
            } => {
                let slot = token.is_none() || *token == entry.token();
                let same = *run == entry.run && *uid == entry.uid;
                same && *ticket == entry.ticket && slot
            }
            _ => false,
        })
    }

    /// Takes out of `deferred` the grants that no request is left to carry.
    pub(super) fn undelivered(&self, deferred: &mut Vec<Grant>) -> Vec<Grant> {
        let (kept, left) = std::mem::take(deferred).into_iter().partition(|grant| {
            self.requests()
                .any(|request| request.asks_for(&grant.entry))
        });
        *deferred = kept;
        left
    }

    /// What was in flight is pending again, before all that came later. A command of the
    /// manager's own that was added once more meanwhile is there once.
    pub(super) fn put_back(&mut self) {
        while let Some(Planned { request, .. }) = self.in_flight.pop() {
            if request.is_own() {
                self.take_out(&request.command);
            }
            self.pending.push_front(request);
        }
    }

    /// The asker of a request is about to leave the call that submitted it, and waits there
    /// for the answer. Gives the channel back when the request was answered already.
    pub(super) fn listen(
        &mut self,
        id: RequestId,
        asker: P::Asker,
        deadline: Option<Instant>,
    ) -> Option<P::Asker> {
        match self.requests_mut().find(|request| request.id == id) {
            Some(request) => {
                request.listener = Listener::Channel(asker);
                request.deadline = deadline;
                None
            }
            None => Some(asker),
        }
    }

    /// The asker of a request has gone. False when the answer is on its way already.
    pub(super) fn asker_is_gone(&mut self, id: RequestId) -> bool {
        let request = self.requests_mut().find(|request| request.id == id);
        request.is_some_and(|request| {
            request.listener = Listener::Dropped;
            true
        })
    }

    /// The asker of a request has waited for long enough: says what it is to be told, `None`
    /// when the answer is on its way already. A request that certainly changed nothing is not
    /// tried any more.
    pub(super) fn asker_times_out(
        &mut self,
        id: RequestId,
        trouble: Option<&Error>,
        now: Instant,
    ) -> Option<Error> {
        if let Some(at) = self.pending.iter().position(|request| request.id == id) {
            let request = self.pending.get_mut(at)?;
            let certain = request.uncertain.is_none() && !request.inherits;
            request.listener = Listener::TimedOut;
            if certain || !request.may_have_left_a_slot() {
                self.pending.remove(at);
            }
            let kind = if certain {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Indeterminate
            };
            return Some(late(kind, trouble));
        }
        let request = self.requests_mut().find(|request| request.id == id)?;
        request.listener = Listener::TimedOut;
        request.deadline = Some(now);
        Some(late(ErrorKind::Indeterminate, trouble))
    }
}

fn late(kind: ErrorKind, trouble: Option<&Error>) -> Error {
    if let Some(trouble) = trouble
        && kind == ErrorKind::Unavailable
        && matches!(
            trouble.kind(),
            ErrorKind::Unavailable | ErrorKind::Contended | ErrorKind::SessionLost
        )
    {
        return trouble.replicate();
    }
    let message = if kind == ErrorKind::Indeterminate {
        "there was no answer within the command timeout, and an attempt may have succeeded; read \
         the run's status before you act"
    } else {
        "it was not answered in time, within the command timeout: the store, or its turn to be \
         carried out, did not come; nothing was changed"
    };
    let error = Error::new(kind, "command", message);
    match trouble {
        Some(trouble) => error.caused_by(trouble.to_string()),
        None => error,
    }
}

impl<P: Port> Request<P> {
    /// Where the answer goes, which is given now: to a channel, or `Some(None)` to the call that
    /// submitted the request. `None` when nobody waits for it.
    pub(super) fn take_asker(&mut self) -> Option<Option<P::Asker>> {
        match std::mem::replace(&mut self.listener, Listener::Dropped) {
            Listener::Caller => Some(None),
            Listener::Channel(asker) => Some(Some(asker)),
            silent => {
                self.listener = silent;
                None
            }
        }
    }

    /// Answers with a failure. An attempt that may have succeeded makes the outcome unknown. True
    /// when somebody is told, who has gone from here on.
    pub(super) fn fail(&mut self, error: &Error, effects: &mut Effects<P>) -> bool {
        let Some(asker) = self.take_asker() else {
            return false;
        };
        let error = if self.uncertain.is_some() {
            let message = "the answer to an attempt was lost, and its outcome could not be read; \
                           read the run's status before you act";
            Error::new(ErrorKind::Indeterminate, error.operation(), message)
                .caused_by(error.to_string())
        } else {
            error.replicate()
        };
        effects.replies.push(Answer {
            request: self.id,
            asker,
            result: Err(Box::new(error)),
        });
        true
    }
}
