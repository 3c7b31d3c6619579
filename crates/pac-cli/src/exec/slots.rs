//! Takes the slots that an invocation asks for, one repository after the other.

use pac_concurrency::{
    Admission, ConcurrencyManager, Lease, LeaseLoss, Limit, Priority, RepositoryKey, RunOutcome,
    RunRequest, Turn,
};
use tokio::time::Instant;

use super::held::{Held, Outer};
use super::patience::{Patience, Stop};
use super::queue::{Queue, Waited};
use super::{Args, name};
use crate::exit::{Exit, Failure};
use crate::output::note;

/// What has become of one attempt.
enum Attempt<T> {
    Had(T),
    /// The store has lost a place or a slot that this invocation had.
    Again,
}

/// Takes a slot of each repository, in the one order that all who ask keep to: that of their
/// names. So of those who ask for several, nobody waits for one who waits for him.
///
/// What is held when this fails is given back by the drop of its leases.
pub(super) async fn take(
    args: &Args,
    outer: &Outer,
    manager: &ConcurrencyManager,
    patience: &mut Patience,
) -> Result<Held, Stop> {
    let mut wanted = Vec::new();
    for repository in &args.repositories {
        match patience.ask(outer.holder(repository, manager)).await? {
            None => wanted.push(repository),
            Some(_) if args.reentrant => {}
            Some(run) => return Err(waits_for_itself(repository, run).into()),
        }
    }
    wanted.sort_unstable();
    let mut taking = Taking {
        args,
        manager,
        queue: Queue::new(manager.events()),
        rewinds: manager.health().rewinds,
        held: Held::default(),
    };
    let taken = taking.all(&wanted, patience).await;
    taking.queue.finish();
    taken.map(|()| taking.held)
}

fn waits_for_itself(repository: &RepositoryKey, run: &impl std::fmt::Display) -> Failure {
    let message = format!(
        "this command runs in a slot of {repository} already, that of {run}, and would wait for \
         itself: take the inner `pac exec` out, say --reentrant to run within the slot that is \
         held, or unset PAC_HELD to take another one"
    );
    Failure::new(Exit::Usage, message)
}

struct Taking<'a> {
    args: &'a Args,
    manager: &'a ConcurrencyManager,
    queue: Queue,
    /// How often the store had gone back in time.
    rewinds: u64,
    held: Held,
}

impl Taking<'_> {
    async fn all(
        &mut self,
        wanted: &[&RepositoryKey],
        patience: &mut Patience,
    ) -> Result<(), Stop> {
        'anew: loop {
            for repository in wanted {
                match self.one(repository, patience).await? {
                    Attempt::Had(lease) => self.held.add(lease),
                    Attempt::Again => {
                        // Those who were waited for with them may be held by others by now.
                        self.held = Held::default();
                        continue 'anew;
                    }
                }
            }
            return Ok(());
        }
    }

    async fn one(
        &mut self,
        repository: &RepositoryKey,
        patience: &mut Patience,
    ) -> Result<Attempt<Lease>, Stop> {
        let args = self.args;
        let may_start = patience.ask(self.announce_limit(repository)).await?;
        if args.no_wait && !may_start {
            return Err(args.no_slot(repository).into());
        }
        let deadline = if args.no_wait {
            Some(Instant::now())
        } else {
            patience.deadline
        };
        let waiter = match patience.ask(self.admit(repository)).await? {
            Admission::Started(lease) => return Ok(Attempt::Had(lease)),
            Admission::Queued(waiter) => waiter,
            Admission::Finished(outcome) => {
                let message = format!("the run {outcome} before");
                return Err(Failure::new(Exit::NoSlot, message).into());
            }
        };
        let waited = self
            .queue
            .wait(
                repository,
                waiter,
                &self.held,
                deadline,
                &mut patience.signals,
            )
            .await?;
        let ended = |how: String| Err(Failure::new(Exit::NoSlot, how).into());
        match waited {
            Waited::Turn(Turn::Started(lease)) => Ok(Attempt::Had(lease)),
            // An outage in which the store keeps the session costs no place: the waiter waits on.
            Waited::Turn(Turn::Ended(RunOutcome::Expired)) | Waited::PlaceLost => {
                note("the store has ended this session: the place is lost, queueing again");
                Ok(Attempt::Again)
            }
            Waited::HeldLost(_, LeaseLoss::NotRenewed | LeaseLoss::SessionLost) => {
                note("the session was not renewed: what was held is lost, queueing again");
                Ok(Attempt::Again)
            }
            Waited::HeldLost(held, why) => ended(format!(
                "the slot of {held} was lost while {repository} was waited for: {why}"
            )),
            Waited::Turn(Turn::Ended(outcome)) => {
                ended(format!("somebody ended the run while it waited: {outcome}"))
            }
            Waited::Turn(Turn::Gone) if self.manager.health().rewinds != self.rewinds => {
                self.rewinds = self.manager.health().rewinds;
                note("the store has gone back in time and lost the place: queueing again");
                Ok(Attempt::Again)
            }
            Waited::Turn(Turn::Gone | Turn::TakenOver) => {
                ended(format!("{repository} was removed while the run waited"))
            }
        }
    }

    /// Sets the limit if necessary: also of a store that has lost a place, and may have lost the
    /// limit too. Returns whether a run that arrived now would start at once.
    async fn announce_limit(&self, repository: &RepositoryKey) -> Result<bool, Failure> {
        let status = self.manager.status(repository).await?;
        let running = u32::try_from(status.running.len()).unwrap_or(u32::MAX);
        let mut in_force = status.limit;
        match self.args.limit.map(Limit::new) {
            None if in_force == Limit::UNLIMITED => {
                let message = format!(
                    "{repository} has no limit; say --limit N, or set one with `pac limit \
                     {repository} N`"
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            Some(limit) if limit != in_force && status.limit_version.is_some() => {
                note(format_args!(
                    "the limit of {repository} is {in_force}, as a controller announced it; \
                     --limit {limit} is ignored"
                ));
            }
            Some(limit) if limit != in_force => {
                self.manager.set_limit(repository, limit, None).await?;
                if status.exists {
                    note(format_args!(
                        "the limit of {repository} was {in_force} and is {limit} now"
                    ));
                }
                in_force = limit;
            }
            None | Some(_) => {}
        }
        Ok(status.queued.is_empty() && in_force.admits(running))
    }

    /// Asks for a slot. After a lost place this is never refused for what the run had before: the
    /// manager ends the entries of its own former session.
    async fn admit(&self, repository: &RepositoryKey) -> Result<Admission, Failure> {
        let run = match &self.args.run {
            Some(run) => run.clone(),
            None => name::unique(repository.namespace())?,
        };
        let priority = Priority::new(self.args.priority);
        let request = RunRequest::ephemeral(run, name::uid()?).with_priority(priority);
        Ok(self.manager.admit(repository, request).await?)
    }
}
