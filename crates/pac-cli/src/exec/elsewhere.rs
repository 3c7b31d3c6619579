//! `--contain` on systems that have nothing to hold the descendants of a process together.

use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::processes::Process;
use crate::exit::{Exit, Failure};

pub(super) const KILLED_WITHIN: Duration = Duration::from_secs(2);
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// No value of this type is ever made.
#[derive(Debug)]
pub(crate) enum Family {}

impl Family {
    /// # Errors
    /// Always.
    pub(crate) fn gather() -> Result<Self, Failure> {
        let message = "--contain needs Linux, which holds the descendants of a process together; \
                       go without it";
        Err(Failure::new(Exit::Config, message))
    }

    pub(crate) fn members(&self) -> Vec<Process> {
        match *self {}
    }

    pub(crate) fn signal(&self, _signal: Signal, _but: Option<Pid>) {
        match *self {}
    }

    pub(crate) async fn end(&self) -> Vec<Process> {
        match *self {}
    }

    pub(crate) async fn kill(&self) -> Vec<Process> {
        match *self {}
    }

    pub(crate) fn reap(&self, _but: Pid) {
        match *self {}
    }
}
