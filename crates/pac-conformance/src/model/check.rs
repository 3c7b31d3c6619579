//! Runs through all behaviours of a scenario.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use super::controller::Terms;
use super::invariant::Invariant;
use super::scenario::Scenario;
use super::variant::Variant;
use super::witness::{Witness, Witnesses};
use super::world::World;

/// What a check has found.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Of this scenario.
    pub scenario: &'static str,
    /// Different states. All there are, if nothing is violated; else those that were seen until
    /// then.
    pub unique_states: usize,
    /// How many steps away from the start the farthest of them is.
    pub depth: usize,
    /// The names of the invariants that do not hold. The check ends with the first.
    pub violated: Vec<&'static str>,
    /// The steps that lead to the first violation, and the state that they lead to.
    pub trace: String,
    /// What should have been reached, and was not.
    pub unreached: Vec<&'static str>,
    /// How long it took.
    pub took: Duration,
}

impl Verdict {
    /// Whether everything holds and everything that shows so was reached.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violated.is_empty() && self.unreached.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} states, depth {}, {:.1} s",
            self.scenario,
            self.unique_states,
            self.depth,
            self.took.as_secs_f64()
        )?;
        if !self.violated.is_empty() {
            write!(f, "; violated: {}", self.violated.join(", "))?;
        }
        if !self.unreached.is_empty() {
            write!(f, "; never reached: {}", self.unreached.join(", "))?;
        }
        Ok(())
    }
}

/// Holds the manager's state machine, or a variant of what is around it, to every [`Invariant`]
/// in all behaviours of a scenario, with so many threads.
#[must_use]
pub fn check(variant: Variant, scenario: &Scenario, threads: usize) -> Verdict {
    let started = Instant::now();
    let world = World(Terms {
        variant,
        scenario: scenario.clone(),
        witnesses: Witnesses::default(),
        now: tokio::time::Instant::now(),
    });
    let checker = world
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut violated = Vec::new();
    let mut trace = String::new();
    for invariant in Invariant::ALL {
        if let Some(path) = checker.discovery(invariant.name()) {
            violated.push(invariant.name());
            if trace.is_empty() {
                let last = format!("{:?}", path.last_state());
                let steps = path.into_actions();
                let steps = steps.iter().map(|step| format!("  {step:?}\n"));
                trace = format!("{}{last}", steps.collect::<String>());
            }
        }
    }
    let missed = |witness: &&Witness| !checker.model().0.witnesses.has(**witness);
    // A check that ended early says nothing of what it might have reached.
    let all = violated.is_empty();
    let unreached = scenario.reaches.iter().filter(|_| all).filter(missed);
    Verdict {
        scenario: scenario.name,
        unique_states: checker.unique_state_count(),
        depth: checker.max_depth(),
        violated,
        trace,
        unreached: unreached.map(|witness| witness.name()).collect(),
        took: started.elapsed(),
    }
}
