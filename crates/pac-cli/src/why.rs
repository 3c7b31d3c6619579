//! Why a run waits, in words.

use pac_concurrency::{Limit, Paused, RepositoryStatus, WaitReason, Weight};

/// A run that waits, as far as its words depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    /// How many slots it needs.
    pub(crate) weight: Weight,
    /// Some runs of its repository take several slots.
    pub(crate) by_slots: bool,
}

/// Whether slots are to be counted, and not runs: some of those that run take several.
pub(crate) fn by_slots(slots_taken: u32, running: u32) -> bool {
    slots_taken != running
}

/// The same of what is known of a whole repository.
pub(crate) fn counts_slots(status: &RepositoryStatus) -> bool {
    let running = u32::try_from(status.running.len()).unwrap_or(u32::MAX);
    by_slots(status.slots_taken, running)
}

/// Why it waits.
pub(crate) fn reason(reason: &WaitReason, waiting: Waiting) -> String {
    match reason {
        WaitReason::LimitReached { limit, running } => {
            format!("next; {}", limit_reached(*limit, *running, waiting))
        }
        WaitReason::Paused(pause) => paused(pause),
        WaitReason::TooHeavy { weight, limit } => {
            format!("needs {weight} slots, and there are {limit}")
        }
        WaitReason::Behind { ahead } => format!("{ahead} ahead"),
        WaitReason::NoOwner => "next; its controller died, no other has taken it yet".to_owned(),
        _ => "another reason, which a newer `pac` knows".to_owned(),
    }
}

/// Why it waits, as JSON and YAML have it.
pub(crate) fn word(reason: &WaitReason) -> &'static str {
    match reason {
        WaitReason::Paused(_) => "paused",
        WaitReason::TooHeavy { .. } => "too-heavy",
        WaitReason::LimitReached { .. } => "limit-reached",
        WaitReason::Behind { .. } => "behind",
        WaitReason::NoOwner => "no-owner",
        _ => "other",
    }
}

/// That nothing is started, and why.
pub(crate) fn paused(pause: &Paused) -> String {
    match &pause.reason {
        Some(reason) => format!("paused: {reason}"),
        None => "paused".to_owned(),
    }
}

/// What is taken of the limit.
pub(crate) fn limit_reached(limit: Limit, taken: u32, waiting: Waiting) -> String {
    let Waiting { weight, by_slots } = waiting;
    match (weight, by_slots) {
        (Weight::ONE, false) => format!("{taken} running of at most {limit}"),
        (Weight::ONE, true) => format!("{taken} of {limit} slots taken"),
        (weight, _) => format!("needs {weight}, {taken} of {limit} slots taken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_where_a_run_takes_several() {
        let words = |weight, by_slots| {
            let weight = Weight::new(weight).unwrap();
            let full = WaitReason::LimitReached {
                limit: Limit::new(3),
                running: 2,
            };
            reason(&full, Waiting { weight, by_slots })
        };
        assert_eq!(words(1, false), "next; 2 running of at most 3");
        assert_eq!(words(1, true), "next; 2 of 3 slots taken");
        assert_eq!(words(2, false), "next; needs 2, 2 of 3 slots taken");
    }
}
