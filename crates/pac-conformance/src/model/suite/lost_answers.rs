//! Answers that are lost, and what has changed by the time that a command is repeated.

use super::{NONE, scenario};
use crate::model::scenario::{Event, Faults, Scenario};
use crate::model::witness::Witness;
use crate::names::{durable, ephemeral, uid};

pub(super) fn loss() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b"), durable("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (0, Event::Requeue(0)),
        (1, Event::Cancel(0)),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![
            Witness::LostAnswerRecognised,
            Witness::LateCommitDone,
            Witness::LateCommitRefused,
        ],
        ..scenario("a lost answer", runs, events)
    }
}

pub(super) fn two_losses() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b"), durable("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (0, Event::Admit(2)),
    ];
    Scenario {
        faults: Faults { losses: 2, ..NONE },
        reaches: vec![Witness::LostAnswerRecognised],
        ..scenario("two lost answers", runs, events)
    }
}

/// A run is cancelled by its name, and another one takes that.
pub(super) fn name_used_again() -> Scenario {
    let mut other = durable("a");
    other.uid = uid("another-a");
    let runs = vec![durable("a"), other];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::SetLimit(2)),
        (0, Event::Cancel(0)),
        (1, Event::Admit(1)),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![Witness::HeldToItsPlan],
        ..scenario("a name used again", runs, events)
    }
}

/// A slot is freed by force, and its run has another one by the time that this is repeated.
pub(super) fn force() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Force(0)),
        (0, Event::Requeue(0)),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![Witness::OldTokenRefused],
        ..scenario("a release by force", runs, events)
    }
}

pub(super) fn two_announcements() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::SetLimit(2)),
        (1, Event::SetLimit(3)),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![Witness::HeldToItsPlan],
        ..scenario("two announcements", runs, events)
    }
}

pub(super) fn removal() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (1, Event::Admit(0)),
        (0, Event::Remove),
        (1, Event::Admit(0)),
        (0, Event::Admit(1)),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![Witness::HeldToItsPlan],
        ..scenario("a removal", runs, events)
    }
}

/// What is asked while a read is on its way is not answered by that.
pub(super) fn slow_reads() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (1, Event::Cancel(0)),
    ];
    Scenario {
        slow_reads: true,
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![Witness::LostAnswerRecognised],
        ..scenario("reads that take time", runs, events)
    }
}
