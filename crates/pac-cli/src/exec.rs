//! `pac exec`: runs a command while holding a slot.

mod args;
mod child;
pub(crate) mod contained;
mod environment;
#[cfg(target_os = "linux")]
mod family;
#[cfg(not(target_os = "linux"))]
#[path = "exec/elsewhere.rs"]
mod family;
mod grace;
pub(crate) mod guarded;
mod held;
mod help;
mod name;
mod patience;
mod processes;
mod queue;
mod renewals;
mod signals;
mod slots;
mod terminal;

use std::fmt::Display;
use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use pac_concurrency::{ConcurrencyManager, Error, ErrorKind, RunOutcome, Settings};
use tokio::time::{Instant, sleep};

use crate::exit::{Exit, Failure};
use crate::output::note;
use crate::store;
pub(crate) use args::Args;
use child::{Child, Over, Start};
use family::Family;
use held::{Held, Slot};
use patience::{Patience, Stop, until};
use signals::Signals;

/// How long the store may take to be told of the end when a signal or `--wait-timeout` asks for
/// it. What it has not heard by then ends with the session.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Between two attempts at a store that has no room for another client.
const FULL: Duration = Duration::from_millis(500);

/// Waits for a slot, runs the command while holding it, and gives the slot back.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<ExitCode, Failure> {
    let (settings, times) = args.settings(settings.clone())?;
    // On this thread: the kernel kills the command when the *thread* that started it ends.
    store::block_on(exec(args, &settings, times)).map(ExitCode::from)
}

async fn exec(args: &Args, settings: &Settings, times: Times) -> Result<u8, Failure> {
    if args.contain {
        // What is missing is said before the wait.
        Family::gather()?;
    }
    let listed = held::listed()?;
    let mut patience = Patience {
        signals: Signals::install()?,
        deadline: args.deadline(),
    };
    let ended = match args.connected(settings, &mut patience).await {
        Ok(manager) => {
            let ended = with_slots(args, &listed, &manager, times, &mut patience).await;
            let in_haste = matches!(
                ended,
                Err(Stop::Signal(_) | Stop::TimedOut(_) | Stop::Unanswered)
            );
            close(&manager, in_haste.then_some(TOLD_WITHIN), times.ttl).await;
            ended
        }
        Err(stop) => Err(stop),
    };
    match ended {
        Ok(Done::Ran(code)) => Ok(code),
        Ok(Done::Within(held)) => Ok(args.become_the_command(&held)),
        Err(Stop::Signal(signal)) => Ok(signals::exit_code(signal)),
        Err(Stop::TimedOut(repository)) => Err(args.no_slot(&repository, None)),
        Err(Stop::Unanswered) => Err(args.unanswered()),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// Closes the manager, and does not wait for that longer than `within`.
async fn close(manager: &ConcurrencyManager, within: Option<Duration>, ttl: Duration) {
    let deadline = within.and_then(|within| Instant::now().checked_add(within));
    let closed = tokio::select! {
        closed = manager.close() => closed.map_err(|error| error.to_string()),
        () = until(deadline) => Err("the store does not answer".to_owned()),
    };
    if let Err(why) = closed {
        note(format_args!(
            "{why}; what this process still has at the store is freed within {ttl:?}"
        ));
    }
}

async fn with_slots(
    args: &Args,
    listed: &[Slot],
    manager: &ConcurrencyManager,
    times: Times,
    patience: &mut Patience,
) -> Result<Done, Stop> {
    let held = slots::take(args, listed, manager, patience).await?;
    if held.own.is_empty() && !args.contain {
        return Ok(Done::Within(held));
    }
    let signals = &mut patience.signals;
    Ok(Done::Ran(args.hold(manager, held, times, signals).await?))
}

/// What an invocation has come to.
enum Done {
    /// Its command has ended with this code.
    Ran(u8),
    /// All its slots are held by the `pac exec` around it, which sees to it that the command ends
    /// with them: the command is yet to run in place of this process.
    Within(Held),
}

/// The times of the session that is held.
#[derive(Debug, Clone, Copy)]
struct Times {
    ttl: Duration,
    /// Between SIGTERM and SIGKILL.
    grace: Duration,
}

impl Args {
    /// Connects; waits for a store that has no room for another client as long as for a slot.
    async fn connected(
        &self,
        settings: &Settings,
        patience: &mut Patience,
    ) -> Result<ConcurrencyManager, Stop> {
        let mut full: Option<Error> = None;
        loop {
            let pause = if full.is_some() { FULL } else { Duration::ZERO };
            let connecting = async {
                sleep(pause).await;
                Ok::<_, Error>(pac_concurrency::connect(settings).await)
            };
            match patience.ask(connecting).await {
                Ok(Ok(manager)) => return Ok(manager),
                Ok(Err(why)) if why.kind() == ErrorKind::TooManyClients && !self.no_wait => {
                    if full.is_none() {
                        note(format_args!("{why}; waiting for it"));
                    }
                    full = Some(why);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(Stop::Unanswered) => return Err(self.unanswered_by(full.as_ref())),
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Runs the command while holding the slots.
    async fn hold(
        &self,
        manager: &ConcurrencyManager,
        held: Held,
        Times { ttl, grace }: Times,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        let renewals = renewals::tell(manager.events());
        let environment = held.environment(self.first());
        let start = Start {
            command: &self.command,
            environment: &environment,
            keeps_credentials: self.keep_credentials,
            family: self.contain.then(Family::gather).transpose()?,
        };
        let has_slots = !held.own.is_empty();
        let expiring = async {
            match has_slots {
                true => grace::expiring(manager, ttl, grace).await,
                // Those are of the `pac exec` around this one, which ends it if it has to.
                false => pending().await,
            }
        };
        let over = match Child::start(start) {
            Ok(child) => tokio::select! {
                over = child.run(held.lost(), held.asked(), expiring, grace, signals) => over,
                never = renewals => match never {},
            },
            Err(failure) => {
                held.release(manager, RunOutcome::Cancelled).await?;
                return Err(failure);
            }
        };
        match over {
            Over::Ended { code, success } => {
                let outcome = if success {
                    RunOutcome::Completed
                } else {
                    RunOutcome::Failed
                };
                match held.release(manager, outcome).await {
                    Ok(true) => Ok(code),
                    Ok(false) => Err(lost("somebody ended the run, or gave its slot to another")),
                    Err(error) => {
                        note(format_args!("{error}; the slot is freed within {ttl:?}"));
                        Ok(code)
                    }
                }
            }
            Over::Asked { repository } => {
                let outcome = held.outcome_of_asked(&repository);
                if let Err(error) = held.release(manager, outcome).await {
                    note(format_args!("{error}; the slot is freed within {ttl:?}"));
                }
                let message = format!("the run was asked to end; it has ended as {outcome}");
                Err(Failure::new(Exit::AskedToEnd, message))
            }
            Over::Lost(why) => Err(lost(why)),
            Over::InTime => Err(Failure::new(
                Exit::LeaseLost,
                "the command was ended: the session was not renewed in time to be sure of its lease",
            )),
        }
    }
}

fn lost(reason: impl Display) -> Failure {
    Failure::new(Exit::LeaseLost, format!("the lease was lost: {reason}"))
}
