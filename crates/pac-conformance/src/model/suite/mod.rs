//! The scenarios that are checked. Each is small in all but one respect: together they meet what
//! one large one would, and are done in seconds.

mod askers;
mod crashes;
mod lost_answers;
mod wishes;

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
        crashes::crash(),
        crashes::crash_of_ephemeral_runs(),
        crashes::two_crashes(),
        crashes::crash_of_one_in_three(),
        crashes::lapse(),
        crashes::two_lapses(),
        lost_answers::loss(),
        lost_answers::two_losses(),
        crashes::lapse_without_controllers(),
        crashes::crash_and_loss(),
        crashes::lapse_and_loss(),
        crashes::crash_and_lapse(),
        crashes::late_news(),
        crashes::orphan_and_loss(),
        crashes::crash_loss_and_leaving(),
        crashes::orphan_of_two(),
        crashes::without_session(),
        askers::leaving(),
        askers::leaving_and_loss(),
        askers::timeouts(),
        askers::detached(),
        askers::grants_unread(),
        askers::waiter_beside_asker(),
        askers::late_return(),
        askers::unread_beside_askers(),
        askers::unread_orphan(),
        askers::unread_place(),
        askers::late_grant(),
        lost_answers::name_used_again(),
        lost_answers::force(),
        lost_answers::two_announcements(),
        lost_answers::removal(),
        orderly_end(),
        lost_answers::slow_reads(),
        small_commits(),
        wishes::pause(),
        wishes::superseding(),
    ]
}

const NONE: Faults = Faults {
    crashes: 0,
    lapses: 0,
    losses: 0,
    leaves: 0,
    timeouts: 0,
};

/// Two controllers on one slot.
fn scenario(name: &'static str, runs: Vec<RunRequest>, events: Vec<(usize, Event)>) -> Scenario {
    Scenario {
        name,
        limit: 1,
        controllers: 2,
        takes_ownerless: true,
        sweeps_together: false,
        slow_reads: false,
        late_news: false,
        slow_returns: false,
        leaves_at_once: false,
        orphan: false,
        entries_per_commit: usize::MAX,
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
        reaches: vec![
            Witness::OldTokenRefused,
            Witness::GivenUpInTime,
            Witness::TurnUndelivered,
        ],
        ..scenario("back to the queue", runs, events)
    }
}

fn orderly_end() -> Scenario {
    let runs = vec![durable("a"), durable("b")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(1)),
        (1, Event::Admit(0)),
        (0, Event::Close),
    ];
    Scenario {
        reaches: vec![Witness::ClosedInOrder, Witness::OwnerlessTaken],
        ..scenario("an orderly end", runs, events)
    }
}

/// What a commit is too small for is done by later ones.
fn small_commits() -> Scenario {
    let runs = vec![durable("a"), durable("b"), ephemeral("c")];
    let events = vec![
        (0, Event::Admit(0)),
        (0, Event::Admit(1)),
        (0, Event::Admit(2)),
        (1, Event::SetLimit(3)),
    ];
    Scenario {
        entries_per_commit: 1,
        reaches: vec![Witness::Continued],
        ..scenario("small commits", runs, events)
    }
}
