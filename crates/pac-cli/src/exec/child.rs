//! The command as a process.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::process;
use tokio::time::{Instant, sleep, sleep_until};

use super::guarded;
use super::hold::Hold;
use super::signals::{self, Signals};
use super::terminal::Terminal;
use crate::exit::{Exit, Failure};
use crate::output::note;

/// Between SIGTERM and SIGKILL when the lease is lost.
const GRACE: Duration = Duration::from_secs(10);

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    pid: Pid,
    /// At a terminal it stays in the foreground with us: a process group of its own could not
    /// read what is typed.
    terminal: Option<Terminal>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Over {
    /// By itself, or by a signal.
    Ended { code: u8, success: bool },
    /// The slot was lost, and the command with it.
    Lost(String),
}

impl Child {
    /// Starts it. To be called from the main thread, which lives as long as the process.
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

    /// Waits for its end and passes signals on, as long as the slot is held.
    pub(crate) async fn run(mut self, hold: &mut Hold<'_>, signals: &mut Signals) -> Over {
        loop {
            tokio::select! {
                biased;
                reason = hold.lost() => return self.end(reason).await,
                // Woken, it is asked first again whether the slot is still ours.
                signal = signals.next_or_woken() => if let Some(signal) = signal {
                    self.pass_on(signal);
                },
                ended = self.process.wait() => return match (hold.lost_now(), ended) {
                    (Some(reason), _) => self.end(reason).await,
                    (None, Ok(status)) => ended_with(status),
                    (None, Err(error)) => {
                        note(format_args!("cannot wait for the command: {error}"));
                        Over::Ended { code: Exit::Internal as u8, success: false }
                    }
                },
            }
        }
    }

    /// The slot is gone, so the command has to go.
    async fn end(mut self, reason: String) -> Over {
        note(format_args!(
            "the lease was lost ({reason}); ending the command"
        ));
        self.signal(Signal::TERM);
        // A stopped process does not hear it before it goes on.
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
        Over::Lost(reason)
    }

    fn pass_on(&self, signal: Signal) {
        let sent = |terminal: &Terminal| terminal.has_sent(signal);
        if !self.terminal.as_ref().is_some_and(sent) {
            self.signal(signal);
        }
    }

    /// To the command, and without a terminal to all that it has started.
    fn signal(&self, signal: Signal) {
        // One that has ended needs none.
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

/// Also after the file was replaced or removed, where the system can do that.
fn own_executable() -> std::io::Result<OsString> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map(Into::into)
}
