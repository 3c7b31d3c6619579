//! Whether somebody sits in front of it.

use std::fs::File;

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;

/// The terminal that this process belongs to.
#[derive(Debug)]
pub(crate) struct Terminal(File);

impl Terminal {
    /// None in a pipeline step, under cron, or after `setsid`.
    pub(crate) fn controlling() -> Option<Self> {
        File::open("/dev/tty").ok().map(Self)
    }

    /// Whether a signal is one that the terminal sends to every process in the foreground, the
    /// command among them: passed on, it would come twice, which many programs take for
    /// impatience.
    pub(crate) fn has_sent(&self, signal: Signal) -> bool {
        let typed = [Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal);
        typed && tcgetpgrp(&self.0).is_ok_and(|foreground| foreground == getpgrp())
    }
}
