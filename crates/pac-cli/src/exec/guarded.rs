//! Starts the command so that it dies with its `pac`.
//!
//! Only a process itself can ask the kernel for that, after `fork` and before `exec`, where no
//! safe code of the parent runs. So `pac` starts itself first, asks the kernel, and becomes the
//! command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::output::note;

/// The name of the hidden subcommand.
pub(crate) const NAME: &str = "exec-guarded";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The process to die with
    parent: u32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Replaces this process by the command, unless the command cannot be run.
pub(crate) fn run(args: &Args) -> ExitCode {
    if let Err(error) = die_with(args.parent) {
        note(format_args!(
            "the command outlives a `pac` that is killed: {error}"
        ));
    }
    ExitCode::from(become_it(&args.command, &[], &[]))
}

/// Replaces this process by the command, without the variables in `taken_out` and with those in
/// `environment`. Returns the exit code where the command cannot be run.
pub(super) fn become_it(
    command: &[OsString],
    taken_out: &[String],
    environment: &[(&str, String)],
) -> u8 {
    let Some((program, arguments)) = command.split_first() else {
        return 127;
    };
    let mut command = Command::new(program);
    for name in taken_out {
        command.env_remove(name);
    }
    let variables = environment.iter().map(|(name, value)| (name, value));
    let error = command.args(arguments).envs(variables).exec();
    note(format_args!("{}: {error}", program.display()));
    match error.kind() {
        io::ErrorKind::NotFound => 127,
        _ => 126,
    }
}

#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the kernel was asked.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get());
    if now.is_some_and(|now| u32::try_from(now).is_ok_and(|now| now != parent)) {
        std::process::exit(127);
    }
    Ok(())
}

/// Other systems do not support this.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> io::Result<()> {
    Ok(())
}
