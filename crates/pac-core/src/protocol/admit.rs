//! A run that is asked for: what it finds, what it ends, and its place.

use super::apply::known_as;
use super::command::{Admitted, Outcome};
use super::plan::Plan;
use super::request::{RunRequest, Supersedes};
use crate::name::{Group, PipelineRunKey};
use crate::state::{Entry, EntryState, Head, Moment, Rank, RunKind, RunOutcome, Terms};
use crate::value::{SessionId, Ticket};

impl Plan<'_> {
    pub(super) fn admit(&mut self, request: &RunRequest) -> Outcome {
        let issuer = self.issuer.session;
        let entry = match self.current(&request.run) {
            None => return self.come(request, false),
            Some(other) if other.uid != request.uid => {
                if let Some(holder) = keeps_its_name(other, request, issuer) {
                    return known_as(Admitted::HeldElsewhere(holder));
                }
                return self.come(request, true);
            }
            Some(entry) if entry.is_abandoned() => return self.come(request, true),
            Some(entry) => entry,
        };
        let ephemeral = entry.kind == RunKind::Ephemeral;
        match entry.state {
            EntryState::Finished { outcome, .. } => known_as(Admitted::Finished(outcome)),
            EntryState::Started {
                orphaned: true,
                session,
                ..
            } if session != issuer => {
                let entry = Entry::clone(entry);
                self.start(entry, issuer);
                self.standing(&request.run, false)
            }
            EntryState::Started { session, .. } if ephemeral && session != issuer => {
                known_as(Admitted::HeldElsewhere(session))
            }
            EntryState::Started { .. } => self.standing(&request.run, false),
            EntryState::Queued { owner: Some(owner) } if ephemeral && owner != issuer => {
                known_as(Admitted::HeldElsewhere(owner))
            }
            EntryState::Queued { owner } => {
                let again = asked_again(entry, request);
                let weight = request.weight();
                if weight > entry.weight() && !self.head.has_slots_for(weight) {
                    let limit = self.head.limit;
                    return known_as(Admitted::TooHeavy { weight, limit });
                }
                if owner != Some(issuer) || again.is_some() {
                    let entry = Entry::clone(entry);
                    self.change(entry, |entry| Entry {
                        state: EntryState::Queued {
                            owner: Some(issuer),
                        },
                        ..again.unwrap_or(entry)
                    });
                    self.promote();
                }
                self.standing(&request.run, false)
            }
        }
    }

    /// Whether a request is for a run that neither waits nor runs, and may have its name.
    pub(super) fn comes(&self, request: &RunRequest) -> bool {
        self.current(&request.run).is_none_or(|known| {
            let keeps = || keeps_its_name(known, request, self.issuer.session).is_some();
            let is_same = known.uid == request.uid;
            if is_same {
                known.is_abandoned()
            } else {
                !keeps()
            }
        })
    }

    /// A run that is neither waiting nor running comes; `is_known` where there is an entry of its name.
    fn come(&mut self, request: &RunRequest, is_known: bool) -> Outcome {
        if let Some(refused) = self.refusal(request) {
            if let Admitted::QueueFull { .. } = refused {
                self.record_refusal(request);
            }
            return known_as(refused);
        }
        if is_known {
            self.take_name(&request.run);
        }
        let place = self.supersede(request);
        let entry = self.arrival(request, place);
        self.arrive(entry);
        self.standing(&request.run, true)
    }

    /// Why a new run is not let in.
    pub(super) fn refusal(&self, request: &RunRequest) -> Option<Admitted> {
        let (head, weight) = (&self.head, request.weight());
        if !head.has_slots_for(weight) {
            let limit = head.limit;
            return Some(Admitted::TooHeavy { weight, limit });
        }
        let most = head.policy.as_ref().and_then(|p| p.rules.max_queued);
        let skips_if = request.skips_if();
        if most.is_none() && skips_if.is_none() {
            return None;
        }
        // As it will be once a run of its name has made room.
        let mut head = head.clone();
        if let Some(replaced) = self.current(&request.run) {
            head.discount(replaced);
        }
        let Head {
            queued, started, ..
        } = head;
        if skips_if.is_some_and(|condition| condition.applies(queued, started)) {
            return Some(Admitted::Skipped { queued, started });
        }
        let waits = !head.admits(weight) || self.somebody_could_wait_before(&request.run);
        let full = waits && most.is_some_and(|most| queued >= most);
        let supersedes = || self.superseded(request).next().is_some();
        (full && !supersedes()).then_some(Admitted::QueueFull { queued })
    }

    /// Puts into the history that a run was refused, once: it may be asked for again and again. Where
    /// another run of its name is live, that one keeps the record.
    fn record_refusal(&mut self, request: &RunRequest) {
        let known = self.current(&request.run);
        let is_there = known.is_some_and(|known| match known.state {
            EntryState::Finished { outcome, .. } => {
                known.uid == request.uid && outcome == RunOutcome::QueueFull
            }
            EntryState::Queued { .. } | EntryState::Started { .. } => true,
        });
        if !is_there {
            let entry = self.arrival(request, None);
            self.put_new(Entry {
                state: EntryState::Finished {
                    outcome: RunOutcome::QueueFull,
                    token: None,
                    abandoned: true,
                },
                finished: Moment::AT_COMMIT,
                ..entry
            });
        }
    }

    /// A new queue entry for `request`: in the place that was given up for it, or else with the next
    /// ticket, last among its priority.
    pub(super) fn arrival(&mut self, request: &RunRequest, place: Option<Ticket>) -> Entry {
        let ticket = place.unwrap_or_else(|| {
            self.head.last_ticket = self.head.last_ticket.next();
            self.head.last_ticket
        });
        Entry {
            run: request.run.clone(),
            uid: request.uid.clone(),
            kind: request.kind,
            priority: request.priority,
            ticket,
            state: EntryState::Queued {
                owner: Some(self.issuer.session),
            },
            queued: Moment::AT_COMMIT,
            started: Moment::NEVER,
            finished: Moment::NEVER,
            terms: request.terms().and_then(Terms::to_be_kept),
            revision: self.base.live_revision(&request.run),
        }
    }

    /// Queues a run last, without an owner, and starts nothing: any process that can start it
    /// will.
    pub(crate) fn enlist(&mut self, request: &RunRequest) {
        self.take_name(&request.run);
        let entry = Entry {
            state: EntryState::Queued { owner: None },
            ..self.arrival(request, None)
        };
        self.put_new(entry);
    }

    /// Ends a live run whose name now belongs to a run with another uid: the cluster can hold
    /// only one object of a name.
    pub(super) fn take_name(&mut self, run: &PipelineRunKey) {
        if let Some(old) = self.current(run).filter(|old| !old.is_finished()) {
            let old = Entry::clone(old);
            self.end(old, RunOutcome::Cancelled);
        }
    }

    /// Ends the waiting runs that a request supersedes, and asks the running ones to end if it does
    /// that too: all that are left by the [rounds](Plan::round_before) before. Returns the place that it
    /// gets for that.
    fn supersede(&mut self, request: &RunRequest) -> Option<Ticket> {
        let (group, supersedes) = request.supersedes()?;
        let place = self.place_for(request).map(|(place, _)| place);
        let mut waiting: Vec<_> = self.superseded(request).cloned().collect();
        waiting.sort_unstable_by_key(Rank::of);
        for entry in waiting {
            if self.is_full() {
                break;
            }
            self.end(entry, RunOutcome::Superseded);
        }
        if supersedes == Supersedes::All {
            let running = self.group(group).filter(|entry| entry.is_started());
            for entry in running.cloned().collect::<Vec<_>>() {
                if self.is_full() {
                    break;
                }
                self.ask_to_end(entry);
            }
        }
        place
    }

    /// The waiting runs that a request ends for its group's sake.
    pub(super) fn superseded(&self, request: &RunRequest) -> impl Iterator<Item = &Entry> {
        let group = request.supersedes().map(|(group, _)| group);
        let runs = group.into_iter().flat_map(|group| self.group(group));
        runs.filter(|entry| entry.is_queued() && entry.run != request.run)
    }

    /// The waiting and running runs of a group.
    pub(super) fn group(&self, group: &Group) -> impl Iterator<Item = &Entry> {
        let base = self.base.group(group);
        let base = base.filter(|entry| self.is_untouched(entry));
        let changed = self.overlay.entries();
        let changed =
            changed.filter(move |entry| !entry.is_finished() && entry.group() == Some(group));
        base.chain(changed).map(AsRef::as_ref)
    }
}

/// The entry of a waiting run that is asked for again with another priority or other wishes; `None`
/// where nothing of that has changed. What an operator has moved stays where it is.
fn asked_again(entry: &Entry, request: &RunRequest) -> Option<Entry> {
    let wishes = request.terms().cloned().unwrap_or(Terms::NONE);
    if entry.admitted_as() == request.priority && entry.terms().as_asked() == wishes {
        return None;
    }
    let moved = entry.terms().admitted_as.is_some();
    let priority = if moved {
        entry.priority
    } else {
        request.priority
    };
    let terms = Terms {
        admitted_as: (priority != request.priority).then_some(request.priority),
        passed: entry.terms().passed,
        ..wishes
    };
    let entry = Entry {
        priority,
        ..entry.clone()
    };
    Some(entry.with_terms(terms))
}

/// The session of a live run that a request of the same name and another uid must not end; `None`
/// when the request may replace `other`. A process that asks for its own ephemeral run cannot know
/// that another process's run is over. For a durable run a new uid proves it: the cluster has
/// replaced the object. A request whose uid proves nothing says what it replaces.
fn keeps_its_name(other: &Entry, request: &RunRequest, issuer: SessionId) -> Option<SessionId> {
    let is_own = request.kind == RunKind::Ephemeral;
    let anothers = || holder_of(other).filter(|holder| is_own && *holder != issuer);
    is_spared(other, request, issuer).or_else(anothers)
}

/// The session of a live run that a request does not replace; the issuer's where it has none.
pub(super) fn is_spared(
    other: &Entry,
    request: &RunRequest,
    issuer: SessionId,
) -> Option<SessionId> {
    let is_spared = !other.is_finished() && !request.replaces.includes(&other.uid);
    is_spared.then(|| holder_of(other).unwrap_or(issuer))
}

/// The session that a live run waits for or holds its slot under, as an orphan too.
pub(super) fn holder_of(entry: &Entry) -> Option<SessionId> {
    match entry.state {
        EntryState::Started { session, .. } => Some(session),
        EntryState::Queued { owner } => owner,
        EntryState::Finished { .. } => None,
    }
}
