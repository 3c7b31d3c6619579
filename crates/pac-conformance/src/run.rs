//! Runs one case: chooses its clock, keeps other cases away if it measures, and bounds its
//! duration.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::Fixture;

/// The clock of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Tokio's paused clock: when all tasks are idle, it jumps to the next timer. One thread.
    /// Not usable with sockets.
    Paused,
    /// Real time on several threads.
    Real,
}

/// The requirements of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// None: either clock will do.
    Nothing,
    /// Several threads, hence real time.
    Threads,
    /// Several threads and an otherwise idle machine: the case measures milliseconds.
    Machine,
}

impl Needs {
    /// The clock to run on: the store's if it supports only one, or else what the case needs.
    const fn time(self, store: Option<Time>) -> Time {
        match (self, store) {
            (_, Some(time)) => time,
            (Self::Nothing, None) => Time::Paused,
            (Self::Threads | Self::Machine, None) => Time::Real,
        }
    }
}

/// Read-locked while an ordinary case runs, write-locked by a case that measures: so that no
/// other case of this process shares the machine with it.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs one case that measures nothing against a fixture of its own, then audits the store.
pub fn run_case(
    time: Time,
    open: impl AsyncFnOnce(Time) -> Fixture,
    case: impl AsyncFnOnce(&Fixture),
) {
    run_case_that(Needs::Nothing, Some(time), open, case);
}

/// Like [`run_case`], on the clock that the case needs unless the store supports only one.
pub fn run_case_that(
    needs: Needs,
    store: Option<Time>,
    open: impl AsyncFnOnce(Time) -> Fixture,
    case: impl AsyncFnOnce(&Fixture),
) {
    let time = needs.time(store);
    let (_shared, _alone);
    if needs == Needs::Machine {
        _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    } else {
        _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    }
    time.runtime().block_on(async {
        let fixture = open(time).await;
        if timeout(time.longest_case(), case(&fixture)).await.is_err() {
            panic!("the case hangs: not over after {:?}", time.longest_case());
        }
        fixture.audit().await;
    });
}

impl Time {
    fn runtime(self) -> Runtime {
        let runtime = match self {
            Self::Paused => Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build(),
            Self::Real => Builder::new_multi_thread()
                .worker_threads(4)
                .enable_all()
                .build(),
        };
        runtime.unwrap()
    }

    fn longest_case(self) -> Duration {
        match self {
            Self::Paused => Duration::from_secs(7 * 24 * 60 * 60),
            // Several times what the longest takes by itself: other suites may share the machine.
            Self::Real => Duration::from_secs(5 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_behind_a_socket_never_meets_paused_time() {
        for needs in [Needs::Nothing, Needs::Threads, Needs::Machine] {
            assert_eq!(needs.time(Some(Time::Real)), Time::Real);
        }
        assert_eq!(Needs::Nothing.time(None), Time::Paused);
        assert_eq!(Needs::Threads.time(None), Time::Real);
    }
}
