//! The scenarios that are checked. Each is small in all but one respect: together they meet what
//! one large one would, and are done in seconds.

use pac_core::protocol::RunRequest;

use super::scenario::{Event, Faults, Scenario};
use super::witness::Witness;
use crate::names::{at_priority, durable, ephemeral};

/// All scenarios.
#[must_use]
pub fn suite() -> Vec<Scenario> {
    vec![
        contention(),
        crowd(),
        lowered_limit(),
        raised_limit(),
        adoption(),
        requeues(),
        crash(),
        crash_of_ephemeral_runs(),
        two_crashes(),
        crash_of_one_in_three(),
        lapse(),
        two_lapses(),
        loss(),
        two_losses(),
        lapse_without_controllers(),
        crash_and_loss(),
        lapse_and_loss(),
        crash_and_lapse(),
    ]
}

const NONE: Faults = Faults {
    crashes: 0,
    lapses: 0,
    losses: 0,
};

/// Two controllers on one slot.
fn scenario(name: &'static str, runs: Vec<RunRequest>, events: Vec<(usize, Event)>) -> Scenario {
    Scenario {
        name,
        limit: 1,
        controllers: 2,
        takes_ownerless: true,
        sweeps_together: false,
        runs,
        events,
        faults: NONE,
        reaches: Vec::new(),
    }
}

fn contention() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b"), at_priority("c", 1)];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (2, Event::Admit(2)),
    ];
    Scenario {
        controllers: 3,
        reaches: vec![Witness::Conflict, Witness::FullQueue],
        ..scenario("contention of three", runs, events)
    }
}

fn crowd() -> Scenario {
    let runs = vec![
        durable("a"),
        ephemeral("b"),
        at_priority("c", 1),
        durable("d"),
    ];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (0, Event::Admit(2)),
        (1, Event::Admit(3)),
    ];
    Scenario {
        limit: 2,
        reaches: vec![Witness::Conflict, Witness::FullQueue, Witness::Combined],
        ..scenario("four runs on two slots", runs, events)
    }
}

fn three_durable(last: Event) -> (Vec<RunRequest>, Vec<(usize, Event)>) {
    let runs = vec![durable("a"), durable("b"), durable("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (0, Event::Admit(2)),
        (1, last),
    ];
    (runs, events)
}

fn lowered_limit() -> Scenario {
    let (runs, events) = three_durable(Event::SetLimit(1));
    Scenario {
        limit: 2,
        reaches: vec![Witness::Conflict, Witness::AboveTheLimit],
        ..scenario("a lowered limit", runs, events)
    }
}

fn raised_limit() -> Scenario {
    let (runs, events) = three_durable(Event::SetLimit(2));
    Scenario {
        reaches: vec![Witness::Conflict, Witness::Combined],
        ..scenario("a raised limit", runs, events)
    }
}

fn adoption() -> Scenario {
    let runs = vec![durable("a"), durable("b"), durable("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (1, Event::Adopt(2)),
        (0, Event::Cancel(1)),
    ];
    Scenario {
        reaches: vec![Witness::AboveTheLimit],
        ..scenario("a run adopted", runs, events)
    }
}

/// Runs that go back to the queue, old tokens, waiters that give up.
fn requeues() -> Scenario {
    let runs = vec![durable("a"), durable("b"), ephemeral("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (1, Event::Admit(2)),
        (0, Event::Requeue(0)),
        (1, Event::Release(0, 1)),
        (1, Event::GiveUp(2)),
    ];
    Scenario {
        reaches: vec![Witness::OldTokenRefused, Witness::GivenUpInTime],
        ..scenario("back to the queue", runs, events)
    }
}

fn crash() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (1, Event::Admit(0)),
    ];
    Scenario {
        faults: Faults { crashes: 1, ..NONE },
        reaches: vec![
            Witness::OwnerlessTaken,
            Witness::ExpiryHandsOver,
            Witness::LateCommitDone,
            Witness::LateCommitRefused,
        ],
        ..scenario("a crash", runs, events)
    }
}

fn crash_of_ephemeral_runs() -> Scenario {
    let runs = vec![ephemeral("a"), ephemeral("b"), ephemeral("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (0, Event::Admit(2)),
    ];
    Scenario {
        faults: Faults { crashes: 1, ..NONE },
        reaches: vec![Witness::ExpiryHandsOver, Witness::GrantToTheDeadRefused],
        ..scenario("a crash with ephemeral runs", runs, events)
    }
}

fn two_crashes() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(0))];
    Scenario {
        sweeps_together: true,
        faults: Faults { crashes: 2, ..NONE },
        ..scenario("two crashes", runs, events)
    }
}

/// The dead one's runs are seen to by whoever comes first.
fn crash_of_one_in_three() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        controllers: 3,
        faults: Faults { crashes: 1, ..NONE },
        reaches: vec![Witness::ExpiryHandsOver, Witness::OwnerlessTaken],
        ..scenario("a crash of one in three", runs, events)
    }
}

fn lapse() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        faults: Faults { lapses: 1, ..NONE },
        reaches: vec![Witness::Reclaimed, Witness::GrantToTheDeadRefused],
        ..scenario("a session that lapses", runs, events)
    }
}

fn two_lapses() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0))];
    Scenario {
        faults: Faults { lapses: 2, ..NONE },
        ..scenario("two sessions that lapse", runs, events)
    }
}

fn loss() -> Scenario {
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

fn two_losses() -> Scenario {
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

/// Processes that start no PipelineRuns: nobody takes what has no owner.
fn lapse_without_controllers() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        takes_ownerless: false,
        faults: Faults { lapses: 1, ..NONE },
        reaches: vec![Witness::Reclaimed],
        ..scenario("a lapse without controllers", runs, events)
    }
}

fn crash_and_loss() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        faults: Faults {
            crashes: 1,
            losses: 1,
            ..NONE
        },
        reaches: vec![Witness::LostAnswerRecognised, Witness::LateCommitDone],
        ..scenario("a crash and a lost answer", runs, events)
    }
}

fn lapse_and_loss() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0))];
    Scenario {
        faults: Faults {
            lapses: 1,
            losses: 1,
            ..NONE
        },
        reaches: vec![Witness::LostAnswerRecognised],
        ..scenario("a lapse and a lost answer", runs, events)
    }
}

fn crash_and_lapse() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0))];
    Scenario {
        faults: Faults {
            crashes: 1,
            lapses: 1,
            ..NONE
        },
        ..scenario("a crash and a lapse", runs, events)
    }
}
