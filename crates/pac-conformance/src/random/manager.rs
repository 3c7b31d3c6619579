//! Random use of managers on one store, judged by the reference model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
#[cfg(feature = "mutants")]
use std::{cell::RefCell, collections::BTreeSet};

use pac_core::driver::Driver;
use proptest::test_runner::{TestCaseError, TestError};
use tokio::runtime::Builder;

use super::check::Check;
use super::cluster::Cluster;
use super::moves::{Line, Move, moves};
use super::search::{Failure, Search, shortest};

/// Opens an empty store.
pub type OpenStore<'a> = &'a dyn Fn() -> Arc<dyn Driver>;

/// Compares managers with the reference model, over a store that needs no network. Three
/// managers run on paused time: each directly on the store, behind a connection that is cut at
/// times, or behind a slow connection.
///
/// # Errors
/// The first violation found, with as few moves as possible.
pub fn manager(open: OpenStore<'_>, search: Search) -> Result<(), Failure> {
    let run = search.runner().run(&moves(), |(line, moves)| {
        match play(open, line, &moves, search.seed) {
            Ok(()) => Ok(()),
            Err(found) => Err(TestCaseError::fail(format!(
                "{}: {}",
                found.check, found.message
            ))),
        }
    });
    let (line, moves) = match run {
        Ok(()) => return Ok(()),
        Err(TestError::Fail(_, found)) => found,
        Err(TestError::Abort(reason)) => panic!("no moves to try: {reason}"),
    };
    let fails = |moves: &[Move]| play(open, line, moves, search.seed).is_err();
    let moves = shortest(moves, fails);
    match play(open, line, &moves, search.seed) {
        Err(mut found) => {
            found
                .steps
                .insert(0, format!("three processes, {line:?} line"));
            Err(Failure {
                check: found.check,
                message: found.message,
                steps: found.steps,
                search,
            })
        }
        Ok(()) => panic!("the same moves show nothing wrong any more: chance has a part in this"),
    }
}

/// The checks that fail for managers over this store.
#[cfg(feature = "mutants")]
pub(crate) fn survey(open: OpenStore<'_>, search: Search) -> BTreeSet<Check> {
    let found = RefCell::new(BTreeSet::new());
    let run = search.runner().run(&moves(), |(line, moves)| {
        if let Err(Found { check, .. }) = play(open, line, &moves, search.seed) {
            found.borrow_mut().insert(check);
        }
        Ok(())
    });
    run.unwrap();
    found.into_inner()
}

/// A violation, and the moves that led to it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) check: Check,
    pub(super) message: String,
    pub(super) steps: Vec<String>,
}

fn play(open: OpenStore<'_>, line: Line, moves: &[Move], seed: u64) -> Result<(), Found> {
    // Managers draw their intervals at random; the seed makes them the same for the same moves.
    fastrand::seed(seed);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(async {
            let mut cluster = Cluster::start(open(), line).await;
            for a_move in moves {
                if let Err((check, message)) = cluster.play(a_move).await {
                    let steps = cluster.told();
                    return Err(Found {
                        check,
                        message,
                        steps,
                    });
                }
            }
            Ok(())
        })
    }));
    played.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        Err(Found {
            check: Check::Told,
            message: message.or(text).unwrap_or_else(|| "a panic".to_owned()),
            steps: moves.iter().map(ToString::to_string).collect(),
        })
    })
}
