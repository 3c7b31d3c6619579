//! The command as a child process.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use pac_concurrency::settings::Key;
use pac_concurrency::{AnyLost, LeaseLoss, RepositoryKey};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::process;
use tokio::time::{Instant, sleep, sleep_until};

use super::environment::{AS_IT_IS, Environment};
use super::family::{Family, KILLED_WITHIN, LOOK};
use super::processes::{self, Process};
use super::signals::{self, Signals};
use super::terminal::Terminal;
use super::{contained, guarded};
use crate::exit::{Exit, Failure};
use crate::output::note;
use crate::time::humanise;

/// What is started, and how.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) command: &'a [OsString],
    /// Variables that are set for it.
    pub(crate) environment: &'a Environment,
    /// It finds the passwords of the store in its environment, if they are in this one.
    pub(crate) keeps_credentials: bool,
    /// It is ended together with all that descends from it.
    pub(crate) family: Option<Family>,
}

impl<'a> Start<'a> {
    /// A command with the environment of this process.
    pub(crate) fn as_it_is(command: &'a [OsString]) -> Self {
        Self {
            command,
            environment: &AS_IT_IS,
            keeps_credentials: true,
            family: None,
        }
    }
}

/// How often it is looked whether what could not be ended has ended by itself.
const LOOK_AT_THE_REST: Duration = Duration::from_millis(500);

/// A running command.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    pid: Pid,
    /// The terminal, if there is one. The command then stays in the same foreground process
    /// group: in a group of its own it could not read from the terminal.
    terminal: Option<Terminal>,
    family: Option<Family>,
}

/// How the command ended.
#[derive(Debug)]
pub(crate) enum Over {
    /// By itself, or by a signal.
    Ended { code: u8, success: bool },
    /// The slot was lost, so the command was ended.
    Lost(LeaseLoss),
    /// The command was ended before the slot was lost.
    InTime,
    /// The run of this repository was asked to end, so the command was ended.
    Asked { repository: RepositoryKey },
}

impl Child {
    /// Starts the command. Call it from the main thread, which lives as long as the process.
    pub(crate) fn start(start: Start<'_>) -> Result<Self, Failure> {
        let failed =
            |error| Failure::new(Exit::Internal, format!("cannot start a process: {error}"));
        let terminal = Terminal::controlling();
        let mut guarded = process::Command::new(own_executable().map_err(failed)?);
        guarded
            .arg(match start.family {
                Some(_) => contained::NAME,
                None => guarded::NAME,
            })
            .arg(std::process::id().to_string())
            .arg("--")
            .args(start.command)
            .kill_on_drop(true);
        if !start.keeps_credentials {
            for name in credentials() {
                guarded.env_remove(name);
            }
        }
        for name in start.environment.taken_out {
            guarded.env_remove(name);
        }
        let set = start.environment.set.iter();
        guarded.envs(set.map(|(name, value)| (name, value)));
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
            family: start.family,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the command's end and passes signals on, until a slot is `lost`, or will be soon:
    /// `expiring`, or the run is `asked` to end. Then the command has `grace` to end by itself.
    pub(crate) async fn run(
        mut self,
        mut lost: AnyLost,
        asked: impl Future<Output = RepositoryKey>,
        expiring: impl Future<Output = ()>,
        grace: Duration,
        signals: &mut Signals,
    ) -> Over {
        let (mut expiring, mut asked) = (pin!(expiring), pin!(asked));
        loop {
            tokio::select! {
                biased;
                (repository, why) = &mut lost => {
                    note(format_args!(
                        "the lease of {repository} was lost ({why}); ending the command"
                    ));
                    self.end_without_slot(grace).await;
                    return Over::Lost(why);
                }
                () = &mut expiring => {
                    note(format_args!(
                        "the session is not renewed, and the lease is lost in {}; ending the \
                         command before anybody else may start",
                        humanise(grace)
                    ));
                    self.end_without_slot(grace).await;
                    let why = lost.reason().map(|(_, why)| why);
                    return why.map_or(Over::InTime, Over::Lost);
                }
                repository = &mut asked => {
                    note(format_args!(
                        "the run of {repository} is asked to end; ending the command"
                    ));
                    let left = self.end(grace).await;
                    if !left.is_empty() {
                        note(goes_on(&left, Slot::Kept));
                        tokio::select! {
                            biased;
                            _ = &mut lost => {}
                            () = self.has_ended(signals) => {}
                        }
                    }
                    let why = lost.reason().map(|(_, why)| why);
                    return why.map_or(Over::Asked { repository }, Over::Lost);
                }
                // After this process was stopped and resumed, check first whether it still holds
                // the slot.
                signal = signals.next_or_woken() => if let Some(signal) = signal {
                    self.pass_on(signal);
                },
                over = self.wait() => return match lost.reason() {
                    Some((repository, why)) => {
                        note(format_args!("the lease of {repository} was lost ({why})"));
                        self.end_without_slot(grace).await;
                        Over::Lost(why)
                    }
                    None => self.with_what_it_left(over).await,
                },
            }
        }
    }

    /// Waits for the command's end. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> Over {
        match self.process.wait().await {
            Ok(status) => ended_with(status),
            Err(error) => {
                note(format_args!("cannot wait for the command: {error}"));
                Over::Ended {
                    code: Exit::Internal as u8,
                    success: false,
                }
            }
        }
    }

    /// Passes a signal on, unless the terminal has sent it to the command, too.
    pub(crate) fn pass_on(&self, signal: Signal) {
        let sent = |terminal: &Terminal| terminal.has_sent(signal);
        if self.terminal.as_ref().is_some_and(sent) {
            return;
        }
        if let Err(error) = self.signal(signal) {
            note(format_args!(
                "{} does not reach the command, which may have changed its user: {error}",
                signals::name(signal)
            ));
        }
    }

    /// The slot is given back when this is over: what the command has started and left running has
    /// to end before.
    async fn with_what_it_left(&self, over: Over) -> Over {
        // The process in between has given it time to end; what is left was not to be ended.
        let left = match &self.family {
            Some(family) => family.kill().await,
            None => return over,
        };
        match contained::left(&left) {
            Some(code) => Over::Ended {
                code,
                success: false,
            },
            None => over,
        }
    }

    /// Ends the command because the slot is lost, or will be after `grace`.
    async fn end_without_slot(&mut self, grace: Duration) {
        let left = self.end(grace).await;
        if !left.is_empty() {
            note(goes_on(&left, Slot::Lost));
        }
    }

    /// Waits until what could not be ended has ended by itself, and passes signals on.
    async fn has_ended(&mut self, signals: &mut Signals) {
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => self.pass_on(signal),
                () = sleep(LOOK_AT_THE_REST) => {
                    // Where no list of processes can be read, one that has ended is there until it is
                    // waited for.
                    let _ = self.process.try_wait();
                    if self.living().is_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// Ends the command within `grace`, or kills it then. Returns what cannot be ended.
    async fn end(&mut self, grace: Duration) -> Vec<Process> {
        // A stopped process receives the signal only after it is continued.
        let mut refused = None;
        for signal in [Signal::TERM, Signal::CONT] {
            refused = refused.or(self.signal_all(signal).err());
        }
        if let Some(error) = refused {
            note(format_args!(
                "SIGTERM does not reach the command, which may have changed its user: {error}"
            ));
        }
        let deadline = Instant::now() + grace;
        tokio::select! {
            _ = self.process.wait() => {}
            () = sleep_until(deadline) => note(format_args!(
                "the command did not end within {}; killing it",
                humanise(grace)
            )),
        }
        while !self.living().is_empty() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        self.kill().await
    }

    /// Kills the command with what belongs to it. Returns what cannot be killed.
    async fn kill(&mut self) -> Vec<Process> {
        if let Some(family) = &self.family {
            return family.kill().await;
        }
        // Who is left is found by a look.
        let _ = self.signal(Signal::KILL);
        let deadline = Instant::now() + KILLED_WITHIN;
        tokio::select! {
            _ = self.process.wait() => {}
            () = sleep_until(deadline) => {}
        }
        loop {
            let left = self.living();
            if left.is_empty() || Instant::now() >= deadline {
                return left;
            }
            sleep(LOOK).await;
        }
    }

    /// Sends a signal to the command or, without a terminal, to its whole process group. A command
    /// that has ended is no error.
    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let sent = match self.terminal {
            None => kill_process_group(self.pid, signal),
            Some(_) if self.process.id().is_some() => kill_process(self.pid, signal),
            Some(_) => Ok(()),
        };
        match sent {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }

    /// Sends a signal to all that belongs to the command.
    fn signal_all(&self, signal: Signal) -> Result<(), Errno> {
        match &self.family {
            // The one in between would pass it on once more.
            Some(family) => {
                family.signal(signal, Some(self.pid));
                Ok(())
            }
            None => self.signal(signal),
        }
    }

    /// What of the command has not ended, as far as it can be seen: all descendants with a family,
    /// its process group without a terminal, else the command alone.
    fn living(&self) -> Vec<Process> {
        if let Some(family) = &self.family {
            return family.members();
        }
        match processes::all() {
            Ok(all) => {
                let belongs = |one: &Process| match self.terminal {
                    None => one.group == Some(self.pid),
                    Some(_) => one.pid == self.pid && self.process.id().is_some(),
                };
                let alive = |one: &Process| one.is_alive && belongs(one);
                all.into_iter().filter(alive).collect()
            }
            // Without a list of processes: whether there is any, if only one of another user.
            Err(_) => {
                let lives = self.terminal.is_none()
                    && !matches!(test_kill_process_group(self.pid), Err(Errno::SRCH));
                lives
                    .then(|| Process::unseen(self.pid))
                    .into_iter()
                    .collect()
            }
        }
    }
}

/// What has become of the slot of a command that cannot be ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    /// It is lost, or will be in a moment.
    Lost,
    /// It is held until the command has ended.
    Kept,
}

/// What is said of processes that cannot be ended.
pub(super) fn goes_on(processes: &[Process], slot: Slot) -> String {
    /// A list of more says no more.
    const TOLD: usize = 10;
    let numbers: Vec<_> = processes
        .iter()
        .take(TOLD)
        .map(|process| process.pid.as_raw_nonzero().to_string())
        .collect();
    let more = match processes.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let slot = match slot {
        Slot::Lost => "goes on without the slot",
        Slot::Kept => "goes on, and the slot is kept until it has ended",
    };
    format!(
        "the command {slot}: it may have changed its user (as by sudo), and cannot \
         be killed; end it by hand: process {}{more}",
        numbers.join(", ")
    )
}

/// The variables in which the settings look for a password, or for a URL that may have one in it.
pub(super) fn credentials() -> impl Iterator<Item = String> {
    let secrets = Key::all().iter().filter(|key| key.is_secret());
    secrets.flat_map(|key| key.variables())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_a_secret_is_known() {
        let names: Vec<String> = credentials().collect();
        for name in [
            "PAC_POSTGRESQL_URL",
            "PAC_POSTGRESQL_PASSWORD",
            "PAC_ETCD_PASSWORD",
            "ETCD_PASSWORD",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        let help = crate::exec::help::AFTER_HELP;
        assert!(names.iter().all(|name| help.contains(name)), "{names:?}");
        assert!(
            names.iter().all(|name| !name.ends_with("_FILE")),
            "{names:?}"
        );
    }

    #[test]
    fn processes_that_go_on_are_told_by_their_numbers() {
        let processes: Vec<_> = (100..112)
            .filter_map(Pid::from_raw)
            .map(Process::unseen)
            .collect();
        let told = goes_on(&processes, Slot::Lost);
        assert!(
            told.ends_with("process 100, 101, 102, 103, 104, 105, 106, 107, 108, 109 and 2 more"),
            "{told}"
        );
        assert!(told.contains("sudo"), "{told}");
    }
}
