//! Stands between `pac exec --contain` and its command, and ends all that descends from the command
//! should `pac` be killed: a process that is killed can end nobody.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid};
use tokio::time::{MissedTickBehavior, interval};

use super::child::{self, Child, Over, Start};
use super::family::Family;
use super::signals::Signals;
use crate::exit::{Exit, Failure};
use crate::output::note;
use crate::store;

/// The name of the hidden subcommand.
pub(crate) const NAME: &str = "exec-contained";

/// How often ended descendants are let go, whose parents did not wait for them.
const REAP: Duration = Duration::from_secs(5);

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The process to die with
    parent: u32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command, and ends what it leaves behind.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    // On this thread, as in `pac exec`: the kernel looks at threads.
    store::block_on(contain(args)).map(ExitCode::from)
}

async fn contain(args: &Args) -> Result<u8, Failure> {
    let family = Family::gather()?;
    let mut signals = Signals::install()?;
    signal_at_the_end_of_the_parent().map_err(|error| Failure::new(Exit::Internal, error))?;
    let parent = i32::try_from(args.parent).ok().and_then(Pid::from_raw);
    // The parent may have died before the kernel was asked.
    let is_orphan = || getppid() != parent;
    if is_orphan() {
        return Ok(Exit::LeaseLost as u8);
    }
    let mut child = Child::start(Start::as_it_is(&args.command))?;
    let mut reap = interval(REAP);
    reap.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            signal = signals.next_or_woken() => match signal {
                _ if is_orphan() => {
                    // At once, as the command itself is killed where nothing contains it: the lease
                    // that nobody renews any more is soon over.
                    note("pac was killed; killing the command and all that it has started");
                    return Ok(left(&family.kill().await).unwrap_or(Exit::LeaseLost as u8));
                }
                Some(signal) => child.pass_on(signal),
                // Perhaps the command was stopped, too.
                None => child.pass_on(Signal::CONT),
            },
            over = child.wait() => {
                let code = match over {
                    Over::Ended { code, .. } => code,
                    Over::Lost(_) | Over::InTime | Over::Asked { .. } => {
                        Exit::LeaseLost as u8
                    },
                };
                let left_behind = family.end().await;
                // `pac` looks for itself, and tells; if it was killed meanwhile, nobody else does.
                let told = is_orphan().then(|| left(&left_behind)).flatten();
                return Ok(told.unwrap_or(code));
            }
            _ = reap.tick() => family.reap(child.pid()),
        }
    }
}

/// Has the kernel send a signal for which there is always a handler. What it means is seen by the
/// parent.
#[cfg(target_os = "linux")]
fn signal_at_the_end_of_the_parent() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::CONT))?;
    Ok(())
}

/// Other systems do not support this, nor a family.
#[cfg(not(target_os = "linux"))]
fn signal_at_the_end_of_the_parent() -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Says which processes cannot be ended, and returns the exit code for that; `None` if there are
/// none.
pub(super) fn left(processes: &[super::processes::Process]) -> Option<u8> {
    if processes.is_empty() {
        return None;
    }
    note(child::goes_on(processes, child::Slot::Lost));
    Some(Exit::LeaseLost as u8)
}
