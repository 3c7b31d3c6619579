//! Controllers that die, and sessions that lapse while their controllers live.

use super::{NONE, scenario};
use crate::model::scenario::{Event, Faults, Scenario};
use crate::model::witness::Witness;
use crate::names::{durable, ephemeral};

pub(super) fn crash() -> Scenario {
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

pub(super) fn crash_of_ephemeral_runs() -> Scenario {
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

pub(super) fn two_crashes() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(0))];
    Scenario {
        sweeps_together: true,
        faults: Faults { crashes: 2, ..NONE },
        ..scenario("two crashes", runs, events)
    }
}

/// The first of the others to notice sees to the runs of the one that died.
pub(super) fn crash_of_one_in_three() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        controllers: 3,
        faults: Faults { crashes: 1, ..NONE },
        reaches: vec![Witness::ExpiryHandsOver, Witness::OwnerlessTaken],
        ..scenario("a crash of one in three", runs, events)
    }
}

pub(super) fn lapse() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        faults: Faults { lapses: 1, ..NONE },
        reaches: vec![Witness::Reclaimed, Witness::GrantToTheDeadRefused],
        ..scenario("a session that lapses", runs, events)
    }
}

pub(super) fn two_lapses() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0))];
    Scenario {
        late_news: true,
        faults: Faults { lapses: 2, ..NONE },
        ..scenario("two sessions that lapse", runs, events)
    }
}

/// Processes that start no PipelineRuns: nobody takes what has no owner.
pub(super) fn lapse_without_controllers() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        takes_ownerless: false,
        faults: Faults { lapses: 1, ..NONE },
        reaches: vec![Witness::Reclaimed],
        ..scenario("a lapse without controllers", runs, events)
    }
}

pub(super) fn crash_and_loss() -> Scenario {
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

pub(super) fn lapse_and_loss() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0))];
    Scenario {
        late_news: true,
        faults: Faults {
            lapses: 1,
            losses: 1,
            ..NONE
        },
        reaches: vec![Witness::LostAnswerRecognised],
        ..scenario("a lapse and a lost answer", runs, events)
    }
}

pub(super) fn crash_and_lapse() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0))];
    Scenario {
        late_news: true,
        faults: Faults {
            crashes: 1,
            lapses: 1,
            ..NONE
        },
        ..scenario("a crash and a lapse", runs, events)
    }
}

/// An ephemeral run is asked for in a new session before the loss of the old one is told.
pub(super) fn late_news() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b")];
    let events = vec![(0, Event::Admit(0)), (0, Event::Admit(1))];
    Scenario {
        controllers: 1,
        late_news: true,
        faults: Faults { lapses: 1, ..NONE },
        reaches: vec![Witness::FullQueue],
        ..scenario("late news of a lapse", runs, events)
    }
}

/// An orphan is taken over by an asker that does not hear of it.
pub(super) fn orphan_and_loss() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![(0, Event::Admit(0))];
    Scenario {
        controllers: 1,
        takes_ownerless: false,
        orphan: true,
        faults: Faults {
            losses: 1,
            leaves: 1,
            ..NONE
        },
        reaches: vec![Witness::AskerGone, Witness::LostAnswerRecognised],
        ..scenario("an orphan and a lost answer", runs, events)
    }
}

/// The same from the death of its controller on, which may be recorded by the same commit.
pub(super) fn crash_loss_and_leaving() -> Scenario {
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(0))];
    let crash = orphan_and_loss();
    Scenario {
        name: "a crash, a lost answer and an asker that leaves",
        controllers: 2,
        orphan: false,
        events,
        faults: Faults {
            crashes: 1,
            ..crash.faults
        },
        ..crash
    }
}

/// Two askers take the same orphan over, and one of them goes away.
pub(super) fn orphan_of_two() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(0)),
        (0, Event::SetLimit(2)),
    ];
    Scenario {
        controllers: 1,
        takes_ownerless: false,
        leaves_at_once: true,
        orphan: true,
        faults: Faults { leaves: 1, ..NONE },
        reaches: vec![Witness::AskerGone, Witness::Combined],
        ..scenario("an orphan of two askers", runs, events)
    }
}

/// A controller that has no session answers what is so already.
pub(super) fn without_session() -> Scenario {
    let runs = vec![durable("a"), ephemeral("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(1)),
        (0, Event::Admit(0)),
    ];
    Scenario {
        controllers: 1,
        faults: Faults { lapses: 1, ..NONE },
        reaches: vec![Witness::AnsweredWithoutSession, Witness::Reclaimed],
        ..scenario("questions without a session", runs, events)
    }
}
