//! What an operator, a controller or another program does to a repository and to the runs of others:
//! its rules, pauses, cancellations, and the order of its queue.

use super::ConcurrencyManager;
use super::handles::admission::Ending;
use super::submit::unexpected;
use crate::error::Error;
use crate::name::{PipelineRunKey, Reason, RepositoryKey, Uid};
use crate::protocol::{Bump, Cancellation, Claim, Command, Outcome, PauseCondition, Which};
use crate::state::{Owner, RulesChange};
use crate::status::RunStatus;
use crate::value::{Limit, LimitVersion};

/// Rounds of [`ConcurrencyManager::cancel_all`] at most: so many commits of the largest size.
const ROUNDS: usize = 10_000;

/// What came of setting the rules of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitChange {
    /// The limit in force.
    pub limit: Limit,
    /// Who has set it; `None` if nobody did.
    pub owner: Option<Owner>,
    /// Whether it is in force because of this; false when a newer announcement was known, or another
    /// claim holds against this one.
    pub accepted: bool,
    /// The runs that started because of it, in order.
    pub promoted: Vec<PipelineRunKey>,
}

/// What came of pausing a repository, or of resuming it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PauseChange {
    /// Whether it was paused before.
    pub before: bool,
    /// Whether it is as it was to be because of this; false when the condition did not hold, and when
    /// another word was given before an answer that was lost could be found again.
    pub accepted: bool,
    /// The runs that started because of it, in order.
    pub promoted: Vec<PipelineRunKey>,
}

/// What came of ending many runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// The runs that ended, or were asked to end, in the order of their arrival.
    pub affected: Vec<PipelineRunKey>,
    /// The runs that started in their stead, in order.
    pub promoted: Vec<PipelineRunKey>,
}

impl ConcurrencyManager {
    /// Announces a limit. Of two announcements the one with the higher version holds, whenever
    /// it comes. Without a version the limit is set until a newer announcement. Neither holds against
    /// a limit that is [pinned](Claim::Pin).
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn set_limit(
        &self,
        repository: &RepositoryKey,
        limit: Limit,
        version: Option<LimitVersion>,
    ) -> Result<LimitChange, Error> {
        self.change_rules(repository, Command::limit(limit, version))
            .await
    }

    /// Sets the rules of a repository, as far as `claim` holds against whoever has set those in force.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn set_rules(
        &self,
        repository: &RepositoryKey,
        rules: RulesChange,
        claim: Claim,
    ) -> Result<LimitChange, Error> {
        self.change_rules(repository, Command::SetLimit { rules, claim })
            .await
    }

    /// Takes back that the rules of a repository are pinned: what was in force before, or was
    /// announced since, is in force again. Not `accepted` where nothing is pinned.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn unpin(&self, repository: &RepositoryKey) -> Result<LimitChange, Error> {
        self.change_rules(repository, Command::Unpin).await
    }

    async fn change_rules(
        &self,
        repository: &RepositoryKey,
        command: Command,
    ) -> Result<LimitChange, Error> {
        let cell = self.find(repository, "set limit")?;
        match self.ask(&cell, command).await?.outcome {
            Outcome::LimitSet {
                limit,
                owner,
                accepted,
                promoted,
            } => Ok(LimitChange {
                limit,
                owner,
                accepted,
                promoted,
            }),
            outcome => Err(unexpected("set limit", &outcome)),
        }
    }

    /// Starts nothing in a repository from now on, whatever its limit: what runs goes on, and what
    /// comes is queued, and hears why. Paused already, it gets another reason.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn pause(
        &self,
        repository: &RepositoryKey,
        reason: Option<Reason>,
    ) -> Result<PauseChange, Error> {
        self.pause_if(repository, reason, PauseCondition::Always)
            .await
    }

    /// Like [`Self::pause`], where the condition holds when the commit is judged. Not `accepted` where it
    /// does not.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn pause_if(
        &self,
        repository: &RepositoryKey,
        reason: Option<Reason>,
        only_if: PauseCondition,
    ) -> Result<PauseChange, Error> {
        self.change_pause(repository, Command::Pause { reason, only_if })
            .await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn resume(&self, repository: &RepositoryKey) -> Result<PauseChange, Error> {
        self.resume_if(repository, PauseCondition::Always).await
    }

    /// Like [`Self::resume`], where the condition holds when the commit is judged. Not `accepted` where it
    /// does not.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn resume_if(
        &self,
        repository: &RepositoryKey,
        only_if: PauseCondition,
    ) -> Result<PauseChange, Error> {
        self.change_pause(repository, Command::Resume { only_if })
            .await
    }

    async fn change_pause(
        &self,
        repository: &RepositoryKey,
        command: Command,
    ) -> Result<PauseChange, Error> {
        let cell = self.find(repository, "pause")?;
        match self.ask(&cell, command).await?.outcome {
            Outcome::Paused {
                before,
                accepted,
                promoted,
            } => Ok(PauseChange {
                before,
                accepted,
                promoted,
            }),
            outcome => Err(unexpected("pause", &outcome)),
        }
    }

    /// Ends a run, waiting or running, whoever admitted it. Without a uid, whichever run bears
    /// the name.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn cancel(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: Option<&Uid>,
    ) -> Result<Ending, Error> {
        self.cancel_as(repository, run, uid, Cancellation::AtOnce)
            .await
    }

    /// Asks a run to end, whoever admitted it: its holder hears of it
    /// ([`Lease::cancel_requested`](super::Lease::cancel_requested)), and the slot is its own until it
    /// is released. A run that waits ends at once. Without a uid, whichever run bears the name.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn request_cancel(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: Option<&Uid>,
    ) -> Result<Ending, Error> {
        self.cancel_as(repository, run, uid, Cancellation::Ask)
            .await
    }

    /// Ends a run, or asks it to end. How is judged in the commit: a run that starts in that instant
    /// is not taken for a waiting one.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn cancel_as(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: Option<&Uid>,
        how: Cancellation,
    ) -> Result<Ending, Error> {
        let command = Command::Cancel {
            run: run.clone(),
            uid: uid.cloned(),
            how,
        };
        self.end(&self.find(repository, "cancel")?, command, "cancel")
            .await
    }

    /// Ends many runs of a repository, or asks them to end: those that are there when the commit is
    /// judged. One commit, unless they are more than fit into it: then those that are there when each
    /// is.
    ///
    /// # Errors
    /// Those common to all commands; a part of the runs may have ended then.
    pub async fn cancel_all(
        &self,
        repository: &RepositoryKey,
        which: &Which,
        how: Cancellation,
    ) -> Result<Swept, Error> {
        let cell = self.find(repository, "cancel")?;
        let mut swept = Swept::default();
        for _ in 0..ROUNDS {
            let which = which.clone();
            let command = Command::CancelAll { which, how };
            match self.ask(&cell, command).await?.outcome {
                Outcome::Swept { affected, promoted } => {
                    // Else it was all of them, and what comes from now on was not meant.
                    let more = affected.len() >= self.engine().store.entry_budget();
                    swept.affected.extend(affected);
                    swept.promoted.extend(promoted);
                    if !more {
                        break;
                    }
                }
                outcome => return Err(unexpected("cancel", &outcome)),
            }
        }
        // What started in place of an earlier one may have ended with a later commit.
        let Swept { affected, promoted } = &mut swept;
        promoted.retain(|run| !affected.contains(run));
        Ok(swept)
    }

    /// Moves a waiting run within the queue, whoever admitted it; it stays there when its owner admits
    /// it again. Says where the run stands then. Without a uid, whichever run bears the name.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn bump(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: Option<&Uid>,
        to: Bump,
    ) -> Result<RunStatus, Error> {
        let cell = self.find(repository, "bump")?;
        let command = Command::Bump {
            run: run.clone(),
            uid: uid.cloned(),
            to,
        };
        let reply = self.ask(&cell, command).await?;
        Ok(match (reply.waits, reply.entry) {
            (Some(waits), _) => RunStatus::Queued(*waits),
            (None, Some(entry)) if uid.is_none_or(|uid| entry.uid == *uid) => {
                RunStatus::of_entry(&entry)
            }
            _ => RunStatus::Unknown,
        })
    }
}
