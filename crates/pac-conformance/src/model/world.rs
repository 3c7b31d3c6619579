//! Controllers, their applications and a store, and every step that any of them can take.

use std::sync::Arc;

use pac_core::SessionId;
use pac_core::protocol::{Command, Death};
use pac_core::state::{Entry, EntryState, RunKind, RunOutcome};
use stateright::{Model, Property};

use super::book::Book;
use super::controller::{Controller, Terms, Wire};
use super::invariant::{Broken, Invariant};
use super::scenario::Faults;
use super::store::{Parcel, Store};
use super::variant::Variant;
use crate::rules::Rules;

/// All behaviours of a scenario.
#[derive(Debug)]
pub(super) struct World<R>(pub(super) Terms<R>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) controllers: Vec<Arc<Controller>>,
    /// Commits that nobody waits for any more, and that may still come to the store.
    pub(super) late: Vec<Arc<Parcel>>,
    /// Which of the scenario's events have happened.
    pub(super) events: u16,
    pub(super) left: Faults,
    pub(super) broken: Broken,
}

/// One step. The number is that of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The application does what the scenario says it may.
    Event(usize),
    /// The application releases one of its leases.
    Release(usize, usize),
    /// Its commit comes to the store.
    Arrive(usize),
    /// The answer comes back.
    Settle(usize),
    /// The controller hears of the newest state: a hint, a poll, or somebody's question.
    Hear(usize),
    /// It hears that its session is over, and opens another one.
    Reopen(usize),
    /// It hears of the death of a session that has left entries.
    Sweep(usize, SessionId),
    /// It finds that a run without an owner could start.
    Promote(usize),
    /// It is started again.
    Restart(usize),
    /// A session is not renewed any more: its session TTL passes.
    Lapse(SessionId),
    /// The lease TTL of a dead session passes.
    LeaseLapse(SessionId),
    /// It dies.
    Crash(usize),
    /// It stops to wait for the answer to its commit.
    LoseAnswer(usize),
    /// A commit that nobody waits for comes to the store.
    ArriveLate(usize),
}

impl State {
    /// Whether a controller that lives renews this session.
    pub(super) fn is_kept(&self, session: SessionId) -> bool {
        let mut up = self.controllers.iter().filter(|controller| controller.up);
        up.any(|controller| controller.session == session)
    }
}

/// The session that a controller has after `before`. The store would give out any that were
/// never used.
pub(super) fn next_session(at: usize, before: Option<SessionId>) -> SessionId {
    let first = SessionId::new(10 * (at as u64 + 1));
    before.map_or(first, SessionId::next)
}

impl<R: Rules> World<R> {
    fn start(&self) -> State {
        let scenario = &self.0.scenario;
        let mut store = Store {
            book: Book::absent(),
            sessions: Vec::new(),
        };
        let controllers: Vec<_> = (0..scenario.controllers)
            .map(|at| Arc::new(Controller::new(next_session(at, None))))
            .collect();
        for controller in &controllers {
            store.open(controller.session);
        }
        let limit = Command::SetLimit {
            limit: scenario.limit(),
            version: None,
        };
        let issuer = controllers[0].issuer(&self.0);
        let (_, changes) = self.0.rules.apply(store.book.state(), issuer, &limit);
        let changes = changes.expect("a repository that does not exist has no limit");
        store.book = store.book.write(&changes).expect("a head alone adds up");
        State {
            store,
            controllers,
            late: Vec::new(),
            events: 0,
            left: scenario.faults,
            broken: Broken::default(),
        }
    }

    fn steps_of(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let controller = &state.controllers[at];
        if !controller.up {
            steps.push(Step::Restart(at));
            return;
        }
        let left = state.left;
        match &controller.wire {
            Wire::Idle => {}
            Wire::Sent(_) => steps.push(Step::Arrive(at)),
            Wire::Answered(..) => steps.push(Step::Settle(at)),
        }
        if controller.wire != Wire::Idle && left.losses > 0 {
            steps.push(Step::LoseAnswer(at));
        }
        let known = controller.cache.as_ref().map(Book::revision);
        let listens = controller.is_interested() || controller.is_busy();
        if listens && known.is_some_and(|known| known < state.store.book.revision()) {
            steps.push(Step::Hear(at));
        }
        if controller.lost || !state.store.is_alive(controller.session) {
            steps.push(Step::Reopen(at));
        }
        for lease in 0..controller.leases.len() {
            steps.push(Step::Release(at, lease));
        }
        if self.0.variant != Variant::ForgetsTheDead {
            for (session, death) in &state.store.sessions {
                if let Some(death) = *death
                    && state.store.leaves_traces(*session, death)
                    && !self.is_seen_to(state, at, &expire(*session, death))
                {
                    steps.push(Step::Sweep(at, *session));
                }
            }
        }
        let head = state.store.book.head();
        if self.0.scenario.takes_ownerless
            && head.limit.admits(head.started)
            && state.store.book.entries().iter().any(has_no_owner)
            && !self.is_seen_to(state, at, &Command::Promote)
        {
            steps.push(Step::Promote(at));
        }
        if left.crashes > 0 {
            steps.push(Step::Crash(at));
        }
    }

    /// Whether a command that any controller may put in of its own accord is on its way: from
    /// this one, or from whichever, where one at a time is enough.
    fn is_seen_to(&self, state: &State, at: usize, command: &Command) -> bool {
        let mut controllers = state.controllers.iter().enumerate();
        let all = !self.0.scenario.sweeps_together;
        controllers.any(|(other, controller)| (all || other == at) && controller.asks(command))
    }
}

impl<R: Rules> Model for World<R> {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_any() {
            // Found; what follows from it is of no interest.
            return;
        }
        for at in 0..state.controllers.len() {
            self.steps_of(state, at, steps);
        }
        for number in 0..self.0.scenario.events.len() {
            if self.command_of(state, number).is_some() {
                steps.push(Step::Event(number));
            }
        }
        for (session, death) in &state.store.sessions {
            match death {
                None if !state.is_kept(*session) || state.left.lapses > 0 => {
                    steps.push(Step::Lapse(*session));
                }
                Some(Death::Session) if state.store.leaves_traces(*session, Death::Lease) => {
                    steps.push(Step::LeaseLapse(*session));
                }
                _ => {}
            }
        }
        steps.extend((0..state.late.len()).map(Step::ArriveLate));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let terms = &self.0;
        let mut next = last.clone();
        let state = &mut next;
        match step {
            Step::Event(number) => self.event(state, number)?,
            Step::Release(at, lease) => {
                let controller = Arc::make_mut(&mut state.controllers[at]);
                let lease = controller.leases.remove(lease);
                let release = Command::Release {
                    run: lease.request.run,
                    uid: lease.request.uid,
                    token: Some(lease.token),
                    outcome: RunOutcome::Completed,
                };
                controller.submit(release, &state.store);
            }
            Step::Arrive(at) => {
                let Wire::Sent(parcel) = state.controllers[at].wire.clone() else {
                    return None;
                };
                let answer = self.arrive(state, &parcel, false);
                if let Some(answer) = answer {
                    let controller = Arc::make_mut(&mut state.controllers[at]);
                    controller.wire = Wire::Answered(parcel.session, answer);
                }
            }
            Step::Settle(at) => {
                let controller = Arc::make_mut(&mut state.controllers[at]);
                let wire = std::mem::replace(&mut controller.wire, Wire::Idle);
                let Wire::Answered(sender, answer) = wire else {
                    return None;
                };
                controller.settle(terms, sender, answer, &mut state.broken);
            }
            Step::Hear(at) => {
                let book = state.store.book.clone();
                let controller = Arc::make_mut(&mut state.controllers[at]);
                controller.hear(terms, &book, &mut state.broken);
            }
            Step::Reopen(at) => self.reopen(state, at),
            Step::Sweep(at, session) => {
                let death = state.store.death(session)?;
                let controller = Arc::make_mut(&mut state.controllers[at]);
                if !controller.dead.contains(&session) {
                    controller.dead.push(session);
                }
                controller.submit(expire(session, death), &state.store);
            }
            Step::Promote(at) => Arc::make_mut(&mut state.controllers[at]).add(Command::Promote),
            Step::Restart(at) => self.restart(state, at),
            Step::Lapse(session) => {
                if state.is_kept(session) {
                    state.left.lapses -= 1;
                }
                state.store.lapse(session, Death::Session);
            }
            Step::LeaseLapse(session) => state.store.lapse(session, Death::Lease),
            Step::Crash(at) => Self::crash(state, at),
            Step::LoseAnswer(at) => self.lose_answer(state, at),
            Step::ArriveLate(at) => {
                let parcel = state.late.remove(at);
                self.arrive(state, &parcel, true);
            }
        }
        self.tidy(state);
        for controller in &mut state.controllers {
            if controller.has_to_plan() {
                Arc::make_mut(controller).see_to(terms, &state.store, &mut state.broken);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! always {
            ($($invariant:ident)*) => {
                vec![$(Property::always(Invariant::$invariant.name(), |world: &Self, state: &State| {
                    world.keeps(state, Invariant::$invariant)
                })),*]
            };
        }
        always!(Limit Order NothingLost NoIdleSlot Idempotent UnknownIsNotFailed Fencing
            LivingOwners AnswersAreCurrent ComesToRest AddsUp)
    }
}

fn expire(session: SessionId, death: Death) -> Command {
    Command::Expire { session, death }
}

pub(super) fn has_no_owner(entry: &Arc<Entry>) -> bool {
    let unowned = matches!(entry.state, EntryState::Queued { owner: None });
    unowned && entry.kind == RunKind::Durable
}
