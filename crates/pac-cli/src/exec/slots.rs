//! Takes the slots that an invocation asks for, one repository after the other.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use pac_concurrency::{
    Admission, Claim, ConcurrencyManager, Error, ErrorKind, Lease, LeaseLoss, Limit, Owner, Paused,
    QueuedRun, RepositoryKey, RulesChange, RunOutcome, RunStatus, SlotNames, Turn, WaitReason,
    Weight,
};
use tokio::time::{Instant, sleep};

use super::args::{Args, Wanted};
use super::held::{Held, Slot, still_held};
use super::patience::{Patience, Stop};
use super::queue::{Queue, Waited};
use crate::exit::{Exit, Failure};
use crate::limit::rules::set_by;
use crate::output::note;
use crate::process::named;

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
    let slot_of = |one: &RepositoryKey| around.iter().find(|held| held.slot.repository == *one);
    let mut wanted = Vec::new();
    for one in &args.wanted {
        match slot_of(&one.repository) {
            None => wanted.push(one),
            Some(held) if args.reentrant => match args.weight_of(one) {
                asked if asked > held.weight => {
                    return Err(heavier_than_it_is(&held.slot, held.weight, asked).into());
                }
                _ => {}
            },
            Some(held) => return Err(within_itself(&held.slot).into()),
        }
    }
    wanted.sort_unstable_by_key(|one| &one.repository);
    if let Some(first) = wanted.first()
        && let Some(later) = around
            .iter()
            .find(|held| held.slot.repository > first.repository)
        && args.waits_without_end()
    {
        return Err(out_of_order(&first.repository, &later.slot.repository).into());
    }
    let mut taking = Taking {
        args,
        manager,
        queue: Queue::new(manager.events()),
        rewinds: manager.health().rewinds,
        asked: BTreeSet::new(),
        told: false,
        may_be_named: !around.is_empty(),
        held: Held {
            around,
            own: Vec::new(),
            names: None,
        },
    };
    taking.all(&wanted, patience).await?;
    let names = patience.ask_holding(taking.names()).await?;
    taking.held.names = names;
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

fn heavier_than_it_is(slot: &Slot, held: Weight, asked: Weight) -> Failure {
    let message = format!(
        "this command runs in {held} of the slots of {}, those of {}, and --reentrant runs within them: it \
         cannot have {asked}; have the outer `pac exec` take as many",
        slot.repository, slot.run
    );
    Failure::new(Exit::Usage, message)
}

fn out_of_order(wanted: &RepositoryKey, held: &RepositoryKey) -> Failure {
    let message = format!(
        "this command runs in a slot of {held}, and slots are taken in the order of their names: \
         one that holds {wanted} and waits for {held} would wait for this one, and this one for \
         it; name both in one `pac exec`, or say --wait-timeout or --max-wait"
    );
    Failure::new(Exit::Usage, message)
}

struct Taking<'a> {
    args: &'a Args,
    manager: &'a ConcurrencyManager,
    queue: Queue,
    /// How often the store had gone back in time.
    rewinds: u64,
    /// The repositories in which the run has been admitted before.
    asked: BTreeSet<RepositoryKey>,
    /// That another limit is in force has been said.
    told: bool,
    /// The slots of the repository that was named first may have names.
    may_be_named: bool,
    held: Held,
}

impl Taking<'_> {
    async fn all(&mut self, wanted: &[&Wanted], patience: &mut Patience) -> Result<(), Stop> {
        'anew: loop {
            // What cannot be had is found out before anything is waited for.
            for one in wanted {
                let would_wait = patience.ask(self.propose_limit(one)).await?;
                if let Some(Full(pause)) = would_wait
                    && self.args.no_wait
                {
                    return Err(self.args.no_slot(&one.repository, pause).into());
                }
            }
            for one in wanted {
                let repository = &one.repository;
                let mut attempt = self.one(one, patience).await?;
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
        wanted: &Wanted,
        patience: &mut Patience,
    ) -> Result<Attempt<Lease>, Stop> {
        let repository = &wanted.repository;
        let deadline = if self.args.no_wait {
            Some(Instant::now())
        } else {
            patience.deadline
        };
        let admitted = patience.ask(self.admit(wanted)).await?;
        // Asked for once more, it is not the newest of its group any more, also where it never waited.
        self.asked.insert(repository.clone());
        let waiter = match admitted {
            Admission::Started(lease) => return Ok(Attempt::Had(lease)),
            Admission::Queued(waiter) => {
                if let Some(queue) = waiter.queue() {
                    self.compare_limit(repository, queue.limit, queue.owner);
                }
                waiter
            }
            Admission::Finished(outcome) => {
                let message = format!("the run {outcome} before");
                return Err(Failure::new(Exit::NoSlot, message).into());
            }
        };
        self.may_be_named = true;
        let (held, signals) = (&self.held, &mut patience.signals);
        let weight = self.args.weight_of(wanted);
        let queue = &mut self.queue;
        let waited = queue.wait(repository, waiter, weight, held, deadline, signals);
        let waited = waited.await;
        self.queue.finish();
        match waited? {
            Waited::Turn(Turn::Started(lease)) => Ok(Attempt::Had(lease)),
            // An outage in which the store keeps the session costs no place: the waiter waits on.
            Waited::Turn(Turn::Ended(RunOutcome::LeaseLost)) | Waited::PlaceLost => {
                note("the store has ended this session: the place is lost, queueing again");
                Ok(Attempt::Again)
            }
            Waited::HeldLost(held, why) => lost_beside(&held, why, repository),
            Waited::HeldAsked(held) => {
                let all = std::mem::take(&mut self.held);
                let outcome = all.outcome_of_asked(&held);
                if let Err(error) = all.release(self.manager, outcome).await {
                    note(format_args!(
                        "{error}; what is held is freed with the session"
                    ));
                }
                ended(format!(
                    "the run of {held} was asked to end while {repository} was waited for; it has ended \
                     as {outcome}"
                ))
            }
            Waited::Turn(Turn::Ended(RunOutcome::Superseded)) => {
                ended("superseded: a newer run of its group has taken its place".to_owned())
            }
            Waited::Turn(Turn::Ended(RunOutcome::TimedOut)) => {
                ended(format!("no slot of {repository} was had within --max-wait"))
            }
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

    /// Proposes the limit if another is in force: also of a store that has lost a place, and may have
    /// lost the limit too. Returns why a run that arrived now would wait, if it would.
    async fn propose_limit(&mut self, wanted: &Wanted) -> Result<Option<Full>, Failure> {
        let repository = &wanted.repository;
        let status = self.manager.status(repository).await?;
        if self.args.first() == Some(repository) {
            self.may_be_named |= status.rules.slots.is_some();
        }
        let mut in_force = status.limit;
        match self.args.limit.map(Limit::new) {
            // None is what an operator wants here.
            None if status.owner == Some(Owner::Pinned) => {}
            None if in_force == Limit::UNLIMITED => {
                let or = match self.args.wanted.len() {
                    1 => "say --limit N, or ",
                    _ => "",
                };
                let message = format!(
                    "{repository} has no limit; {or}set one with `pac limit {repository} N`"
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            Some(limit) if limit != in_force => {
                let rules = RulesChange::limit(limit);
                let proposed = self.manager.set_rules(repository, rules, Claim::Propose);
                let proposed = proposed.await?;
                self.compare_limit(repository, proposed.limit, proposed.owner);
                if proposed.limit == limit && status.owner.is_some() {
                    note(format_args!(
                        "the limit of {repository} was {in_force} and is {limit} now"
                    ));
                }
                in_force = proposed.limit;
            }
            None | Some(_) => {}
        }
        let weight = self.args.weight_of(wanted).get();
        let fits = in_force.admits_all(status.slots_taken, weight.into());
        let is_before = |other: &QueuedRun| {
            let is_passed_over = matches!(other.reason, WaitReason::TooHeavy { .. });
            !is_passed_over && other.priority >= self.args.priority()
        };
        let may_pass = status.rules.backfill.is_some() || !status.queued.iter().any(is_before);
        if status.pause.is_none() && may_pass && fits {
            return Ok(None);
        }
        Ok(Some(Full(status.pause)))
    }

    /// Says so once where another limit than the one that was asked for is in force: it was announced or pinned,
    /// or the run came into the queue after another proposal.
    fn compare_limit(&mut self, repository: &RepositoryKey, limit: Limit, owner: Option<Owner>) {
        let asked = self.args.limit.map(Limit::new);
        if let Some(asked) = asked.filter(|asked| *asked != limit && !self.told) {
            self.told = true;
            note(format_args!(
                "the limit of {repository} is {limit}, {}; --limit {asked} is not in force",
                set_by(owner)
            ));
        }
    }

    /// Asks for a slot. After a lost place this is never refused for what the run had before: the
    /// manager ends the entries of its own former session.
    async fn admit(&self, wanted: &Wanted) -> Result<Admission, Failure> {
        let repository = &wanted.repository;
        let again = self.asked.contains(repository);
        let request = self.args.request(wanted, again)?;
        let error = match self.manager.admit(repository, request).await {
            Ok(admission) => return Ok(admission),
            Err(error) => error,
        };
        Err(match error.kind() {
            ErrorKind::Skipped => did_not_run(Exit::NoSlot, &error),
            ErrorKind::QueueFull => {
                let message = format!("{error}, or see `pac limit {repository}`");
                did_not_run(Exit::QueueFull, message)
            }
            ErrorKind::NameInUse => self.name_in_use(repository, error).await,
            _ => error.into(),
        })
    }

    /// Another live run has the name: says whose it is.
    async fn name_in_use(&self, repository: &RepositoryKey, error: Error) -> Failure {
        let Some(run) = &self.args.run else {
            return error.into();
        };
        let session = match self.manager.run_status(repository, run).await {
            Ok(RunStatus::Started(run)) => Some(run.session),
            Ok(RunStatus::Queued(run)) => run.owner,
            // It has just ended, or the store does not tell.
            _ => None,
        };
        let Some(session) = session else {
            return error.into();
        };
        let holder = named(self.manager, session).await;
        let message = format!(
            "{run} is in use in {repository}, by {holder}: choose another name, or wait until that run \
             has ended"
        );
        did_not_run(Exit::NameInUse, message)
    }

    /// Reads what is to be told of the repository that was named first: the names of its slots, and whether
    /// the limit that was asked for is in force, since between the proposal and the admission another one may
    /// have come.
    async fn names(&mut self) -> Result<Option<SlotNames>, Error> {
        let Some(first) = self.args.first() else {
            return Ok(None);
        };
        if !self.may_be_named && self.args.limit.is_none() {
            return Ok(None);
        }
        let status = match self.manager.status(first).await {
            Ok(status) => status,
            Err(error) if self.may_be_named => return Err(error),
            // The slot is had, and the command needs nothing of this.
            Err(_) => return Ok(None),
        };
        self.compare_limit(first, status.limit, status.owner);
        Ok(status.rules.slots)
    }
}

fn did_not_run(exit: Exit, why: impl Display) -> Failure {
    Failure::new(exit, format!("{why}; the command did not run"))
}

/// A run that arrived now would wait: others wait before it or run, or the repository is paused.
struct Full(Option<Paused>);

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
