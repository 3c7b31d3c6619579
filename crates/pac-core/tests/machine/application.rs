//! What the application of a node hears, and what it does when it goes away.

use pac_core::manager::machine::{
    Answer, Effects, EndOfWaiting, Grant, Reply, Turn, TurnMessage, WaiterId, abandon,
};
use pac_core::protocol::{Command, Outcome};
use pac_core::state::EntryState;
use tokio::time::Instant;

use super::node::{Ask, Node, TestPort, Wait};

/// How an asker or a waiter goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It says so at once.
    AtOnce,
    /// It closes its channel first, and says so later.
    ClosesFirst,
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
                let closed = false;
                let known = self.waiters.insert(place.waiter, Wait { entry, closed });
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
                let fresh = (created && !adopted) || carries.is_some();
                if fresh {
                    self.hand(now, grant);
                } else if !self.has(&grant) {
                    // Asked for again, it is the same lease.
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
        let wait = self.waiters.remove(&waiter);
        let wait = wait.unwrap_or_else(|| panic!("{waiter:?} hears of its end twice"));
        if wait.closed {
            // It says later that it has gone, and finds that there is nothing to give up.
            return self.input(now, |machine, env, effects| {
                machine.on_turn_undelivered(env, waiter, turn.message, effects)
            });
        }
        match turn.message {
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
        let request = ask.request;
        self.asks.remove(&asker);
        assert!(
            self.machine.on_asker_gone(request),
            "{request:?} has no answer, and is not known"
        );
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
        let entry = wait.entry.clone();
        self.waiters.remove(&waiter);
        let asker = self.next_asker();
        self.await_answer(asker, abandon(&entry, self.session));
        let mut asks = true;
        self.input(now, |machine, env, effects| {
            let lead = machine.give_up(env, &entry, waiter, None, asker, effects);
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
}
