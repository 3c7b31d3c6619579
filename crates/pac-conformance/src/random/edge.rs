//! Conversions between the types of the reference model and those of the protocol.

mod command;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use pac_core::protocol::{Admitted, Ended, Issuer, Outcome};
use pac_core::state::{self, Entry, EntryState, Head, Moment, RunKind, RunOutcome};
use pac_core::{FencingToken, LimitVersion, PipelineRunKey, Priority, Reason, SessionId, Uid};

pub(crate) use command::{
    bump, change, claim, command, outcome, pause, reason, request, way, which,
};

use crate::reference::{Answer, Asker, How, Owner, Place, Repository, Rules, Run, Terms};

/// The run with a number.
pub(crate) fn key(name: u8) -> PipelineRunKey {
    crate::run(&format!("run-{name}"))
}

/// The uid with a number.
pub(crate) fn uid(uid: u8) -> Uid {
    uid.to_string().parse().unwrap()
}

/// The number of a run.
pub(crate) fn number(run: &PipelineRunKey) -> u8 {
    let number = run.name().strip_prefix("run-");
    number.and_then(|number| number.parse().ok()).unwrap()
}

pub(crate) fn issuer(asker: Asker) -> Issuer {
    Issuer {
        session: SessionId::new(asker.session),
        takes_ownerless: asker.takes_ownerless,
    }
}

pub(crate) fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Admitted { admitted, created } => standing(*admitted, *created),
        Outcome::Moved {
            standing: admitted,
            promoted,
        } => Answer::Moved(Box::new(standing(*admitted, false)), numbers(promoted)),
        Outcome::Paused {
            before,
            accepted,
            promoted,
        } => Answer::Paused(*before, *accepted, numbers(promoted)),
        Outcome::Ended { ended, promoted } => match *ended {
            Ended::Done => Answer::Ended(numbers(promoted)),
            Ended::Before(outcome) => Answer::EndedBefore(how(outcome)),
            Ended::NotStarted => Answer::NotStarted,
            Ended::Started(token) => Answer::Started(token.get()),
            Ended::Asked(token) => Answer::Asked(token.get()),
            Ended::Stale(token) => Answer::Stale(token.get()),
            Ended::Unknown => Answer::Unknown,
            ended => panic!("the reference model does not know {ended:?}"),
        },
        Outcome::LimitSet {
            limit,
            owner: by,
            accepted,
            promoted,
        } => Answer::Limit(
            limit.get().unwrap_or(0),
            by.map(owner),
            *accepted,
            numbers(promoted),
        ),
        Outcome::Swept { affected, promoted } => {
            Answer::Swept(numbers(affected), numbers(promoted))
        }
        Outcome::Removed(ended) => Answer::Removed(numbers(ended)),
        outcome => panic!("the reference model does not know {outcome:?}"),
    }
}

fn standing(admitted: Admitted, created: bool) -> Answer {
    match admitted {
        Admitted::Started { token, session } => Answer::Runs {
            token: token.get(),
            session: session.get(),
            created,
        },
        Admitted::Queued { ticket } => Answer::Waits {
            ticket: ticket.get(),
            created,
        },
        Admitted::Finished(outcome) => Answer::Finished(how(outcome)),
        Admitted::HeldElsewhere(session) => Answer::HeldElsewhere(session.get()),
        Admitted::NotHeld => Answer::NotHeld,
        Admitted::QueueFull { queued } => Answer::QueueFull(queued),
        Admitted::TooHeavy { weight, limit } => {
            Answer::TooHeavy(weight.get().into(), limit.get().unwrap_or(0))
        }
        Admitted::Skipped { queued, started } => Answer::Skipped(queued, started),
        admitted => panic!("the reference model does not know {admitted:?}"),
    }
}

/// Converts a repository to the reference model's type.
pub(crate) fn picture<'a>(
    exists: bool,
    head: &Head,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Repository {
    let beneath = head.policy.as_deref();
    let beneath = beneath.and_then(|policy| policy.beneath.as_ref());
    Repository {
        exists,
        clock: 0,
        rules: rules(&head.rules()),
        owner: head.owner().map(owner),
        beneath: beneath.map(|(set, by)| (rules(set), owner(*by))),
        paused: head.pause().map(|pause| {
            let number = |reason: &Reason| reason.as_str().parse().unwrap();
            (
                time(pause.since).unwrap(),
                pause.reason.as_ref().map(number),
            )
        }),
        announced: head.limit_version.map(LimitVersion::get),
        commits: head.revision.get(),
        tickets: head.last_ticket.get(),
        tokens: head.last_token.get(),
        runs: entries.map(|entry| run(entry)).collect(),
    }
    .sorted()
}

fn rules(rules: &state::Rules) -> Rules {
    Rules {
        limit: rules.limit.get().unwrap_or(0),
        most_waiting: rules.max_queued,
        backfill: rules.backfill.map_or(0, NonZeroU32::get),
    }
}

fn time(moment: Moment) -> Option<u64> {
    let at = moment.at()?.as_unix_millis();
    Some(at.try_into().unwrap())
}

fn run(entry: &Entry) -> Run {
    let terms = entry.terms();
    let millis = |time: Duration| time.as_millis().try_into().unwrap();
    Run {
        name: number(&entry.run),
        uid: entry.uid.as_str().parse().unwrap(),
        durable: entry.kind == RunKind::Durable,
        priority: entry.priority.get(),
        wanted: terms.admitted_as.map(Priority::get),
        ticket: entry.ticket.get(),
        terms: Terms {
            weight: terms.weight.get().into(),
            group: terms
                .group
                .as_ref()
                .map(|group| group.as_str().parse().unwrap()),
            max_wait: terms.max_wait.map(millis),
            max_hold: terms.max_hold.map(millis),
            numbered: terms.numbered,
        },
        queued: time(entry.queued).unwrap(),
        started: time(entry.started),
        asked: time(terms.asked),
        passed: terms.passed,
        slots: terms.slots.clone(),
        place: match entry.state {
            EntryState::Queued { owner } => Place::Waiting {
                owner: owner.map(SessionId::get),
            },
            EntryState::Started {
                token,
                session,
                orphaned,
            } => Place::Running {
                token: token.get(),
                session: session.get(),
                orphaned,
            },
            EntryState::Finished {
                outcome,
                token,
                abandoned,
            } => Place::Over {
                how: how(outcome),
                token: token.map(FencingToken::get),
                abandoned,
            },
        },
    }
}

pub(crate) fn owner(owner: state::Owner) -> Owner {
    match owner {
        state::Owner::Proposed => Owner::Proposed,
        state::Owner::Set => Owner::Set,
        state::Owner::Announced => Owner::Announced,
        state::Owner::Pinned => Owner::Pinned,
        owner => panic!("the reference model does not know {owner:?}"),
    }
}

pub(crate) fn how(outcome: RunOutcome) -> How {
    match outcome {
        RunOutcome::Completed => How::Completed,
        RunOutcome::Failed => How::Failed,
        RunOutcome::Cancelled => How::Cancelled,
        RunOutcome::LeaseLost => How::LeaseLost,
        RunOutcome::Superseded => How::Superseded,
        RunOutcome::TimedOut => How::TimedOut,
        RunOutcome::QueueFull => How::QueueFull,
    }
}

pub(crate) fn numbers(runs: &[PipelineRunKey]) -> Vec<u8> {
    runs.iter().map(number).collect()
}
