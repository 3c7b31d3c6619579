//! A command on its way.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::waiting::{Grant, Place};
use crate::error::{Error, ErrorKind};
use crate::protocol::{Command, Outcome};
use crate::state::Entry;

/// Where somebody hears what came of a command.
pub(super) type Asker = oneshot::Sender<Result<Reply, Error>>;

/// The other end.
pub(super) type Answer = oneshot::Receiver<Result<Reply, Error>>;

/// A command on its way, and who is to hear of it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    /// How many requests, from this one on, are to be planned together.
    pub(super) group: usize,
    /// Absent for what the manager does of its own accord.
    pub(super) reply: Option<Asker>,
    /// When it was put in, counted in requests.
    pub(super) serial: u64,
    /// Set when the first attempt failed.
    pub(super) deadline: Option<Instant>,
    /// Without a deadline.
    pub(super) patient: bool,
    /// What an attempt came to that may have succeeded without our knowing.
    pub(super) uncertain: Option<Box<Outcome>>,
    /// What it asks for is there because of somebody who does not want it any more.
    pub(super) inherits: bool,
}

/// What is said to who asked.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) asked: Asked,
    pub(super) outcome: Outcome,
    /// The run's entry as it stands now.
    pub(super) entry: Option<Arc<Entry>>,
    /// Where its turn will be announced, if it waits.
    pub(super) place: Option<Place>,
    /// Somebody else's commit has started the run: this answer is how that is heard of.
    pub(super) carries: Option<Grant>,
}

/// What was asked for, as far as it matters to whom no answer can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Admission,
    Requeue,
    Other,
}

impl Request {
    pub(super) fn new(command: Command, reply: Option<Asker>) -> Self {
        Self {
            command,
            group: 1,
            reply,
            serial: 0,
            deadline: None,
            patient: false,
            uncertain: None,
            inherits: false,
        }
    }

    /// Is tried until it succeeds, even if somebody waits for the answer.
    pub(super) fn never_given_up(self) -> Self {
        Self {
            patient: true,
            ..self
        }
    }

    /// A slot is asked for, and whoever asked has gone before anything was tried. Anything else
    /// is carried out whether or not somebody waits for the answer.
    pub(super) fn is_moot(&self) -> bool {
        let gone = self.reply.is_some() && !self.is_awaited();
        let untried = self.uncertain.is_none() && !self.inherits;
        gone && untried && matches!(self.command, Command::Admit(_))
    }

    /// Whether somebody waits for the answer.
    pub(super) fn is_awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    pub(super) fn asked(&self) -> Asked {
        match &self.command {
            Command::Admit(_) => Asked::Admission,
            Command::Requeue { .. } => Asked::Requeue,
            _ => Asked::Other,
        }
    }

    /// Whether this can wait a while where others wait for a slot anyway.
    pub(super) fn may_wait(&self) -> bool {
        matches!(self.command, Command::Admit(_)) && self.uncertain.is_none() && self.group == 1
    }

    /// Whether this asks for a slot or a place.
    pub(super) fn admits(&self) -> bool {
        matches!(
            self.command,
            Command::Admit(_) | Command::Adopt(_) | Command::Requeue { .. }
        )
    }

    /// Whether this asks for a slot for this very run.
    pub(super) fn asks_for(&self, entry: &Entry) -> bool {
        match &self.command {
            Command::Admit(request) | Command::Adopt(request) => {
                request.run == entry.run && request.uid == entry.uid
            }
            Command::Requeue { run, .. } => *run == entry.run,
            _ => false,
        }
    }

    /// Tells who asked of a failure; an attempt that may have succeeded makes it unknown.
    pub(super) fn fail(self, error: &Error) {
        let Some(reply) = self.reply else { return };
        let error = if self.uncertain.is_some() {
            Error::new(
                ErrorKind::Indeterminate,
                error.operation(),
                "the answer to an attempt was lost, and what came of it could not be read; read \
                 the run's status before you act",
            )
            .caused_by(error.to_string())
        } else {
            error.replicate()
        };
        // Nobody may be listening any more.
        let _ = reply.send(Err(error));
    }
}
