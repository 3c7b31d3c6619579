//! Whether states are right, and whether anything is left to do in them.

use std::sync::Arc;

use pac_core::state::Entry;
use stateright::Model;

use super::invariant::Invariant;
use super::world::{State, Step, World, has_no_owner};
use crate::rules::Rules;

impl<R: Rules> World<R> {
    /// Whether no step on the way to this state has broken an invariant, nor the state itself.
    pub(super) fn keeps(&self, state: &State, invariant: Invariant) -> bool {
        let holds = match invariant {
            _ if state.broken.is_any() => true,
            Invariant::Fencing => Self::holders_are_right(state),
            Invariant::NoIdleSlot => !self.is_at_rest(state) || self.is_served(state),
            _ => true,
        };
        holds && !state.broken.has(invariant)
    }

    /// Whether nothing more happens unless something goes wrong or somebody asks.
    fn is_at_rest(&self, state: &State) -> bool {
        let mut steps = Vec::new();
        self.actions(state, &mut steps);
        steps.iter().all(|step| !step.is_due(self, state))
    }

    /// At rest, nobody waits and nobody holds: all that was asked for has been served.
    fn is_served(&self, state: &State) -> bool {
        let entries = state.store.book.entries();
        let stranded = |entry: &Arc<Entry>| !self.0.scenario.takes_ownerless && has_no_owner(entry);
        entries
            .iter()
            .all(|entry| entry.is_finished() || stranded(entry))
            && state.controllers.iter().all(|c| c.waiting.is_empty())
    }

    /// Nobody whose session lives believes to hold what the store gave to another, or to
    /// nobody; and no two believe to hold by the same token.
    fn holders_are_right(state: &State) -> bool {
        let mut tokens = Vec::new();
        for controller in state.controllers.iter().filter(|controller| controller.up) {
            for lease in &controller.leases {
                if tokens.contains(&lease.token) {
                    return false;
                }
                tokens.push(lease.token);
                let lives = lease.session == controller.session
                    && !controller.lost
                    && state.store.is_alive(lease.session);
                let entry = state.store.book.entry(&lease.request.run);
                if lives && entry.and_then(|entry| entry.token()) != Some(lease.token) {
                    return false;
                }
            }
        }
        true
    }
}

impl Step {
    /// Whether it happens some time if nothing else goes wrong and nobody asks for more.
    fn is_due(&self, world: &World<impl Rules>, state: &State) -> bool {
        match self {
            Self::Event(_) | Self::Crash(_) | Self::LoseAnswer(_) | Self::ArriveLate(_) => false,
            Self::Lapse(session) => !state.is_kept(*session),
            Self::Promote(_) => world.0.scenario.takes_ownerless,
            _ => true,
        }
    }
}
