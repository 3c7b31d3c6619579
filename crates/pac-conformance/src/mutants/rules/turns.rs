//! Variants that break whose turn it is, and who holds what.

use std::cmp::Reverse;

use pac_core::protocol::{Claim, Command, Death, Issuer, Outcome, RunRequest, apply};
use pac_core::state::{Entry, EntryState, RepositoryState, Weight};
use pac_core::{PipelineRunKey, SessionId};

use super::{Answered, Asked, BrokenRules, stands, to_the_back};
use crate::mutants::edit::Edit;

/// Name, defect and rules.
pub(super) const ALL: [(&str, &str, BrokenRules); 20] = [
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

fn stale_count(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    let Command::Admit(RunRequest { run, .. }) = asked.command else {
        return (outcome, changes);
    };
    let mut edit = Edit::of(asked.state, changes);
    let latest = asked.state.head().revision;
    let seen = |entry: &&std::sync::Arc<Entry>| entry.is_started() && entry.revision < latest;
    let counted = asked.state.entries().filter(seen).count();
    let counted = u32::try_from(counted).unwrap_or(u32::MAX);
    if edit.entry(run).is_some_and(|entry| entry.is_queued()) && edit.head.limit.admits(counted) {
        edit.start(run, asked.issuer, asked.issuer.session);
    }
    stands(run, edit, outcome)
}

fn new_ticket_on_asking_again(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    match asked.command {
        Command::Admit(RunRequest { run, .. })
            if asked
                .state
                .entry(run)
                .is_some_and(|before| before.is_queued()) =>
        {
            to_the_back(run, Edit::of(asked.state, changes), outcome)
        }
        _ => (outcome, changes),
    }
}

fn grant_to_the_releaser(asked: &Asked<'_>) -> Answered {
    asked.edited(|edit| {
        edit.regrant(|token, _| (token, asked.issuer.session));
        edit.alive.clear();
    })
}

fn grant_unconditionally(asked: &Asked<'_>) -> Answered {
    asked.edited(|edit| edit.alive.clear())
}

fn anybody_takes_the_ownerless(asked: &Asked<'_>) -> Answered {
    let issuer = Issuer {
        takes_ownerless: true,
        ..asked.issuer
    };
    apply(asked.state, issuer, asked.command)
}

fn release_without_token(asked: &Asked<'_>) -> Answered {
    let mut command = asked.command.clone();
    if let Command::Release { token, .. } = &mut command {
        *token = None;
    }
    asked.honest_to(&command)
}

fn barging(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    match (asked.command, &outcome) {
        (Command::Admit(RunRequest { run, .. }), Outcome::Admitted { created: true, .. }) => {
            let mut edit = Edit::of(asked.state, changes);
            let has_to_wait = edit.entry(run).is_some_and(|entry| entry.is_queued());
            let weight = edit.entry(run).map_or(Weight::ONE, |entry| entry.weight());
            if has_to_wait && edit.put_back(0) > 0 && edit.head.admits(weight) {
                edit.start(run, asked.issuer, asked.issuer.session);
            }
            stands(run, edit, outcome)
        }
        _ => (outcome, changes),
    }
}

fn own_runs_first(asked: &Asked<'_>) -> Answered {
    if !matches!(asked.command, Command::Release { .. }) {
        return asked.honest();
    }
    asked.edited(|edit| {
        let undone = edit.put_back(0);
        edit.start_by(undone, asked.issuer, |entry| {
            let foreign = entry.owner() != Some(asked.issuer.session);
            (foreign, Reverse(entry.priority), entry.ticket)
        });
    })
}

fn no_hand_over_on_release(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::Release { .. } => asked.edited(|edit| {
            edit.put_back(0);
        }),
        _ => asked.honest(),
    }
}

fn no_hand_over_on_cancel(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::Cancel { .. } => asked.edited(|edit| {
            edit.put_back(0);
        }),
        _ => asked.honest(),
    }
}

fn priority_ignored(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::Release { .. } | Command::Cancel { .. } => asked.edited(|edit| {
            let undone = edit.put_back(0);
            edit.start_by(undone, asked.issuer, |entry| entry.ticket);
        }),
        _ => asked.honest(),
    }
}

fn requeue_to_the_back(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    match asked.command {
        Command::Requeue { run, .. } if changes.is_some() => {
            to_the_back(run, Edit::of(asked.state, changes), outcome)
        }
        _ => (outcome, changes),
    }
}

fn adoption_within_the_limit(asked: &Asked<'_>) -> Answered {
    let full = !asked.state.head().limit.admits(asked.state.head().started);
    match asked.command {
        Command::Adopt(request) if full => asked.honest_to(&Command::Admit(request.clone())),
        _ => asked.honest(),
    }
}

fn adoption_uncounted(asked: &Asked<'_>) -> Answered {
    let before = asked.state.head().started;
    match asked.command {
        Command::Adopt(_) => asked.edited(|edit| edit.head.started = before),
        _ => asked.honest(),
    }
}

fn orphans_freed_at_once(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::Expire { session, .. } => {
            let (session, death) = (*session, Death::Lease);
            asked.honest_to(&Command::Expire { session, death })
        }
        _ => asked.honest(),
    }
}

fn granted_again(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    match (asked.command, changes) {
        (Command::Admit(RunRequest { run, .. }), None)
            if held_by(asked.state, run, asked.issuer.session) =>
        {
            let mut edit = Edit::of(asked.state, None);
            edit.start(run, asked.issuer, asked.issuer.session);
            stands(run, edit, outcome)
        }
        (_, changes) => (outcome, changes),
    }
}

fn older_limit_holds(asked: &Asked<'_>) -> Answered {
    let Command::SetLimit { rules, claim } = asked.command else {
        return asked.honest();
    };
    let (rules, claim) = (rules.clone(), *claim);
    let at_once = Command::SetLimit {
        rules,
        claim: Claim::Set,
    };
    asked.to(&at_once).edited(|edit| {
        if let Claim::Announce(version) = claim {
            edit.head.limit_version = Some(version);
        }
    })
}

fn uid_ignored(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::Admit(request) => {
            let known = asked
                .state
                .entry(&request.run)
                .filter(|entry| !entry.is_finished());
            let uid = known.map_or(&request.uid, |entry| &entry.uid).clone();
            let mut request = request.clone();
            request.uid = uid;
            asked.honest_to(&Command::Admit(request))
        }
        _ => asked.honest(),
    }
}

fn one_start_per_limit(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::SetLimit { .. } => asked.edited(|edit| {
            edit.put_back(1);
        }),
        _ => asked.honest(),
    }
}

fn token_not_advanced(asked: &Asked<'_>) -> Answered {
    let last = asked.state.head().last_token;
    asked.edited(|edit| {
        // Only later tokens repeat: the first one must be a valid token.
        if last.get() > 0 {
            edit.regrant(|_, session| (last, session));
            edit.head.last_token = last;
        }
    })
}

fn held_by(state: &RepositoryState, run: &PipelineRunKey, session: SessionId) -> bool {
    let held = state.entry(run).map(|entry| entry.state);
    matches!(held, Some(EntryState::Started { session: of, orphaned: false, .. }) if of == session)
}
