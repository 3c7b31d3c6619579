//! Delivers what an input to the machine leads to, as `pac_core::manager::notify` does: the
//! application hears of it.

use std::sync::Arc;

use pac_core::ErrorKind;
use pac_core::manager::machine::{
    Answer, Asked, Effects, EndOfWaiting, Grant, Place, Reply, Turn, TurnMessage, WaiterId, abandon,
};
use pac_core::protocol::{Claim, Command, Ended, Outcome};
use pac_core::state::{Entry, EntryState, RunKind};

use super::ask::{Ask, Reader};
use super::controller::{Controller, Lease, Return, Terms, Waiting, WaitingState};
use super::drive::Scene;
use super::invariant::Invariant;
use super::port::{Asker, ModelPort};
use super::variant::Variant;
use super::witness::Witness;

impl Controller {
    /// Delivers effects. True when the combiner's right came with what could not be delivered.
    pub(super) fn deliver(&mut self, scene: &mut Scene<'_>, effects: Effects<ModelPort>) -> bool {
        let Effects {
            replies,
            turns,
            grants,
            session_lost,
            ..
        } = effects;
        let variant = scene.terms.variant;
        let mut untaken = Vec::new();
        let answered = |grant: &Grant| {
            let mut replies = replies
                .iter()
                .filter_map(|answer| answer.result.as_ref().ok());
            replies.any(|reply| {
                let entry = reply.entry.as_ref().filter(|_| reply.asked != Asked::Other);
                entry.and_then(|entry| entry.token()) == Some(grant.token)
            })
        };
        if grants.iter().any(answered) {
            // Once as an answer, and once out of the stream.
            scene.broken.by(Invariant::Idempotent);
        }
        for grant in grants {
            match variant {
                Variant::DropsGrants => {}
                _ if self.reads && !self.closing => self.take(scene, grant, None),
                _ => untaken.push(grant),
            }
        }
        self.lost |= session_lost == Some(self.session);
        let mut lead = false;
        for answer in replies {
            self.deliver_answer(scene, answer);
        }
        for turn in turns {
            lead |= self.deliver_turn(scene, turn);
        }
        for grant in untaken {
            if variant != Variant::KeepsUntakenGrants {
                lead |= self.comes_back(
                    scene,
                    Return {
                        grant,
                        waiter: None,
                    },
                );
            }
        }
        lead
    }

    fn deliver_answer(&mut self, scene: &mut Scene<'_>, answer: Answer<ModelPort>) {
        let mut asks = self.asks.iter();
        let known = answer
            .asker
            .and_then(|asker| asks.position(|ask| ask.asker == asker));
        let Some(at) = known else {
            scene.broken.by(Invariant::AnsweredOnce);
            return;
        };
        let ask = self.asks.remove(at);
        match (&ask.reader, answer.result) {
            (Reader::Listens, Ok(reply)) => self.take_reply(scene, &ask, *reply),
            (Reader::Listens, Err(error)) => {
                let unknown = matches!(error.kind(), ErrorKind::Indeterminate | ErrorKind::Closed);
                if ask.landed.is_some() && !unknown {
                    scene.broken.by(Invariant::UnknownIsNotFailed);
                }
            }
            (Reader::Stopped, Ok(reply)) => {
                if let (Some(place), Some(entry)) = (&reply.place, &reply.entry) {
                    let state = WaitingState::Unread(ask.asker);
                    self.waits(place, entry, state);
                }
                self.asks.push(Ask {
                    reader: Reader::Unheard(Arc::new(*reply)),
                    ..ask
                });
            }
            // There is nothing to take back.
            (Reader::Stopped, Err(_)) => {}
            (Reader::Unheard(_), _) => scene.broken.by(Invariant::AnsweredOnce),
        }
    }

    /// The application reads the answer to what it has asked.
    fn take_reply(&mut self, scene: &mut Scene<'_>, ask: &Ask, reply: Reply<ModelPort>) {
        let terms = scene.terms;
        if ask.lost && ask.landed.is_some() {
            terms.witnesses.saw(Witness::LostAnswerRecognised);
        }
        if self.lost {
            terms.witnesses.saw(Witness::AnsweredWithoutSession);
        }
        if reply.carries.is_some() {
            terms.witnesses.saw(Witness::AnswerCarriesGrant);
        }
        if self
            .machine
            .revision()
            .is_some_and(|known| ask.asked_at > known)
        {
            scene.broken.by(Invariant::AnswersAreCurrent);
        }
        let entry = reply.entry.as_deref();
        let faults = terms.scenario.faults;
        let may_inherit = faults.leaves + faults.timeouts > 0;
        if !ask.may_hear(&reply.outcome, entry, self.session, may_inherit) {
            scene.broken.by(Invariant::UnknownIsNotFailed);
        }
        self.witness_answer(terms, ask, &reply);
        let (Outcome::Admitted { admitted, created }, Some(entry)) = (reply.outcome, reply.entry)
        else {
            return;
        };
        if !admitted.has_a_place() {
            return;
        }
        match (entry.state, reply.place) {
            (EntryState::Queued { .. }, Some(place)) => {
                self.waits(&place, &entry, WaitingState::Waits);
            }
            (EntryState::Started { token, session, .. }, _) => {
                let durable = entry.kind == RunKind::Durable;
                let is_ours = session == self.session || (self.was(session) && durable);
                let grant = Grant {
                    entry,
                    token,
                    session,
                    running: false,
                };
                if !is_ours {
                    // The lease says so: the application leaves it alone.
                } else if created || reply.carries.is_some() {
                    self.take(scene, grant, None);
                } else if !self.knows(&grant) {
                    let is_second = !durable && reply.asked != Asked::Requeue;
                    self.leases.push(Lease {
                        grant,
                        place: None,
                        is_second,
                        is_shared: false,
                    });
                } else if durable {
                    // Asked for again, it is the same lease.
                    let mut leases = self.leases.iter_mut();
                    let known = leases.find(|lease| lease.grant.token == grant.token);
                    if let Some(lease) = known {
                        lease.is_shared = true;
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the application has the lease already, or is giving it back.
    fn knows(&self, grant: &Grant) -> bool {
        let ends = |ask: &Ask| match &ask.command {
            Command::Release { token, .. } | Command::Abandon { token, .. } => {
                *token == Some(grant.token)
            }
            Command::Requeue { token, .. } => *token == grant.token,
            _ => false,
        };
        let mut leases = self.leases.iter();
        leases.any(|lease| lease.grant.token == grant.token) || self.asks.iter().any(ends)
    }

    /// A slot is handed to the application.
    fn take(&mut self, scene: &mut Scene<'_>, grant: Grant, place: Option<Arc<Entry>>) {
        let mut leases = self.leases.iter();
        if leases.any(|lease| lease.grant.token == grant.token) {
            scene.broken.by(Invariant::Idempotent);
            return;
        }
        self.leases.push(Lease {
            grant,
            place,
            is_second: false,
            is_shared: false,
        });
    }

    fn waits(&mut self, place: &Place<ModelPort>, entry: &Arc<Entry>, state: WaitingState) {
        self.waiting.push(Waiting {
            waiter: place.waiter,
            entry: Arc::clone(entry),
            state,
        });
    }

    fn deliver_turn(&mut self, scene: &mut Scene<'_>, turn: Turn<ModelPort>) -> bool {
        let mut waiting = self.waiting.iter();
        let Some(at) = waiting.position(|waiting| waiting.waiter == turn.waiter) else {
            scene.broken.by(Invariant::AnsweredOnce);
            return false;
        };
        let Waiting { state, entry, .. } = self.waiting[at].clone();
        match (state, turn.message) {
            (WaitingState::Leaves(_), message) => {
                if matches!(message, TurnMessage::Started(_)) {
                    scene.terms.witnesses.saw(Witness::TurnUndelivered);
                }
                self.waiting.remove(at);
                if scene.terms.variant == Variant::ForgetsUnheardTurns {
                    return false;
                }
                if let TurnMessage::Started(grant) = message {
                    let waiter = Some(turn.waiter);
                    return self.comes_back(scene, Return { grant, waiter });
                }
                self.nested(scene, |machine, env, effects| {
                    machine.on_turn_undelivered(env, turn.waiter, message, effects)
                })
            }
            (WaitingState::Waits, TurnMessage::Started(grant)) => {
                self.waiting.remove(at);
                let again = scene.terms.scenario.may_give_up(&entry.run);
                self.take(scene, grant, again.then_some(entry));
                false
            }
            (WaitingState::Waits, TurnMessage::Over(why)) => {
                self.waiting.remove(at);
                if !self.is_over(&entry, &why) {
                    scene.broken.by(Invariant::UnknownIsNotFailed);
                }
                false
            }
            (WaitingState::Unread(asker), message) => {
                self.waiting.remove(at);
                self.keep_unread(asker, message);
                false
            }
        }
    }

    /// The end of waiting lies unread beside the answer with the place.
    fn keep_unread(&mut self, asker: Asker, message: TurnMessage) {
        let Some(ask) = self.ask_mut(asker) else {
            return;
        };
        if let (Reader::Unheard(reply), TurnMessage::Started(grant)) = (&ask.reader, message) {
            let reply = Reply {
                carries: Some(grant),
                ..copy(reply)
            };
            ask.reader = Reader::Unheard(Arc::new(reply));
        }
    }

    /// Whether what is known of a run bears out that there is nothing to wait for.
    fn is_over(&self, waited: &Entry, why: &EndOfWaiting) -> bool {
        let state = self.machine.state();
        let entry = state.and_then(|state| state.entry(&waited.run));
        let entry = entry.filter(|entry| entry.ticket == waited.ticket);
        match why {
            EndOfWaiting::Gone => entry.is_none(),
            EndOfWaiting::Ended(_) => entry.is_none_or(|entry| entry.is_finished()),
            // What waits or runs in the name of another session is not lost with this one.
            EndOfWaiting::Lost(session) => {
                let owner = entry.and_then(|entry| entry.owner());
                self.was(*session) && owner.is_none_or(|owner| self.was(owner))
            }
            EndOfWaiting::TakenOver | EndOfWaiting::Failed(_) => true,
        }
    }

    /// A grant has found nobody. True when the combiner's right came with that.
    fn comes_back(&mut self, scene: &mut Scene<'_>, back: Return) -> bool {
        if scene.terms.scenario.slow_returns {
            self.returns.push(back);
            return false;
        }
        self.give_back(scene, back)
    }

    /// A grant that found nobody comes back. True when the combiner's right came with that.
    pub(super) fn give_back(&mut self, scene: &mut Scene<'_>, back: Return) -> bool {
        let Return { grant, waiter } = back;
        let regardless = (scene.terms.variant == Variant::TakesBackRegardless).then(|| {
            let running = grant.running;
            waiter.map_or_else(
                || disown(&grant, running),
                |_| abandon(&grant.entry, grant.session),
            )
        });
        let lead = regardless.is_some_and(|command| {
            self.nested(scene, |machine, env, effects| {
                machine.submit_own(env, command, effects)
            })
        });
        lead | self.nested(scene, |machine, env, effects| match waiter {
            Some(waiter) => {
                let message = TurnMessage::Started(grant);
                machine.on_turn_undelivered(env, waiter, message, effects)
            }
            None => machine.give_back(env, &grant, effects),
        })
    }

    fn witness_answer(&self, terms: &Terms, ask: &Ask, reply: &Reply<ModelPort>) {
        let Outcome::Ended { ended, .. } = &reply.outcome else {
            if ask.lost && self.is_another_now(ask, reply) {
                terms.witnesses.saw(Witness::HeldToItsPlan);
            }
            return;
        };
        let had_a_slot = reply.entry.as_ref().is_some_and(|e| e.token().is_some());
        match (&ask.command, ended) {
            (_, Ended::Stale(_)) => terms.witnesses.saw(Witness::OldTokenRefused),
            (Command::Abandon { token: None, .. }, Ended::Done) if had_a_slot => {
                terms.witnesses.saw(Witness::GivenUpInTime);
            }
            (Command::Cancel { .. }, Ended::Done)
                if ask.lost && reply.entry.as_ref().is_some_and(|e| !e.is_finished()) =>
            {
                terms.witnesses.saw(Witness::HeldToItsPlan);
            }
            _ => {}
        }
    }

    /// Whether a later announcement, or what came after a removal, was left as it is.
    fn is_another_now(&self, ask: &Ask, reply: &Reply<ModelPort>) -> bool {
        match (&ask.command, &reply.outcome) {
            (
                Command::SetLimit {
                    claim: Claim::Set, ..
                },
                Outcome::LimitSet { accepted, .. },
            ) => !accepted,
            (Command::RemoveRepository, Outcome::Removed(ended)) => {
                !ended.is_empty()
                    && self
                        .machine
                        .state()
                        .is_some_and(pac_core::state::RepositoryState::exists)
            }
            _ => false,
        }
    }
}

/// The command that takes back what an answer has given, whoever else was answered since.
pub(super) fn take_back(reply: &Reply<ModelPort>) -> Option<Command> {
    let created = matches!(reply.outcome, Outcome::Admitted { created: true, .. });
    match (&reply.carries, &reply.entry) {
        (_, Some(entry)) if created => Some(abandon(entry, entry.owner()?)),
        (Some(grant), _) => Some(disown(grant, reply.took_over)),
        _ => None,
    }
}

fn disown(grant: &Grant, running: bool) -> Command {
    Command::Disown {
        run: grant.entry.run.clone(),
        token: grant.token,
        running,
    }
}

/// An answer that nobody has read, as it is handed back.
pub(super) fn copy(reply: &Reply<ModelPort>) -> Reply<ModelPort> {
    Reply {
        asked: reply.asked,
        outcome: reply.outcome.clone(),
        entry: reply.entry.clone(),
        place: reply.place.as_ref().map(|place| Place {
            waiter: WaiterId(place.waiter.0),
            end: (),
        }),
        carries: reply.carries.clone(),
        waits: None,
        took_over: reply.took_over,
    }
}
