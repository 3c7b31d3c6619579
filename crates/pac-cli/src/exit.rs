//! The exit codes, the same set for every command.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::process::ExitCode;

use pac_concurrency::text::{lines, one_line};
use pac_concurrency::{Error, ErrorKind, SettingsError};

/// The exit codes. Those from 65 to 78 have the numbers of `sysexits.h`, though not all
/// of its meanings; 2 is also clap's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command succeeded.
    Success = 0,
    /// The answer is no: a replay exceeded a limit, there is no such run, a token is out of date.
    Negative = 1,
    /// Wrong arguments.
    Usage = 2,
    /// The input cannot be read or breaks its rules; nothing was done with it.
    BadInput = 65,
    /// The store cannot be reached or used.
    StoreUnavailable = 69,
    /// A bug in this software.
    Internal = 70,
    /// A lease was lost.
    LeaseLost = 71,
    /// Another live run has the name.
    NameInUse = 73,
    /// Output cannot be written.
    Output = 74,
    /// No slot was to be had.
    NoSlot = 75,
    /// As many runs wait as may.
    QueueFull = 76,
    /// The store refuses access.
    Unauthorised = 77,
    /// Wrong settings.
    Config = 78,
    /// The run was asked to end while its command ran: 128 + SIGTERM, as for a command that was ended.
    AskedToEnd = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: a message for people and the exit code for scripts. The message is fit
/// for a terminal and a log, whatever others wrote of what is in it.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A message on one line.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: one_line(&message.to_string()).into_owned(),
        }
    }

    /// A message of several lines. What others wrote must be on one line in it already.
    pub(crate) fn of_lines(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: lines(&message.to_string()).into_owned(),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Config => Exit::Config,
            ErrorKind::InvalidInput => Exit::Usage,
            ErrorKind::NameInUse => Exit::NameInUse,
            ErrorKind::QueueFull => Exit::QueueFull,
            ErrorKind::Skipped => Exit::NoSlot,
            ErrorKind::Unauthorised => Exit::Unauthorised,
            ErrorKind::Unavailable
            | ErrorKind::TooManyClients
            | ErrorKind::Contended
            | ErrorKind::Incompatible
            | ErrorKind::Indeterminate
            | ErrorKind::SessionLost => Exit::StoreUnavailable,
            _ => Exit::Internal,
        };
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self::new(exit, message)
    }
}

/// A failure of standard output. If the reader has closed the pipe, the command ends
/// successfully.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Success, ""),
            _ => Self::new(
                Exit::Output,
                format!("standard output: cannot write: {error}"),
            ),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::of_lines(Exit::Config, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_store_tells_its_causes_and_has_the_code_of_its_kind() {
        for (kind, exit) in [
            (ErrorKind::Config, Exit::Config),
            (ErrorKind::InvalidInput, Exit::Usage),
            (ErrorKind::NameInUse, Exit::NameInUse),
            (ErrorKind::QueueFull, Exit::QueueFull),
            (ErrorKind::Skipped, Exit::NoSlot),
            (ErrorKind::Unavailable, Exit::StoreUnavailable),
            (ErrorKind::TooManyClients, Exit::StoreUnavailable),
            (ErrorKind::Unauthorised, Exit::Unauthorised),
            (ErrorKind::Incompatible, Exit::StoreUnavailable),
            (ErrorKind::Corrupt, Exit::Internal),
            (ErrorKind::Internal, Exit::Internal),
        ] {
            let error = Error::new(kind, "commit", "try later").caused_by("connection refused");
            let failure = Failure::from(error);
            assert_eq!(failure.exit(), exit, "{kind}");
            assert!(
                failure
                    .to_string()
                    .ends_with("try later: connection refused")
            );
        }
    }
}
