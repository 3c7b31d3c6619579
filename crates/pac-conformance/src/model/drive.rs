//! Gives the machine its inputs, delivers their effects, and carries out what it says is to be
//! done next, as `pac_core::manager::commit` does for it.

use std::sync::Arc;

use pac_core::driver::CommitOutcome;
use pac_core::manager::machine::{Action, Effects, Env, Listener, Request, RequestId};
use pac_core::protocol::{Changes, Command};
use pac_core::state::Snapshot;
use pac_core::{Error, ErrorKind, Version};

use super::ask::{Ask, is_done_already};
use super::book::{Book, stamped};
use super::controller::{Controller, Terms, Wire};
use super::invariant::{Broken, Invariant};
use super::port::{Asker, Machine, ModelPort};
use super::store::{Answer, Parcel, Sent};
use super::tamper::tamper;
use super::target::Target;
use super::variant::Variant;
use super::witness::Witness;

/// One read covers every question that is pending, after one that is due in any case; more of
/// them in turn are a loop.
const READS: usize = 3;

/// What a step happens in.
pub(super) struct Scene<'a> {
    pub(super) terms: &'a Terms,
    /// As the store has it.
    pub(super) book: &'a Book,
    pub(super) broken: &'a mut Broken,
}

impl Controller {
    /// Gives the machine an input which says whether the combiner's right comes with it, and
    /// does what is to be done with that.
    pub(super) fn input(
        &mut self,
        scene: &mut Scene<'_>,
        input: impl FnOnce(&mut Machine, &Env, &mut Effects<ModelPort>) -> bool,
    ) {
        if self.nested(scene, input) {
            self.attend(scene, Action::Plan);
        }
    }

    /// Gives the machine an input, and delivers the effects. The second part says whether the
    /// combiner's right came with what could not be delivered.
    fn give<T>(
        &mut self,
        scene: &mut Scene<'_>,
        input: impl FnOnce(&mut Machine, &Env, &mut Effects<ModelPort>) -> T,
    ) -> (T, bool) {
        let env = self.env(scene.terms);
        let mut effects = Effects::default();
        let result = input(Arc::make_mut(&mut self.machine), &env, &mut effects);
        let lead = self.deliver(scene, effects);
        (result, lead)
    }

    /// Gives the machine an input amid another's effects. True when the combiner's right came
    /// with it.
    pub(super) fn nested(
        &mut self,
        scene: &mut Scene<'_>,
        input: impl FnOnce(&mut Machine, &Env, &mut Effects<ModelPort>) -> bool,
    ) -> bool {
        let (lead, late_lead) = self.give(scene, input);
        lead || late_lead
    }

    /// Submits a command of the application's.
    pub(super) fn submit(&mut self, scene: &mut Scene<'_>, asker: Asker, command: Command) {
        let asked = match (scene.terms.variant, command.clone()) {
            (
                Variant::ReleasesByAnyToken,
                Command::Release {
                    run, uid, outcome, ..
                },
            ) => Command::Release {
                run,
                uid,
                token: None,
                outcome,
            },
            (_, asked) => asked,
        };
        self.note_ask(scene, asker, command);
        let mut id = RequestId::default();
        self.input(scene, |machine, env, effects| {
            let deadline = Some(env.now + env.command_timeout);
            let request = Request::new(asked, Listener::Channel(asker), deadline);
            let (first, lead) = machine.submit(env, [request].into_iter(), effects);
            id = first;
            lead
        });
        if let Some(ask) = self.ask_mut(asker) {
            ask.request = id;
        }
    }

    /// Notes that the application awaits an answer.
    pub(super) fn note_ask(&mut self, scene: &Scene<'_>, asker: Asker, command: Command) {
        let ask = Ask::new(asker, command, scene.book.revision());
        self.asks.push(ask);
    }

    /// Does what is to be done next, until that has to be waited for.
    pub(super) fn attend(&mut self, scene: &mut Scene<'_>, mut action: Action) {
        let mut reads = 0;
        loop {
            let (next, lead) = match action {
                Action::Rest => {
                    self.wire = Wire::Idle;
                    return;
                }
                Action::PlanAfter(_) | Action::Hold(_) if self.lost => {
                    self.wire = Wire::Parked;
                    return;
                }
                // Whatever is committed in the name of a session that is over is refused.
                Action::Commit(..) if self.lost => {
                    let session = self.session;
                    self.give(scene, |machine, env, effects| {
                        let refused = CommitOutcome::SessionDead(session);
                        machine.on_commit(env, session, refused, effects)
                    })
                }
                Action::Plan | Action::PlanAfter(_) | Action::Hold(_) => {
                    self.give(scene, Machine::plan)
                }
                Action::Load(since) => {
                    reads += 1;
                    if reads > READS {
                        scene.broken.by(Invariant::ComesToRest);
                        self.wire = Wire::Parked;
                        return;
                    }
                    if scene.terms.scenario.slow_reads {
                        self.wire = Wire::Reading(since);
                        return;
                    }
                    let answer = self.read(scene, since);
                    self.give(scene, |machine, env, effects| {
                        machine.on_loaded(env, Ok(answer), effects)
                    })
                }
                Action::Commit(_, commit) => {
                    let [commit] = *commit;
                    self.send(scene, commit.changes);
                    return;
                }
            };
            action = match next {
                Action::Rest if lead => Action::Plan,
                next => next,
            };
        }
    }

    /// What a read brings.
    pub(super) fn read(&self, scene: &Scene<'_>, since: Option<Version>) -> Snapshot {
        match (scene.terms.variant, self.machine.state()) {
            (Variant::AnswersFromTheCache, Some(state)) if since.is_some() => Snapshot {
                since,
                exists: state.exists(),
                head: state.head().clone(),
                entries: Vec::new(),
            },
            _ => scene.book.snapshot(since),
        }
    }

    /// The answer to a read that took its time.
    pub(super) fn loaded(&mut self, scene: &mut Scene<'_>, answer: Snapshot) {
        let (next, _) = self.give(scene, |machine, env, effects| {
            machine.on_loaded(env, Ok(answer), effects)
        });
        self.attend(scene, next);
    }

    fn send(&mut self, scene: &mut Scene<'_>, mut changes: Changes) {
        let terms = scene.terms;
        let view = self.machine.canonical(terms.now);
        let sent = view.in_flight.iter().map(|planned| {
            let asker = match planned.request.listener {
                Listener::Channel(asker) => Some(*asker),
                _ => None,
            };
            let asked = asker.and_then(|asker| self.ask(asker));
            let command = asked.map_or(planned.request.command, |ask| &ask.command);
            let base = self.machine.state();
            Sent {
                asker,
                command: command.clone(),
                outcome: planned.outcome.clone(),
                target: base.and_then(|base| Target::of(command, planned.outcome, base)),
            }
        });
        let commands: Vec<_> = sent.collect();
        if let ([sent], Some(state)) = (&*commands, self.machine.state())
            && is_done_already(&sent.command, state, self.session)
        {
            // Only by an old token could there have been something to end.
            let old = matches!(
                sent.command,
                Command::Release { .. } | Command::Requeue { .. }
            );
            scene.broken.by(if old {
                Invariant::Fencing
            } else {
                Invariant::Idempotent
            });
        }
        let dead = |session| self.known_dead.contains(session);
        if changes.alive.iter().any(dead) {
            // It can only be refused, for a reason that is known: two such plans in turn, and
            // the dead hand each other their slots without an end.
            scene.broken.by(Invariant::ComesToRest);
        }
        if commands.len() > 1 {
            terms.witnesses.saw(Witness::Combined);
        }
        tamper(self, terms, &commands, &mut changes);
        let takes_ownerless = self.env(terms).takes_ownerless;
        let parcel = Parcel::new(self.session, changes, commands, takes_ownerless);
        self.wire = Wire::Sent(Arc::new(parcel));
    }

    /// Takes in the answer to a commit.
    pub(super) fn settle(&mut self, scene: &mut Scene<'_>, parcel: &Parcel, answer: Answer) {
        let terms = scene.terms;
        let expected = parcel.changes.expected;
        let outcome = match (answer, terms.variant) {
            (Answer::Committed(book), _) => {
                let at_once = book.revision() == expected.revision.next();
                CommitOutcome::Committed(book.snapshot(at_once.then_some(expected)))
            }
            (Answer::Conflict(_), Variant::AnswersConflictsFromThePlan) => {
                CommitOutcome::Committed(stamped(
                    &parcel.changes,
                    expected.revision,
                    Some(expected),
                ))
            }
            (Answer::Conflict(book), _) => {
                terms.witnesses.saw(Witness::Conflict);
                self.note_again(terms, parcel);
                CommitOutcome::Conflict(Some(book.snapshot(Some(expected))))
            }
            (Answer::SessionDead(dead), _) if dead == parcel.session => {
                CommitOutcome::SessionDead(dead)
            }
            (Answer::SessionDead(dead), variant) => {
                terms.witnesses.saw(Witness::GrantToTheDeadRefused);
                if !self.known_dead.contains(&dead) {
                    self.known_dead.push(dead);
                    self.known_dead.sort_unstable();
                }
                match variant {
                    Variant::ForgetsTheDead | Variant::PlansForTheDead => {
                        CommitOutcome::Conflict(None)
                    }
                    _ => CommitOutcome::SessionDead(dead),
                }
            }
        };
        self.note_late_waiters(terms, parcel);
        let (next, lead) = self.give(scene, |machine, env, effects| {
            machine.on_commit(env, parcel.session, outcome, effects)
        });
        let next = match next {
            Action::Rest if lead => Action::Plan,
            next => next,
        };
        self.attend(scene, next);
    }

    /// Takes in that nobody knows what came of a commit.
    pub(super) fn unsettled(&mut self, scene: &mut Scene<'_>, parcel: &Parcel) {
        let kind = match scene.terms.variant {
            Variant::TakesLostForFailed => ErrorKind::Internal,
            Variant::RetriesBlindly => ErrorKind::Unavailable,
            _ => ErrorKind::Indeterminate,
        };
        for sent in &parcel.commands {
            if let Some(ask) = sent.asker.and_then(|asker| self.ask_mut(asker)) {
                ask.lose(sent);
            }
        }
        let error = Error::new(kind, "commit", "the answer was lost");
        let (next, lead) = self.give(scene, |machine, env, effects| {
            machine.on_commit_failed(env, &error, effects)
        });
        let next = match next {
            Action::Rest if lead => Action::Plan,
            next => next,
        };
        self.attend(scene, next);
    }

    fn note_again(&mut self, terms: &Terms, parcel: &Parcel) {
        if terms.variant != Variant::HandsOverOnlyWhenFresh {
            return;
        }
        for sent in &parcel.commands {
            if let Some(ask) = sent.asker.and_then(|asker| self.ask_mut(asker)) {
                ask.again = true;
            }
        }
    }

    /// The runs that were asked for in the name of a session that is over.
    fn note_late_waiters(&mut self, terms: &Terms, parcel: &Parcel) {
        if terms.variant != Variant::ForgetsLateWaiters || parcel.session == self.session {
            return;
        }
        let asked = parcel.commands.iter();
        let runs = asked.filter_map(|sent| sent.command.run().cloned());
        self.left_behind.extend(runs);
        self.left_behind.sort_unstable();
        self.left_behind.dedup();
    }
}
