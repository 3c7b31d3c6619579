//! The processes that descend from this one, whatever process group, session or user they are of:
//! `--contain`.
//!
//! A process whose parent has ended goes to the nearest ancestor that asked the kernel for such
//! (a *subreaper*, prctl(2)). With this process as one, no descendant gets out of its tree: neither
//! by `setsid`, nor by two forks, as daemons do it.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitpid,
};
use tokio::time::{Instant, sleep};

use super::processes::{self, Process};
use crate::exit::{Exit, Failure};

/// How long killed processes may take to be gone. The kernel ends them at once, but for those that
/// wait for a disk.
pub(super) const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// How long what a command leaves behind when it ends may take to end after SIGTERM. Its slot is
/// held meanwhile.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// Between two looks at who is left.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The descendants of this process.
#[derive(Debug)]
pub(crate) struct Family {
    own: Pid,
}

impl Family {
    /// Holds all descendants together from now on.
    ///
    /// # Errors
    /// If the system does not provide for that; the message names what is missing.
    pub(crate) fn gather() -> Result<Self, Failure> {
        let missing = |what: &str, error: &dyn std::fmt::Display| {
            let message = format!(
                "--contain needs {what}, which this system does not give: {error}; go without it, \
                 and see to it that the command changes neither its user nor its session"
            );
            Failure::new(Exit::Config, message)
        };
        let own = getpid();
        processes::all().map_err(|error| missing("the processes in /proc", &error))?;
        pidfd_open(own, PidfdFlags::empty())
            .map_err(|error| missing("pidfd_open(2) of Linux 5.3", &error))?;
        set_child_subreaper(Some(own))
            .map_err(|error| missing("PR_SET_CHILD_SUBREAPER of prctl(2)", &error))?;
        Ok(Self { own })
    }

    /// Those that have not ended. `None` when the system does not say at the moment, as without
    /// file descriptors.
    fn look(&self) -> Option<Vec<Process>> {
        let all = processes::all().ok()?;
        let mut tree = vec![self.own];
        let mut next = 0;
        while let Some(parent) = tree.get(next).copied() {
            let children = all.iter().filter(|process| process.parent == Some(parent));
            tree.extend(children.map(|child| child.pid));
            next += 1;
        }
        let is_member = |process: &Process| {
            process.pid != self.own && process.is_alive && tree.contains(&process.pid)
        };
        Some(all.into_iter().filter(is_member).collect())
    }

    /// Those that have not ended, as far as the system says.
    pub(crate) fn members(&self) -> Vec<Process> {
        self.look().unwrap_or_default()
    }

    /// Whether all have certainly ended.
    fn is_gone(&self) -> bool {
        self.look().is_some_and(|members| members.is_empty())
    }

    /// Sends a signal to all, but for one. Those that it does not reach stay.
    pub(crate) fn signal(&self, signal: Signal, but: Option<Pid>) {
        for member in self.members() {
            if Some(member.pid) != but {
                // Who is left in the end is found by a look.
                let _ = send(&member, signal);
            }
        }
    }

    /// Ends all: by SIGTERM, and those that are left after a while by SIGKILL. Returns those that
    /// cannot be ended.
    pub(crate) async fn end(&self) -> Vec<Process> {
        if self.is_gone() {
            return Vec::new();
        }
        self.signal(Signal::TERM, None);
        self.signal(Signal::CONT, None);
        let deadline = Instant::now() + LEFT_BEHIND;
        while !self.is_gone() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        self.kill().await
    }

    /// Kills all, also those that are started meanwhile. Returns those that cannot be killed.
    pub(crate) async fn kill(&self) -> Vec<Process> {
        let deadline = Instant::now() + KILLED_WITHIN;
        let mut left = Vec::new();
        loop {
            self.signal(Signal::KILL, None);
            let looked = self.look();
            let is_known = looked.is_some();
            left = looked.unwrap_or(left);
            if (is_known && left.is_empty()) || Instant::now() >= deadline {
                return left;
            }
            sleep(LOOK).await;
        }
    }

    /// Lets go of ended children that were not started here: nobody else waits for them.
    pub(crate) fn reap(&self, but: Pid) {
        let all = processes::all().unwrap_or_default();
        let ended = all.iter().filter(|process| {
            !process.is_alive && process.parent == Some(self.own) && process.pid != but
        });
        for process in ended {
            // If it is gone already, so much the better.
            let _ = waitpid(Some(process.pid), WaitOptions::NOHANG);
        }
    }
}

/// Sends a signal to this process, and not to a later one of the same number.
fn send(process: &Process, signal: Signal) -> Result<(), Errno> {
    let handle = pidfd_open(process.pid, PidfdFlags::empty())?;
    if processes::one(process.pid).is_some_and(|now| now.started == process.started) {
        pidfd_send_signal(handle, signal)?;
    }
    Ok(())
}
