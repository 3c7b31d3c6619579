//! The effect of each command on a plan.

use std::sync::Arc;

use super::admit::{holder_of, is_spared};
use super::command::{Admitted, Command, Death, Ended, Outcome};
use super::plan::Plan;
use super::request::RunRequest;
use crate::name::{PipelineRunKey, Uid};
use crate::state::{Entry, EntryState, Moment, RunKind, RunOutcome};
use crate::value::{FencingToken, SessionId, Ticket};

impl Plan<'_> {
    /// Applies a command to the state as all commands applied before have left it.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Admit(request) => self.admit(request),
            Command::MakeWay(request) => self.make_way(request),
            Command::Release {
                run,
                uid,
                token,
                outcome,
            } => self.release(run, uid, *token, *outcome),
            Command::Cancel { run, uid, how } => self.cancel(run, uid.as_ref(), *how),
            Command::CancelAll { which, how } => self.cancel_all(which, *how),
            Command::Bump { run, uid, to } => self.bump(run, uid.as_ref(), *to),
            Command::Abandon {
                run,
                uid,
                owner,
                ticket,
                token,
            } => self.abandon(run, uid, *owner, *ticket, *token),
            Command::Requeue { run, token, .. } => self.requeue(run, *token),
            Command::Reclaim { run, uid, former } => self.reclaim(run, uid, *former),
            Command::Disown {
                run,
                token,
                running,
            } => self.disown(run, *token, *running),
            Command::Adopt(request) => self.adopt(request),
            Command::SetLimit { rules, claim } => self.set_rules(rules, *claim),
            Command::Unpin => self.unpin(),
            Command::Pause { reason, only_if } => self.pause(reason.clone(), only_if),
            Command::Resume { only_if } => self.resume(only_if),
            Command::TimeOut { now } => self.time_out(*now),
            Command::Expire { session, death } => self.expire(*session, *death),
            Command::Promote => Outcome::Swept {
                affected: Vec::new(),
                promoted: self.promote(),
            },
            Command::RemoveRepository => self.remove(),
        }
    }

    pub(super) fn standing(&self, run: &PipelineRunKey, created: bool) -> Outcome {
        let admitted = self
            .current(run)
            .map_or(Admitted::NotHeld, |entry| Admitted::of(entry));
        Outcome::Admitted { admitted, created }
    }

    fn release(
        &mut self,
        run: &PipelineRunKey,
        uid: &Uid,
        token: Option<FencingToken>,
        outcome: RunOutcome,
    ) -> Outcome {
        let ended = match self.current(run).filter(|entry| entry.uid == *uid) {
            None => Ended::Unknown,
            Some(entry) => match entry.state {
                EntryState::Queued { .. } => Ended::NotStarted,
                EntryState::Finished { outcome, .. } => Ended::Before(outcome),
                EntryState::Started { token: current, .. }
                    if token.is_some_and(|token| token != current) =>
                {
                    Ended::Stale(current)
                }
                EntryState::Started { .. } => {
                    let entry = Entry::clone(entry);
                    self.end(entry, outcome);
                    Ended::Done
                }
            },
        };
        self.ended(ended)
    }

    fn abandon(
        &mut self,
        run: &PipelineRunKey,
        uid: &Uid,
        owner: SessionId,
        ticket: Ticket,
        token: Option<FencingToken>,
    ) -> Outcome {
        let issuer = self.issuer.session;
        let is_ours = |session| session == issuer || session == owner;
        let same = |entry: &&Arc<Entry>| entry.uid == *uid && entry.ticket == ticket;
        let ended = match self.current(run).filter(same) {
            None => Ended::Unknown,
            Some(entry) => match entry.state {
                EntryState::Finished { outcome, .. } => Ended::Before(outcome),
                EntryState::Queued { owner } if !owner.is_none_or(is_ours) => Ended::Unknown,
                EntryState::Started { session, .. } if !is_ours(session) => Ended::Unknown,
                EntryState::Queued { .. } if token.is_some() => Ended::NotStarted,
                EntryState::Started { token: current, .. }
                    if token.is_some_and(|token| token != current) =>
                {
                    Ended::Stale(current)
                }
                EntryState::Queued { .. } | EntryState::Started { .. } => {
                    // Of a session that is over, it is not the asker's will that ends it.
                    let is_lost = holder_of(entry).is_some_and(|holder| holder != issuer);
                    let outcome = match is_lost {
                        true => RunOutcome::LeaseLost,
                        false => RunOutcome::Cancelled,
                    };
                    let entry = Entry::clone(entry);
                    self.give_up(entry, outcome);
                    Ended::Done
                }
            },
        };
        self.ended(ended)
    }

    pub(super) fn ended(&mut self, ended: Ended) -> Outcome {
        let promoted = match ended {
            Ended::Done => self.promote(),
            _ => Vec::new(),
        };
        Outcome::Ended { ended, promoted }
    }

    fn requeue(&mut self, run: &PipelineRunKey, token: FencingToken) -> Outcome {
        let held = self.current(run).and_then(|entry| match entry.state {
            EntryState::Started { token: current, .. } if current == token => {
                Some(Entry::clone(entry))
            }
            _ => None,
        });
        let Some(entry) = held else {
            return known_as(Admitted::NotHeld);
        };
        let owner = Some(self.issuer.session);
        self.give_back(entry, owner);
        self.standing(run, false)
    }

    /// Puts a run back into its place; one that was asked to end has ended with that.
    fn give_back(&mut self, entry: Entry, owner: Option<SessionId>) {
        if entry.is_asked_to_end() {
            self.end(entry, RunOutcome::Cancelled);
        } else {
            self.change(entry, |mut entry| {
                entry.state = EntryState::Queued { owner };
                entry.started = Moment::NEVER;
                entry.leave_slots();
                entry
            });
        }
        self.promote();
    }

    fn disown(&mut self, run: &PipelineRunKey, token: FencingToken, running: bool) -> Outcome {
        let held = self.current(run).filter(|entry| {
            let ours = entry.owner() == Some(self.issuer.session);
            ours && entry.is_started() && entry.token() == Some(token)
        });
        let Some(entry) = held.map(|entry| Entry::clone(entry)) else {
            return known_as(Admitted::NotHeld);
        };
        let session = self.issuer.session;
        if running {
            let orphaned = true;
            self.change(entry, |entry| Entry {
                state: EntryState::Started {
                    token,
                    session,
                    orphaned,
                },
                ..entry
            });
        } else {
            self.give_back(entry, None);
        }
        self.standing(run, false)
    }

    fn reclaim(&mut self, run: &PipelineRunKey, uid: &Uid, former: SessionId) -> Outcome {
        let left = self.current(run).filter(|entry| {
            let owner = match entry.state {
                EntryState::Queued { owner } => owner.is_none_or(|owner| owner == former),
                EntryState::Started { .. } | EntryState::Finished { .. } => false,
            };
            owner && entry.kind == RunKind::Durable && entry.uid == *uid
        });
        let Some(entry) = left.map(|entry| Entry::clone(entry)) else {
            return known_as(Admitted::NotHeld);
        };
        let owner = Some(self.issuer.session);
        self.change(entry, |entry| Entry {
            state: EntryState::Queued { owner },
            ..entry
        });
        self.promote();
        self.standing(run, false)
    }

    fn adopt(&mut self, request: &RunRequest) -> Outcome {
        let issuer = self.issuer.session;
        let known = self.current(&request.run);
        let entry = match known.filter(|entry| entry.uid == request.uid && !entry.is_abandoned()) {
            None => {
                let other = known.filter(|entry| entry.uid != request.uid);
                if let Some(holder) = other.and_then(|other| is_spared(other, request, issuer)) {
                    return known_as(Admitted::HeldElsewhere(holder));
                }
                self.take_name(&request.run);
                let entry = self.arrival(request, None);
                self.record_adoption(&request.run);
                self.start_new(entry, issuer);
                // The run that had the name may have taken more slots.
                self.promote();
                return self.standing(&request.run, true);
            }
            Some(entry) => match entry.state {
                EntryState::Started {
                    session, orphaned, ..
                } if !orphaned || session == issuer => {
                    return self.standing(&request.run, false);
                }
                // The lease TTL of its controller passed before any other took the run over, but
                // the workload is still running.
                EntryState::Finished {
                    outcome: RunOutcome::LeaseLost,
                    ..
                } => Entry {
                    finished: Moment::NEVER,
                    revision: self.base.live_revision(&request.run),
                    ..Entry::clone(entry)
                },
                EntryState::Finished { outcome, .. } => {
                    return known_as(Admitted::Finished(outcome));
                }
                EntryState::Queued { .. } | EntryState::Started { .. } => Entry::clone(entry),
            },
        };
        if !entry.is_started() {
            self.record_adoption(&request.run);
        }
        self.start(entry, issuer);
        self.standing(&request.run, true)
    }

    fn expire(&mut self, session: SessionId, death: Death) -> Outcome {
        let mut bereaved: Vec<_> = self
            .current_entries()
            .filter_map(|entry| Some((Arc::clone(entry), after_death(entry, session, death)?)))
            .collect();
        // Entries come in no particular order; sort them so that the outcome is deterministic.
        bereaved.sort_unstable_by_key(|(entry, _)| entry.ticket);
        let mut affected = Vec::new();
        for (entry, after) in bereaved {
            if self.budget_is_spent() {
                break;
            }
            affected.push(entry.run.clone());
            let entry = Entry::clone(&entry);
            match after {
                EntryState::Finished { outcome, .. } => self.end(entry, outcome),
                state => self.change(entry, |entry| Entry { state, ..entry }),
            }
        }
        Outcome::Swept {
            affected,
            promoted: self.promote(),
        }
    }

    fn remove(&mut self) -> Outcome {
        let live = self.current_entries().filter(|entry| !entry.is_finished());
        let mut ended: Vec<_> = live
            .map(|entry| (entry.ticket, entry.run.clone()))
            .collect();
        ended.sort_unstable();
        self.removed = true;
        Outcome::Removed(ended.into_iter().map(|(_, run)| run).collect())
    }
}

pub(super) fn known_as(admitted: Admitted) -> Outcome {
    Outcome::Admitted {
        admitted,
        created: false,
    }
}

/// The state of `entry` after the death of `session`; `None` when that death does not change it.
fn after_death(entry: &Entry, session: SessionId, death: Death) -> Option<EntryState> {
    let expired = EntryState::Finished {
        outcome: RunOutcome::LeaseLost,
        token: entry.token(),
        abandoned: false,
    };
    match (entry.state, entry.kind) {
        (EntryState::Queued { owner }, kind) if owner == Some(session) => match kind {
            RunKind::Ephemeral => Some(expired),
            RunKind::Durable => Some(EntryState::Queued { owner: None }),
        },
        (
            EntryState::Started {
                token,
                session: holder,
                orphaned,
            },
            kind,
        ) if holder == session => match (kind, death) {
            (RunKind::Ephemeral, _) | (RunKind::Durable, Death::Lease) => Some(expired),
            (RunKind::Durable, Death::Session) => (!orphaned).then_some(EntryState::Started {
                token,
                session,
                orphaned: true,
            }),
        },
        _ => None,
    }
}
