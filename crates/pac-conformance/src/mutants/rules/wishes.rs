//! Variants that break what people ask beyond a place in the queue.

use pac_core::protocol::{
    Admitted, Cancellation, Changes, Claim, Command, Outcome, PauseCondition, RunRequest,
};
use pac_core::state::{Entry, EntryState, Moment, Owner, RunOutcome, Weight};

use super::{Answered, Asked, BrokenRules, stands, to_the_back};
use crate::mutants::edit::Edit;

/// Name, defect and rules.
pub(super) const ALL: [(&str, &str, BrokenRules); 18] = [
    (
        "pause-forgotten",
        "a release hands its slot over during a pause",
        BrokenRules(pause_forgotten),
    ),
    (
        "resumed-by-a-stale-look",
        "a pause that another one has begun since is ended, and its reason is replaced",
        BrokenRules(resumed_by_a_stale_look),
    ),
    (
        "announcement-beats-a-pin",
        "an announcement replaces a limit that an operator has pinned",
        BrokenRules(announcement_beats_a_pin),
    ),
    (
        "proposals-flap",
        "a proposed limit replaces one that somebody else has set",
        BrokenRules(proposals_flap),
    ),
    (
        "one-slot-is-enough",
        "a heavy run starts as soon as one slot is free",
        BrokenRules(one_slot_is_enough),
    ),
    (
        "heavy-run-overtaken",
        "a light newcomer takes the slot that a heavy run waits for",
        BrokenRules(heavy_run_overtaken),
    ),
    (
        "superseding-costs-the-place",
        "a run that supersedes others goes to the end of the queue",
        BrokenRules(superseding_costs_the_place),
    ),
    (
        "superseded-holders-end",
        "the running runs of a group are ended instead of asked",
        BrokenRules(superseded_holders_end),
    ),
    (
        "asked-is-ended",
        "a run that is asked to end loses its slot at once",
        BrokenRules(asked_is_ended),
    ),
    (
        "waiting-or-not",
        "a cancellation of a waiting run ends one that has started",
        BrokenRules(waiting_or_not),
    ),
    (
        "bump-forgotten",
        "a run that was moved goes back when its owner asks for it again",
        BrokenRules(bump_forgotten),
    ),
    (
        "one-more-than-may",
        "one run more waits than may",
        BrokenRules(one_more_than_may),
    ),
    (
        "superseded-fill-the-queue",
        "a run is refused although it would take the place of another one",
        BrokenRules(superseded_fill_the_queue),
    ),
    (
        "slots-by-count",
        "a run gets the slots after as many as are taken, whichever those are",
        BrokenRules(slots_by_count),
    ),
    (
        "waits-for-ever",
        "a run that has waited for as long as it may goes on waiting",
        BrokenRules(waits_for_ever),
    ),
    (
        "time-is-over-at-once",
        "a run that has held its slots for too long is ended without being asked",
        BrokenRules(time_is_over_at_once),
    ),
    (
        "backfill-by-default",
        "lighter runs pass a heavy one where nobody allows it",
        BrokenRules(backfill_by_default),
    ),
    (
        "backfill-uncounted",
        "lighter runs pass a heavy one without end",
        BrokenRules(backfill_uncounted),
    ),
];

fn pause_forgotten(asked: &Asked<'_>) -> Answered {
    let pause = asked.state.head().pause().cloned();
    match asked.command {
        Command::Release { .. } if pause.is_some() => {
            asked.with_policy(|policy| policy.pause = None, |policy| policy.pause = pause)
        }
        _ => asked.honest(),
    }
}

fn resumed_by_a_stale_look(asked: &Asked<'_>) -> Answered {
    let only_if = PauseCondition::Always;
    match asked.command {
        Command::Pause { reason, .. } => asked.honest_to(&Command::Pause {
            reason: reason.clone(),
            only_if,
        }),
        Command::Resume { .. } => asked.honest_to(&Command::Resume { only_if }),
        _ => asked.honest(),
    }
}

fn announcement_beats_a_pin(asked: &Asked<'_>) -> Answered {
    let announces = matches!(
        asked.command,
        Command::SetLimit {
            claim: Claim::Announce(_),
            ..
        }
    );
    if !announces || asked.state.head().owner() != Some(Owner::Pinned) {
        return asked.honest();
    }
    asked.with_policy(|policy| policy.owner = Some(Owner::Set), |_| ())
}

fn proposals_flap(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::SetLimit {
            rules,
            claim: Claim::Propose,
        } => asked.honest_to(&Command::SetLimit {
            rules: rules.clone(),
            claim: Claim::Set,
        }),
        _ => asked.honest(),
    }
}

fn one_slot_is_enough(asked: &Asked<'_>) -> Answered {
    asked.edited(|edit| {
        let first = edit.queue().into_iter().next();
        if let Some(first) = first
            && let Some(owner) = first.owner()
            && edit.head.admits(Weight::ONE)
        {
            edit.start(&first.run, asked.issuer, owner);
        }
    })
}

fn heavy_run_overtaken(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    match (asked.command, &outcome) {
        (Command::Admit(RunRequest { run, .. }), Outcome::Admitted { created: true, .. }) => {
            let mut edit = Edit::of(asked.state, changes);
            let waits = edit.entry(run).filter(|entry| entry.is_queued());
            if waits.is_some_and(|entry| edit.head.admits(entry.weight())) {
                edit.start(run, asked.issuer, asked.issuer.session);
            }
            stands(run, edit, outcome)
        }
        _ => (outcome, changes),
    }
}

fn superseding_costs_the_place(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    let supersedes = |changes: &Changes| {
        let mut entries = changes.entries.iter();
        entries.any(|entry| is_over(entry, RunOutcome::Superseded))
    };
    match asked.command {
        Command::Admit(RunRequest { run, .. }) if changes.as_ref().is_some_and(supersedes) => {
            to_the_back(run, Edit::of(asked.state, changes), outcome)
        }
        _ => (outcome, changes),
    }
}

fn superseded_holders_end(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::Admit(_) => asked.edited(|edit| end_the_asked(edit, RunOutcome::Superseded)),
        _ => asked.honest(),
    }
}

fn asked_is_ended(asked: &Asked<'_>) -> Answered {
    at_once_instead_of(Cancellation::Ask, asked)
}

fn waiting_or_not(asked: &Asked<'_>) -> Answered {
    at_once_instead_of(Cancellation::IfWaiting, asked)
}

fn at_once_instead_of(instead: Cancellation, asked: &Asked<'_>) -> Answered {
    let mut command = asked.command.clone();
    if let Command::Cancel { how, .. } | Command::CancelAll { how, .. } = &mut command
        && *how == instead
    {
        *how = Cancellation::AtOnce;
    }
    asked.honest_to(&command)
}

fn bump_forgotten(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    let Command::Admit(RunRequest { run, .. }) = asked.command else {
        return (outcome, changes);
    };
    let mut edit = Edit::of(asked.state, changes);
    let moved = edit.entry(run).filter(|entry| entry.is_queued());
    if let Some(entry) = moved.map(|entry| Entry::clone(entry))
        && let Some(priority) = entry.terms().admitted_as
    {
        let mut terms = entry.terms().clone();
        terms.admitted_as = None;
        edit.put(Entry { priority, ..entry }.with_terms(terms));
    }
    stands(run, edit, outcome)
}

fn one_more_than_may(asked: &Asked<'_>) -> Answered {
    let most = asked.state.head().rules().max_queued;
    match asked.command {
        Command::Admit(_) if most.is_some() => asked.with_policy(
            |policy| policy.rules.max_queued = most.map(|most| most + 1),
            |policy| policy.rules.max_queued = most,
        ),
        _ => asked.honest(),
    }
}

fn superseded_fill_the_queue(asked: &Asked<'_>) -> Answered {
    let (outcome, changes) = asked.honest();
    let head = asked.state.head();
    let full = head.rules().max_queued.filter(|most| head.queued >= *most);
    let supersedes = changes.as_ref().is_some_and(|changes| {
        let mut entries = changes.entries.iter();
        entries.any(|entry| is_over(entry, RunOutcome::Superseded))
    });
    match (asked.command, full) {
        (Command::Admit(_), Some(_)) if supersedes => {
            let queued = head.queued;
            let admitted = Admitted::QueueFull { queued };
            let created = false;
            (Outcome::Admitted { admitted, created }, None)
        }
        _ => (outcome, changes),
    }
}

fn slots_by_count(asked: &Asked<'_>) -> Answered {
    asked.edited(|edit| {
        for entry in edit.granted() {
            if !entry.terms().numbered {
                continue;
            }
            let others = edit.numbers_of_others(&entry.run).len();
            let first = u32::try_from(others).unwrap();
            let mut terms = entry.terms().clone();
            terms.slots = (first..first + u32::from(terms.weight.get())).collect();
            edit.put(entry.with_terms(terms));
        }
    })
}

fn waits_for_ever(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::TimeOut { .. } => {
            let (outcome, changes) = asked.edited(|edit| {
                for entry in asked.state.entries().filter(|entry| entry.is_queued()) {
                    edit.put(Entry::clone(entry));
                }
            });
            (outcome, changes)
        }
        _ => asked.honest(),
    }
}

fn time_is_over_at_once(asked: &Asked<'_>) -> Answered {
    match asked.command {
        Command::TimeOut { .. } => asked.edited(|edit| end_the_asked(edit, RunOutcome::TimedOut)),
        _ => asked.honest(),
    }
}

fn backfill_by_default(asked: &Asked<'_>) -> Answered {
    let allowed = asked.state.head().rules().backfill;
    match asked.command {
        Command::Admit(_) if allowed.is_none() && asked.state.exists() => asked.with_policy(
            |policy| policy.rules.backfill = std::num::NonZeroU32::new(1_000),
            |policy| policy.rules.backfill = None,
        ),
        _ => asked.honest(),
    }
}

fn backfill_uncounted(asked: &Asked<'_>) -> Answered {
    asked.edited(|edit| {
        for entry in asked.state.entries().filter(|entry| entry.is_queued()) {
            let now = edit.entry(&entry.run).map(|now| Entry::clone(now));
            let Some(now) = now.filter(Entry::is_queued) else {
                continue;
            };
            let mut terms = now.terms().clone();
            if terms.passed > entry.terms().passed {
                terms.passed = entry.terms().passed;
                edit.put(now.with_terms(terms));
            }
        }
    })
}

/// Ends the runs that this commit asks to.
fn end_the_asked(edit: &mut Edit<'_>, outcome: RunOutcome) {
    for entry in edit.changed() {
        if entry.is_started() && entry.terms().asked == Moment::AT_COMMIT {
            let mut terms = entry.terms().clone();
            terms.slots.clear();
            edit.put(
                Entry {
                    state: EntryState::Finished {
                        outcome,
                        token: entry.token(),
                        abandoned: false,
                    },
                    finished: Moment::AT_COMMIT,
                    ..entry
                }
                .with_terms(terms),
            );
        }
    }
}

fn is_over(entry: &Entry, how: RunOutcome) -> bool {
    matches!(entry.state, EntryState::Finished { outcome, .. } if outcome == how)
}
