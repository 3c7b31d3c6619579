//! Inbox and state → what to do.

use std::sync::Arc;

use super::Repository;
use super::effects::{Action, Effects, OneCommit};
use super::env::{Env, Port};
use super::request::{Basis, InForce, Planned};
use crate::driver::RepositoryCommit;
use crate::error::{Error, ErrorKind};
use crate::name::{Reason, Uid};
use crate::protocol::{Admitted, Claim, Command, Death, Ended, Outcome, Plan};
use crate::state::{Entry, EntryState, Head, RepositoryState, RunKind};
use crate::value::{Revision, SessionId, Version};

/// How a request goes on whose last attempt may have succeeded.
enum Again {
    /// It is applied as it is.
    Apply,
    /// This is applied: the command, held to what it was planned on.
    ApplyTo(Command),
    /// This has come of it; nothing is to be done.
    Known(Outcome),
    /// Nobody can tell.
    Unknown(&'static str),
}

impl<P: Port> Repository<P> {
    /// Plans all that is pending, up to the size of a commit. To be called by the owner of the
    /// combiner's right alone; [`Action::Rest`] takes the right back.
    #[must_use]
    pub fn plan(&mut self, env: &Env, effects: &mut Effects<P>) -> Action {
        self.note_session(env);
        // What was planned and never left is planned again.
        self.inbox.put_back();
        loop {
            if self.has_to_read() {
                return Action::Load(self.begin_to_read());
            }
            if let Some(until) = self.hold_back(env) {
                return Action::Hold(until);
            }
            let Some(changes) = self.gather(env, effects) else {
                return self.rest();
            };
            // A request that was moot may have been the one to carry a grant.
            self.hand_over(effects);
            if let Some(commit) = changes {
                match self.exhausted(&commit) {
                    None => return Action::Commit(self.session, commit),
                    Some(error) => {
                        self.inbox.put_back();
                        match self.failed(env, &error, effects) {
                            Action::Plan => continue,
                            later => return later,
                        }
                    }
                }
            }
            if self.inbox.in_flight.is_empty() {
                return self.rest();
            }
            // Nothing has to be written: then only a state that was read after the question is
            // an answer to it.
            let inbox = &mut self.inbox;
            let early = inbox.in_flight.iter();
            let early = early.take_while(|planned| inbox.is_covered(&planned.request));
            let early = early.count();
            for planned in inbox.in_flight.drain(early..).rev() {
                inbox.pending.push_front(planned.request);
            }
            if early == 0 {
                return Action::Load(self.begin_to_read());
            }
            self.on_expiry_recorded();
            self.answer(env, None, effects);
            self.hand_over(effects);
        }
    }

    /// Puts into flight what one commit carries. `None` without a state to plan on.
    #[allow(
        clippy::option_option,
        reason = "no state, and no changes, are two answers"
    )]
    fn gather(&mut self, env: &Env, effects: &mut Effects<P>) -> Option<Option<OneCommit>> {
        let state = self.state.as_ref()?;
        let (issuer, budget) = (env.issuer(), env.entry_budget);
        let mut plan = Plan::new(state, issuer, budget).without(&self.dead);
        if let Some(given_out) = self.given_out.as_deref() {
            plan = plan.counting_from(*given_out);
        }
        // The last request that is planned together with the one before.
        let mut together = None;
        while let Some(next) = self.inbox.pending.front() {
            let alone = matches!(next.command, Command::RemoveRepository);
            // What a commit grants, it grants under the limit that it writes. Whether many were all
            // cancelled is told by their number, if nothing else has taken from the budget.
            let first = alone
                || matches!(
                    next.command,
                    Command::SetLimit { .. } | Command::Unpin | Command::CancelAll { .. }
                );
            let full = plan.len().saturating_add(next.group) > budget || first;
            let follows = together.is_some_and(|last| next.id <= last);
            if !follows && full && !self.inbox.in_flight.is_empty() {
                break;
            }
            let Some(mut request) = self.inbox.pending.pop_front() else {
                break;
            };
            together = request.last_of_group();
            if request.is_moot() {
                continue;
            }
            let again = match &request.uncertain {
                Some(before) => {
                    let (basis, outcome) = (&before.basis, &before.outcome);
                    again(&request.command, basis, outcome, state, &plan)
                }
                None => Again::Apply,
            };
            let pinned = match again {
                Again::Apply => None,
                Again::ApplyTo(command) => Some(command),
                Again::Known(outcome) => {
                    self.inbox.in_flight.push(Planned {
                        request,
                        outcome,
                        basis: Basis::Command,
                        takes_over: false,
                    });
                    continue;
                }
                Again::Unknown(why) => {
                    let error = Error::new(ErrorKind::Indeterminate, "command", why);
                    request.fail(&error.in_repository(&self.key), effects);
                    continue;
                }
            };
            let command = pinned.as_ref().unwrap_or(&request.command);
            if let Some(round) = plan.round_before(command) {
                let mut planned = self.inbox.in_flight.iter();
                let is_made = planned.any(|planned| planned.request.command == round);
                if !follows && !self.inbox.in_flight.is_empty() {
                    // It is measured again in a commit of its own.
                    self.inbox.pending.push_front(request);
                    break;
                }
                if !is_made {
                    // Those that are planned together with this one stay together.
                    self.inbox.pending.push_front(request);
                    self.inbox.put_back();
                    self.inbox.add_first(round);
                    return self.gather(env, effects);
                }
            }
            // The run that a cancellation by name means.
            let named = match command {
                Command::Cancel { run, uid: None, .. } | Command::Bump { run, uid: None, .. } => {
                    plan.current(run).map(|entry| entry.uid.clone())
                }
                _ => None,
            };
            let known = command.admitted().and_then(|run| state.entry(run));
            let orphan = is_for_orphan(command, &plan, known, issuer.session);
            let outcome = plan.apply(command);
            if let Outcome::Admitted {
                admitted: Admitted::HeldElsewhere(holder),
                ..
            } = outcome
                && self.was_ours(env, holder)
                && is_ephemeral(command.run().and_then(|run| plan.current(run)))
            {
                // One's own former session is nobody else: its runs are ended first. A durable
                // one outlives its session, and keeps its name.
                self.inbox.pending.push_front(request);
                let (session, death) = (holder, Death::Session);
                let expire = Command::Expire { session, death };
                let mut planned = self.inbox.in_flight.iter();
                if planned.any(|planned| planned.request.command == expire) {
                    // It has more runs than one commit can end.
                    break;
                }
                // Those that are planned together with this one stay together.
                self.inbox.put_back();
                self.inbox.add_first(expire);
                return self.gather(env, effects);
            }
            let takes_over = orphan && is_started(&outcome);
            let before = (state, known);
            let basis = basis(command, &outcome, before, plan.head(), named);
            self.inbox.in_flight.push(Planned {
                request,
                outcome,
                basis,
                takes_over,
            });
            if alone {
                break;
            }
        }
        self.inbox.more = plan.has_more();
        self.inbox.planned_at = state.head().version();
        let of = |changes| {
            let repository = self.key.clone();
            Box::new([RepositoryCommit {
                repository,
                changes,
            }])
        };
        Some(plan.finish().map(of))
    }

    /// Why what was planned must not be committed: a counter of the repository is at its end.
    fn exhausted(&self, commit: &OneCommit) -> Option<Error> {
        let [commit] = &**commit;
        let reason = commit.changes.check_counters().err()?;
        Some(Error::new(ErrorKind::Corrupt, "commit", reason).in_repository(&self.key))
    }

    fn rest(&mut self) -> Action {
        self.busy = false;
        self.retry.rest();
        Action::Rest
    }

    /// What has to be read before anything can be planned, if something has to.
    pub fn read_first(&mut self) -> Option<Action> {
        self.has_to_read()
            .then(|| Action::Load(self.begin_to_read()))
    }

    /// Whether something has to be read before anything can be planned.
    pub(super) fn has_to_read(&self) -> bool {
        let asked = !self.inbox.pending.is_empty() || self.wanted > Revision::default();
        self.recheck || self.is_behind() || (asked && self.state.is_none())
    }

    fn begin_to_read(&mut self) -> Option<Version> {
        // A hint that comes from here on may be of something that the answer does not show.
        self.recheck = false;
        self.wanted = Revision::default();
        self.inbox.reading();
        self.reading = true;
        self.asked_all = self.state.is_none();
        self.asked_above = self.floor;
        self.version()
    }
}

/// What a command was planned on that names less than it changes: the state, and in it the entry of the
/// run that is admitted.
fn basis(
    command: &Command,
    outcome: &Outcome,
    (base, admitted): (&RepositoryState, Option<&Arc<Entry>>),
    after: &Head,
    named: Option<Uid>,
) -> Basis {
    let done = is_done(outcome);
    match command {
        Command::Cancel { uid: None, .. } if done || is_asked(outcome) => {
            named.map_or(Basis::Command, Basis::Run)
        }
        Command::Bump { uid: None, .. } => named.map_or(Basis::Command, Basis::Run),
        Command::Release {
            run, token: None, ..
        } if done => match base.entry(run).map(|entry| entry.state) {
            Some(EntryState::Started { token, .. }) => Basis::Slot(token),
            _ => Basis::Command,
        },
        Command::Admit(request) | Command::Adopt(request) => {
            let other = admitted.filter(|entry| entry.uid != request.uid);
            Basis::Arrival(other.map(|entry| entry.uid.clone()))
        }
        Command::Requeue { run, .. } => {
            let entry = base.entry(run).filter(|_| outcome.has_a_place());
            Basis::Place(entry.map(|entry| entry.ticket))
        }
        Command::SetLimit { .. } | Command::Unpin => {
            Basis::Limit(Box::new([base.head(), after].map(InForce::of)))
        }
        Command::Pause { .. } | Command::Resume { .. } => {
            Basis::Pause(Box::new([base.head(), after].map(reason_of)))
        }
        Command::CancelAll { .. } => Basis::UpTo(base.head().last_ticket),
        Command::RemoveRepository => {
            let head = base.head();
            Basis::Repository(head.version(), head.last_ticket)
        }
        _ => Basis::Command,
    }
}

/// How to go on with a command of which an attempt, planned on `basis`, may have succeeded.
/// The plan has what the commit does before it.
fn again(
    command: &Command,
    basis: &Basis,
    before: &Outcome,
    now: &RepositoryState,
    plan: &Plan<'_>,
) -> Again {
    let meant = match basis {
        Basis::Run(uid) => Some(uid),
        _ => command.uid(),
    };
    let current = command.run().and_then(|run| plan.current(run));
    let is_gone = current.is_none_or(|entry| meant.is_some_and(|uid| entry.uid != *uid));
    match (basis, command) {
        // Its run is gone: it has ended, and another one of its name is not to.
        (_, Command::Cancel { .. } | Command::Abandon { .. } | Command::Release { .. })
            if is_gone && is_done(before) =>
        {
            Again::Known(before.clone())
        }
        (Basis::Run(uid), Command::Cancel { run, how, .. }) => Again::ApplyTo(Command::Cancel {
            run: run.clone(),
            uid: Some(uid.clone()),
            how: *how,
        }),
        (Basis::Run(uid), Command::Bump { run, to, .. }) => Again::ApplyTo(Command::Bump {
            run: run.clone(),
            uid: Some(uid.clone()),
            to: *to,
        }),
        (
            Basis::Slot(token),
            Command::Release {
                run, uid, outcome, ..
            },
        ) => Again::ApplyTo(Command::Release {
            run: run.clone(),
            uid: uid.clone(),
            token: Some(*token),
            outcome: *outcome,
        }),
        (Basis::Arrival(known), Command::Admit(asked) | Command::Adopt(asked))
            if now.entry(&asked.run).is_some_and(|entry| {
                entry.uid != asked.uid && known.as_ref() != Some(&entry.uid)
            }) =>
        {
            // Repeated, it would end that one, which may be the newer of the two.
            Again::Unknown(
                "the answer to the admission was lost, and another run has come under its name \
                 since; ask again if the run is still there",
            )
        }
        (Basis::Limit(known), Command::SetLimit { .. } | Command::Unpin) => {
            let head = now.head();
            let [was, wanted] = &**known;
            let is = InForce::of(head);
            if is == *was {
                Again::Apply
            } else if is == *wanted {
                Again::Known(before.clone())
            } else if let Command::SetLimit {
                claim: Claim::Announce(_),
                ..
            } = command
            {
                // Its version says which one holds.
                Again::Apply
            } else {
                // Another announcement is in force since: it holds, whichever came first.
                Again::Known(Outcome::LimitSet {
                    limit: head.limit,
                    owner: head.owner(),
                    accepted: false,
                    promoted: Vec::new(),
                })
            }
        }
        (Basis::Pause(known), Command::Pause { .. } | Command::Resume { .. }) => {
            let [was, wanted] = &**known;
            let is = reason_of(now.head());
            if is == *was {
                Again::Apply
            } else if is == *wanted {
                Again::Known(before.clone())
            } else {
                // Another word was given since: it holds, whichever came first.
                Again::Known(Outcome::Paused {
                    before: is.is_some(),
                    accepted: false,
                    promoted: Vec::new(),
                })
            }
        }
        (Basis::UpTo(last), Command::CancelAll { which, how }) => {
            Again::ApplyTo(Command::CancelAll {
                which: which.clone().up_to(*last),
                how: *how,
            })
        }
        (Basis::Repository(version, ticket), Command::RemoveRepository) => {
            let head = now.head();
            let left = |entry: &Entry| entry.ticket <= *ticket;
            if !now.exists() {
                Again::Known(before.clone())
            } else if head.version() == *version || now.entries().any(|entry| left(entry)) {
                // What would be gone is still there.
                Again::Apply
            } else if matches!(before, Outcome::Removed(ended) if !ended.is_empty()) {
                // All that was to be removed is gone; what is there came since.
                Again::Known(before.clone())
            } else {
                Again::Unknown(
                    "the answer to the removal was lost, and the repository has changed since; \
                     read it before you remove it again",
                )
            }
        }
        _ => Again::Apply,
    }
}

/// The reason of a pause; `None` where there is no pause.
#[allow(
    clippy::option_option,
    reason = "no pause, and a pause without a reason, are two states"
)]
fn reason_of(head: &Head) -> Option<Option<Reason>> {
    head.pause().map(|pause| pause.reason.clone())
}

fn is_ephemeral(entry: Option<&Arc<Entry>>) -> bool {
    entry.is_some_and(|entry| entry.kind == RunKind::Ephemeral)
}

/// Whether a command asks for the slot of an orphan that another session has.
fn is_for_orphan(
    command: &Command,
    plan: &Plan<'_>,
    known: Option<&Arc<Entry>>,
    session: SessionId,
) -> bool {
    let Command::Admit(request) = command else {
        return false;
    };
    let orphan = |state| matches!(state, EntryState::Started { orphaned: true, session: of, .. } if of != session);
    let current = plan.changed(&request.run).or(known);
    current.is_some_and(|entry| entry.uid == request.uid && orphan(entry.state))
}

fn is_started(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Admitted {
            admitted: Admitted::Started { .. },
            created: false,
        }
    )
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Ended {
            ended: Ended::Done,
            ..
        }
    )
}

fn is_asked(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Ended {
            ended: Ended::Asked(_),
            ..
        }
    )
}
