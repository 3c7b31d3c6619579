//! The states that a repository may be in after something happened of which the order, or who
//! did it, is left to chance.

use super::check::Check;
use crate::reference::{Answer, Ask, Asker, Repository};

/// What managers do of their own accord, in any order.
#[derive(Debug, Default)]
pub(crate) struct Background {
    /// Until nothing of it changes anything.
    pub(crate) certain: Vec<(Asker, Ask)>,
    /// Or not at all.
    pub(crate) possible: Vec<(Asker, Ask)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(Vec<Repository>);

impl Allowed {
    /// This state alone.
    pub(crate) fn only(state: Repository) -> Self {
        Self(vec![state])
    }

    /// What may be after asking; the answers that do not fit what was seen are not allowed.
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

    /// Either of both.
    pub(crate) fn or(mut self, other: Self) -> Self {
        for state in other.0 {
            add(&mut self.0, state);
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything is still to come in any of the states.
    pub(crate) fn is_restless(&self, background: &Background) -> bool {
        let restless = |state: &Repository| {
            let mut certain = background.certain.iter();
            certain.any(|(asker, ask)| step(state, *asker, ask).is_some())
        };
        self.0.iter().any(restless)
    }

    /// The states in which everything has come to rest.
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

    /// Whether what is seen is one of the states. How many commits that took is not looked at,
    /// nor from where a repository goes on counting that is gone.
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
    // By which way it was reached makes no difference.
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
