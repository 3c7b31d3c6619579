//! The rules of a repository, as they are shown.

use std::num::NonZeroU32;

use pac_concurrency::{Limit, Owner, RepositoryStatus, Rules, SlotName};
use serde::Serialize;

/// The JSON and YAML output where a limit is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shape<'a> {
    repository: &'a str,
    #[serde(flatten)]
    in_force: RulesShape<'a>,
    /// What is in force once the pin is taken back; `null` where nothing is pinned.
    beneath: Option<RulesShape<'a>>,
}

/// The rules alone.
#[derive(Debug, Serialize)]
pub(super) struct RulesShape<'a> {
    /// 0 means no limit.
    limit: u32,
    owner: Option<&'static str>,
    max_queued: Option<u32>,
    backfill: Option<u32>,
    slots: Option<Vec<&'a str>>,
}

impl<'a> Shape<'a> {
    pub(super) fn of(status: &'a RepositoryStatus) -> Self {
        let beneath = |(rules, owner): &'a (Rules, Owner)| RulesShape::of(rules, Some(*owner));
        Self {
            repository: status.repository.as_str(),
            in_force: RulesShape::in_force(status),
            beneath: status.beneath.as_ref().map(beneath),
        }
    }
}

impl<'a> RulesShape<'a> {
    pub(super) fn in_force(status: &'a RepositoryStatus) -> Self {
        Self::of(&status.rules, status.owner)
    }

    fn of(rules: &'a Rules, owner: Option<Owner>) -> Self {
        Self {
            limit: rules.limit.get().unwrap_or(0),
            owner: owner.map(Owner::as_str),
            max_queued: rules.max_queued,
            backfill: rules.backfill.map(NonZeroU32::get),
            slots: names_of_slots(rules),
        }
    }
}

/// All that is known of the rules, in lines.
pub(super) fn describe(status: &RepositoryStatus) -> String {
    let mut lines = vec![format!(
        "the limit of {} is {}, {}",
        status.repository,
        status.limit,
        set_by(status.owner)
    )];
    lines.extend(beside(&status.rules));
    if let Some((rules, owner)) = &status.beneath {
        let limit = format!("limit {}, {}", rules.limit, set_by(Some(*owner)));
        let all: Vec<_> = std::iter::once(limit).chain(beside(rules)).collect();
        lines.push(format!("beneath the pin: {}", all.join("; ")));
    }
    lines.join("\n")
}

/// What there is beside the limit.
pub(super) fn beside(rules: &Rules) -> impl Iterator<Item = String> {
    let max_queued = rules.max_queued.map(|most| format!("max-queued {most}"));
    let backfill = rules.backfill.map(|most| format!("backfill {most}"));
    let slots = names_of_slots(rules).map(|names| format!("slots {}", names.join(", ")));
    [max_queued, backfill, slots].into_iter().flatten()
}

/// The names of the slots, where they have some.
pub(crate) fn names_of_slots(rules: &Rules) -> Option<Vec<&str>> {
    let names = rules.slots.as_deref()?;
    Some(names.iter().map(SlotName::as_str).collect())
}

/// Who has set a limit, in words.
pub(crate) fn set_by(owner: Option<Owner>) -> &'static str {
    match owner {
        None => "set by nobody",
        Some(Owner::Proposed) => "proposed by a caller",
        Some(Owner::Set) => "set by a program",
        Some(Owner::Announced) => "announced by a controller",
        Some(Owner::Pinned) => "pinned by an operator",
        Some(_) => "set by another, which a newer `pac` knows",
    }
}

/// What there is to say of a limit that was changed: it, and that it is pinned.
pub(super) fn limit_is(
    repository: impl std::fmt::Display,
    limit: Limit,
    owner: Option<Owner>,
) -> String {
    let pinned = match owner {
        Some(Owner::Pinned) => " (pinned)",
        _ => "",
    };
    format!("the limit of {repository} is {limit}{pinned}")
}
