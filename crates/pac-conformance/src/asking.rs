//! Requests whose answers a case knows beforehand.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pac_core::RepositoryKey;
use pac_core::manager::{Admission, ConcurrencyManager, Lease, Waiter};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use tokio::time::sleep;

/// Admits a run, and fails unless it starts at once.
pub async fn started(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> Lease {
    let run = request.run.clone();
    match manager.admit(repository, request).await {
        Ok(Admission::Started(lease)) => lease,
        other => panic!("{run} had to start, not {other:?}"),
    }
}

/// Admits a run, and fails unless it waits.
pub async fn queued(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> Waiter {
    let run = request.run.clone();
    match manager.admit(repository, request).await {
        Ok(Admission::Queued(waiter)) => waiter,
        other => panic!("{run} had to wait, not {other:?}"),
    }
}

/// Admits a run, and fails unless it has ended before.
pub async fn finished(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> RunOutcome {
    let run = request.run.clone();
    match manager.admit(repository, request).await {
        Ok(Admission::Finished(outcome)) => outcome,
        other => panic!("{run} had ended, not {other:?}"),
    }
}

/// Polls a future `times` times, sleeping briefly between polls, then drops it. Returns its
/// output if it was ready by then.
pub async fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    /// After each of this many polls the task only yields, which does not let paused time
    /// advance.
    const TIMELESS: usize = 50;
    let mut future = pin!(future);
    for n in 0..times {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        if n < TIMELESS {
            tokio::task::yield_now().await;
        } else {
            sleep(Duration::from_millis(1)).await;
        }
    }
    None
}
