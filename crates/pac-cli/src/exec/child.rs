//! The command as a child process.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use pac_concurrency::{LeaseLoss, Lost};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::process;
use tokio::time::{Instant, sleep, sleep_until};

use super::guarded;
use super::signals::{self, Signals};
use super::terminal::Terminal;
use crate::exit::{Exit, Failure};
use crate::output::note;

/// The time between SIGTERM and SIGKILL when the lease is lost.
const GRACE: Duration = Duration::from_secs(10);

/// A running command.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    pid: Pid,
    /// The terminal, if there is one. The command then stays in the same foreground process
    /// group: in a group of its own it could not read from the terminal.
    terminal: Option<Terminal>,
}

/// How the command ended.
#[derive(Debug)]
pub(crate) enum Over {
    /// By itself, or by a signal.
    Ended { code: u8, success: bool },
    /// The slot was lost, so the command was ended.
    Lost(LeaseLoss),
}

impl Child {
    /// Starts the command. Call it from the main thread, which lives as long as the process.
    pub(crate) fn start(
        command: &[OsString],
        environment: &[(&'static str, String)],
    ) -> Result<Self, Failure> {
        let failed =
            |error| Failure::new(Exit::Internal, format!("cannot start a process: {error}"));
        let terminal = Terminal::controlling();
        let mut guarded = process::Command::new(own_executable().map_err(failed)?);
        guarded
            .arg(guarded::NAME)
            .arg(std::process::id().to_string())
            .arg("--")
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true);
        if terminal.is_none() {
            guarded.process_group(0);
        }
        let process = guarded.spawn().map_err(failed)?;
        let pid = process
            .id()
            .and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let pid = pid.ok_or_else(|| Failure::new(Exit::Internal, "a process without an id"))?;
        Ok(Self {
            process,
            pid,
            terminal,
        })
    }

    /// Waits for the command's end and passes signals on, until the slot is `lost`.
    pub(crate) async fn run(mut self, mut lost: Lost, signals: &mut Signals) -> Over {
        loop {
            tokio::select! {
                biased;
                why = &mut lost => return self.end(why).await,
                // After this process was stopped and resumed, check first whether it still holds
                // the slot.
                signal = signals.next_or_woken() => if let Some(signal) = signal {
                    self.pass_on(signal);
                },
                ended = self.process.wait() => return match (lost.reason(), ended) {
                    (Some(why), _) => self.end(why).await,
                    (None, Ok(status)) => ended_with(status),
                    (None, Err(error)) => {
                        note(format_args!("cannot wait for the command: {error}"));
                        Over::Ended { code: Exit::Internal as u8, success: false }
                    }
                },
            }
        }
    }

    /// Ends the command because the slot was lost.
    async fn end(mut self, why: LeaseLoss) -> Over {
        note(format_args!(
            "the lease was lost ({why}); ending the command"
        ));
        self.signal(Signal::TERM);
        // A stopped process receives the signal only after it is continued.
        self.signal(Signal::CONT);
        let deadline = Instant::now() + GRACE;
        tokio::select! {
            _ = self.process.wait() => {}
            () = sleep_until(deadline) => note("the command did not end within 10 s; killing it"),
        }
        while self.group_lives() && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        self.signal(Signal::KILL);
        if let Err(error) = self.process.wait().await {
            note(format_args!("cannot wait for the command: {error}"));
        }
        Over::Lost(why)
    }

    fn pass_on(&self, signal: Signal) {
        let sent = |terminal: &Terminal| terminal.has_sent(signal);
        if !self.terminal.as_ref().is_some_and(sent) {
            self.signal(signal);
        }
    }

    /// Sends a signal to the command or, without a terminal, to its whole process group.
    fn signal(&self, signal: Signal) {
        // The error for a process that has ended is ignored.
        let _ = match self.terminal {
            None => kill_process_group(self.pid, signal),
            Some(_) if self.process.id().is_some() => kill_process(self.pid, signal),
            Some(_) => Ok(()),
        };
    }

    fn group_lives(&self) -> bool {
        self.terminal.is_none() && test_kill_process_group(self.pid).is_ok()
    }
}

fn ended_with(status: ExitStatus) -> Over {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, signal) => signals::from_number(signal.unwrap_or(0)),
    };
    Over::Ended {
        code,
        success: status.success(),
    }
}

/// Finds this executable even if its file was replaced or removed, where the system supports
/// that.
fn own_executable() -> std::io::Result<OsString> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map(Into::into)
}
