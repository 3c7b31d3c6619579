//! Random inputs in random order, to one machine or two.

use std::time::Duration;

use pac_core::protocol::{Command, Death};
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::application::Leave;
use super::node::Fate;
use super::world::World;

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_lost_and_nothing_is_done_twice(sequential 1..90 => Machines);
}

/// The same cases every time, unless `PROPTEST_RNG_SEED` and `PROPTEST_CASES` say other ones.
fn config() -> Config {
    let asked = |name| std::env::var_os(name).is_some();
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if !asked("PROPTEST_CASES") {
        config.cases = 2_000;
    }
    if !asked("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(7);
    }
    config
}

/// What kind of process it is in; what happens there knows no more of it.
#[derive(Debug, Clone)]
struct Processes {
    nodes: usize,
    reads: bool,
    in_process: bool,
    entry_budget: usize,
}

/// Indices mean one of what there is.
#[derive(Debug, Clone)]
enum Step {
    Go(usize, Fate),
    GoOften(usize),
    Ask(usize, Asked),
    AskTogether(usize, Vec<usize>),
    Leave(usize, usize, Leave),
    TimeOut(usize, usize),
    LeavePlace(usize, usize, Leave),
    /// What has come since to an asker or a waiter that reads no more comes back.
    Unread(usize, usize, bool),
    Detach(usize, usize),
    GiveBack(usize, usize),
    Read(usize, bool),
    Hint(usize, usize, Option<usize>),
    BareHint(usize),
    LookAgain(usize),
    Lapse(usize),
    LeaseLapse(usize),
    Reopen(usize),
    Tell(usize),
    Sweep(usize, usize),
    Promote(usize),
    ArriveLate(usize),
    /// A run of a name is another one from here on.
    Recreate(usize),
    Purge,
    Pass(u64),
    End(usize),
}

#[derive(Debug, Clone)]
enum Asked {
    Admit(usize),
    Adopt(usize),
    Release(usize),
    Force(usize),
    Cancel(usize, bool),
    Requeue(usize),
    SetLimit(u32, Option<u64>),
    Remove,
}

impl ReferenceStateMachine for Processes {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        let budget = prop_oneof![4 => Just(usize::MAX), 1 => 1..4usize];
        (1..3usize, any::<bool>(), any::<bool>(), budget)
            .prop_map(|(nodes, reads, in_process, entry_budget)| Self {
                nodes,
                reads,
                in_process,
                entry_budget,
            })
            // The steps name the nodes that there are.
            .no_shrink()
            .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let node = || 0..state.nodes;
        let some = || 0..8usize;
        let leave = || {
            prop_oneof![
                Just(Leave::AtOnce),
                Just(Leave::ClosesFirst),
                Just(Leave::StopsReading)
            ]
        };
        prop_oneof![
            30 => (node(), fate()).prop_map(|(at, fate)| Step::Go(at, fate)),
            8 => node().prop_map(Step::GoOften),
            24 => (node(), asked()).prop_map(|(at, asked)| Step::Ask(at, asked)),
            2 => (node(), prop::collection::vec(some(), 2..4))
                .prop_map(|(at, runs)| Step::AskTogether(at, runs)),
            4 => (node(), some(), leave()).prop_map(|(at, ask, how)| Step::Leave(at, ask, how)),
            2 => (node(), some()).prop_map(|(at, ask)| Step::TimeOut(at, ask)),
            4 => (node(), some(), leave())
                .prop_map(|(at, waiter, how)| Step::LeavePlace(at, waiter, how)),
            2 => (node(), some(), any::<bool>())
                .prop_map(|(at, which, turn)| Step::Unread(at, which, turn)),
            1 => (node(), some()).prop_map(|(at, waiter)| Step::Detach(at, waiter)),
            1 => (node(), some()).prop_map(|(at, lease)| Step::GiveBack(at, lease)),
            1 => (node(), any::<bool>()).prop_map(|(at, reads)| Step::Read(at, reads)),
            8 => (node(), 0..5usize, prop::option::of(0..5usize))
                .prop_map(|(at, back, overlap)| Step::Hint(at, back, overlap)),
            2 => node().prop_map(Step::BareHint),
            1 => node().prop_map(Step::LookAgain),
            1 => node().prop_map(Step::Lapse),
            1 => node().prop_map(Step::LeaseLapse),
            2 => node().prop_map(Step::Reopen),
            2 => node().prop_map(Step::Tell),
            2 => (node(), some()).prop_map(|(at, which)| Step::Sweep(at, which)),
            1 => node().prop_map(Step::Promote),
            2 => some().prop_map(Step::ArriveLate),
            1 => some().prop_map(Step::Recreate),
            1 => Just(Step::Purge),
            2 => (1..4_000u64).prop_map(Step::Pass),
            1 => node().prop_map(Step::End),
        ]
        .boxed()
    }

    fn apply(state: Self, _: &Step) -> Self {
        state
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Well),
        1 => Just(Fate::Unavailable),
        2 => Just(Fate::AnswerLost),
        1 => Just(Fate::Late),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Bare),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let run = || 0..6usize;
    prop_oneof![
        12 => run().prop_map(Asked::Admit),
        1 => run().prop_map(Asked::Adopt),
        6 => run().prop_map(Asked::Release),
        1 => run().prop_map(Asked::Force),
        2 => (run(), any::<bool>()).prop_map(|(run, exactly)| Asked::Cancel(run, exactly)),
        2 => run().prop_map(Asked::Requeue),
        3 => (1..4u32, prop::option::of(1..5u64))
            .prop_map(|(limit, version)| Asked::SetLimit(limit, version)),
        1 => Just(Asked::Remove),
    ]
}

struct Machines;

impl StateMachineTest for Machines {
    type SystemUnderTest = World;
    type Reference = Processes;

    fn init_test(of: &Processes) -> World {
        let mut world = World::new(of.nodes, of.reads, of.in_process);
        for node in &mut world.nodes {
            node.entry_budget = of.entry_budget;
        }
        world.submit(0, Command::limit(Limit::new(1), None));
        world.settle(0);
        world
    }

    fn apply(mut world: World, _: &Processes, step: Step) -> World {
        world.take(step);
        world
    }

    fn check_invariants(world: &World, _: &Processes) {
        world.check();
    }

    fn teardown(mut world: World, _: Processes) {
        world.come_to_rest();
    }
}

impl World {
    fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Go(at, fate) => self.go(at, fate),
            Step::GoOften(at) => {
                for _ in 0..8 {
                    self.go(at, Fate::Well);
                }
            }
            Step::Ask(at, asked) => self.ask(at, asked),
            Step::AskTogether(at, runs) if !self.nodes[at].closing => {
                let commands = runs
                    .into_iter()
                    .map(|which| Command::Admit(self.run(which)));
                let commands = commands.collect();
                self.nodes[at].submit(now, commands);
            }
            Step::Leave(at, ask, how) => {
                if let Some(asker) = self.asker(at, ask) {
                    self.nodes[at].asker_leaves(asker, how);
                }
            }
            Step::TimeOut(at, ask) => {
                if let Some(asker) = self.asker(at, ask) {
                    self.nodes[at].asker_is_late(now, asker);
                }
            }
            Step::LeavePlace(at, which, how) => {
                let waiters = &self.nodes[at].waiters;
                let waiter = which.checked_rem(waiters.len());
                if let Some(waiter) = waiter.and_then(|at| waiters.keys().nth(at).copied()) {
                    self.nodes[at].waiter_leaves(now, waiter, how);
                }
            }
            Step::Unread(at, which, true) => {
                self.nodes[at].unread_turn_comes_back(now, which);
            }
            Step::Unread(at, which, false) => {
                self.nodes[at].unread_comes_back(now, which);
            }
            Step::Detach(at, which) => {
                let waiters = &self.nodes[at].waiters;
                let open = waiters.iter().filter(|(_, wait)| !wait.closed);
                let open: Vec<_> = open.map(|(waiter, _)| *waiter).collect();
                if let Some(which) = which.checked_rem(open.len()) {
                    self.nodes[at].waiter_detaches(open[which]);
                }
            }
            Step::GiveBack(at, which) => {
                let leases = &self.nodes[at].leases;
                let lease = which.checked_rem(leases.len()).map(|of| leases[of].token);
                // A run that was adopted goes on in any case.
                let is_adopted = lease.is_some_and(|of| self.nodes[at].adopted.contains(&of));
                if !is_adopted && let Some(lease) = self.nodes[at].give_up_lease(which) {
                    // It had lain unread: another asker may get the slot as new.
                    self.nodes[at].handed.remove(&lease.token);
                    self.nodes[at].input(now, |machine, env, effects| {
                        machine.give_back(env, &lease, effects)
                    });
                }
            }
            Step::Read(at, reads) => self.nodes[at].reads = reads,
            Step::Hint(at, back, overlap) => self.hint(at, back, overlap),
            Step::BareHint(at) => self.bare_hint(at),
            Step::LookAgain(at) => {
                self.nodes[at].input(now, |machine, _, effects| machine.look_again(effects));
            }
            Step::Lapse(at) => self.store.lapse(self.nodes[at].session, Death::Session),
            Step::LeaseLapse(at) => self.store.lapse(self.nodes[at].session, Death::Lease),
            Step::Reopen(at) => self.reopen(at),
            Step::Tell(at) if !self.nodes[at].closing => self.tell(at),
            Step::Sweep(at, which) if !self.nodes[at].closing => self.sweep(at, which),
            Step::Promote(at) if !self.nodes[at].closing => {
                self.nodes[at].input(now, |machine, env, effects| {
                    machine.submit_own(env, Command::Promote, effects)
                });
            }
            Step::ArriveLate(at) => self.arrive_late(at),
            Step::Recreate(which) => self.generations[which % 4] += 1,
            Step::Purge => self.store.purge(),
            Step::Pass(millis) => self.pass(Duration::from_millis(millis)),
            Step::End(at) => self.end(at),
            Step::AskTogether(..) | Step::Tell(_) | Step::Sweep(..) | Step::Promote(_) => {}
        }
    }

    /// An asker that may go away: all but those that see to deaths, and waiters that give up.
    fn asker(&self, at: usize, which: usize) -> Option<u64> {
        let asks = self.nodes[at].asks.iter();
        let asks = asks.filter(|(_, ask)| {
            !matches!(
                ask.command,
                Command::Expire { .. } | Command::Abandon { .. }
            )
        });
        let askers: Vec<_> = asks.map(|(asker, _)| *asker).collect();
        Some(askers[which.checked_rem(askers.len())?])
    }

    fn ask(&mut self, at: usize, asked: Asked) {
        if self.nodes[at].closing {
            return;
        }
        let request = |which: usize| self.run(which);
        let command = match asked {
            Asked::Admit(which) => Command::Admit(request(which)),
            Asked::Adopt(which) => Command::Adopt(request(which)),
            Asked::Release(which) => {
                let Some(lease) = self.nodes[at].give_up_lease(which) else {
                    return;
                };
                Command::Release {
                    run: lease.entry.run.clone(),
                    uid: lease.entry.uid.clone(),
                    token: Some(lease.token),
                    outcome: RunOutcome::Failed,
                }
            }
            Asked::Force(which) => Command::Release {
                run: request(which).run,
                uid: request(which).uid,
                token: None,
                outcome: RunOutcome::Failed,
            },
            Asked::Cancel(which, exactly) => {
                Command::cancel(request(which).run, exactly.then(|| request(which).uid))
            }
            Asked::Requeue(which) => {
                let Some(lease) = self.nodes[at].give_up_lease(which) else {
                    return;
                };
                Command::Requeue {
                    run: lease.entry.run.clone(),
                    uid: lease.entry.uid.clone(),
                    token: lease.token,
                }
            }
            Asked::SetLimit(limit, version) => {
                Command::limit(Limit::new(limit), version.map(LimitVersion::new))
            }
            Asked::Remove => Command::RemoveRepository,
        };
        self.submit(at, command);
    }
}
