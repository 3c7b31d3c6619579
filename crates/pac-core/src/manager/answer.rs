//! What is said to those who asked, and what becomes of it when they have gone.

use std::sync::Arc;

use super::absorb::Concern;
use super::repository::{Desk, Repository};
use super::request::{Asked, Reply, Request};
use super::shared::Shared;
use super::waiting::{Notice, Place};
use crate::protocol::{Admitted, Command, Outcome, recognise};
use crate::state::{Entry, RepositoryState, RunKind, RunOutcome, Snapshot};

impl Repository {
    /// Answers everything in flight, according to the state as it is now, or to what was
    /// written if there is none.
    pub(super) fn answer(
        self: &Arc<Self>,
        desk: &mut Desk,
        shared: &Shared,
        written: Option<&Snapshot>,
    ) {
        // From the front, and in place: who goes unheard is looked for an heir among the rest.
        desk.in_flight.reverse();
        while let Some((mut request, outcome)) = desk.in_flight.pop() {
            let Some(asker) = request.reply.take() else {
                continue;
            };
            let reply = self.reply(desk, shared, &request, outcome, written);
            let overtaken = desk.overtaken(&reply);
            match asker.send(Ok(reply)) {
                Ok(()) => desk.end_earlier_waiters(overtaken),
                Err(Ok(mut reply)) => self.unheard(desk, shared, &mut reply),
                Err(Err(_)) => {}
            }
        }
    }

    /// What is said to who asked.
    pub(super) fn reply(
        self: &Arc<Self>,
        desk: &mut Desk,
        shared: &Shared,
        request: &Request,
        outcome: Outcome,
        written: Option<&Snapshot>,
    ) -> Reply {
        let (admits, asked) = (request.admits(), request.asked());
        let mut deferred = desk.deferred.iter();
        let carries = deferred.position(|grant| request.asks_for(&grant.entry));
        let carries = carries.map(|at| desk.deferred.swap_remove(at));
        let command = &request.command;
        let entry = entry_of(command, desk.state.as_ref(), written);
        let outcome = match &request.uncertain {
            Some(before) => {
                let session = shared.session.id();
                recognise(command, before, outcome, entry.as_deref(), session)
            }
            None => outcome,
        };
        let outcome = match outcome {
            Outcome::Admitted { admitted, created } => Outcome::Admitted {
                admitted,
                created: created || request.inherits,
            },
            outcome => outcome,
        };
        let other = |entry: &Arc<Entry>| command.uid().is_some_and(|uid| entry.uid != *uid);
        let (entry, outcome) = if admits && entry.as_ref().is_some_and(other) {
            match outcome {
                // A new run has taken the name already, and ended this one with that.
                Outcome::Admitted { admitted, .. } if admitted.has_a_place() => {
                    let admitted = Admitted::Finished(RunOutcome::Cancelled);
                    let created = false;
                    (None, Outcome::Admitted { admitted, created })
                }
                refused => (None, refused),
            }
        } else {
            (entry, outcome)
        };
        let place = match (&entry, &outcome) {
            (Some(entry), Outcome::Admitted { admitted, .. })
                if entry.is_queued() && admitted.has_a_place() =>
            {
                Some(self.queue(desk, shared, entry))
            }
            _ => None,
        };
        Reply {
            asked,
            outcome,
            entry,
            place,
            carries,
        }
    }

    /// Has whoever asked wait for the turn of a queued run; for nothing, if it is not ours.
    fn queue(self: &Arc<Self>, desk: &mut Desk, shared: &Shared, entry: &Arc<Entry>) -> Place {
        let place = desk.waiting.add(entry);
        match self.concern(shared, None, Some(entry)) {
            Some(Concern::Over(over)) => desk.waiting.end(&entry.run, over),
            // Its session died, and that was recorded, before this answer came.
            Some(Concern::Reclaim) => desk.reclaim(shared, entry),
            Some(Concern::Started(_)) | None => {}
        }
        place
    }

    /// Whoever asked has gone. A slot or a place that they did not have before, and nobody else
    /// waits for, is taken back, before it is asked for anew; else the run stays as it is.
    pub(super) fn unheard(self: &Arc<Self>, desk: &mut Desk, shared: &Shared, reply: &mut Reply) {
        let (Outcome::Admitted { created, .. }, Some(entry)) = (&reply.outcome, &reply.entry)
        else {
            return;
        };
        let mut grant = reply.carries.take();
        if let Some(place) = &mut reply.place {
            desk.waiting.remove(&entry.run, place.number);
            // Nothing is sent to a place that is not there any more: this is the final answer.
            if let Ok(Notice::Started(granted)) = place.notice.try_recv() {
                grant = Some(granted);
            }
        }
        if let Some(heir) = desk.heir(entry) {
            heir.inherits |= *created;
            desk.deferred.extend(grant);
            return;
        }
        let alone = !desk.waiting.knows(&entry.run);
        let ephemeral = entry.kind == RunKind::Ephemeral;
        match (reply.asked, grant) {
            (Asked::Admission, _) if *created && alone => desk.add_first(shared.abandon(entry)),
            (Asked::Requeue, _) if ephemeral && alone => desk.add_first(shared.abandon(entry)),
            (_, Some(grant)) => self.deliver(desk, shared, grant),
            (Asked::Requeue, None) => {
                if let Some(Concern::Started(grant)) = self.concern(shared, None, Some(entry)) {
                    self.deliver(desk, shared, grant);
                }
            }
            _ => {}
        }
    }

    /// Hands over the grants that no answer is left to carry.
    pub(super) fn hand_over(self: &Arc<Self>, desk: &mut Desk, shared: &Shared) {
        for grant in desk.undelivered() {
            self.deliver(desk, shared, grant);
        }
    }
}

/// The entry that a command was about: as it is now, or as it was written if nothing is known.
fn entry_of(
    command: &Command,
    state: Option<&RepositoryState>,
    written: Option<&Snapshot>,
) -> Option<Arc<Entry>> {
    let run = command.run()?;
    match (state, written) {
        (Some(state), _) => state.entry(run).cloned(),
        (None, Some(written)) => {
            let mut entries = written.entries.iter();
            entries.find(|entry| entry.run == *run).cloned()
        }
        (None, None) => None,
    }
}
