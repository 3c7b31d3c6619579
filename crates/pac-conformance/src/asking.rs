//! Questions whose answers a case knows beforehand.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pac_core::RepositoryKey;
use pac_core::manager::{Admission, ConcurrencyManager, Lease, Waiter};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use tokio::time::sleep;

/// Admits a run that has to start.
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

/// Admits a run that has to wait.
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

/// Admits a run that has ended before.
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

/// Polls a future so many times, with everything else going on a little in between, and then
/// drops it. Its output if it was ready before.
pub async fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    /// Paused time goes on only when nothing else does; so many polls are without it.
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
