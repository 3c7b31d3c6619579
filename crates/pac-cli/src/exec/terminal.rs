//! The terminal, if this process was started from one.

use std::fs::File;

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;

/// The terminal that this process belongs to.
#[derive(Debug)]
pub(crate) struct Terminal(File);

impl Terminal {
    /// `None` in a pipeline step, under cron, or after `setsid`.
    pub(crate) fn controlling() -> Option<Self> {
        File::open("/dev/tty").ok().map(Self)
    }

    /// Whether the terminal has sent this signal to every process in the foreground, the command
    /// included. Passed on, it would arrive twice, and many programs force an exit on the
    /// second.
    pub(crate) fn has_sent(&self, signal: Signal) -> bool {
        let typed = [Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal);
        typed && tcgetpgrp(&self.0).is_ok_and(|foreground| foreground == getpgrp())
    }
}
