//! How a case is run: on which clock, and for how long at most.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::Fixture;

/// The clock of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Tokio's clock, paused: it jumps to the next thing to do when nothing else is left. One
    /// thread. Never meets a socket.
    Paused,
    /// Real time on several threads.
    Real,
}

/// Real-time cases measure: none of them shares the machine with another case of this process.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs one case against a fixture of its own, then audits what it leaves behind.
pub fn run_case(
    time: Time,
    open: impl AsyncFnOnce(Time) -> Fixture,
    case: impl AsyncFnOnce(&Fixture),
) {
    let (_shared, _alone);
    match time {
        Time::Paused => _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner),
        Time::Real => _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner),
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
            Self::Real => Duration::from_secs(60),
        }
    }
}

/// Whether a test's name is its case's name with a number before it.
#[must_use]
pub const fn ends_with(name: &str, end: &str) -> bool {
    let (name, end) = (name.as_bytes(), end.as_bytes());
    let mut at = 0;
    while at < end.len() {
        if name[name.len() - 1 - at] != end[end.len() - 1 - at] {
            return false;
        }
        at += 1;
    }
    true
}
