//! Askers that leave or ask again, and waiters that are detached.

use super::{NONE, scenario};
use crate::model::scenario::{Event, Faults, Scenario};
use crate::model::witness::Witness;
use crate::names::{durable, ephemeral};

/// Askers that go away at any moment: before their commit, during it, with the answer unread.
pub(super) fn leaving() -> Scenario {
    let runs = vec![ephemeral("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(1)),
        (1, Event::Admit(1)),
        (0, Event::Requeue(1)),
    ];
    Scenario {
        faults: Faults { leaves: 1, ..NONE },
        reaches: vec![
            Witness::AskerGone,
            Witness::AnswerUndelivered,
            Witness::TakenBack,
        ],
        ..scenario("askers that leave", runs, events)
    }
}

pub(super) fn leaving_and_loss() -> Scenario {
    let runs = vec![ephemeral("a")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(0)),
        (1, Event::Cancel(0)),
    ];
    Scenario {
        faults: Faults {
            losses: 1,
            leaves: 1,
            ..NONE
        },
        reaches: vec![Witness::AskerGone, Witness::TakenBack],
        ..scenario("an asker that leaves, and a lost answer", runs, events)
    }
}

pub(super) fn timeouts() -> Scenario {
    let runs = vec![ephemeral("a"), durable("b")];
    let events = vec![(0, Event::Admit(0)), (1, Event::Admit(1))];
    Scenario {
        faults: Faults {
            losses: 1,
            timeouts: 1,
            ..NONE
        },
        ..scenario("an asker that asks again", runs, events)
    }
}

/// Runs left in the queue for a stream of grants that nobody reads.
pub(super) fn detached() -> Scenario {
    let runs = vec![durable("a"), durable("b"), ephemeral("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (1, Event::Admit(2)),
        (1, Event::Detach(1)),
        (1, Event::Detach(2)),
    ];
    Scenario {
        takes_ownerless: false,
        reaches: vec![Witness::GivenBack, Witness::TakenBack],
        ..scenario("waiters that are detached", runs, events)
    }
}

/// The same where it is read, until it is not any more.
pub(super) fn grants_unread() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (1, Event::Admit(1)),
        (1, Event::Detach(1)),
        (1, Event::StopReading(1)),
    ];
    Scenario {
        faults: Faults { losses: 1, ..NONE },
        reaches: vec![Witness::GivenBack, Witness::OwnerlessTaken],
        ..scenario("grants unread", runs, events)
    }
}

/// Two askers of one run, and the first does not wait for its turn.
pub(super) fn waiter_beside_asker() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(1)),
        (0, Event::Admit(1)),
        (0, Event::GiveUp(1)),
    ];
    Scenario {
        controllers: 1,
        reaches: vec![Witness::GivenUpInTime, Witness::Combined],
        ..scenario("a waiter that gives up beside an asker", runs, events)
    }
}

/// The turn of a waiter that has gone comes back after another asker was answered with it.
pub(super) fn late_return() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (1, Event::Admit(0)),
        (0, Event::Admit(1)),
        (0, Event::GiveUp(1)),
        (0, Event::Admit(1)),
    ];
    Scenario {
        slow_returns: true,
        faults: Faults { leaves: 1, ..NONE },
        reaches: vec![Witness::TurnUndelivered, Witness::GivenUpInTime],
        ..scenario("a turn that comes back late", runs, events)
    }
}

/// Askers of one run, of which up to all go away, with their answers unread or before.
pub(super) fn unread_beside_askers() -> Scenario {
    let runs = vec![durable("a")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(0)),
        (0, Event::Admit(0)),
        (0, Event::Adopt(0)),
    ];
    Scenario {
        controllers: 1,
        faults: Faults { leaves: 3, ..NONE },
        reaches: vec![
            Witness::AskerGone,
            Witness::AnswerUndelivered,
            Witness::TakenBack,
        ],
        ..scenario("an answer unread beside askers", runs, events)
    }
}

/// The same where the run was an orphan.
pub(super) fn unread_orphan() -> Scenario {
    Scenario {
        name: "an orphan's answer unread",
        takes_ownerless: false,
        orphan: true,
        reaches: vec![
            Witness::AskerGone,
            Witness::AnswerUndelivered,
            Witness::GivenBack,
        ],
        ..unread_beside_askers()
    }
}

/// The same where the run waits for its turn.
pub(super) fn unread_place() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(1)),
        (0, Event::Admit(1)),
        (0, Event::Admit(1)),
    ];
    Scenario {
        controllers: 1,
        faults: Faults { leaves: 2, ..NONE },
        reaches: vec![Witness::AnswerUndelivered, Witness::TakenBack],
        ..scenario("a place unread beside waiters", runs, events)
    }
}

/// A grant that nobody reads is given back after an asker was answered with it.
pub(super) fn late_grant() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (1, Event::Admit(0)),
        (0, Event::Admit(1)),
        (0, Event::Detach(1)),
        (0, Event::Admit(1)),
    ];
    Scenario {
        takes_ownerless: false,
        slow_returns: true,
        faults: Faults { leaves: 1, ..NONE },
        reaches: vec![Witness::GivenBack],
        ..scenario("a grant that comes back late", runs, events)
    }
}
