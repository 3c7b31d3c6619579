//! The end of a run, wherever the store has it.

use pac_core::manager::{Admission, ConcurrencyManager};
use pac_core::protocol::{Ended, RunRequest};
use pac_core::state::RunOutcome;
use pac_core::{Error, PipelineRunKey, RepositoryKey, Uid};

/// Ends a run that waits or holds a slot, by force and with this outcome; a run that ran to its
/// end while the store had it waiting is recorded as both. Says whether it ended with this call.
pub(crate) async fn end_run(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    run: &PipelineRunKey,
    uid: &Uid,
    outcome: RunOutcome,
) -> Result<Ended, Error> {
    let ending = manager
        .release_run(repository, run, uid, None, outcome)
        .await?;
    if ending.ended != Ended::NotStarted {
        return Ok(ending.ended);
    }
    if matches!(outcome, RunOutcome::Completed | RunOutcome::Failed) {
        let request = RunRequest::durable(run.clone(), uid.clone());
        return match manager.adopt(repository, request).await? {
            Admission::Started(lease) => Ok(manager.release(lease, outcome).await?.ended),
            Admission::Finished(outcome) => Ok(Ended::Before(outcome)),
            Admission::Queued(waiter) => {
                waiter.detach();
                Ok(Ended::NotStarted)
            }
        };
    }
    Ok(manager.cancel(repository, run, Some(uid)).await?.ended)
}
