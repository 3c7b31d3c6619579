//! Holders of slots that want to hear when their lease is lost.

use std::sync::Arc;

use super::Repository;
use super::effects::Effects;
use super::env::Port;
use crate::event::LeaseLoss;
use crate::name::PipelineRunKey;
use crate::state::{Entry, EntryState, RunOutcome};
use crate::value::FencingToken;

/// Names a holder that wants to hear of its loss to its repository: two may hold one slot, of a
/// run that was admitted twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HolderId(u64);

#[derive(Debug)]
pub(super) struct Holder<P: Port> {
    pub(super) id: HolderId,
    pub(super) run: PipelineRunKey,
    pub(super) token: FencingToken,
    pub(super) loss: P::Loss,
}

impl<P: Port> Repository<P> {
    /// The entry of a run in the state, or in what is left of one that was forgotten.
    fn known_entry(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        match &self.state {
            Some(state) => state.entry(run),
            None => self.forgotten.get(run),
        }
    }

    /// Whether the state says, or said when it was forgotten, that this slot is held.
    #[must_use]
    pub fn is_held(&self, run: &PipelineRunKey, token: FencingToken) -> bool {
        let entry = self.known_entry(run);
        entry.is_some_and(|entry| holds(entry, token))
    }

    /// Whether the run that holds this slot was asked to end, as far as this manager knows.
    #[must_use]
    pub fn is_asked_to_end(&self, run: &PipelineRunKey, token: FencingToken) -> bool {
        let asked = self.known_entry(run).and_then(|entry| asked_slot(entry));
        asked == Some(token)
    }

    /// Has a holder told when its lease is lost. It is told at once of a lease that is lost
    /// already.
    pub fn watch_lease(
        &mut self,
        run: &PipelineRunKey,
        token: FencingToken,
        loss: P::Loss,
        effects: &mut Effects<P>,
    ) -> HolderId {
        let id = HolderId(self.next_holder);
        self.next_holder += 1;
        let reason = match &self.ended {
            Some(_) => Some(LeaseLoss::Closed),
            None if self.is_held(run, token) => None,
            None => {
                let known = self.state.as_ref().and_then(|state| state.entry(run));
                Some(loss_of(known.map(AsRef::as_ref), token))
            }
        };
        match reason {
            Some(reason) => effects.losses.push((loss, reason)),
            None => self.holders.push(Holder {
                id,
                run: run.clone(),
                token,
                loss,
            }),
        }
        id
    }

    /// The holder of a lease that it had watched has gone.
    pub fn unwatch_lease(&mut self, holder: HolderId) {
        self.holders.retain(|known| known.id != holder);
    }
}

/// Whether an entry is a slot with this token.
pub(super) fn holds(entry: &Entry, token: FencingToken) -> bool {
    matches!(entry.state, EntryState::Started { token: now, .. } if now == token)
}

/// Why the slot with `token` is not held any more, from the run's entry as it is now.
fn loss_of(entry: Option<&Entry>, token: FencingToken) -> LeaseLoss {
    match entry.map(|entry| entry.state) {
        Some(EntryState::Finished {
            outcome,
            token: last,
            ..
        }) if last == Some(token) => match outcome {
            // Another controller has noticed the death of the session first.
            RunOutcome::LeaseLost => LeaseLoss::SessionLost,
            outcome => LeaseLoss::Ended(Some(outcome)),
        },
        None => LeaseLoss::Ended(None),
        Some(_) => LeaseLoss::TakenOver,
    }
}

/// The slot of a run that was asked to end.
pub(super) fn asked_slot(entry: &Entry) -> Option<FencingToken> {
    let is_asked = entry.is_started() && entry.is_asked_to_end();
    entry.token().filter(|_| is_asked)
}

/// Tells the holders of a run what it has become.
pub(super) fn tell_holders<P: Port>(
    holders: &mut Vec<Holder<P>>,
    run: &PipelineRunKey,
    after: Option<&Entry>,
    effects: &mut Effects<P>,
) {
    let lost = |holder: &mut Holder<P>| {
        let still = after.is_some_and(|entry| holds(entry, holder.token));
        holder.run == *run && !still
    };
    for holder in holders.extract_if(.., lost) {
        let why = loss_of(after, holder.token);
        effects.losses.push((holder.loss, why));
    }
}
