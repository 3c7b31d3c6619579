//! Slots with which more than one asker was answered: a slot that one of them has gone from stays
//! with the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Repository;
use super::effects::{Effects, Reply};
use super::env::{Env, Port};
use super::request::Asked;
use crate::protocol::Outcome;
use crate::state::{Entry, EntryState, RepositoryState, RunKind};
use crate::value::FencingToken;

/// The slots of durable runs that further askers were answered with, after the one to which the
/// slot was granted. A slot of one asker is not here, and neither is that of an ephemeral run,
/// which ends with its first lease.
///
/// It is not known which answers were read: an asker counts until its answer, turn or grant
/// comes back unread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SharedSlots {
    by_token: BTreeMap<FencingToken, Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shared {
    /// So many askers were answered with the slot, and have not gone with their answers unread.
    askers: u32,
    /// What is to be done when the last of them goes unread, too. Set when the asker goes to which
    /// the slot was granted.
    owed: Option<Owed>,
}

/// What has to be done about a slot from which all askers have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owed {
    /// The run is taken back: it was there for these askers alone.
    Run,
    /// The slot is delivered anew, or given back; the run stays. `running` as of a
    /// [`Grant`](super::effects::Grant).
    Slot { running: bool },
}

/// Which askers have a slot after one has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// There are others: nothing is to be done.
    Others,
    /// There is none, and this is to be done.
    Nobody(Option<Owed>),
}

impl SharedSlots {
    /// Another asker is answered with a slot that one asker, at least, has been given.
    fn add(&mut self, token: FencingToken) {
        let alone = Shared {
            askers: 1,
            owed: None,
        };
        let shared = self.by_token.entry(token).or_insert(alone);
        shared.askers = shared.askers.saturating_add(1);
    }

    /// An asker that was answered with a slot has gone; `owes` says what is to be done about the
    /// slot if that was the only asker.
    pub(super) fn leave(&mut self, token: FencingToken, owes: Option<Owed>) -> Left {
        if let Some(shared) = self.by_token.get_mut(&token) {
            shared.askers = shared.askers.saturating_sub(1);
        }
        self.pass_by(token, owes)
    }

    /// The same for an asker that is not counted here: it was not answered; or it has adopted the
    /// run, and counts until the slot ends.
    pub(super) fn pass_by(&mut self, token: FencingToken, owes: Option<Owed>) -> Left {
        let Some(shared) = self.by_token.get_mut(&token) else {
            return Left::Nobody(owes);
        };
        shared.owed = shared.owed.or(owes);
        let Shared { askers, owed } = *shared;
        // With one asker left and nothing owed, it is as a slot that was never shared.
        if askers == 0 || (askers == 1 && owed.is_none()) {
            self.by_token.remove(&token);
        }
        match askers {
            0 => Left::Nobody(owed),
            _ => Left::Others,
        }
    }

    /// Forgets the slot of an entry that has changed, if it is not held any more.
    pub(super) fn forget_ended(&mut self, before: Option<&Entry>, after: Option<&Entry>) {
        let held = |entry: Option<&Entry>| match entry?.state {
            EntryState::Started { token, .. } => Some(token),
            _ => None,
        };
        if let Some(token) = held(before).filter(|token| held(after) != Some(*token)) {
            self.by_token.remove(&token);
        }
    }

    /// Forgets all slots that are not held in a state.
    pub(super) fn keep_held(&mut self, state: &RepositoryState) {
        let of_state = state.entries().filter(|entry| entry.is_started());
        let known = of_state.filter_map(|entry| {
            let token = entry.token()?;
            self.by_token.remove_entry(&token)
        });
        self.by_token = known.collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }
}

impl<P: Port> Repository<P> {
    /// Notes that an asker is about to be answered with a slot of this manager's that was granted
    /// to another asker before.
    pub(super) fn note_asker(&mut self, env: &Env, reply: &Reply<P>, effects: &Effects<P>) {
        let (Outcome::Admitted { admitted, created }, None) = (&reply.outcome, &reply.carries)
        else {
            return;
        };
        let adopts = reply.asked == Asked::Other;
        if *created && !adopts {
            return;
        }
        let Some(entry) = reply.entry.as_ref().filter(|_| admitted.has_a_place()) else {
            return;
        };
        if let EntryState::Started { token, session, .. } = entry.state
            && entry.kind == RunKind::Durable
            && (session == env.session || self.was_ours(env, session))
            && (!created || is_answered(effects, entry))
        {
            self.shared.add(token);
        }
    }
}

/// Whether an earlier request in the same commit is answered with the entry: an admission that was
/// planned to wait, before an adoption has started the run.
fn is_answered<P: Port>(effects: &Effects<P>, entry: &Arc<Entry>) -> bool {
    let mut replies = effects.replies.iter();
    let is_it = |reply: &Reply<P>| {
        let known = reply.entry.as_ref();
        reply.outcome.has_a_place() && known.is_some_and(|known| Arc::ptr_eq(known, entry))
    };
    replies.any(|answer| answer.result.as_ref().is_ok_and(|reply| is_it(reply)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PipelineRunKey;
    use crate::state::{Moment, RunOutcome};
    use crate::value::{Priority, Revision, SessionId, Ticket};

    fn entry(state: EntryState) -> Entry {
        Entry {
            run: PipelineRunKey::new("ci", "a").unwrap(),
            uid: "u".parse().unwrap(),
            kind: RunKind::Durable,
            priority: Priority::default(),
            ticket: Ticket::new(1),
            state,
            queued: Moment::NEVER,
            started: Moment::NEVER,
            finished: Moment::NEVER,
            terms: None,
            revision: Revision::default(),
        }
    }

    fn started(token: u64) -> Entry {
        entry(EntryState::Started {
            token: FencingToken::new(token),
            session: SessionId::new(1),
            orphaned: false,
        })
    }

    /// Each slot has two askers.
    fn shared(tokens: &[u64]) -> SharedSlots {
        let mut shared = SharedSlots::default();
        for token in tokens {
            shared.add(FencingToken::new(*token));
        }
        shared
    }

    #[test]
    fn a_slot_that_is_not_held_any_more_is_forgotten() {
        let mut slots = shared(&[3, 4, 5]);
        slots.forget_ended(Some(&started(3)), Some(&started(3)));
        assert_eq!(slots, shared(&[3, 4, 5]));
        slots.forget_ended(Some(&started(3)), Some(&started(9)));
        assert_eq!(slots, shared(&[4, 5]));
        let ended = entry(EntryState::Finished {
            outcome: RunOutcome::Completed,
            token: None,
            abandoned: false,
        });
        slots.forget_ended(Some(&started(4)), Some(&ended));
        slots.forget_ended(Some(&started(5)), None);
        assert!(slots.is_empty());
    }

    #[test]
    fn a_state_without_a_slot_forgets_it() {
        let mut slots = shared(&[3]);
        slots.keep_held(&RepositoryState::absent(9));
        assert!(slots.is_empty());
    }

    #[test]
    fn the_last_asker_of_a_slot_is_told_what_is_owed() {
        let owed = Owed::Slot { running: false };
        let token = FencingToken::new(3);
        let mut slots = shared(&[3]);
        // The one that the slot was granted to, then the other one.
        assert_eq!(slots.leave(token, Some(owed)), Left::Others);
        assert_eq!(slots.leave(token, None), Left::Nobody(Some(owed)));
        assert!(slots.is_empty());
        // With one asker left and nothing owed, nothing is remembered.
        let mut slots = shared(&[3]);
        assert_eq!(slots.leave(token, None), Left::Others);
        assert!(slots.is_empty());
        assert_eq!(slots.leave(token, None), Left::Nobody(None));
    }
}
