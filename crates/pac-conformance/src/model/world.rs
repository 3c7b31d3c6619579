//! Controllers, their applications and a store, and every step that any of them can take.

use std::sync::Arc;

use pac_core::SessionId;
use pac_core::protocol::{Command, Death};
use pac_core::state::{Entry, EntryState, RunKind};
use stateright::{Model, Property};

use super::ask::Reader;
use super::controller::{Controller, Read, Terms, WaitingState, Wire};
use super::drive::Scene;
use super::invariant::{Broken, Invariant};
use super::port::{Asker, Of};
use super::scenario::Faults;
use super::store::{Parcel, Store};
use super::variant::Variant;
use super::witness::Witness;

/// All behaviours of a scenario.
#[derive(Debug)]
pub(super) struct World(pub(super) Terms);

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

/// One step. The first number is that of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The application does what the scenario says it may.
    Event(usize),
    /// The application releases one of its leases.
    Release(usize, usize),
    /// Its commit comes to the store.
    Arrive(usize),
    /// The answer comes back.
    Settle(usize),
    /// Its question comes to the store.
    Read(usize),
    /// What it has read comes back.
    Loaded(usize),
    /// The controller hears of the newest state: a hint, a poll, or somebody's question.
    Hear(usize),
    /// It hears that its session is over, and opens another one.
    Reopen(usize),
    /// It hears that its session is over, and has no other one yet.
    Lose(usize),
    /// What has become of its session is told to everybody who waits.
    Tell(usize),
    /// The pause ends after which it tries again with the session that it has now.
    Resume(usize),
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
    /// An asker will not read its answer any more.
    Leave(usize, Asker),
    /// It says so.
    AskerGoes(usize, Asker),
    /// An asker is told that it has waited for long enough.
    TimeOut(usize, Asker),
    /// A waiter that has given up says so.
    WaiterGoes(usize, usize),
    /// A grant that found nobody comes back.
    Return(usize, usize),
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

impl World {
    /// A controller, and what a step of it happens in.
    pub(super) fn scene<'a>(
        &'a self,
        state: &'a mut State,
        at: usize,
    ) -> (&'a mut Controller, Scene<'a>) {
        let State {
            store,
            controllers,
            broken,
            ..
        } = state;
        let scene = Scene {
            terms: &self.0,
            book: &store.book,
            broken,
        };
        (Arc::make_mut(&mut controllers[at]), scene)
    }

    fn steps_of(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let controller = &state.controllers[at];
        if !controller.up {
            steps.push(Step::Restart(at));
            return;
        }
        let left = state.left;
        let commits = match &controller.wire {
            Wire::Sent(_) => Some(Step::Arrive(at)),
            Wire::Answered(..) => Some(Step::Settle(at)),
            Wire::Idle | Wire::Parked | Wire::Reading(_) | Wire::Read(_) => None,
        };
        if commits.is_some() && left.losses > 0 {
            steps.push(Step::LoseAnswer(at));
        }
        steps.extend(commits);
        match &controller.wire {
            Wire::Reading(_) => steps.push(Step::Read(at)),
            Wire::Read(_) => steps.push(Step::Loaded(at)),
            Wire::Parked => steps.push(Step::Resume(at)),
            _ => {}
        }
        if controller.may_hear_of(state.store.book.revision()) {
            steps.push(Step::Hear(at));
        }
        for waiter in 0..controller.waiting.len() {
            if let WaitingState::Leaves(_) = controller.waiting[waiter].state {
                steps.push(Step::WaiterGoes(at, waiter));
            }
        }
        for ask in &controller.asks {
            match ask.reader {
                Reader::Listens if may_leave(&ask.command, ask.asker) => {
                    if left.leaves > 0 {
                        steps.push(Step::Leave(at, ask.asker));
                    }
                    if left.timeouts > 0 {
                        steps.push(Step::TimeOut(at, ask.asker));
                    }
                }
                Reader::Listens => {}
                Reader::Stopped | Reader::Unheard(_) => {
                    steps.push(Step::AskerGoes(at, ask.asker));
                }
            }
        }
        for back in 0..controller.returns.len() {
            steps.push(Step::Return(at, back));
        }
        if left.crashes > 0 {
            steps.push(Step::Crash(at));
        }
        if !controller.closing {
            self.steps_while_open(state, at, steps);
        }
    }

    fn steps_while_open(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let controller = &state.controllers[at];
        if controller.lost || !state.store.is_alive(controller.session) {
            steps.push(Step::Reopen(at));
        }
        if !controller.lost && !state.store.is_alive(controller.session) {
            steps.push(Step::Lose(at));
        }
        if controller.has_to_be_told() {
            steps.push(Step::Tell(at));
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
        if controller.reads
            && head.limit.admits(head.started)
            && state.store.book.entries().iter().any(has_no_owner)
            && !self.is_seen_to(state, at, &Command::Promote)
        {
            steps.push(Step::Promote(at));
        }
    }

    /// Whether a command that any controller may put in of its own accord is on its way: from
    /// this one, or from whichever, where one at a time is enough.
    fn is_seen_to(&self, state: &State, at: usize, command: &Command) -> bool {
        let mut controllers = state.controllers.iter().enumerate();
        let all = !self.0.scenario.sweeps_together;
        controllers
            .any(|(other, controller)| (all || other == at) && controller.sees_to.contains(command))
    }

    /// Takes a step, up to what follows from it in any case.
    fn take(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Event(number) => self.event(state, number),
            Step::Release(at, lease) => self.release(state, at, lease),
            Step::Arrive(at) => {
                let Wire::Sent(parcel) = state.controllers[at].wire.clone() else {
                    return None;
                };
                if let Some(answer) = self.arrive(state, &parcel, false) {
                    let controller = Arc::make_mut(&mut state.controllers[at]);
                    controller.wire = Wire::Answered(parcel, answer);
                }
            }
            Step::Settle(at) => {
                let (controller, mut scene) = self.scene(state, at);
                let wire = std::mem::replace(&mut controller.wire, Wire::Idle);
                let Wire::Answered(parcel, answer) = wire else {
                    return None;
                };
                controller.settle(&mut scene, &parcel, answer);
            }
            Step::Read(at) => {
                let (controller, scene) = self.scene(state, at);
                let Wire::Reading(since) = controller.wire else {
                    return None;
                };
                let answer = controller.read(&scene, since);
                controller.wire = Wire::Read(Arc::new(Read(answer)));
            }
            Step::Loaded(at) => {
                let (controller, mut scene) = self.scene(state, at);
                let wire = std::mem::replace(&mut controller.wire, Wire::Idle);
                let Wire::Read(answer) = wire else {
                    return None;
                };
                controller.loaded(&mut scene, answer.0.clone());
            }
            Step::Hear(at) => {
                let (controller, mut scene) = self.scene(state, at);
                let (known, revision) = (controller.machine.version(), scene.book.revision());
                let snapshot = scene.book.snapshot(known);
                controller.input(&mut scene, |machine, env, effects| {
                    machine.on_hint(env, revision, Some(&snapshot), effects)
                });
            }
            Step::Reopen(at) => self.reopen(state, at),
            Step::Lose(at) => self.scene(state, at).0.lost = true,
            Step::Tell(at) => {
                let (controller, mut scene) = self.scene(state, at);
                controller.tell(&mut scene);
            }
            Step::Resume(at) => {
                let (controller, mut scene) = self.scene(state, at);
                controller.resume(&mut scene);
            }
            Step::Sweep(at, session) => {
                let death = state.store.death(session)?;
                let (controller, mut scene) = self.scene(state, at);
                controller.sweep(&mut scene, session, death);
            }
            Step::Promote(at) => {
                let (controller, mut scene) = self.scene(state, at);
                let version = scene.book.head().version();
                controller.input(&mut scene, |machine, env, effects| {
                    let behind = machine.look_if_behind(version, effects);
                    machine.submit_own(env, Command::Promote, effects) || behind
                });
                if controller.wire == Wire::Idle {
                    // It will be found again and again.
                    scene.broken.by(Invariant::ComesToRest);
                }
            }
            Step::Restart(at) => self.restart(state, at),
            Step::Lapse(session) => {
                if state.is_kept(session) {
                    state.left.lapses -= 1;
                }
                state.store.lapse(session, Death::Session);
            }
            Step::LeaseLapse(session) => state.store.lapse(session, Death::Lease),
            Step::Crash(at) => {
                state.left.crashes -= 1;
                self.crash(state, at);
            }
            Step::LoseAnswer(at) => self.lose_answer(state, at),
            Step::ArriveLate(at) => {
                let parcel = state.late.remove(at);
                self.arrive(state, &parcel, true);
            }
            Step::Leave(at, asker) => {
                state.left.leaves -= 1;
                let controller = Arc::make_mut(&mut state.controllers[at]);
                controller.ask_mut(asker)?.reader = Reader::Stopped;
                if self.0.scenario.leaves_at_once {
                    self.take(state, Step::AskerGoes(at, asker))?;
                }
            }
            Step::AskerGoes(at, asker) => {
                let (controller, mut scene) = self.scene(state, at);
                controller.asker_goes(&mut scene, asker);
            }
            Step::TimeOut(at, asker) => {
                state.left.timeouts -= 1;
                let (controller, mut scene) = self.scene(state, at);
                controller.asker_times_out(&mut scene, asker);
            }
            Step::WaiterGoes(at, waiter) => {
                let (controller, mut scene) = self.scene(state, at);
                controller.waiter_goes(&mut scene, waiter);
            }
            Step::Return(at, back) => {
                let (controller, mut scene) = self.scene(state, at);
                controller.take_back(&mut scene, back);
            }
        }
        Some(())
    }

    /// A controller that has given back what it had ends its session.
    fn close_down(&self, state: &mut State) {
        for at in 0..state.controllers.len() {
            let controller = &state.controllers[at];
            let gives_up = controller.wire == Wire::Parked;
            if controller.closing && (controller.asks.is_empty() || gives_up) {
                let session = controller.session;
                if state.store.is_alive(session) {
                    state.store.lapse(session, Death::Session);
                }
                self.crash(state, at);
            }
        }
    }

    /// Takes out what can make no difference any more, so that states which differ in nothing
    /// else are one.
    fn tidy(&self, state: &mut State) {
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
            late.retain(|parcel| {
                parcel.changes.expected.revision == now && store.is_alive(parcel.session)
            });
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
            if controller.known_dead.iter().any(|dead| !book.names(*dead)) {
                let controller = Arc::make_mut(controller);
                controller.known_dead.retain(|dead| book.names(*dead));
            }
        }
    }
}

impl Model for World {
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
            if self.may_happen(state, number) {
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
        let mut next = last.clone();
        let state = &mut next;
        self.take(state, step)?;
        self.close_down(state);
        self.tidy(state);
        let before = last.controllers.iter();
        for (before, now) in before.zip(&mut state.controllers) {
            if Arc::ptr_eq(before, now) {
                continue;
            }
            let controller = Arc::make_mut(now);
            controller.seal(&self.0);
            if controller.machine.is_busy() == (controller.wire == Wire::Idle) {
                state.broken.by(Invariant::RightGivenBack);
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
            LivingOwners AnswersAreCurrent ComesToRest AddsUp HeldToItsPlan AnsweredOnce
            RightGivenBack Kept)
    }
}

/// Whether somebody who may go away asks for this.
fn may_leave(command: &Command, asker: Asker) -> bool {
    let of_the_application = matches!(asker.of, Of::Event(_) | Of::Release(_));
    // A place is given up even if the waiter does not wait for that. A run that was adopted runs on,
    // whether or not its slot was heard of: that ends by a release, so an asker has to have heard.
    of_the_application && !matches!(command, Command::Abandon { .. } | Command::Adopt(_))
}

pub(super) fn expire(session: SessionId, death: Death) -> Command {
    Command::Expire { session, death }
}

pub(super) fn has_no_owner(entry: &Arc<Entry>) -> bool {
    let unowned = matches!(entry.state, EntryState::Queued { owner: None });
    unowned && entry.kind == RunKind::Durable
}
