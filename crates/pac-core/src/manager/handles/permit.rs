//! A slot in one line: for callers that need neither names nor leases of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::admission::{Admission, Ending};
use super::lease::{Lease, Lost};
use super::turn::Turn;
use crate::error::{Error, ErrorKind};
use crate::event::LeaseLoss;
use crate::manager::ConcurrencyManager;
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::protocol::{Command, RunRequest};
use crate::state::{RunOutcome, Weight};
use crate::value::FencingToken;

/// A slot of a repository, given back when this is dropped: as *completed*, as *failed* when
/// that is because of a panic, or as [`set_outcome`](Self::set_outcome) says.
///
/// Giving it back needs no runtime, and is tried until it succeeds. [`release`](Self::release)
/// waits for it.
#[derive(Debug)]
#[must_use = "dropping a permit gives the slot back"]
pub struct Permit {
    /// Disarmed: dropping it does nothing.
    lease: Lease,
    manager: ConcurrencyManager,
    outcome: RunOutcome,
    released: bool,
}

impl Permit {
    fn new(manager: &ConcurrencyManager, mut lease: Lease) -> Self {
        lease.disarm();
        Self {
            lease,
            manager: manager.clone(),
            outcome: RunOutcome::Completed,
            released: false,
        }
    }

    /// The fencing token: hand it to whatever the work writes to, and have older ones refused.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.lease.token()
    }

    /// The lease behind it, with the name that was made up for the run.
    #[must_use = "the lease only shows what the permit holds"]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What is ready as soon as the slot is no longer held: see [`Lease::lost`].
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.lease.lost()
    }

    /// Whether this process may still act as the holder: see [`ConcurrencyManager::holds`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.manager.holds(&self.lease)
    }

    /// How the work ended, as the history is to show it. *Completed* unless this is called.
    pub fn set_outcome(&mut self, outcome: RunOutcome) {
        self.outcome = outcome;
    }

    /// Gives the slot back; the next one in the queue has it in the same commit.
    ///
    /// Dropped before it is ready, it is carried out in the background.
    ///
    /// # Errors
    /// Those common to all commands. The slot is given back in the background all the same.
    pub async fn release(mut self) -> Result<Ending, Error> {
        let command = release_of(&self.lease, self.outcome);
        let cell = self.lease.cell();
        let ending = self.manager.end(cell, command, "release").await?;
        self.released = true;
        Ok(ending)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let outcome = if std::thread::panicking() {
            RunOutcome::Failed
        } else {
            self.outcome
        };
        let command = release_of(&self.lease, outcome);
        self.manager.engine().send(self.lease.cell(), command);
    }
}

fn release_of(lease: &Lease, outcome: RunOutcome) -> Command {
    Command::Release {
        run: lease.run().clone(),
        uid: lease.uid().clone(),
        token: Some(lease.token()),
        outcome,
    }
}

/// What is told when a slot was lost before the work was done.
pub(super) fn lost_at_work(why: LeaseLoss) -> Error {
    let kind = match why {
        LeaseLoss::Ended(_) | LeaseLoss::TakenOver => ErrorKind::RunEnded,
        LeaseLoss::NotRenewed | LeaseLoss::SessionLost => ErrorKind::SessionLost,
        LeaseLoss::Closed => ErrorKind::Closed,
    };
    let message = format!("the slot was lost before the work was done: {why}");
    Error::new(kind, "hold", message)
}

impl ConcurrencyManager {
    /// Waits for a slot, for as long as it takes, and holds it until the permit is dropped. The
    /// name and uid of the run are made up; it ends with this process.
    ///
    /// Dropped before it is ready, it leaves nothing behind.
    ///
    /// # Errors
    /// Those common to all commands, and those of awaiting a [`Waiter`](super::waiter::Waiter);
    /// `RunEnded` when an operator ended the run while it waited, or removed its repository.
    pub async fn acquire(&self, repository: &RepositoryKey) -> Result<Permit, Error> {
        self.acquire_slots(repository, Weight::ONE).await
    }

    /// The same for several slots at once: all in one step, or none. See
    /// [`RunRequest::with_weight`].
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); `InvalidInput` when there are not as many slots, taken or not.
    pub async fn acquire_slots(
        &self,
        repository: &RepositoryKey,
        weight: Weight,
    ) -> Result<Permit, Error> {
        let admission = self.admit_nameless(repository, weight).await?;
        self.permit(repository, admission.turn().await?)
    }

    /// The same, but waits in the queue no longer than until `timeout` after this call; `None`
    /// when the slot did not come by then. Giving the place up costs one more commit. The answers
    /// to the admission and to that are waited for in any case, each for up to the command timeout.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and [`Waiter::wait_for`](super::waiter::Waiter::wait_for).
    pub async fn acquire_timeout(
        &self,
        repository: &RepositoryKey,
        timeout: Duration,
    ) -> Result<Option<Permit>, Error> {
        self.acquire_slots_timeout(repository, Weight::ONE, timeout)
            .await
    }

    /// The same for several slots at once: see [`acquire_slots`](Self::acquire_slots).
    ///
    /// # Errors
    /// As [`acquire_slots`](Self::acquire_slots), and [`Waiter::wait_for`](super::waiter::Waiter::wait_for).
    pub async fn acquire_slots_timeout(
        &self,
        repository: &RepositoryKey,
        weight: Weight,
        timeout: Duration,
    ) -> Result<Option<Permit>, Error> {
        let since = Instant::now();
        match self.admit_nameless(repository, weight).await? {
            Admission::Queued(waiter) => match waiter
                .wait_for(timeout.saturating_sub(since.elapsed()))
                .await?
            {
                Some(turn) => self.permit(repository, turn).map(Some),
                None => Ok(None),
            },
            admission => self.permit(repository, admission.turn().await?).map(Some),
        }
    }

    /// A slot if one is free now and nobody waits for it; else `None`. Costs one commit, and a
    /// second one where there is none: the place in the queue is given up at once.
    ///
    /// # Errors
    /// As [`acquire_timeout`](Self::acquire_timeout).
    pub async fn try_acquire(&self, repository: &RepositoryKey) -> Result<Option<Permit>, Error> {
        self.acquire_timeout(repository, Duration::ZERO).await
    }

    /// Does `work` while holding a slot, and gives that back: as completed, as failed after a
    /// panic, as cancelled when this is dropped. The work is dropped when the slot is lost.
    ///
    /// ```no_run
    /// # async fn example(manager: &pac_core::manager::ConcurrencyManager) -> Result<(), pac_core::Error> {
    /// let website = "ci/website".parse()?;
    /// let answer = manager.with_slot(&website, async { 6 * 7 }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); and when the slot was lost before the work was done:
    /// `SessionLost` with its session, `RunEnded` when another process ended the run, `Closed`
    /// with the manager. A slot that could not be given back in time is no error: that goes on being tried.
    pub async fn with_slot<T>(
        &self,
        repository: &RepositoryKey,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let mut permit = self.acquire(repository).await?;
        permit.set_outcome(RunOutcome::Cancelled);
        let done = tokio::select! {
            biased;
            // Before the work is polled, so that it never goes on after a stop of this process.
            why = permit.lost() => return Err(lost_at_work(why).in_repository(repository)),
            done = work => done,
        };
        permit.set_outcome(RunOutcome::Completed);
        if let Err(error) = permit.release().await {
            tracing::debug!(%error, "the slot is given back in the background");
        }
        Ok(done)
    }

    async fn admit_nameless(
        &self,
        repository: &RepositoryKey,
        weight: Weight,
    ) -> Result<Admission, Error> {
        // Unique at the store: a session's number is never used again.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (session, number) = (self.session(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("permit-{session}-{number}");
        let run = PipelineRunKey::new(repository.namespace(), &name)?;
        let uid: Uid = name.parse()?;
        let request = RunRequest::ephemeral(run, uid);
        self.admit(repository, request.with_weight(weight)).await
    }

    fn permit(&self, repository: &RepositoryKey, turn: Turn) -> Result<Permit, Error> {
        let why = match turn {
            Turn::Started(lease) => return Ok(Permit::new(self, lease)),
            Turn::Ended(outcome) => format!("its run was ended as {outcome} while it waited"),
            Turn::TakenOver => "its run was taken over".to_owned(),
            Turn::Gone => {
                "the repository was removed while it waited, or the store was set back to a \
                           time before it waited: ask again"
                    .to_owned()
            }
        };
        Err(Error::new(ErrorKind::RunEnded, "acquire", why).in_repository(repository))
    }
}
