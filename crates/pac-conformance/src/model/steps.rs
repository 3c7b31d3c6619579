//! What the application does, and what comes to the store.

use std::sync::Arc;

use pac_core::manager::machine::{Action, WaiterId, abandon};
use pac_core::protocol::{Command, Death, PauseCondition, RunRequest};
use pac_core::state::{Entry, RunKind, RunOutcome};
use pac_core::{Error, ErrorKind, FencingToken, Limit, PipelineRunKey, SessionId};

use super::ask::Reader;
use super::book::Book;
use super::controller::{Controller, Lease, WaitingState, Wire};
use super::deliver::{copy, take_back};
use super::drive::Scene;
use super::invariant::Invariant;
use super::monitor::Deed;
use super::port::{Asker, Of};
use super::scenario::Event;
use super::store::{Answer, Parcel};
use super::variant::Variant;
use super::witness::Witness;
use super::world::{State, World, next_session};

impl World {
    /// Whether the application can do what an event says.
    pub(super) fn may_happen(&self, state: &State, number: usize) -> bool {
        let (at, event) = self.0.scenario.events[number];
        let controller = &state.controllers[at];
        if state.events & (1 << number) != 0 || !controller.up || controller.closing {
            return false;
        }
        let waits = |run: usize| controller.place_of(self.run(run)).is_some();
        let holds = |run: usize| controller.lease_of(self.run(run));
        match event {
            Event::Requeue(run) => holds(run).is_some(),
            Event::StopReading(run) => controller.reads && holds(run).is_some(),
            Event::Detach(run) => waits(run),
            Event::GiveUp(run) => {
                let came = |at: usize| controller.leases[at].place.is_some();
                waits(run) || holds(run).is_some_and(came)
            }
            _ => true,
        }
    }

    fn run(&self, run: usize) -> &PipelineRunKey {
        &self.0.scenario.runs[run].run
    }

    /// The application does what an event says.
    pub(super) fn event(&self, state: &mut State, number: usize) {
        let (at, event) = self.0.scenario.events[number];
        state.events |= 1 << number;
        let request = |run: usize| self.0.scenario.runs[run].clone();
        let asker = Asker::from(Of::Event(number));
        let command = match event {
            Event::Admit(run) => Command::Admit(request(run)),
            Event::Adopt(run) => Command::Adopt(request(run)),
            Event::Cancel(run) => Command::cancel(request(run).run, None),
            Event::Release(run, token) => release(request(run), Some(FencingToken::new(token))),
            Event::Force(run) => release(request(run), None),
            Event::SetLimit(limit) => Command::limit(Limit::new(limit), None),
            Event::Pause => Command::Pause {
                reason: None,
                only_if: PauseCondition::Always,
            },
            Event::Resume => Command::Resume {
                only_if: PauseCondition::Always,
            },
            Event::Remove => Command::RemoveRepository,
            Event::Requeue(run) => {
                let RunRequest { run, uid, .. } = request(run);
                let (controller, _) = self.scene(state, at);
                let Some(lease) = controller.lease_of(&run) else {
                    return;
                };
                let token = controller.leases.remove(lease).grant.token;
                Command::Requeue { run, uid, token }
            }
            Event::GiveUp(run) => return self.give_up(state, at, number, self.run(run)),
            Event::Detach(run) => return self.detach(state, at, self.run(run)),
            Event::StopReading(run) => return self.stop_reading(state, at, self.run(run)),
            Event::Close => return self.close(state, at),
        };
        let (controller, mut scene) = self.scene(state, at);
        controller.submit(&mut scene, asker, command);
    }

    /// The waiter goes away; or it does so with the turn that has just come.
    fn give_up(&self, state: &mut State, at: usize, number: usize, run: &PipelineRunKey) {
        let (controller, mut scene) = self.scene(state, at);
        if let Some(place) = controller.place_of(run) {
            controller.waiting[place].state = WaitingState::Leaves(number);
            return;
        }
        let Some(lease) = controller.lease_of(run) else {
            return;
        };
        let lease = controller.give_up_lease(lease);
        if let Some(entry) = lease.place {
            let granted = self.0.variant != Variant::KeepsGivenUpGrants;
            let granted = granted.then_some(lease.grant.token);
            // It has left the queue already.
            let waiter = WaiterId(u64::MAX);
            controller.leave_place(&mut scene, number, &entry, waiter, granted);
        }
    }

    fn detach(&self, state: &mut State, at: usize, run: &PipelineRunKey) {
        let (controller, _) = self.scene(state, at);
        if let Some(place) = controller.place_of(run) {
            let left = controller.waiting.remove(place);
            Arc::make_mut(&mut controller.machine).detach(&left.entry, left.waiter);
        }
    }

    fn stop_reading(&self, state: &mut State, at: usize, run: &PipelineRunKey) {
        let (controller, mut scene) = self.scene(state, at);
        controller.reads = false;
        if let Some(lease) = controller.lease_of(run) {
            let lease = controller.leases.remove(lease);
            controller.input(&mut scene, |machine, env, effects| {
                machine.give_back(env, &lease.grant, effects)
            });
        }
    }

    /// The manager closes: everybody is told, then what it has is given back.
    fn close(&self, state: &mut State, at: usize) {
        let session = state.controllers[at].session;
        let has_entries = state.store.leaves_traces(session, Death::Session);
        let (controller, mut scene) = self.scene(state, at);
        controller.closing = true;
        let why = Error::new(ErrorKind::Closed, "command", "the manager was closed");
        controller.input(&mut scene, |machine, _, effects| {
            machine.end(&why, effects);
            false
        });
        if self.0.variant != Variant::ClosesUnfenced {
            controller.leases.clear();
        }
        if has_entries {
            controller.sweep(&mut scene, session, Death::Session);
        }
    }

    /// The application gives a slot back.
    pub(super) fn release(&self, state: &mut State, at: usize, lease: usize) {
        let (controller, mut scene) = self.scene(state, at);
        let grant = controller.leases.remove(lease).grant;
        let command = release(grant.entry.request(), Some(grant.token));
        let asker = Asker::from(Of::Release(grant.token));
        controller.submit(&mut scene, asker, command);
    }

    /// A commit comes to the store.
    pub(super) fn arrive(&self, state: &mut State, parcel: &Parcel, late: bool) -> Option<Answer> {
        let terms = &self.0;
        let answer = match state.store.commit(parcel, terms.variant) {
            Ok(answer) => answer,
            Err(_) => {
                state.broken.by(Invariant::AddsUp);
                return None;
            }
        };
        if let Answer::Committed(book) = &answer {
            let deed = Deed {
                store: &state.store,
                after: book,
                parcel,
                stops_early: terms.scenario.entries_per_commit < usize::MAX,
            };
            deed.judge(&mut state.broken);
            deed.witness(terms);
            let before = std::mem::replace(&mut state.store.book, book.clone());
            for controller in &mut state.controllers {
                if controller.has_sent(parcel)
                    && !Arc::make_mut(controller).land(parcel, &before, book)
                {
                    state.broken.by(Invariant::HeldToItsPlan);
                }
                if controller.has_sent(parcel) && !controller.keeps_its_word(parcel, &before, book)
                {
                    state.broken.by(Invariant::Kept);
                }
            }
            if late {
                terms.witnesses.saw(Witness::LateCommitDone);
            }
        } else if late {
            terms.witnesses.saw(Witness::LateCommitRefused);
        }
        Some(answer)
    }

    /// The controller has another session.
    pub(super) fn reopen(&self, state: &mut State, at: usize) {
        let before = state.controllers[at].session;
        let session = next_session(at, Some(before));
        state.store.open(session);
        let (controller, mut scene) = self.scene(state, at);
        controller.former.push(before);
        controller.session = session;
        controller.lost = false;
        let leases = std::mem::take(&mut controller.leases);
        for lease in leases {
            if lease.grant.entry.kind == RunKind::Durable {
                // The cluster runs it all the same.
                controller.leases.push(lease);
            } else {
                let command = abandon(&lease.grant.entry, session);
                controller.input(&mut scene, |machine, env, effects| {
                    machine.submit_own(env, command, effects)
                });
            }
        }
        if !self.0.scenario.late_news {
            controller.tell(&mut scene);
            controller.resume(&mut scene);
        }
    }

    pub(super) fn restart(&self, state: &mut State, at: usize) {
        let before = state.controllers[at].session;
        let session = match self.0.variant {
            Variant::ReusesItsSession => before,
            _ => next_session(at, Some(before)),
        };
        state.store.open(session);
        state.controllers[at] = Arc::new(Controller::new(session, &self.0));
    }

    pub(super) fn crash(&self, state: &mut State, at: usize) {
        let controller = Arc::make_mut(&mut state.controllers[at]);
        let mut gone = Controller::new(controller.session, &self.0);
        gone.up = false;
        if let Wire::Sent(parcel) = std::mem::replace(controller, gone).wire {
            state.late.push(parcel);
        }
    }

    pub(super) fn lose_answer(&self, state: &mut State, at: usize) {
        let controller = Arc::make_mut(&mut state.controllers[at]);
        let parcel = match std::mem::replace(&mut controller.wire, Wire::Idle) {
            Wire::Sent(parcel) => {
                state.late.push(Arc::clone(&parcel));
                parcel
            }
            Wire::Answered(parcel, _) => parcel,
            _ => return,
        };
        state.left.losses -= 1;
        let (controller, mut scene) = self.scene(state, at);
        controller.unsettled(&mut scene, &parcel);
    }
}

impl Controller {
    fn place_of(&self, run: &PipelineRunKey) -> Option<usize> {
        let mut waiting = self.waiting.iter();
        waiting
            .position(|waiting| waiting.entry.run == *run && waiting.state == WaitingState::Waits)
    }

    fn lease_of(&self, run: &PipelineRunKey) -> Option<usize> {
        let mut leases = self.leases.iter();
        leases.position(|lease| lease.grant.entry.run == *run)
    }

    /// A part of the application has no use for a lease. Another part may have it, too.
    fn give_up_lease(&mut self, lease: usize) -> Lease {
        if !self.leases[lease].is_shared {
            return self.leases.remove(lease);
        }
        let kept = &mut self.leases[lease];
        let given_up = kept.clone();
        kept.place = None;
        kept.is_shared = false;
        given_up
    }

    /// Whether a commit is one of this controller's, in this life of it.
    fn has_sent(&self, parcel: &Parcel) -> bool {
        self.up && (parcel.session == self.session || self.former.contains(&parcel.session))
    }

    /// For the monitor: a commit was done. False when a command of it should not have been.
    fn land(&mut self, parcel: &Parcel, before: &Book, after: &Book) -> bool {
        let mut right = true;
        for sent in &parcel.commands {
            if let Some(ask) = sent.asker.and_then(|asker| self.ask_mut(asker)) {
                right &= ask.land(sent, before, after);
            }
        }
        right
    }

    /// The waiter that was about to go says so.
    pub(super) fn waiter_goes(&mut self, scene: &mut Scene<'_>, at: usize) {
        let left = self.waiting.remove(at);
        if let WaitingState::Leaves(number) = left.state {
            self.leave_place(scene, number, &left.entry, left.waiter, None);
        }
    }

    /// A grant that found nobody comes back.
    pub(super) fn take_back(&mut self, scene: &mut Scene<'_>, back: usize) {
        let back = self.returns.remove(back);
        if self.give_back(scene, back) {
            self.attend(scene, Action::Plan);
        }
    }

    fn leave_place(
        &mut self,
        scene: &mut Scene<'_>,
        number: usize,
        entry: &Entry,
        waiter: WaiterId,
        granted: Option<FencingToken>,
    ) {
        let asker = Asker::from(Of::Event(number));
        self.note_ask(scene, asker, abandon(entry, self.session));
        let mut asks = true;
        self.input(scene, |machine, env, effects| {
            let lead = machine.give_up(env, entry, waiter, granted, asker, effects);
            asks = lead.is_some();
            lead.unwrap_or(false)
        });
        if !asks {
            self.asks.retain(|ask| ask.asker != asker);
        }
    }

    /// The asker that was about to go says so, or nobody reads what it was answered.
    pub(super) fn asker_goes(&mut self, scene: &mut Scene<'_>, asker: Asker) {
        let Some(at) = self.asks.iter().position(|ask| ask.asker == asker) else {
            return;
        };
        let ask = self.asks.remove(at);
        if let Reader::Unheard(reply) = &ask.reader {
            let regardless = take_back(reply);
            match scene.terms.variant {
                Variant::ForgetsUnheardAnswers => return,
                Variant::ForgetsTheLastAsker if regardless.is_none() => return,
                _ => {}
            }
            let unread = WaitingState::Unread(asker);
            self.waiting.retain(|waiting| waiting.state != unread);
            scene.terms.witnesses.saw(Witness::AnswerUndelivered);
            let reply = copy(reply);
            let takes_back = scene.terms.variant == Variant::TakesBackRegardless;
            let regardless = regardless.filter(|_| takes_back);
            self.input(scene, |machine, env, effects| {
                let lead =
                    regardless.is_some_and(|command| machine.submit_own(env, command, effects));
                machine.on_reply_undelivered(env, Box::new(reply), effects) || lead
            });
            return;
        }
        scene.terms.witnesses.saw(Witness::AskerGone);
        if !Arc::make_mut(&mut self.machine).on_asker_gone(ask.request) {
            scene.broken.by(Invariant::AnsweredOnce);
        }
    }

    /// The asker is told that it has waited for long enough, and asks again.
    pub(super) fn asker_times_out(&mut self, scene: &mut Scene<'_>, asker: Asker) {
        let Some(at) = self.asks.iter().position(|ask| ask.asker == asker) else {
            return;
        };
        let ask = self.asks.remove(at);
        let now = scene.terms.now;
        let told = Arc::make_mut(&mut self.machine).on_asker_late(ask.request, now);
        match told.map(|told| told.kind()) {
            None => scene.broken.by(Invariant::AnsweredOnce),
            Some(ErrorKind::Indeterminate) => {}
            Some(_) if ask.landed.is_some() => scene.broken.by(Invariant::UnknownIsNotFailed),
            Some(_) => {}
        }
        let again = Asker {
            attempt: asker.attempt + 1,
            ..asker
        };
        self.submit(scene, again, ask.command);
    }

    /// The pause ends after which it tries again.
    pub(super) fn resume(&mut self, scene: &mut Scene<'_>) {
        if self.wire == Wire::Parked {
            self.wire = Wire::Idle;
            self.attend(scene, Action::Plan);
        }
    }

    /// It hears of the death of a session that has left entries.
    pub(super) fn sweep(&mut self, scene: &mut Scene<'_>, session: SessionId, death: Death) {
        let command = Command::Expire { session, death };
        let asker = Asker::from(Of::Sweep(session, death));
        self.note_ask(scene, asker, command.clone());
        self.input(scene, |machine, env, effects| {
            machine.note_dead(session);
            machine.submit_last_will(env, command, asker, effects)
        });
    }

    /// It follows what has become of its session.
    pub(super) fn tell(&mut self, scene: &mut Scene<'_>) {
        let (session, told_lost) = self.told;
        self.told = (self.session, self.lost);
        let is_another = session != self.session;
        if !told_lost && (self.lost || is_another) {
            self.tell_lost(scene, session);
        }
        if is_another {
            self.input(scene, |machine, env, effects| {
                machine.on_session_opened(env, effects)
            });
            if self.lost {
                self.tell_lost(scene, self.session);
            }
        }
    }

    fn tell_lost(&mut self, scene: &mut Scene<'_>, session: SessionId) {
        self.input(scene, |machine, env, effects| {
            machine.on_session_lost(env, session, effects);
            false
        });
    }

    /// Whether it has yet to be told what has become of its session.
    pub(super) fn has_to_be_told(&self) -> bool {
        self.told != (self.session, self.lost) && !self.closing
    }
}

fn release(request: RunRequest, token: Option<FencingToken>) -> Command {
    Command::Release {
        run: request.run,
        uid: request.uid,
        token,
        outcome: RunOutcome::Completed,
    }
}
