//! What each step does.

use std::sync::Arc;

use pac_core::protocol::Command;
use pac_core::state::{EntryState, RunKind, RunOutcome};
use pac_core::{FencingToken, Limit, PipelineRunKey, SessionId};

use super::controller::{Controller, Wire};
use super::invariant::Invariant;
use super::monitor::Deed;
use super::scenario::Event;
use super::store::{Answer, Parcel};
use super::variant::Variant;
use super::witness::Witness;
use super::world::{State, World, next_session};
use crate::rules::Rules;

impl<R: Rules> World<R> {
    /// What the application does with an event, if it can do that now.
    pub(super) fn command_of(&self, state: &State, number: usize) -> Option<Command> {
        let (at, event) = self.0.scenario.events[number];
        let controller = &state.controllers[at];
        if state.events & (1 << number) != 0 || !controller.up {
            return None;
        }
        let request = |run: usize| self.0.scenario.runs[run].clone();
        match event {
            Event::Admit(run) => Some(Command::Admit(request(run))),
            Event::Adopt(run) => Some(Command::Adopt(request(run))),
            Event::Cancel(run) => {
                let run = request(run).run;
                Some(Command::Cancel { run, uid: None })
            }
            Event::Requeue(run) => {
                let run = request(run).run;
                let mut leases = controller.leases.iter();
                let held = leases.find(|lease| lease.request.run == run)?;
                let token = held.token;
                Some(Command::Requeue { run, token })
            }
            Event::GiveUp(run) => {
                let request = request(run);
                let mut waiting = controller.waiting.iter();
                waiting.find(|(run, _)| *run == request.run)?;
                let entry = controller.cache.as_ref()?.entry(&request.run)?;
                Some(Command::Abandon {
                    run: request.run,
                    uid: request.uid,
                    owner: entry.owner().unwrap_or(controller.session),
                    ticket: entry.ticket,
                    token: None,
                })
            }
            Event::Release(run, token) => {
                let request = request(run);
                Some(Command::Release {
                    run: request.run,
                    uid: request.uid,
                    token: Some(FencingToken::new(token)),
                    outcome: RunOutcome::Completed,
                })
            }
            Event::SetLimit(limit) => Some(Command::SetLimit {
                limit: Limit::new(limit),
                version: None,
            }),
        }
    }

    pub(super) fn event(&self, state: &mut State, number: usize) -> Option<()> {
        let command = self.command_of(state, number)?;
        let (at, event) = self.0.scenario.events[number];
        state.events |= 1 << number;
        let controller = Arc::make_mut(&mut state.controllers[at]);
        let of_it = |run: &PipelineRunKey| command.run() == Some(run);
        match event {
            Event::Requeue(_) => controller.leases.retain(|l| !of_it(&l.request.run)),
            Event::GiveUp(_) => controller.waiting.retain(|(run, _)| !of_it(run)),
            _ => {}
        }
        if matches!(event, Event::GiveUp(_)) {
            controller.submit_first(command, &state.store);
        } else {
            controller.submit(command, &state.store);
        }
        Some(())
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
                takes_ownerless: terms.scenario.takes_ownerless,
            };
            deed.judge(&mut state.broken);
            self.witness(&deed);
            state.store.book = book.clone();
            for controller in &mut state.controllers {
                Arc::make_mut(controller).landed(parcel);
            }
            if late {
                terms.witnesses.saw(Witness::LateCommitDone);
            }
        } else if late {
            terms.witnesses.saw(Witness::LateCommitRefused);
        }
        Some(answer)
    }

    pub(super) fn reopen(&self, state: &mut State, at: usize) {
        let State {
            store, controllers, ..
        } = state;
        let controller = Arc::make_mut(&mut controllers[at]);
        let before = controller.session;
        controller.former.push(before);
        controller.session = next_session(at, Some(before));
        controller.lost = false;
        store.open(controller.session);
        let leases = std::mem::take(&mut controller.leases);
        for lease in leases {
            if lease.request.kind == RunKind::Durable {
                // The cluster runs it all the same.
                controller.leases.push(lease);
            } else {
                controller.add(Command::Abandon {
                    run: lease.request.run,
                    uid: lease.request.uid,
                    owner: before,
                    ticket: lease.ticket,
                    token: Some(lease.token),
                });
            }
        }
        controller.reclaim(&self.0);
    }

    pub(super) fn restart(&self, state: &mut State, at: usize) {
        let before = state.controllers[at].session;
        let session = match self.0.variant {
            Variant::ReusesItsSession => before,
            _ => next_session(at, Some(before)),
        };
        state.store.open(session);
        state.controllers[at] = Arc::new(Controller::new(session));
    }

    pub(super) fn crash(state: &mut State, at: usize) {
        let controller = Arc::make_mut(&mut state.controllers[at]);
        let gone = Controller {
            up: false,
            ..Controller::new(controller.session)
        };
        if let Wire::Sent(parcel) = std::mem::replace(controller, gone).wire {
            state.late.push(parcel);
        }
        state.left.crashes -= 1;
    }

    pub(super) fn lose_answer(&self, state: &mut State, at: usize) {
        let controller = Arc::make_mut(&mut state.controllers[at]);
        if let Wire::Sent(parcel) = std::mem::replace(&mut controller.wire, Wire::Idle) {
            state.late.push(parcel);
        }
        controller.unsettled(&self.0, &mut state.broken);
        state.left.losses -= 1;
    }

    /// Takes out what can make no difference any more, so that states which differ in nothing
    /// else are one.
    pub(super) fn tidy(&self, state: &mut State) {
        let State {
            store,
            controllers,
            late,
            ..
        } = state;
        if self.0.variant != Variant::CommitsUnconditionally {
            let now = store.book.revision();
            let before = late.len();
            // The revision never comes back, and neither does a session: it would be refused.
            late.retain(|parcel| parcel.changes.expected == now && store.is_alive(parcel.session));
            if late.len() < before {
                self.0.witnesses.saw(Witness::LateCommitRefused);
            }
        }
        let kept = |session: SessionId| {
            let mut up = controllers.iter().filter(|controller| controller.up);
            up.any(|controller| controller.session == session)
        };
        let commits = |session: SessionId| late.iter().any(|parcel| parcel.session == session);
        let book = store.book.clone();
        store.sessions.retain(|(session, death)| {
            let comes = death.is_none() && commits(*session);
            kept(*session) || comes || book.names(*session)
        });
        for controller in controllers {
            if !controller.former.is_empty() {
                Arc::make_mut(controller).forget_former(&book);
            }
        }
    }

    fn witness(&self, deed: &Deed<'_>) {
        let (before, after) = (&deed.store.book, deed.after);
        let head = after.head();
        let limit = head.limit.get().unwrap_or(u32::MAX);
        if head.started > limit {
            self.0.witnesses.saw(Witness::AboveTheLimit);
        }
        if head.started == limit
            && (head.started + head.queued) as usize == self.0.scenario.runs.len()
        {
            self.0.witnesses.saw(Witness::FullQueue);
        }
        let expires = |(command, _): &(Command, _)| matches!(command, Command::Expire { .. });
        let expires = deed.parcel.commands.iter().any(expires);
        for entry in after.entries() {
            let known = before.entry(&entry.run).map(|known| known.state);
            match known {
                Some(EntryState::Queued { owner }) if entry.is_started() => {
                    if owner.is_none() {
                        self.0.witnesses.saw(Witness::OwnerlessTaken);
                    }
                    if expires {
                        self.0.witnesses.saw(Witness::ExpiryHandsOver);
                    }
                }
                _ => {}
            }
        }
    }
}
