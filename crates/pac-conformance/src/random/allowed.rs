//! The set of states that a repository may be in after events whose order, or whose actor, is
//! random.

use super::check::Check;
use crate::reference::{Answer, Ask, Asker, Repository};

/// The commands that managers issue by themselves, in any order.
#[derive(Debug, Default)]
pub(crate) struct Background {
    /// Commands that are repeated until they change nothing more.
    pub(crate) certain: Vec<(Asker, Ask)>,
    /// Commands that may or may not be issued.
    pub(crate) possible: Vec<(Asker, Ask)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(Vec<Repository>);

impl Allowed {
    /// Only this state.
    pub(crate) fn only(state: Repository) -> Self {
        Self(vec![state])
    }

    /// The states possible after a command. States in which the answer contradicts the one seen
    /// are dropped.
    pub(crate) fn ask(&self, asker: Asker, ask: &Ask, fits: impl Fn(&Answer) -> bool) -> Self {
        let mut allowed = Vec::new();
        for state in &self.0 {
            let mut after = state.clone();
            if fits(&after.ask(asker, ask)) {
                add(&mut allowed, after);
            }
        }
        Self(allowed)
    }

    /// The states of both sets.
    pub(crate) fn or(mut self, other: Self) -> Self {
        for state in other.0 {
            add(&mut self.0, state);
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a certain background command would still change one of the states.
    pub(crate) fn is_restless(&self, background: &Background) -> bool {
        let restless = |state: &Repository| {
            let mut certain = background.certain.iter();
            certain.any(|(asker, ask)| step(state, *asker, ask).is_some())
        };
        self.0.iter().any(restless)
    }

    /// The states reachable by background commands in which no certain command changes anything
    /// more.
    pub(crate) fn rest(self, background: &Background) -> Self {
        let mut reached = self.0;
        let mut at = 0;
        let mut resting = Vec::new();
        while at < reached.len() {
            let state = reached[at].clone();
            at += 1;
            for (asker, ask) in &background.possible {
                if let Some(after) = step(&state, *asker, ask) {
                    add(&mut reached, after);
                }
            }
            let mut rests = true;
            for (asker, ask) in &background.certain {
                if let Some(after) = step(&state, *asker, ask) {
                    rests = false;
                    add(&mut reached, after);
                }
            }
            if rests {
                resting.push(state);
            }
        }
        Self(resting)
    }

    /// Checks that the state seen is one of these. Ignores the number of commits, and the
    /// counters that a removed repository leaves.
    pub(crate) fn check(&self, seen: &Repository) -> Result<(), (Check, String)> {
        let seen = comparable(seen.clone());
        if self.0.iter().any(|state| comparable(state.clone()) == seen) {
            return Ok(());
        }
        let mut expected: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        expected.dedup();
        Err((Check::State, format!("expected {}", expected.join(", or "))))
    }
}

fn step(state: &Repository, asker: Asker, ask: &Ask) -> Option<Repository> {
    let mut after = state.clone();
    after.ask(asker, ask);
    (after != *state).then_some(after)
}

fn add(states: &mut Vec<Repository>, state: Repository) {
    // States that differ only in the number of commits are the same.
    let state = Repository {
        commits: 0,
        ..state.sorted()
    };
    if !states.contains(&state) {
        states.push(state);
    }
}

fn comparable(state: Repository) -> Repository {
    let (tickets, tokens) = match state.exists {
        true => (state.tickets, state.tokens),
        false => (0, 0),
    };
    Repository {
        commits: 0,
        tickets,
        tokens,
        ..state.sorted()
    }
}
