//! The lines of a repository and the rows of its runs in the table of `pac status`.

use pac_concurrency::{Limit, Owner, QueuedRun, RepositoryStatus, Rules, RunningRun, Timestamp};

use crate::format::cell;
use crate::terms::{TermsShape, slot_names};
use crate::time::humanise;
use crate::why::{self, Waiting};

/// The repository, its limit, how many there are, and whether it is paused.
pub(super) fn heading(status: &RepositoryStatus, now: Timestamp) -> String {
    let owner = match status.owner {
        Some(owner @ (Owner::Pinned | Owner::Proposed)) => format!(" ({})", owner.as_str()),
        _ => String::new(),
    };
    let (running, queued) = (status.running.len(), status.queued.len());
    let slots = match why::counts_slots(status) {
        true => format!(", {} slots taken", status.slots_taken),
        false => String::new(),
    };
    let most = status
        .rules
        .max_queued
        .map(|most| format!(" of at most {most}"));
    let mut text = format!(
        "{}  limit {}{owner}, {running} running{slots}, {queued} queued{}\n",
        status.repository,
        status.limit,
        most.unwrap_or_default()
    );
    if let Some(pause) = &status.pause {
        let since = age(pause.since, now);
        let reason = pause.reason.as_ref().map(|reason| format!(": {reason}"));
        text.push_str(&format!(
            "paused for {since}{}\n",
            reason.unwrap_or_default()
        ));
    }
    text
}

/// The names of the slots of a run, where all of them have one.
pub(super) fn names_of<'a>(run: &RunningRun, rules: &'a Rules) -> Vec<&'a str> {
    slot_names(
        &run.terms().slots,
        rules.slots.as_deref().unwrap_or_default(),
    )
}

/// Which slots a run has, where that is not plain.
fn slots(run: &RunningRun, status: &RepositoryStatus) -> Option<String> {
    let names = names_of(run, &status.rules);
    let numbers = || {
        let numbers: Vec<_> = run.terms().slots.iter().map(u32::to_string).collect();
        numbers.join(", ")
    };
    match (names.is_empty(), run.terms().slots.is_empty()) {
        (false, _) => Some(format!("in {}", names.join(", "))),
        (true, false) if status.limit != Limit::new(1) => {
            let slots = if run.terms().slots.len() == 1 {
                "slot"
            } else {
                "slots"
            };
            Some(format!("{slots} {}", numbers()))
        }
        (true, _) => None,
    }
}

pub(super) fn running(
    run: &RunningRun,
    process: String,
    is_dead: bool,
    status: &RepositoryStatus,
    now: Timestamp,
) -> [String; 6] {
    let state = if run.orphaned {
        "running, orphaned"
    } else if is_dead {
        "running, process dead"
    } else {
        "running"
    };
    let asked = run.terms().asked.at();
    let asked = asked.map(|asked| format!("asked to end {} ago", humanise(now.since(asked))));
    let parts = std::iter::once(state.to_owned())
        .chain(asked)
        .chain(slots(run, status))
        // How many it has is plain where they are told one by one.
        .chain(TermsShape::of(run.terms()).words(run.terms().slots.is_empty()));
    let state = cell(&parts.collect::<Vec<_>>().join(", "));
    [
        run.run.to_string(),
        state,
        run.token.to_string(),
        process,
        age(run.started_at, now),
        String::new(),
    ]
}

pub(super) fn queued(
    run: &QueuedRun,
    process: Option<String>,
    is_dead: bool,
    status: &RepositoryStatus,
    now: Timestamp,
) -> [String; 6] {
    let waiting = Waiting {
        weight: run.terms().weight,
        by_slots: why::counts_slots(status),
    };
    let terms: Vec<_> = TermsShape::of(run.terms()).words(true).collect();
    let terms = terms
        .iter()
        .map(|words| format!(", {words}"))
        .collect::<String>();
    let priority = match run.priority.get() {
        0 => String::new(),
        priority => format!(", priority {priority}"),
    };
    [
        run.run.to_string(),
        cell(&format!("queued at {}{priority}{terms}", run.position)),
        String::new(),
        process.unwrap_or_else(|| "none".to_owned()),
        age(run.queued_at, now),
        if is_dead {
            "its process is dead; it is about to be seen to".to_owned()
        } else {
            why::reason(&run.reason, waiting)
        },
    ]
}

fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(String::new, |since| humanise(now.since(since)))
}
