//! Takes the slots that an invocation asks for, one repository after the other.

use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, Error, Lease, LeaseLoss, Limit, Priority, RepositoryKey,
    RunOutcome, RunRequest, Turn,
};
use tokio::time::{Instant, sleep};

use super::held::{Held, Slot, still_held};
use super::patience::{Patience, Stop};
use super::queue::{Queue, Waited};
use super::{Args, name};
use crate::exit::{Exit, Failure};
use crate::output::note;

/// Between two looks whether there is a session again.
const LOOK: Duration = Duration::from_millis(100);

/// What has become of one attempt.
enum Attempt<T> {
    Had(T),
    /// The store has lost a place or a slot that this invocation had.
    Again,
}

/// Takes a slot of each repository, in the one order that all who ask keep to: that of their
/// names. So of those who ask for several at once, nobody waits for one who waits for him.
///
/// What is held when this fails is given back by the drop of its leases.
pub(super) async fn take(
    args: &Args,
    listed: &[Slot],
    manager: &ConcurrencyManager,
    patience: &mut Patience,
) -> Result<Held, Stop> {
    let around = patience.ask(still_held(listed, manager)).await?;
    let slot_of = |one: &RepositoryKey| around.iter().find(|(slot, _)| slot.repository == *one);
    let mut wanted = Vec::new();
    for repository in &args.repositories {
        match slot_of(repository) {
            None => wanted.push(repository),
            Some(_) if args.reentrant => {}
            Some((slot, _)) => return Err(within_itself(slot).into()),
        }
    }
    wanted.sort_unstable();
    if let Some(first) = wanted.first()
        && let Some((later, _)) = around.iter().find(|(slot, _)| slot.repository > **first)
        && args.waits_without_end()
    {
        return Err(out_of_order(first, &later.repository).into());
    }
    let mut taking = Taking {
        args,
        manager,
        queue: Queue::new(manager.events()),
        rewinds: manager.health().rewinds,
        held: Held {
            around,
            own: Vec::new(),
        },
    };
    taking.all(&wanted, patience).await?;
    Ok(taking.held)
}

fn within_itself(slot: &Slot) -> Failure {
    let message = format!(
        "this command runs in a slot of {} already, that of {}, and could wait for itself: take \
         the inner `pac exec` out, say --reentrant to run within the slot that is held, or unset \
         PAC_HELD to take another one",
        slot.repository, slot.run
    );
    Failure::new(Exit::Usage, message)
}

fn out_of_order(wanted: &RepositoryKey, held: &RepositoryKey) -> Failure {
    let message = format!(
        "this command runs in a slot of {held}, and slots are taken in the order of their names: \
         one that holds {wanted} and waits for {held} would wait for this one, and this one for \
         it; name both in one `pac exec`, or say --wait-timeout"
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
            // What cannot be had is found out before anything is waited for.
            for repository in wanted {
                let may_start = patience.ask(self.announce_limit(repository)).await?;
                if self.args.no_wait && !may_start {
                    return Err(self.args.no_slot(repository).into());
                }
            }
            for repository in wanted {
                let mut attempt = self.one(repository, patience).await?;
                // Nobody looked while the store was asked.
                if let Some((held, why)) = self.held.lost().reason() {
                    attempt = lost_beside(held, why, repository)?;
                }
                match attempt {
                    Attempt::Had(lease) => self.held.own.push(lease),
                    Attempt::Again => {
                        self.held.own.clear();
                        patience.ask(session(self.manager)).await?;
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
        let deadline = if self.args.no_wait {
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
        let (held, signals) = (&self.held, &mut patience.signals);
        let waited = self.queue.wait(repository, waiter, held, deadline, signals);
        let waited = waited.await;
        self.queue.finish();
        match waited? {
            Waited::Turn(Turn::Started(lease)) => Ok(Attempt::Had(lease)),
            // An outage in which the store keeps the session costs no place: the waiter waits on.
            Waited::Turn(Turn::Ended(RunOutcome::Expired)) | Waited::PlaceLost => {
                note("the store has ended this session: the place is lost, queueing again");
                Ok(Attempt::Again)
            }
            Waited::HeldLost(held, why) => lost_beside(&held, why, repository),
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
                let or = match self.args.repositories.len() {
                    1 => "say --limit N, or ",
                    _ => "",
                };
                let message = format!(
                    "{repository} has no limit; {or}set one with `pac limit {repository} N`"
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

fn ended(how: String) -> Result<Attempt<Lease>, Stop> {
    Err(Failure::new(Exit::NoSlot, how).into())
}

/// A slot is lost that was held while another one was waited for.
fn lost_beside(
    held: &RepositoryKey,
    why: LeaseLoss,
    waited_for: &RepositoryKey,
) -> Result<Attempt<Lease>, Stop> {
    match why {
        LeaseLoss::NotRenewed | LeaseLoss::SessionLost => {
            note("the session was not renewed: what was held is lost, queueing again");
            Ok(Attempt::Again)
        }
        why => ended(format!(
            "the slot of {held} was lost while {waited_for} was waited for: {why}"
        )),
    }
}

/// Waits until the manager has a session that is renewed. Cancel-safe.
async fn session(manager: &ConcurrencyManager) -> Result<(), Error> {
    while manager.health().session_remaining.is_zero() {
        sleep(LOOK).await;
    }
    Ok(())
}
