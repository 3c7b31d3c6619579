//! What can happen, and how often it does.

use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::StartFault;
use proptest::prelude::*;

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Move {
    /// An event makes runs; their order is written, or never.
    Event {
        repository: usize,
        runs: usize,
        ordered: bool,
    },
    /// A run that is to run at once.
    Unheld {
        repository: usize,
    },
    Finish {
        run: usize,
        succeeded: bool,
    },
    Cancel {
        run: usize,
        form: usize,
    },
    StartByUser {
        run: usize,
    },
    Delete {
        run: usize,
    },
    /// Deleted, and another of the same name created.
    Recreate {
        run: usize,
    },
    Limit {
        repository: usize,
        limit: u32,
    },
    GlobalLimit {
        limit: u32,
    },
    DeleteRepository {
        repository: usize,
    },
    Fault(StartFault),
    ApiAway(bool),
    Disorder(bool),
    CutWatches,
    Tekton,
    TektonIsManual(bool),
    /// A controller's connection to the store from now on.
    Store {
        controller: usize,
        line: Line,
    },
    /// An operator cancels a run in the store alone.
    CancelInStore {
        run: usize,
    },
    /// Another controller.
    Open,
    /// A controller dies; its session runs out.
    Crash,
    /// A controller ends in order.
    Close,
    Wait {
        millis: u64,
    },
}

/// A connection to the store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Line {
    Open,
    /// Requests fail.
    Cut,
    /// Requests and their answers are kept back until it is open again.
    Held,
    /// Answers get lost now and then.
    Lossy,
}

fn a_line() -> impl Strategy<Value = Line> {
    prop_oneof![
        2 => Just(Line::Open),
        2 => Just(Line::Cut),
        1 => Just(Line::Held),
        1 => Just(Line::Lossy),
    ]
}

pub(crate) fn a_move() -> impl Strategy<Value = Move> {
    let repository = 0..REPOSITORIES.len();
    let run = 0..40_usize;
    prop_oneof![
        6 => (repository.clone(), 1..4_usize, prop::bool::weighted(0.8)).prop_map(
            |(repository, runs, ordered)| Move::Event { repository, runs, ordered }
        ),
        1 => repository.clone().prop_map(|repository| Move::Unheld { repository }),
        6 => (run.clone(), any::<bool>())
            .prop_map(|(run, succeeded)| Move::Finish { run, succeeded }),
        3 => (run.clone(), 0..3_usize).prop_map(|(run, form)| Move::Cancel { run, form }),
        1 => run.clone().prop_map(|run| Move::StartByUser { run }),
        2 => run.clone().prop_map(|run| Move::Delete { run }),
        1 => run.clone().prop_map(|run| Move::Recreate { run }),
        2 => (repository.clone(), 0..4_u32)
            .prop_map(|(repository, limit)| Move::Limit { repository, limit }),
        1 => (0..3_u32).prop_map(|limit| Move::GlobalLimit { limit }),
        1 => repository.prop_map(|repository| Move::DeleteRepository { repository }),
        3 => prop_oneof![
            Just(StartFault::AnswerLost),
            Just(StartFault::RequestLost),
            Just(StartFault::Conflict)
        ]
        .prop_map(Move::Fault),
        2 => any::<bool>().prop_map(Move::ApiAway),
        1 => any::<bool>().prop_map(Move::Disorder),
        1 => Just(Move::CutWatches),
        3 => Just(Move::Tekton),
        1 => any::<bool>().prop_map(Move::TektonIsManual),
        3 => (0..3_usize, a_line()).prop_map(|(controller, line)| Move::Store { controller, line }),
        1 => run.prop_map(|run| Move::CancelInStore { run }),
        1 => Just(Move::Open),
        1 => Just(Move::Crash),
        1 => Just(Move::Close),
        6 => prop_oneof![0..50_u64, 0..3_000_u64, 0..30_000_u64]
            .prop_map(|millis| Move::Wait { millis }),
    ]
}

/// Two of one namespace, and one of another.
pub(crate) const REPOSITORIES: [&str; 3] = ["ci/website", "ci/second", "team/website"];

pub(crate) const FORMS: [SpecStatus; 3] = [
    SpecStatus::Cancelled,
    SpecStatus::CancelledRunFinally,
    SpecStatus::StoppedRunFinally,
];
