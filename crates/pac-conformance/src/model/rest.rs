//! Whether states are right, and whether anything is left to do in them.

use std::sync::Arc;

use pac_core::manager::machine::Grant;
use pac_core::state::{Entry, EntryState};
use stateright::Model;

use super::invariant::Invariant;
use super::world::{State, Step, World, has_no_owner};

impl World {
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
        steps.iter().all(|step| !step.is_due(state))
    }

    /// At rest, nobody waits and nobody holds: all that was asked for has been served. But for
    /// orphans of sessions that live: they run on, until they are asked for. During a pause, runs
    /// wait.
    fn is_served(&self, state: &State) -> bool {
        let entries = state.store.book.entries();
        let nobody = !state.controllers.iter().any(|controller| controller.reads);
        let stranded = |entry: &Arc<Entry>| nobody && has_no_owner(entry);
        let paused = state.store.book.head().pause().is_some();
        let held_up = |entry: &Arc<Entry>| paused && entry.is_queued();
        entries.iter().all(|entry| {
            entry.is_finished() || stranded(entry) || is_orphan(entry) || held_up(entry)
        }) && state
            .controllers
            .iter()
            .all(|c| (paused || c.waiting.is_empty()) && c.asks.is_empty())
    }

    /// Nobody whose session lives believes to hold what the store gave to another, or to
    /// nobody; and no two believe to hold by the same token.
    fn holders_are_right(state: &State) -> bool {
        let mut tokens = Vec::new();
        for controller in state.controllers.iter().filter(|controller| controller.up) {
            for lease in &controller.leases {
                let Grant {
                    entry: held,
                    token,
                    session,
                    ..
                } = &lease.grant;
                if tokens.contains(token) {
                    return false;
                }
                tokens.push(*token);
                let lives = *session == controller.session
                    && !controller.lost
                    && state.store.is_alive(*session);
                let entry = state.store.book.entry(&held.run);
                // Removed, or replaced by another run of its name, it has ended by command.
                let entry = entry.filter(|entry| entry.ticket == held.ticket);
                if lives && entry.is_some_and(|entry| entry.token() != Some(*token)) {
                    return false;
                }
            }
        }
        true
    }
}

impl Step {
    /// Whether it happens some time if nothing else goes wrong and nobody asks for more.
    fn is_due(&self, state: &State) -> bool {
        match self {
            Self::Event(_)
            | Self::Crash(_)
            | Self::LoseAnswer(_)
            | Self::ArriveLate(_)
            | Self::Leave(..)
            | Self::TimeOut(..) => false,
            Self::Lapse(session) => !state.is_kept(*session),
            _ => true,
        }
    }
}

fn is_orphan(entry: &Arc<Entry>) -> bool {
    matches!(entry.state, EntryState::Started { orphaned: true, .. })
}
