//! What the application of a node hears, and what it does when it goes away.

use pac_core::FencingToken;
use pac_core::manager::machine::{
    Answer, Effects, EndOfWaiting, Grant, Reply, Turn, TurnMessage, WaiterId, abandon,
};
use pac_core::protocol::{Changes, Command, Outcome};
use pac_core::state::{Entry, EntryState, RunKind};
use tokio::time::Instant;

use super::node::{Ask, Node, TestPort, Wait};

/// How an asker or a waiter goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It says so at once.
    AtOnce,
    /// It closes its channel first, and says so later.
    ClosesFirst,
    /// It reads no more, and closes its channel later, with what lies in it.
    StopsReading,
}

impl Node {
    /// Delivers effects, in their order.
    pub(crate) fn deliver(&mut self, now: Instant, effects: Effects<TestPort>) {
        let Effects {
            replies,
            turns,
            grants,
            losses,
            session_lost,
            ..
        } = effects;
        self.lost |= session_lost == Some(self.session);
        let mut untaken = Vec::new();
        for grant in grants {
            if self.reads && !self.closing {
                self.hand(now, grant);
            } else {
                untaken.push(grant);
            }
        }
        for answer in replies {
            self.deliver_answer(now, answer);
        }
        for turn in turns {
            self.deliver_turn(now, turn);
        }
        for (token, _) in losses {
            let known = self.holders.remove(&token);
            assert!(known.is_some(), "the loss of {token} is told twice");
        }
        for grant in untaken {
            self.input(now, |machine, env, effects| {
                machine.give_back(env, &grant, effects)
            });
        }
    }

    fn deliver_answer(&mut self, now: Instant, answer: Answer<TestPort>) {
        let asker = answer.asker.expect("everybody has a channel");
        let ask = self.asks.remove(&asker);
        let ask = ask.unwrap_or_else(|| panic!("{asker} is answered, and does not ask (any more)"));
        match answer.result {
            Ok(reply) if ask.closed => {
                // The end of its waiting, if that came along, will find nobody either.
                self.unheard
                    .extend(reply.place.iter().map(|place| place.waiter));
                self.input(now, |machine, env, effects| {
                    machine.on_reply_undelivered(env, reply, effects)
                });
            }
            Ok(reply) if ask.stopped => {
                self.unread.insert(asker, reply);
            }
            Ok(reply) => self.take_reply(now, &ask.command, *reply),
            Err(_) => self.is_in_doubt(&ask),
        }
    }

    /// The application does not know what has come of what it has asked, and sees to it later.
    pub(crate) fn is_in_doubt(&mut self, ask: &Ask) {
        if let Some(run) = ask.command.run() {
            self.in_doubt.insert(run.clone());
        }
    }

    fn take_reply(&mut self, now: Instant, asked: &Command, reply: Reply<TestPort>) {
        let Reply {
            outcome,
            entry,
            place,
            carries,
            ..
        } = reply;
        let (Outcome::Admitted { admitted, created }, Some(entry)) = (outcome, entry) else {
            return;
        };
        if !admitted.has_a_place() {
            return;
        }
        match (entry.state, place) {
            (EntryState::Queued { .. }, Some(place)) => {
                let wait = Wait {
                    entry,
                    closed: false,
                    stopped: false,
                };
                let known = self.waiters.insert(place.waiter, wait);
                assert!(known.is_none(), "a waiter's number is used twice");
            }
            (EntryState::Started { token, session, .. }, _) if session == self.session => {
                let grant = Grant {
                    entry,
                    token,
                    session,
                    running: false,
                };
                // A run that is adopted was running before.
                let adopted = matches!(asked, Command::Adopt(_));
                if adopted {
                    self.adopted.insert(token);
                }
                let fresh = (created && !adopted) || carries.is_some();
                if fresh {
                    self.hand(now, grant);
                } else if grant.entry.kind == RunKind::Durable || !self.has(&grant) {
                    // Asked for again, it is the same lease, and ends with the first of them if
                    // it is ephemeral.
                    self.leases.push(grant);
                }
            }
            _ => {}
        }
    }

    fn has(&self, grant: &Grant) -> bool {
        let mut leases = self.leases.iter();
        leases.any(|lease| lease.token == grant.token)
    }

    /// The application is given a slot.
    pub(crate) fn hand(&mut self, now: Instant, grant: Grant) {
        let new = self.handed.insert(grant.token);
        assert!(new, "{grant:?} is given twice");
        self.holders.insert(grant.token, grant.entry.run.clone());
        let (run, token) = (grant.entry.run.clone(), grant.token);
        if !self.has(&grant) {
            self.leases.push(grant);
        }
        let mut holder = None;
        self.give(now, |machine, _, effects| {
            holder = Some(machine.watch_lease(&run, token, token, effects));
        });
        self.watching.extend(holder.map(|holder| (token, holder)));
    }

    fn deliver_turn(&mut self, now: Instant, turn: Turn<TestPort>) {
        let waiter = turn.waiter;
        if self.unheard.remove(&waiter) {
            return self.input(now, |machine, env, effects| {
                machine.on_turn_undelivered(env, waiter, turn.message, effects)
            });
        }
        let mut unread = self.unread.values_mut();
        let of = |reply: &Reply<TestPort>| reply.place.as_ref().map(|place| place.waiter);
        if let Some(reply) = unread.find(|reply| of(reply) == Some(waiter)) {
            // It lies unread beside the answer with the place.
            match turn.message {
                TurnMessage::Started(grant) => reply.carries = Some(grant),
                TurnMessage::Over(_) => reply.place = None,
            }
            return;
        }
        let wait = self.waiters.remove(&waiter);
        let wait = wait.unwrap_or_else(|| panic!("{waiter:?} hears of its end twice"));
        if wait.closed {
            // It says later that it has gone, and finds that there is nothing to give up.
            return self.input(now, |machine, env, effects| {
                machine.on_turn_undelivered(env, waiter, turn.message, effects)
            });
        }
        match turn.message {
            TurnMessage::Started(grant) if wait.stopped => {
                self.unread_turns.insert(waiter, (wait.entry, grant.token));
            }
            TurnMessage::Started(grant) => self.hand(now, grant),
            TurnMessage::Over(EndOfWaiting::Gone) => {
                let state = self.machine.state();
                let entry = state.and_then(|state| state.entry(&wait.entry.run));
                let there = entry.is_some_and(|entry| entry.ticket == wait.entry.ticket);
                assert!(!there, "{wait:?} hears that its run is gone");
            }
            TurnMessage::Over(_) => {}
        }
    }

    /// An asker goes away.
    pub(crate) fn asker_leaves(&mut self, asker: u64, how: Leave) {
        let Some(ask) = self.asks.get_mut(&asker) else {
            return;
        };
        if let Command::Adopt(request) = &ask.command {
            // It runs all the same, and the cluster knows of it.
            self.in_doubt.insert(request.run.clone());
        }
        if how == Leave::ClosesFirst && !ask.closed {
            ask.closed = true;
            return;
        }
        if how == Leave::StopsReading && !ask.stopped && !ask.closed {
            ask.stopped = true;
            return;
        }
        let request = ask.request;
        self.asks.remove(&asker);
        assert!(
            self.machine.on_asker_gone(request),
            "{request:?} has no answer, and is not known"
        );
    }

    /// An asker that has stopped reading goes away with its answer.
    pub(crate) fn unread_comes_back(&mut self, now: Instant, which: usize) -> bool {
        let askers = which.checked_rem(self.unread.len());
        let asker = askers.and_then(|at| self.unread.keys().nth(at).copied());
        let Some(reply) = asker.and_then(|asker| self.unread.remove(&asker)) else {
            return false;
        };
        self.input(now, |machine, env, effects| {
            machine.on_reply_undelivered(env, reply, effects)
        });
        true
    }

    /// The same for a waiter, with its turn.
    pub(crate) fn unread_turn_comes_back(&mut self, now: Instant, which: usize) -> bool {
        let waiters = which.checked_rem(self.unread_turns.len());
        let waiter = waiters.and_then(|at| self.unread_turns.keys().nth(at).copied());
        let Some((waiter, (entry, token))) =
            waiter.and_then(|waiter| self.unread_turns.remove_entry(&waiter))
        else {
            return false;
        };
        self.gives_up(now, waiter, &entry, Some(token));
        true
    }

    /// An asker has waited for long enough.
    pub(crate) fn asker_is_late(&mut self, now: Instant, asker: u64) {
        if let Some(ask) = self.asks.remove(&asker) {
            let told = self.machine.on_asker_late(ask.request, now);
            assert!(told.is_some(), "{ask:?} has no answer, and is not known");
            self.is_in_doubt(&ask);
        }
    }

    /// A waiter goes away.
    pub(crate) fn waiter_leaves(&mut self, now: Instant, waiter: WaiterId, how: Leave) {
        let Some(wait) = self.waiters.get_mut(&waiter) else {
            return;
        };
        if how == Leave::ClosesFirst && !wait.closed {
            wait.closed = true;
            return;
        }
        if how == Leave::StopsReading && !wait.stopped && !wait.closed {
            wait.stopped = true;
            return;
        }
        let entry = wait.entry.clone();
        self.waiters.remove(&waiter);
        self.gives_up(now, waiter, &entry, None);
    }

    fn gives_up(
        &mut self,
        now: Instant,
        waiter: WaiterId,
        entry: &Entry,
        granted: Option<FencingToken>,
    ) {
        let asker = self.next_asker();
        self.await_answer(asker, abandon(entry, self.session));
        let mut asks = true;
        self.input(now, |machine, env, effects| {
            let lead = machine.give_up(env, entry, waiter, granted, asker, effects);
            asks = lead.is_some();
            lead.unwrap_or(false)
        });
        if !asks {
            self.asks.remove(&asker);
        }
    }

    /// A waiter leaves its run in the queue.
    pub(crate) fn waiter_detaches(&mut self, waiter: WaiterId) {
        if let Some(wait) = self.waiters.remove(&waiter) {
            assert!(self.machine.detach(&wait.entry, waiter), "it waited");
        }
    }

    /// The lease with which a command of the application's begins.
    pub(crate) fn give_up_lease(&mut self, at: usize) -> Option<Grant> {
        let at = at.checked_rem(self.leases.len())?;
        let grant = self.leases.remove(at);
        self.holders.remove(&grant.token);
        if let Some(holder) = self.watching.remove(&grant.token) {
            self.machine.unwatch_lease(holder);
        }
        Some(grant)
    }

    /// What is taken back for an asker that has gone is nobody's who has it still.
    pub(crate) fn check_kept(&self, now: Instant, changes: &Changes) {
        let view = self.machine.canonical(now);
        let commands: Vec<_> = view.in_flight.iter().map(|of| of.request.command).collect();
        let takes_back = |command: &Command| {
            matches!(
                command,
                Command::Abandon { .. } | Command::Disown { .. } | Command::Admit(_)
            )
        };
        let ends_many = |command: &&Command| command.run().is_none();
        if commands.iter().any(ends_many) || self.lost {
            return;
        }
        for after in &changes.entries {
            let named = |command: &&&Command| command.run() == Some(&after.run);
            let mut commands = commands.iter().filter(named).peekable();
            if commands.peek().is_none() || !commands.all(|command| takes_back(command)) {
                continue;
            }
            let mut leases = self.leases.iter();
            let lost = leases.find(|lease| {
                let same = lease.entry.run == after.run && lease.entry.ticket == after.ticket;
                let known = self.machine.is_held(&after.run, lease.token);
                let ours = lease.session == self.session && lease.entry.kind == RunKind::Durable;
                same && ours && known && after.token() != Some(lease.token)
            });
            assert!(
                lost.is_none(),
                "{lost:?} is taken from its holder: {:?}",
                view.in_flight
            );
        }
    }
}
