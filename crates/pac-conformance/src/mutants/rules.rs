//! The protocol, broken in one way each.

use std::cmp::Reverse;

use pac_core::protocol::{Admitted, Changes, Command, Death, Issuer, Outcome, RunRequest, apply};
use pac_core::state::{Entry, EntryState, Moment, RepositoryState};
use pac_core::{PipelineRunKey, SessionId};

use super::edit::Edit;
use crate::Rules;

type Apply = fn(&RepositoryState, Issuer, &Command) -> (Outcome, Option<Changes>);

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokenRules(Apply);

impl Rules for BrokenRules {
    fn apply(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        command: &Command,
    ) -> (Outcome, Option<Changes>) {
        self.0(state, issuer, command)
    }
}

/// All of them: a name, what is broken, and the rules.
pub(crate) const ALL: [(&str, &str, BrokenRules); 20] = [
    (
        "stale-count",
        "the limit is checked against a count that misses the latest commit",
        BrokenRules(stale_count),
    ),
    (
        "new-ticket-on-asking-again",
        "admitting a waiting run again sends it to the back of the queue",
        BrokenRules(new_ticket_on_asking_again),
    ),
    (
        "grant-to-the-releaser",
        "a hand-over goes to whoever released, not to the owner of the waiting run",
        BrokenRules(grant_to_the_releaser),
    ),
    (
        "grant-unconditionally",
        "a grant does not depend on the life of the session that it goes to",
        BrokenRules(grant_unconditionally),
    ),
    (
        "anybody-takes-the-ownerless",
        "runs without an owner are granted to managers that cannot start them",
        BrokenRules(anybody_takes_the_ownerless),
    ),
    (
        "release-without-token",
        "a release does not look at the token",
        BrokenRules(release_without_token),
    ),
    (
        "barging",
        "a newcomer takes a free slot although somebody waits",
        BrokenRules(barging),
    ),
    (
        "own-runs-first",
        "a release starts the releaser's own waiting runs first",
        BrokenRules(own_runs_first),
    ),
    (
        "no-hand-over-on-release",
        "a release leaves the slot to whoever comes next",
        BrokenRules(no_hand_over_on_release),
    ),
    (
        "no-hand-over-on-cancel",
        "a cancelled run's slot is left to whoever comes next",
        BrokenRules(no_hand_over_on_cancel),
    ),
    (
        "priority-ignored",
        "waiting runs start by ticket alone",
        BrokenRules(priority_ignored),
    ),
    (
        "requeue-to-the-back",
        "a run that could not be started loses its place",
        BrokenRules(requeue_to_the_back),
    ),
    (
        "adoption-within-the-limit",
        "a run that runs already is not adopted beyond the limit",
        BrokenRules(adoption_within_the_limit),
    ),
    (
        "adoption-uncounted",
        "an adopted run holds a slot that nobody counts",
        BrokenRules(adoption_uncounted),
    ),
    (
        "orphans-freed-at-once",
        "the death of a session frees durable runs without waiting for the lease TTL",
        BrokenRules(orphans_freed_at_once),
    ),
    (
        "granted-again",
        "admitting a running run again gives it another token",
        BrokenRules(granted_again),
    ),
    (
        "older-limit-holds",
        "an older announcement of a limit replaces a newer one",
        BrokenRules(older_limit_holds),
    ),
    (
        "uid-ignored",
        "a new run takes over the slot of an older one of its name",
        BrokenRules(uid_ignored),
    ),
    (
        "one-start-per-limit",
        "a raised limit starts one waiting run only",
        BrokenRules(one_start_per_limit),
    ),
    (
        "token-not-advanced",
        "a grant carries the last token once more",
        BrokenRules(token_not_advanced),
    ),
];

fn stale_count(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let (outcome, changes) = apply(state, issuer, command);
    let Command::Admit(RunRequest { run, .. }) = command else {
        return (outcome, changes);
    };
    let mut edit = Edit::of(state, changes);
    let latest = state.head().revision;
    let seen = |entry: &&std::sync::Arc<Entry>| entry.is_started() && entry.revision < latest;
    let counted = state.entries().filter(seen).count();
    let counted = u32::try_from(counted).unwrap_or(u32::MAX);
    if edit.entry(run).is_some_and(|entry| entry.is_queued()) && edit.head.limit.admits(counted) {
        edit.start(run, issuer, issuer.session);
    }
    stands(run, edit, outcome)
}

fn new_ticket_on_asking_again(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let (outcome, changes) = apply(state, issuer, command);
    match command {
        Command::Admit(RunRequest { run, .. })
            if state.entry(run).is_some_and(|before| before.is_queued()) =>
        {
            to_the_back(run, Edit::of(state, changes), outcome)
        }
        _ => (outcome, changes),
    }
}

fn grant_to_the_releaser(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    edited(state, issuer, command, |edit| {
        edit.regrant(|token, _| (token, issuer.session));
        edit.alive.clear();
    })
}

fn grant_unconditionally(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    edited(state, issuer, command, |edit| edit.alive.clear())
}

fn anybody_takes_the_ownerless(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let issuer = Issuer {
        takes_ownerless: true,
        ..issuer
    };
    apply(state, issuer, command)
}

fn release_without_token(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let mut command = command.clone();
    if let Command::Release { token, .. } = &mut command {
        *token = None;
    }
    apply(state, issuer, &command)
}

fn barging(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let (outcome, changes) = apply(state, issuer, command);
    match (command, &outcome) {
        (Command::Admit(RunRequest { run, .. }), Outcome::Admitted { created: true, .. }) => {
            let mut edit = Edit::of(state, changes);
            let has_to_wait = edit.entry(run).is_some_and(|entry| entry.is_queued());
            if has_to_wait && edit.put_back(0) > 0 {
                edit.start(run, issuer, issuer.session);
            }
            stands(run, edit, outcome)
        }
        _ => (outcome, changes),
    }
}

fn own_runs_first(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    if !matches!(command, Command::Release { .. }) {
        return apply(state, issuer, command);
    }
    edited(state, issuer, command, |edit| {
        let undone = edit.put_back(0);
        edit.start_by(undone, issuer, |entry| {
            let foreign = entry.owner() != Some(issuer.session);
            (foreign, Reverse(entry.priority), entry.ticket)
        });
    })
}

fn no_hand_over_on_release(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    match command {
        Command::Release { .. } => edited(state, issuer, command, |edit| {
            edit.put_back(0);
        }),
        _ => apply(state, issuer, command),
    }
}

fn no_hand_over_on_cancel(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    match command {
        Command::Cancel { .. } => edited(state, issuer, command, |edit| {
            edit.put_back(0);
        }),
        _ => apply(state, issuer, command),
    }
}

fn priority_ignored(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    match command {
        Command::Release { .. } | Command::Cancel { .. } => {
            edited(state, issuer, command, |edit| {
                let undone = edit.put_back(0);
                edit.start_by(undone, issuer, |entry| entry.ticket);
            })
        }
        _ => apply(state, issuer, command),
    }
}

fn requeue_to_the_back(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let (outcome, changes) = apply(state, issuer, command);
    match command {
        Command::Requeue { run, .. } if changes.is_some() => {
            to_the_back(run, Edit::of(state, changes), outcome)
        }
        _ => (outcome, changes),
    }
}

fn adoption_within_the_limit(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let full = !state.head().limit.admits(state.head().started);
    match command {
        Command::Adopt(request) if full => apply(state, issuer, &Command::Admit(request.clone())),
        _ => apply(state, issuer, command),
    }
}

fn adoption_uncounted(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let before = state.head().started;
    match command {
        Command::Adopt(_) => edited(state, issuer, command, |edit| edit.head.started = before),
        _ => apply(state, issuer, command),
    }
}

fn orphans_freed_at_once(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    match command {
        Command::Expire { session, .. } => {
            let (session, death) = (*session, Death::Lease);
            apply(state, issuer, &Command::Expire { session, death })
        }
        _ => apply(state, issuer, command),
    }
}

fn granted_again(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let (outcome, changes) = apply(state, issuer, command);
    match (command, changes) {
        (Command::Admit(RunRequest { run, .. }), None) if held_by(state, run, issuer.session) => {
            let mut edit = Edit::of(state, None);
            edit.start(run, issuer, issuer.session);
            stands(run, edit, outcome)
        }
        (_, changes) => (outcome, changes),
    }
}

fn older_limit_holds(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let Command::SetLimit { limit, version } = command else {
        return apply(state, issuer, command);
    };
    let at_once = Command::SetLimit {
        limit: *limit,
        version: None,
    };
    edited(state, issuer, &at_once, |edit| {
        edit.head.limit_version = version.or(edit.head.limit_version);
    })
}

fn uid_ignored(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    match command {
        Command::Admit(request) => {
            let known = state
                .entry(&request.run)
                .filter(|entry| !entry.is_finished());
            let uid = known.map_or(&request.uid, |entry| &entry.uid).clone();
            let request = RunRequest {
                uid,
                ..request.clone()
            };
            apply(state, issuer, &Command::Admit(request))
        }
        _ => apply(state, issuer, command),
    }
}

fn one_start_per_limit(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    match command {
        Command::SetLimit { .. } => edited(state, issuer, command, |edit| {
            edit.put_back(1);
        }),
        _ => apply(state, issuer, command),
    }
}

fn token_not_advanced(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
) -> (Outcome, Option<Changes>) {
    let last = state.head().last_token;
    edited(state, issuer, command, |edit| {
        // The very first one has to come from somewhere.
        if last.get() > 0 {
            edit.regrant(|_, session| (last, session));
            edit.head.last_token = last;
        }
    })
}

/// What production does, rewritten; with the outcome that fits.
fn edited(
    state: &RepositoryState,
    issuer: Issuer,
    command: &Command,
    change: impl FnOnce(&mut Edit<'_>),
) -> (Outcome, Option<Changes>) {
    let (mut outcome, changes) = apply(state, issuer, command);
    if changes.as_ref().is_none_or(|changes| changes.remove) {
        return (outcome, changes);
    }
    let mut edit = Edit::of(state, changes);
    change(&mut edit);
    if let Outcome::Ended { promoted, .. }
    | Outcome::LimitSet { promoted, .. }
    | Outcome::Swept { promoted, .. } = &mut outcome
    {
        *promoted = edit.promoted();
    }
    match command.run() {
        Some(run) => stands(run, edit, outcome),
        None => (outcome, edit.finish()),
    }
}

/// Gives a run that waits the last place.
fn to_the_back(
    run: &PipelineRunKey,
    mut edit: Edit<'_>,
    outcome: Outcome,
) -> (Outcome, Option<Changes>) {
    if let Some(entry) = edit.entry(run).filter(|entry| entry.is_queued()) {
        let entry = Entry::clone(entry);
        edit.head.last_ticket = edit.head.last_ticket.next();
        edit.put(Entry {
            ticket: edit.head.last_ticket,
            started: Moment::Never,
            ..entry
        });
    }
    stands(run, edit, outcome)
}

/// What was answered about a run, as the run stands now.
fn stands(run: &PipelineRunKey, edit: Edit<'_>, outcome: Outcome) -> (Outcome, Option<Changes>) {
    let outcome = match (outcome, edit.entry(run)) {
        (Outcome::Admitted { admitted, created }, Some(entry)) if admitted.has_a_place() => {
            let admitted = Admitted::of(entry);
            Outcome::Admitted { admitted, created }
        }
        (outcome, _) => outcome,
    };
    (outcome, edit.finish())
}

fn held_by(state: &RepositoryState, run: &PipelineRunKey, session: SessionId) -> bool {
    let held = state.entry(run).map(|entry| entry.state);
    matches!(held, Some(EntryState::Started { session: of, orphaned: false, .. }) if of == session)
}
