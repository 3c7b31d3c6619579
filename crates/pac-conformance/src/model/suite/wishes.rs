//! What people ask beyond a place in the queue, with answers that are lost.

use pac_core::protocol::Supersedes;

use super::{NONE, scenario};
use crate::model::scenario::{Event, Faults, Scenario};
use crate::model::witness::Witness;
use crate::names::durable;

/// One controller pauses, another one resumes, while both ask for slots.
pub(super) fn pause() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (0, Event::Pause),
        (1, Event::Resume),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![Witness::PauseKept, Witness::LostAnswerRecognised],
        ..scenario("a pause", runs, events)
    }
}

/// A run of a group supersedes those of another controller, whether they wait or run by then.
pub(super) fn superseding() -> Scenario {
    let group = || "pr-7".parse().unwrap();
    let newest = durable("c").in_group(group());
    let runs = vec![
        durable("a").in_group(group()),
        durable("b").in_group(group()),
        newest.superseding(Supersedes::All),
    ];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (0, Event::Admit(2)),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![
            Witness::Superseded,
            Witness::AskedToEnd,
            Witness::LostAnswerRecognised,
        ],
        ..scenario("superseded runs", runs, events)
    }
}
