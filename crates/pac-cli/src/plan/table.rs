//! The plan for people.

use pac_pipelines::vocabulary;

use super::manifests::Run;
use super::report::{Fate, LimitOf, Line, Queue, Report};
use crate::format::{cell, table};

/// The whole plan, without what is wrong.
pub(super) fn describe(report: &Report<'_>) -> String {
    let mut text: String = report.repositories.iter().map(describe_queue).collect();
    if !report.elsewhere.is_empty() {
        text.push_str("of no Repository here\n");
        text.push_str(&rows(&report.elsewhere));
    }
    match report.others {
        0 => {}
        1 => text.push_str("1 object of another kind is passed over\n"),
        others => text.push_str(&format!(
            "{others} objects of other kinds are passed over\n"
        )),
    }
    text
}

fn describe_queue(queue: &Queue<'_>) -> String {
    let limit = match queue.limit {
        LimitOf::Own(runs) => format!("limit {runs}, its own"),
        LimitOf::Global(runs, global) => format!("limit {runs}, that of {global}"),
        LimitOf::None => "no limit".to_owned(),
        LimitOf::Unknown => "limit unknown".to_owned(),
    };
    let mut text = format!(
        "{}  {limit}: {} running, {} to start, {} to queue\n",
        queue.repository,
        queue.count(|fate| matches!(fate, Fate::Runs(_))),
        queue.count(|fate| matches!(fate, Fate::Starts(_))),
        queue.count(|fate| matches!(fate, Fate::Queued(_))),
    );
    if !queue.runs.is_empty() {
        text.push_str(&rows(&queue.runs));
    }
    text
}

fn rows(lines: &[Line<'_>]) -> String {
    let mut rows = table(["run", "state", "why", "order", "event", "written in"]);
    for line in lines {
        rows.add_row([
            name(line.run),
            fate(line.fate),
            cell(&line.reason),
            line.order
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            cell(&event(line.run)),
            cell(&line.run.place.to_string()),
        ]);
    }
    format!("{rows}\n")
}

fn name(run: &Run) -> String {
    let made_up = if run.is_named_here { " (made up)" } else { "" };
    format!("{}{made_up}", run.view.key)
}

fn fate(fate: Fate) -> String {
    match fate {
        Fate::Runs(_) => "runs".to_owned(),
        Fate::Starts(_) => "starts".to_owned(),
        Fate::Queued(position) => format!("queued at {position}"),
        Fate::Cancelled => "cancelled".to_owned(),
        Fate::Ended => "has ended".to_owned(),
        Fate::HeldByUser => "held by its user".to_owned(),
        Fate::LeftAlone => "left alone".to_owned(),
        Fate::TooHeavy | Fate::LimitUnknown => "held back".to_owned(),
        Fate::NoRepository => "left alone".to_owned(),
    }
}

/// What a run was made for: `pull_request 12`, `push 4f1e2ab`.
fn event(run: &Run) -> String {
    let view = &run.view;
    let mark = |name| view.annotation(name).or_else(|| view.label(name));
    let kind = mark(vocabulary::EVENT_TYPE);
    let sha = mark(vocabulary::SHA).map(|sha| sha.get(..7).unwrap_or(sha));
    let number = mark(vocabulary::PULL_REQUEST).or(sha);
    let parts: Vec<_> = [kind, number].into_iter().flatten().collect();
    parts.join(" ")
}
